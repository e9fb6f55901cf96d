"""What a passing fault has spoiled for the gain reference or the defects is tried again, by itself and when a person asks."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from beamside.acquisition.kinds import MOVIE
from beamside.acquisition.reports import ImportedFile, LookReport
from beamside.acquisition.settings import AcquisitionSettings
from beamside.camera.gain import worker as gain_worker
from beamside.camera.preparing import MoviePreparation
from beamside.cli.session import retry
from beamside.errors import NotReadyError, ProcessingError
from beamside.flow import control
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import FileImported, SourceSeen, SourceThread
from beamside.formats.mrc import write_mrc
from beamside.formats.orientation import Orientation
from beamside.jobs import registry
from beamside.jobs.loading import load_work
from beamside.monitor.status import read_status
from beamside.project.project import Project
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]


class FullDisk:
    """Stands for the writing of the prepared reference, on a disk that is full for the first calls."""

    def __init__(self, calls: float) -> None:
        self.calls, self.real = calls, gain_worker.prepare_gain

    def __call__(self, *args: Any, **more: Any) -> Any:
        self.calls -= 1
        if self.calls >= 0:
            raise OSError(28, "No space left on device")
        return self.real(*args, **more)


@pytest.fixture
def quick(light_workflow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamside.flow.retries.RETRY_SECONDS", 0.001)
    monkeypatch.setattr("beamside.flow.retries.LONGEST_SECONDS", 0.01)


def states(project: Project, job: str) -> list[ItemState]:
    found = project.load().job_of_type(job)
    return [] if found is None else [entry.state for entry in found.items.values()]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_full_disk_in_the_gain_check_dooms_no_movie(
    quick: None, camera: Any, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given up after three attempts, however soon there was space again."""
    camera.movie("a", 40)
    settings, disk = session_settings(gain=camera.reference(Orientation())), FullDisk(6)
    monkeypatch.setattr(gain_worker, "prepare_gain", disk)
    session, project = Session(settings), Project(settings.root)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        until(lambda: project.exists and states(project, "motion") == [ItemState.DONE])
    finally:
        control.send(project, "stop")
        thread.join(60)
    assert disk.calls < 0
    (fault,) = (entry for key, entry in project.load().problems.items() if key.startswith("gain-fault:"))
    assert not fault.open
    assert fault.count == 6
    assert fault.severity == "error", "after some attempts a person should look"
    assert "the disk is full" in fault.sentence


