"""A gain reference that comes with the first movies: they wait for it, and nobody has to guess why."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest
from beamside.acquisition.settings import AcquisitionSettings
from beamside.camera.preparing import MoviePreparation
from beamside.errors import InputError
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import FileImported, SourceSeen, SourceThread
from beamside.flow.start import prepare
from beamside.formats.mrc import write_mrc

WAIT = 30.0


class Waiter:
    """A camera folder, and what takes its files in, one look at a time."""

    def __init__(self, folder: Path, gain: Path) -> None:
        self.now = 0.0
        self.project = folder / "project"
        settings = AcquisitionSettings(data=(str(folder / "camera"),), gain=str(gain), gain_wait=True, settle_seconds=5)
        intake = Intake(settings, self.project / "raw", Manifest(self.project), clock=self.clock)
        preparation = MoviePreparation(self.project, "Import/job001", settings, clock=self.clock)
        self.events: queue.Queue[Any] = queue.Queue()
        self.thread = SourceThread(intake, preparation, self.events, 1.0, clock=self.clock)

    def clock(self) -> float:
        return self.now

    def look(self) -> tuple[list[FileImported], str]:
        """Look, let the lanes do what was found, and return the movies that became ready and what is said of the reference."""
        self.now += 10
        self.thread._prepare_again()
        self.thread.look()
        lanes = self.thread._lanes
        with lanes._changed:
            assert lanes._changed.wait_for(lambda: not lanes._waiting and not lanes._in_hand, WAIT)
        events = [self.events.get() for _ in range(self.events.qsize())]
        report = next(event for event in events if isinstance(event, SourceSeen)).report
        told = [trouble.sentence for trouble in report.standing if trouble.key == "awaited"]
        assert bool(told) == any("gain reference" in waiting.reason for waiting in report.waiting), (
            "it counts as waiting"
        )
        return [event for event in events if isinstance(event, FileImported)], "".join(told)


def test_movies_wait_for_the_reference_and_go_on_when_it_is_complete(
    tmp_path: Path, write_movie: Callable[..., Path]
) -> None:
    gain = tmp_path / "camera" / "CountRef_1.mrc"
    waiter = Waiter(tmp_path, gain)
    write_movie("a")
    write_mrc(tmp_path / "whole.mrc", np.ones((64, 64), np.float32))
    whole = (tmp_path / "whole.mrc").read_bytes()
    looks = [waiter.look() for _ in range(12)]
    assert all(not ready for ready, _ in looks)
    assert "CountRef_1.mrc is not there yet. 1 file waits for it" in looks[-1][1]
    assert (waiter.project / "raw/a_fractions.tiff").exists(), "raw data are safe meanwhile"
    gain.write_bytes(whole[:2000])
    looks = [waiter.look() for _ in range(3)]
    assert all(not ready for ready, _ in looks)
    assert "is being written" in looks[-1][1]
    gain.write_bytes(whole)
    looks = [waiter.look() for _ in range(3)]
    (event,) = [event for ready, _ in looks for event in ready]
    assert event.file.name == "raw/a_fractions"
    assert (waiter.project / event.values["gain_reference"]).read_bytes() == whole
    assert looks[-1][1] == ""


def test_a_session_starts_without_its_reference_only_when_told_to_wait(
    session_settings: Callable[..., SessionSettings], tmp_path: Path
) -> None:
    gain = str(tmp_path / "later.mrc")
    with pytest.raises(InputError, match="--gain-wait"):
        prepare(session_settings(gain=gain))
    assert any("is not there yet" in warning for warning in prepare(session_settings(gain=gain, gain_wait=True)))
    Path(gain).write_text("no image")
    with pytest.raises(InputError, match="cannot be used"):
        prepare(session_settings(gain=gain, gain_wait=True))
