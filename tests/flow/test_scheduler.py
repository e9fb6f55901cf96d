"""A scheduler works on the items that a project has, without a source and without a session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from beamside.flow import control
from beamside.flow.dispatch import Dispatcher, Finished
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


@pytest.mark.parametrize("outcomes", [0, 1, 3])
def test_killed_at_any_moment_the_next_one_goes_on_and_does_nothing_twice(
    ended: SessionSettings, session_settings: Settings, monkeypatch: pytest.MonkeyPatch, outcomes: int
) -> None:
    class Killed(BaseException):
        """Stands for a signal that no process can catch: nothing is recorded behind it."""

    settings, finished = session_settings(patches_x=3), Dispatcher.finished

    def die(self: Dispatcher, event: Finished) -> None:
        if len(done) == outcomes:
            self.tables.writer.close()
            raise Killed
        done.append(event.name)
        finished(self, event)

    done: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(Dispatcher, "finished", die)
        patched.setattr(Scheduler, "_failing", lambda _self: nullcontext())
        with pytest.raises(Killed):
            Scheduler(settings, NoSource()).run()
    project = Project(ended.root)
    assert Scheduler(settings, NoSource()).run() == "finished"
    assert states(project, "extract") == dict.fromkeys("ab", ItemState.DONE)
    # what was in hand when it died is done once more, and nothing that had an outcome
    assert len([line for line in calls(project) if not line.startswith("class2d")]) <= 4 + len("ab")
