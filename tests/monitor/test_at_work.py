"""What the workers have in hand is shown by host and device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beamside.monitor.at_work import SHOWN, AtWork, at_work_lines, read_at_work
from beamside.monitor.status import read_status
from beamside.project.live import write_live
from beamside.project.project import Project, ProjectWriter

TASK = AtWork("Motion correction", "raw/m1", "node1", 4711, "cuda:0", 12.34)


def test_a_line_for_each_host_and_device() -> None:
    tasks = [TASK, AtWork("CTF estimation", "raw/m2", "node1", 12, "cpu", 1.0)]
    assert at_work_lines(tasks) == [
        "on node1, cpu: CTF estimation of raw/m2 (1.0 s, process 12)",
        "on node1, cuda:0: Motion correction of raw/m1 (12.3 s, process 4711)",
    ]
    assert at_work_lines([]) == []


def test_of_very_many_the_number_is_told() -> None:
    [line] = at_work_lines([TASK] * (SHOWN + 3))
    assert line.endswith(", and 3 more")
    assert line.count("raw/m1") == SHOWN


@pytest.mark.parametrize("found", [None, 5, "text", [5], [{}], [{"title": "x"}], [{**vars(TASK), "pid": "many"}]])
def test_what_another_version_says_is_left_out(found: Any) -> None:
    assert list(read_at_work({"at_work": found})) == []


def test_names_are_made_printable() -> None:
    [one] = read_at_work({"at_work": [{**vars(TASK), "item": "raw/m\x1b1"}]})
    assert one.item == r"raw/m\x1b1"


@pytest.mark.parametrize(("state", "shown"), [("running", 1), ("paused", 1), ("finished", 0)])
def test_the_status_of_a_session_that_works_has_it(tmp_path: Path, state: str, shown: int) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project):
        write_live(project, {"state": state, "at_work": [vars(TASK)]})
        assert len(read_status(project).at_work) == shown
    assert read_status(project).at_work == (), "no process has it any more"
