"""The thread that looks at the camera folder and takes files in; it tells the session by a queue, and never touches the project's journals."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamside.acquisition.intake import Arrival, Intake, LookReport, TakenFile
from beamside.errors import BeamsideError, NotReadyError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looked:
    """A look at the source is over."""

    report: LookReport


@dataclass(frozen=True)
class Started:
    """A file is being taken in."""

    arrival: Arrival


@dataclass(frozen=True)
class Taken:
    """A file is in the project: `values` and `outputs` are what `prepare` made of it."""

    arrival: Arrival
    taken: TakenFile
    outputs: dict[str, str]
    values: dict[str, Any]


@dataclass(frozen=True)
class NotTaken:
    """A file could not be taken in this time."""

    arrival: Arrival
    reason: str
    not_ready: bool


Event = Looked | Started | Taken | NotTaken
Prepare = Callable[[TakenFile], tuple[dict[str, str], dict[str, Any]]]


class ArrivalThread(threading.Thread):
    """Look, take, report; until `end` is set."""

    def __init__(self, intake: Intake, prepare: Prepare, events: queue.Queue[Any], poll_seconds: float) -> None:
        super().__init__(name="arrivals", daemon=True)
        self.intake, self.prepare, self.events, self.poll_seconds = intake, prepare, events, poll_seconds
        self.end = threading.Event()
        self.paused = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self.end.is_set():
            started = time.monotonic()
            if not self.paused.is_set():
                self._look()
            self.end.wait(max(0.05, self.poll_seconds - (time.monotonic() - started)))

    def _look(self) -> None:
        try:
            report = self.intake.look()
        except (BeamsideError, OSError) as error:
            log.warning("the source could not be looked at: %s", error)
            self.events.put(error)
            return
        for arrival in report.new:
            if self.end.is_set() or self.paused.is_set():
                return
            self._take(arrival)
        self.events.put(Looked(report))

    def _take(self, arrival: Arrival) -> None:
        self.events.put(Started(arrival))
        try:
            taken = self.intake.take(arrival)
            outputs, values = self.prepare(taken)
        except (BeamsideError, OSError) as error:
            self.events.put(NotTaken(arrival, str(error), isinstance(error, NotReadyError)))
        else:
            self.events.put(Taken(arrival, taken, outputs, values))


def project_relative(root: Path, path: Path) -> str:
    """Return `path` relative to the project `root`."""
    return path.relative_to(root).as_posix()
