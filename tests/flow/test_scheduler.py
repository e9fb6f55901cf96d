"""A scheduler works on the items that a project has, without a source and without a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from beamside.flow import control
from beamside.flow.scheduler import Scheduler
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.source import NoSource
from beamside.monitor.status import read_status
from beamside.project.project import Project
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]
WriteMovie = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("light_workflow")


def states(project: Project, job: str) -> dict[str, ItemState]:
    found = project.load().job_of_type(job)
    assert found is not None
    return {name.removeprefix("raw/").removesuffix("_fractions"): entry.state for name, entry in found.items.items()}


def calls(project: Project) -> list[str]:
    path = project.root / "calls.txt"
    return sorted(path.read_text().split("\n")[:-1]) if path.exists() else []


@pytest.fixture
def ended(session_settings: Settings, write_movie: WriteMovie) -> SessionSettings:
    """A session that has ended, and whose source is gone."""
    for number, name in enumerate("ab"):
        write_movie(name, value=number)
    settings = session_settings()
    assert Session(settings, until_empty=True).run() == "finished"
    shutil.rmtree(write_movie("c").parent)
    Project(settings.root).root.joinpath("calls.txt").unlink()
    return settings


def test_what_depends_on_a_changed_parameter_is_done_without_any_source(
    ended: SessionSettings, session_settings: Settings
) -> None:
    assert Scheduler(session_settings(patches_x=3), NoSource()).run() == "finished"
    project = Project(ended.root)
    done = dict.fromkeys("ab", ItemState.DONE)
    assert [states(project, job) for job in ("import", "motion", "extract")] == [done] * 3
    assert [line for line in calls(project) if not line.startswith("class2d")] == [
        f"{job} raw/{name}_fractions" for job in ("extract", "motion") for name in "ab"
    ]
    assert read_status(project).state == "finished"


def test_with_nothing_to_do_it_ends_at_once_and_leaves_everything_as_it_is(ended: SessionSettings) -> None:
    project = Project(ended.root)
    journals = [project.job_journal(job) for job in project.load().jobs]
    before = {path: path.read_bytes() for path in journals}
    assert Scheduler(ended, NoSource()).run() == "finished"
    assert {path: path.read_bytes() for path in before} == before
    assert calls(project) == []


def test_a_session_goes_on_after_it_as_after_another_session(
    ended: SessionSettings, session_settings: Settings, write_movie: WriteMovie
) -> None:
    assert Scheduler(session_settings(patches_x=3), NoSource()).run() == "finished"
    write_movie("c", value=7)
    Path(ended.root, "calls.txt").unlink()
    assert Session(session_settings(patches_x=3), until_empty=True).run() == "finished"
    project = Project(ended.root)
    assert states(project, "extract") == dict.fromkeys("abc", ItemState.DONE)
    assert "motion raw/c_fractions" in calls(project)
    assert not any("raw/a_" in line for line in calls(project) if line.startswith("motion"))


def test_it_is_told_things_through_the_inbox_like_a_session(
    ended: SessionSettings, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = session_settings(patches_x=3)
    scheduler, project = Scheduler(settings, NoSource()), Project(settings.root)
    take_events = Scheduler._take_events

    def told(self: Scheduler) -> None:
        monkeypatch.setattr(Scheduler, "_take_events", take_events)
        control.send(project, "stop")

    monkeypatch.setattr(Scheduler, "_take_events", told)
    assert scheduler.run() == "stopped"
    assert set(states(project, "motion").values()) == {ItemState.WAITING}
    assert Scheduler(settings, NoSource()).run() == "finished"
    assert states(project, "extract") == dict.fromkeys("ab", ItemState.DONE)
