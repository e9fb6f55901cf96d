"""Files are taken in the order in which they come, and none waits for a large or slow one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest
from beamside.acquisition.reports import Arrival
from beamside.acquisition.scan import Sighting
from beamside.acquisition.settings import AcquisitionSettings
from beamside.flow.lanes import SLOW_SECONDS, Lanes
from beamside.flow.source_thread import FileImported, SourceSeen, SourceThread
from beamside.formats.image import ImageInfo

WAIT = 30.0
"""Longest wait, in seconds, for a thread that has nothing to do but to go on."""


class Work:
    """Takes arrivals; those that are held stay in hand until they are let go."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: queue.Queue[str] = queue.Queue()
        self.begun: queue.Queue[str] = queue.Queue()
        self.held: dict[str, threading.Event] = {}
        self.failures: list[BaseException] = []
        self.paused = threading.Event()
        self.lanes = Lanes(self.take, self.failures.append, self.paused, clock=lambda: self.now)

    def take(self, arrival: Arrival) -> None:
        self.begun.put(arrival.source)
        if arrival.source in self.held:
            assert self.held[arrival.source].wait(WAIT)
        if arrival.source == "bad":
            raise OSError("bad")
        self.done.put(arrival.source)

    def hold(self, *names: str) -> None:
        self.held |= {name: threading.Event() for name in names}

    def put(self, **sizes: int) -> None:
        self.lanes.put(
            Arrival(Sighting(name, size, 1), ImageInfo(3, (4, 4), np.dtype("u1"), "none"))
            for name, size in sizes.items()
        )

    def taken(self, number: int) -> list[str]:
        return [self.done.get(timeout=WAIT) for _ in range(number)]


@contextmanager
def work() -> Iterator[Work]:
    made = Work()
    try:
        yield made
    finally:
        for event in made.held.values():
            event.set()
        made.lanes.end()


def test_usual_files_keep_their_order() -> None:
    with work() as one:
        names = [f"m{number}" for number in range(20)]
        one.put(**dict.fromkeys(names, 10))
        assert one.taken(20) == names


def test_a_large_file_holds_up_no_other_and_a_second_one_waits_for_it() -> None:
    with work() as one:
        one.hold("huge", "huge2")
        one.put(a=10, b=10, huge=1000, huge2=1000, c=10)
        assert one.taken(3) == ["a", "b", "c"]
        assert one.lanes.sources() == ["huge", "huge2"]
        one.held["huge"].set()
        assert one.taken(1) == ["huge"]


def test_a_slow_file_of_usual_size_gets_company_and_is_named() -> None:
    with work() as one:
        one.hold("slow")
        one.put(slow=10, a=10, b=10)
        assert one.begun.get(timeout=WAIT) == "slow"
        assert one.lanes.slow() == []
        one.now = SLOW_SECONDS
        one.put()
        assert one.taken(2) == ["a", "b"]
        assert [arrival.source for arrival in one.lanes.slow()] == ["slow"]
        one.held["slow"].set()
        assert one.taken(1) == ["slow"]


def test_when_every_lane_is_slow_that_is_said() -> None:
    with work() as one:
        one.hold("a", "b", "c")
        one.put(a=1, b=1, c=1, d=1)
        for number, name in enumerate("abc"):
            assert one.begun.get(timeout=WAIT) == name
            assert one.lanes.stuck() == ("", 0.0)
            one.now = SLOW_SECONDS * (number + 1)
            one.put()
        assert one.lanes.stuck() == ("taking a", 2 * SLOW_SECONDS)


def test_a_file_that_is_offered_again_while_it_is_in_hand_disturbs_no_lane() -> None:
    with work() as one:
        one.hold("a")
        one.put(a=1)
        assert one.begun.get(timeout=WAIT) == "a"
        one.now = SLOW_SECONDS
        one.put(a=1)
        assert one.begun.get(timeout=WAIT) == "a"
        assert one.lanes.sources() == ["a"]
        one.held["a"].set()
        one.put(b=1)
        assert sorted(one.taken(3)) == ["a", "a", "b"]


def test_nothing_new_is_begun_while_paused_and_an_error_ends_no_lane() -> None:
    with work() as one:
        one.paused.set()
        one.put(bad=1, a=1)
        one.paused.clear()
        one.put()
        assert one.taken(1) == ["a"]
        assert [str(error) for error in one.failures] == ["bad"]


def test_looking_goes_on_while_a_file_is_taken_and_tells_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = tmp_path / "camera"
    camera.mkdir()
    for number, name in enumerate(("a", "b")):
        tifffile.imwrite(camera / f"{name}.tiff", np.full((3, 8, 8), number, np.uint8), photometric="minisblack")
    clock, go_on, begun = [0.0], threading.Event(), threading.Event()
    settings = AcquisitionSettings(data=(str(camera / "*.tiff"),), settle_seconds=0)
    intake = Intake(settings, tmp_path / "project" / "raw", Manifest(tmp_path / "project"), clock=lambda: clock[0])
    monkeypatch.setattr("beamside.acquisition.storage.compress_movie", held_for("a.tiff", begun, go_on))
    events: queue.Queue[Any] = queue.Queue()
    thread = SourceThread(intake, Unprepared(), events, 1.0, clock=lambda: clock[0])
    try:
        for _ in range(3):
            thread.look()
            clock[0] += 10
        assert begun.wait(WAIT)
        clock[0] += SLOW_SECONDS
        thread.look()
        while not isinstance(event := events.get(timeout=WAIT), FileImported):
            assert isinstance(event, SourceSeen)
        assert event.file.name == "raw/b"
        thread.look()
        report = last_look(events)
        assert report.taking == [str(camera / "a.tiff")]
        told = next(trouble for trouble in report.standing if trouble.key.startswith("slow-file:"))
        assert "a.tiff" in told.sentence
        assert "compressed" in told.sentence
    finally:
        go_on.set()
        thread._lanes.end()
    thread.look()
    assert last_look(events).taking == []


class Unprepared:
    """Prepares nothing."""

    def __call__(self, taken: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {}, {}

    def retry(self) -> None:
        pass


def held_for(name: str, begun: threading.Event, go_on: threading.Event) -> Callable[..., bool]:
    """Return a compressor that saves nothing, and does not come back from the file `name` until it may."""

    def compress(source: Path, _destination: Path) -> bool:
        if source.name.endswith(name):
            begun.set()
            assert go_on.wait(WAIT)
        return False

    return compress


def last_look(events: queue.Queue[Any]) -> Any:
    report = None
    while not events.empty():
        event = events.get()
        report = event.report if isinstance(event, SourceSeen) else report
    return report
