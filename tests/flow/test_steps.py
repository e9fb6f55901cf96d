"""No single item, whatever it raises and wherever, ends the loop: it is told, and the others are processed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beamside.acquisition.intake import Intake
from beamside.camera.gain.check import GainCheck
from beamside.errors import JournalError, ProjectError
from beamside.flow.dispatch import Dispatcher
from beamside.flow.problems import Problems
from beamside.flow.projection import SHARE, Pace, Projection
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.steps import Steps
from beamside.flow.table import Tables
from beamside.flow.watched_source import WatchedSource
from beamside.formats.star import read_star
from beamside.project.journal import JournalFile
from beamside.project.problems import open_problems
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]
WriteMovie = Callable[..., Path]


class OddError(Exception):
    """Nothing that the program knows."""


@pytest.fixture
def problems(tmp_path: Path) -> Iterator[Problems]:
    with ProjectWriter(Project(tmp_path / "p")) as writer:
        yield Problems(writer)


def opened(problems: Problems) -> list[str]:
    return [entry.sentence for entry in open_problems(problems._entries.values())]


def test_a_step_that_fails_is_told_once_and_over_when_it_works_again(problems: Problems) -> None:
    steps = Steps(problems)
    outcomes: list[Exception | None] = [OddError("x"), OddError("x"), None, OddError("x")]

    def step() -> int:
        error = outcomes.pop(0)
        if error is not None:
            raise error
        return 7

    assert steps.run("the search", step, 0) == 0
    assert ["the search (OddError: x)" in sentence for sentence in opened(problems)] == [True]
    assert steps.run("the search", step, 0) == 0
    assert steps.run("the search", step, 0) == 7
    assert opened(problems) == []
    steps.run("the search", step, 0)
    assert len(opened(problems)) == 1


def test_a_journal_that_cannot_be_written_is_no_matter_of_one_step(problems: Problems) -> None:
    def step() -> None:
        raise JournalError("full")

    with pytest.raises(JournalError):
        Steps(problems).run("the search", step, None)


def states(settings: SessionSettings, job: str) -> dict[str, ItemState]:
    found = Project(settings.root).load().job_of_type(job)
    assert found is not None
    return {Path(name).name.removesuffix("_fractions"): entry.state for name, entry in found.items.items()}


def odd_for_b(function: Any, find: Callable[..., str]) -> Any:
    """Return `function`, which raises when what it is called for concerns the item "b"."""

    def odd(*arguments: Any, **more: Any) -> Any:
        if "/b_" in find(*arguments):
            raise OddError("b is odd")
        return function(*arguments, **more)

    return odd


@pytest.mark.usefixtures("light_workflow")
@pytest.mark.parametrize(
    ("owner", "method", "find", "job"),
    [
        (Intake, "_take", lambda _self, arrival, *_: arrival.source, "import"),
        (GainCheck, "take", lambda _self, event: event.file.name, "import"),
        (Dispatcher, "_submit_item", lambda _self, stage, name: f"/{stage.name}{name}", "motion"),
        (Dispatcher, "finished", lambda _self, event: event.name, "motion"),
        (WatchedSource, "_compare_metadata", lambda _self, event: event.file.name, "extract"),
    ],
)
def test_an_item_that_raises_anything_fails_at_most_itself_and_the_others_are_processed(
    owner: type,
    method: str,
    find: Callable[..., str],
    job: str,
    session_settings: Settings,
    write_movie: WriteMovie,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value, name in enumerate("abc"):
        write_movie(name, value=value)
    settings = session_settings()
    monkeypatch.setattr(owner, method, odd_for_b(getattr(owner, method), find))
    assert Session(settings, until_empty=True).run() == "finished"
    extracted = states(settings, "extract")
    assert (extracted["a"], extracted["c"]) == (ItemState.DONE, ItemState.DONE)
    assert states(settings, job)["b"] is (ItemState.FAILED if job != "extract" else ItemState.DONE)


@pytest.mark.usefixtures("light_workflow")
def test_a_result_that_no_table_can_hold_is_left_out_and_told(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beamside.jobs.registry import job_type

    for value, name in enumerate("abc"):
        write_movie(name, value=value)
    settings = session_settings()
    measure = job_type("motion")

    def find(rows: list[Any], *_: Any) -> str:
        return " ".join(row.item.name for row in rows)

    monkeypatch.setattr(measure, "star_files", odd_for_b(measure.star_files, find))
    assert Session(settings, until_empty=True).run() == "finished"
    table = read_star(settings.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    assert sorted(table.column("rlnMicrographName")) == ["raw/a_fractions", "raw/c_fractions"]
    entry = Project(settings.root).load().problems["odd-result-motion"]
    assert (list(entry.items), entry.severity) == (["raw/b_fractions"], "error")


@pytest.mark.usefixtures("light_workflow")
@pytest.mark.parametrize("part", ["write_live", "publish_pipeline"])
def test_a_disk_that_takes_nothing_for_a_moment_delays_what_others_see_and_nothing_else(
    part: str, session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movie("a")
    place = {"write_live": "beamside.flow.projection", "publish_pipeline": "beamside.flow.relion_jobs"}[part]
    settings, calls = session_settings(), [0]

    def full(*_: Any, **__: Any) -> None:
        calls[0] += 1
        raise OSError(28, "No space left on device")

    session = Session(settings, until_empty=True)
    take_events = Session._take_events

    def fail_now(self: Session) -> None:
        monkeypatch.setattr(f"{place}.{part}", full)
        take_events(self)

    monkeypatch.setattr(Session, "_take_events", fail_now)
    assert session.run() == "finished"
    assert calls[0] > 0
    assert states(settings, "extract") == {"a": ItemState.DONE}


@pytest.mark.usefixtures("light_workflow")
def test_a_pipeline_that_relion_holds_is_told_until_it_can_be_written(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = session_settings()
    write_movie("a")
    assert Session(settings, until_empty=True).run() == "finished"

    def held(*_: Any, **__: Any) -> None:
        raise ProjectError("RELION's lock is held.")

    with ProjectWriter(Project(settings.root)) as writer:
        tables = Tables(settings, writer)
        projection = Projection(settings, writer, tables.stages)
        with monkeypatch.context() as patch:
            patch.setattr("beamside.flow.relion_jobs.publish_pipeline", held)
            projection.refresh(dict, force=True)
        assert sum("lock is held" in sentence for sentence in opened(projection.problems)) == 1
        projection.refresh(dict, force=True)
        assert not any("lock is held" in sentence for sentence in opened(projection.problems))


def test_how_long_the_journal_could_not_be_written_does_not_put_off_what_others_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def hour(_error: JournalError) -> bool:
        now[0] += 3600.0
        return True

    with ProjectWriter(Project(tmp_path / "run1")) as writer:
        writer.hold = hour
        pace = Pace(1.0, lambda: writer.held_seconds)
        assert pace.due()
        with monkeypatch.context() as patched:
            append, full = JournalFile.append, [True]

            def full_once(journal: JournalFile, record: dict[str, Any], *, sync: bool = True) -> None:
                if full.pop() if full else False:
                    raise JournalError("The disk is full.")
                append(journal, record, sync=sync)

            patched.setattr(JournalFile, "append", full_once)
            writer.note("info", "A note.")
        now[0] += 2.0
        pace.done()
        assert pace.next_time == pytest.approx(now[0] + 2.0 / SHARE)
