"""A project that an earlier version made, or a crash has damaged, is opened, with a sentence on what had to be left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.cli.main import main
from beamside.errors import ConfigError
from beamside.flow import control
from beamside.flow.projection import rebuild
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.stored_settings import impossible, load_settings, settings_path
from beamside.formats.star import read_star
from beamside.monitor.status import read_status
from beamside.project.fold import FORMAT
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]


def kept(tmp_path: Path, session: SessionSettings, **changes: Any) -> Project:
    """A project with these settings, as far as `changes` leave them: None takes one away."""
    project = Project(session.root)
    values = {name: value for name, value in {**session.to_json(), **changes}.items() if value is not None}
    with ProjectWriter(project) as writer:
        writer.settings(values)
    settings_path(project).write_text(json.dumps(values))
    return project


def test_settings_that_are_not_known_any_more_are_left_out_and_told(tmp_path: Path, session_settings: Settings) -> None:
    told: list[str] = []
    project = kept(tmp_path, session_settings(), aged_parameter=3, classes=None)
    found = load_settings(project, told.append)
    assert found == session_settings(), "what is missing has its default"
    [sentence] = told
    assert "aged_parameter (3)" in sentence


def test_settings_are_read_without_the_tables_of_very_many_items(
    tmp_path: Path, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = kept(tmp_path, session_settings())
    with ProjectWriter(project) as writer:
        writer.create_job("Import/job001", "import", {}, {}, alias="live")
    settings_path(project).unlink()
    monkeypatch.setattr(Project, "job_journal", lambda _self, job: pytest.fail(f"the journal of {job} is read"))
    assert load_settings(project) == session_settings()


@pytest.mark.parametrize("torn", [b"", b'{"target": "/d', b"[]", b"\xff\xfe", b"null"])
def test_a_torn_settings_file_is_replaced_by_the_journal_and_told(
    tmp_path: Path, session_settings: Settings, torn: bytes
) -> None:
    told: list[str] = []
    project = kept(tmp_path, session_settings())
    settings_path(project).write_bytes(torn)
    assert load_settings(project, told.append) == session_settings()
    assert "settings.json cannot be used" in " ".join(told)


def test_a_value_that_is_not_possible_any_more_is_told_with_the_way_on(
    tmp_path: Path, session_settings: Settings
) -> None:
    project = kept(tmp_path, session_settings(), voltage=1e6, gain_mode="subtract")
    with pytest.raises(ConfigError, match=r"--gain-mode is \"subtract\".*--voltage is 1000000.*session start") as error:
        load_settings(project)
    assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["voltage", "classes", "gain", "workflow", "name", "data"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_whatever_the_values_are_they_are_taken_or_told(values: dict[str, Any]) -> None:
    complete = {"target": "/t", "name": "n", "data": ["*"], "pixel_size": 1.0, "voltage": 300, **values}
    if wrong := impossible(complete):
        assert set(wrong) <= set(values)
    else:
        SessionSettings.from_flat(complete)


@pytest.mark.usefixtures("light_workflow")
def test_a_session_goes_on_past_a_damaged_line_and_the_item_is_finished_again(
    session_settings: Settings, write_movie: Callable[..., Path]
) -> None:
    for name in ("a", "b"):
        write_movie(name)
    session = session_settings()
    assert Session(session, until_empty=True).run() == "finished"
    project = Project(session.root)
    journal = project.job_journal("MotionCorr/job002")
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = next(number for number, line in enumerate(lines) if b'"done"' in line)
    lines[damaged] = lines[damaged][:30] + b"\0" * (len(lines[damaged]) - 31) + b"\n"  # what a disk gives back at times
    journal.write_bytes(b"".join(lines))
    assert any(str(journal) in problem.text for problem in read_status(project).problems)
    verified = CliRunner().invoke(main, ["project", "verify", str(project.root)])
    assert "damaged journals: 1" in verified.output
    assert str(journal) in verified.output
    assert Session(session, until_empty=True).run() == "finished"
    state = project.load()
    job = state.job_of_type("motion")
    assert job is not None
    assert {entry.state for entry in job.items.values()} == {ItemState.DONE}
    table = read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    assert len(table) == 2
    assert rebuild(project).lost == 0
    assert len(read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]) == 2


LATER: Mapping[int, tuple[frozenset[str], frozenset[str]]] = {
    1: (frozenset({"made_from", "label", "ports", "who"}), frozenset({"command", "problem", "format", "verdict"})),
    2: (frozenset({"label", "ports", "who"}), frozenset({"verdict"})),
}
"""What records, and which events, a format does not have."""


def as_written_in(number: int, record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as projects of an earlier format have it."""
    old = {name: value for name, value in record.items() if name not in LATER[number][0]}
    if "format" in old:
        old["format"] = number
    if "workflow" in old.get("settings", {}):
        settings = dict(old["settings"])
        old["settings"] = {"mode": settings.pop("workflow"), **settings}
    return old


@pytest.mark.parametrize("number", LATER)
@pytest.mark.usefixtures("light_workflow")
def test_a_project_of_an_earlier_format_goes_on_without_computing_anything_again(
    session_settings: Settings, write_movie: Callable[..., Path], number: int
) -> None:
    for movie in range(3):
        write_movie(f"m{movie}")
    session = session_settings()
    control.send(Project(session.root), "report")
    assert Session(session, until_empty=True).run() == "finished"
    project = Project(session.root)
    for journal in project.journals.glob("*.jsonl"):
        records = [json.loads(line) for line in journal.read_text().splitlines()]
        old = [as_written_in(number, record) for record in records if record.get("event") not in LATER[number][1]]
        journal.write_text("".join(f"{json.dumps(record)}\n" for record in old))
    assert project.load().format == number
    assert len(project.load().commands) == (number > 1)
    calls = (project.root / "calls.txt").read_text()
    rounds = (project.root / "rounds.txt").read_text()
    assert Session(session, until_empty=True).run() == "finished"
    assert (project.root / "calls.txt").read_text() == calls
    assert (project.root / "rounds.txt").read_text() == rounds
    assert project.load().format == FORMAT
