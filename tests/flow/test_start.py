"""What is checked before a session starts, and what is said of a project while none runs."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.errors import BeamsideError, InputError, ProjectBusyError
from beamside.flow.settings import SessionSettings
from beamside.flow.start import prepare, recompute_cost, session_command, start_background, state_of_results
from beamside.flow.stored_settings import settings_path
from beamside.project.project import Project, ProjectWriter

Settings = Callable[..., SessionSettings]


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    run = toy.Toy(tmp_path)
    yield run
    run.writer.close()


def test_the_settings_are_left_for_the_session_and_nobody_else(session_settings: Settings) -> None:
    settings = session_settings()
    prepare(settings)
    path = settings_path(Project(settings.root))
    assert json.loads(path.read_text()) == settings.to_json()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_patterns_that_find_nothing_yet_are_told_and_are_no_error(
    session_settings: Settings, write_movie: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "camera").mkdir()
    assert any("waits for the first one" in sentence for sentence in prepare(session_settings()))
    write_movie("m1")
    assert not any("waits for the first one" in sentence for sentence in prepare(session_settings()))


def test_a_session_that_runs_is_not_started_again(session_settings: Settings) -> None:
    settings = session_settings()
    with ProjectWriter(Project(settings.root)), pytest.raises(ProjectBusyError, match="is running already"):
        prepare(settings)


@pytest.mark.parametrize(("option", "what"), [("gain", "gain reference"), ("defects", "defects file")])
def test_files_that_are_not_there_are_refused_with_the_option_that_names_them(
    session_settings: Settings, tmp_path: Path, option: str, what: str
) -> None:
    with pytest.raises(InputError, match=f"{what} .*nothing.mrc does not exist; check --{option}"):
        prepare(session_settings(**{option: str(tmp_path / "nothing.mrc")}))
    with pytest.raises(InputError, match=f"{what} .* is not a file; check --{option}"):
        prepare(session_settings(**{option: str(tmp_path)}))


def test_a_target_that_cannot_be_written_is_refused(session_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="cannot be written"):
        prepare(session_settings(target=tmp_path / "file"))


def test_a_project_that_is_not_there_yet_costs_nothing(session_settings: Settings) -> None:
    assert recompute_cost(session_settings()) == {}


def test_the_cost_of_other_optics_is_every_result_made_with_them(run: Any, toy: ModuleType, tmp_path: Path) -> None:
    run.arrive("m1", "m2")
    run.arrive("m3", content="bad")
    run.work_off()
    assert recompute_cost(run.settings) == {}
    other = toy.settings_in(tmp_path, pixel_size=2.0)
    assert recompute_cost(other) == {"First step": 3, "Second step": 3, "Third step": 2}


def test_without_a_session_a_project_says_what_the_next_one_computes_again(run: Any) -> None:
    run.arrive("m1", "m2")
    run.work_off()
    assert not [trouble for trouble in state_of_results(run.project, run.settings) if "again:" in trouble.key]
    run.tables.redo(run.stage("second"), "raw/m2", "asked for")
    said = [trouble.sentence for trouble in state_of_results(run.project, run.settings) if "again:" in trouble.key]
    assert said == ["Second step: 1 result is computed again (asked for)."]


def test_a_session_process_that_cannot_begin_says_why(tmp_path: Path) -> None:
    project = Project(tmp_path)
    failing = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('The disk is full.'); sys.exit(3)"
    failure = project.private / "start-failure"
    with pytest.raises(BeamsideError, match=r"The disk is full\."):
        start_background(project, [sys.executable, "-c", failing, str(failure)])
    with pytest.raises(BeamsideError, match=r"ended at once; see .*session\.log"):
        start_background(project, [sys.executable, "-c", "raise SystemExit(3)"])


def test_a_session_that_is_over_at_once_was_started(tmp_path: Path) -> None:
    assert start_background(Project(tmp_path), [sys.executable, "-c", ""]) > 0


def test_python_takes_no_module_from_the_project(tmp_path: Path) -> None:
    command = session_command(Project(tmp_path))
    assert command[1] == "-P"
    assert command[-1] == str(tmp_path)