def test_what_a_session_gave_up_at_its_end_is_done_by_the_next_one(
    quick: None, camera: Any, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.movie("a", 40)
    settings = session_settings(gain=camera.reference(Orientation()))
    with monkeypatch.context() as context:
        context.setattr(gain_worker, "prepare_gain", FullDisk(1e9))
        assert Session(settings, until_empty=True).run() == "finished"
    project = Project(settings.root)
    assert states(project, "motion") == [ItemState.FAILED]
    assert "the disk is full" in read_status(project).failures[0].reason
    assert Session(settings, until_empty=True).run() == "finished"
    assert states(project, "motion") == [ItemState.DONE]


def test_what_has_failed_in_a_session_that_has_ended_is_tried_again_when_it_goes_on(
    quick: None, camera: Any, session_settings: Settings
) -> None:
    """Items and rounds; until then they are shown as waiting."""
    for name in ("bad1", "bad2", "good"):
        camera.movie(name, 40, corrected=True)
    settings = session_settings()
    assert Session(settings, until_empty=True).run() == "finished"
    project = Project(settings.root)
    assert states(project, "motion").count(ItemState.FAILED) == 2
    (project.root / ".beamside/settings.json").write_text(json.dumps(settings.to_json()))
    result = CliRunner().invoke(retry, [str(settings.root)], catch_exceptions=False)
    assert result.output.startswith("2 results that have failed are tried again"), (
        "one that follows a failed one comes with it"
    )
    assert states(project, "motion").count(ItemState.WAITING) == 2
    before = (project.root / "calls.txt").read_text().count("bad")
    assert Session(settings, until_empty=True).run() == "finished"
    assert (project.root / "calls.txt").read_text().count("bad") > before


def test_retry_reaches_rounds_that_failed(
    quick: None, camera: Any, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera.movie("a", 40, corrected=True)
    gather, broken = registry.job_type("class2d"), [True]
    work = load_work(gather)

    def fail_at_first(*args: Any, **more: Any) -> Any:
        if broken[0]:
            raise ProcessingError("The classes have collapsed.")
        return work(*args, **more)

    monkeypatch.setattr(gather.work.replace(":", "."), fail_at_first)
    settings = session_settings(class_min=10)
    session, project = Session(settings), Project(settings.root)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        until(lambda: project.exists and ItemState.FAILED in states(project, "class2d"))
        broken[0] = False
        control.send(project, "retry")
        until(lambda: states(project, "class2d") == [ItemState.DONE])
    finally:
        control.send(project, "stop")
        thread.join(60)


def test_retry_reaches_movies_whose_reference_could_not_be_prepared(
    quick: None, camera: Any, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a fault that was taken for one of the reference itself."""
    camera.movie("a", 40)
    settings, project = session_settings(gain=camera.reference(Orientation())), None
    real = gain_worker.read_gain
    damaged = threading.Event()
    damaged.set()

    def read(*args: Any) -> Any:
        return np.ones((7, 9), np.float32) if damaged.is_set() else real(*args)

    monkeypatch.setattr(gain_worker, "read_gain", read)
    session, project = Session(settings), Project(settings.root)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        until(lambda: project.exists and states(project, "motion") == [ItemState.FAILED])
        damaged.clear()
        control.send(project, "retry")
        until(lambda: states(project, "motion") == [ItemState.DONE])
    finally:
        control.send(project, "stop")
        thread.join(60)


def taken(name: str = "m") -> ImportedFile:
    return ImportedFile(f"raw/{name}", f"raw/{name}.tiff", f"/camera/{name}.tiff", 1, "sha", 3, (16, 16), "uint8")


class NoSource:
    """Stands for an intake whose source is empty."""

    kind = MOVIE

    def __init__(self) -> None:
        self.retried = 0

    def taken(self) -> list[ImportedFile]:
        return []

    def look(self) -> LookReport:
        return LookReport()

    def retry(self) -> None:
        self.retried += 1


def thread_of(prepare: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> SourceThread:
    monkeypatch.setattr("beamside.flow.source_thread.time.monotonic", lambda: clock[0])
    return SourceThread(NoSource(), prepare, queue.Queue(), 1.0)  # type: ignore[arg-type]


def outcomes(thread: SourceThread) -> list[str]:
    found = []
    while not thread.events.empty():
        event = thread.events.get()
        if isinstance(event, FileImported):
            found.append(event.problem or event.values.get("gain_error", "") or "done")
        assert isinstance(event, (FileImported, SourceSeen))
    return found


def test_defects_that_cannot_be_written_are_tried_again_at_growing_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mrc(tmp_path / "defects.mrc", np.eye(16, dtype=np.int8))
    preparation = MoviePreparation(
        tmp_path / "project", "Import/job001", AcquisitionSettings(data=("x",), defects=str(tmp_path / "defects.mrc"))
    )
    full = [True]
    real = preparation._prepare_defects

    def prepare(shape: tuple[int, int]) -> dict[str, Any]:
        if full[0]:
            raise OSError(28, "No space left on device")
        return real(shape)

    monkeypatch.setattr(preparation, "_prepare_defects", prepare)
    clock = [100.0]
    thread = thread_of(preparation, clock, monkeypatch)
    thread._prepare(taken())
    assert "the disk is full" in outcomes(thread)[0], "a person sees it at once"
    tries = []
    for _ in range(40):
        clock[0] += 1.0
        thread._prepare_again()
        if outcomes(thread):
            tries.append(clock[0] - 100)
    assert tries == [2.0, 6.0, 14.0, 30.0]
    full[0] = False
    thread.retry(all_=False)
    thread._prepare_again()
    assert outcomes(thread) == ["done"]
    clock[0] += 1000
    thread._prepare_again()
    assert outcomes(thread) == [], "what is done is not done again"


def test_defects_that_do_not_fit_are_looked_at_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = tmp_path / "defects.mrc"
    write_mrc(mask, np.eye(5, dtype=np.int8))
    preparation = MoviePreparation(
        tmp_path / "project", "Import/job001", AcquisitionSettings(data=("x",), defects=str(mask))
    )
    clock = [0.0]
    thread = thread_of(preparation, clock, monkeypatch)
    thread._prepare(taken())
    assert "neither is 1, 2 or 4 times the other" in outcomes(thread)[0]
    write_mrc(mask, np.eye(16, dtype=np.int8))
    clock[0] += 10_000
    thread._prepare_again()
    assert outcomes(thread) == [], "a file that does not fit is not read for every look"
    thread.retry()
    thread._prepare_again()
    assert outcomes(thread) == ["done"]
    assert thread.intake.retried == 1  # type: ignore[attr-defined]


def test_a_reference_that_changes_is_taken_only_when_it_has_come_to_rest(tmp_path: Path) -> None:
    gain, clock = tmp_path / "gain.mrc", [0.0]
    gain.write_bytes(b"first")
    settings = AcquisitionSettings(data=("x",), gain=str(gain), settle_seconds=5.0)
    preparation = MoviePreparation(tmp_path / "project", "Import/job001", settings, clock=lambda: clock[0])

    def digest() -> str:
        return str(preparation(taken())[1]["gain_reference_sha256"])

    first = digest()
    gain.write_bytes(b"second, half of")
    assert digest() == first
    clock[0] += 4.0
    gain.write_bytes(b"second, half of it and the rest")
    assert digest() == first, "it changed again"
    clock[0] += 4.0
    assert digest() == first
    clock[0] += 1.5
    assert digest() != first
    gain.unlink()
    assert digest() != first, "the project has a copy"
    copies = sorted((tmp_path / "project/Import/job001").glob("gain_reference_*.mrc"))
    assert {copy.read_bytes() for copy in copies} == {b"first", b"second, half of it and the rest"}


def test_a_reference_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    settings = AcquisitionSettings(data=("x",), gain=str(tmp_path / "gain.mrc"))
    preparation = MoviePreparation(tmp_path / "project", "Import/job001", settings)
    with pytest.raises(NotReadyError, match="check --gain"):
        preparation(taken())
    (tmp_path / "gain.mrc").write_bytes(b"here")
    assert preparation(taken())[1]["gain_reference"].startswith("Import/job001/gain_reference_")
