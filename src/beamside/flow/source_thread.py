"""The threads that look at the camera folder and take files in; they tell the session by a queue, and never touch the project's journals."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from beamside.acquisition.intake import Intake
from beamside.acquisition.reports import Arrival, ImportedFile, LookReport, Trouble, Waiting
from beamside.acquisition.transfer import DestinationError
from beamside.errors import AwaitedError, BeamsideError, InputError, NotReadyError, in_words
from beamside.flow.lanes import Lanes

if TYPE_CHECKING:
    from beamside.flow.settings import SessionSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceSeen:
    """A look at the source is over."""

    report: LookReport


@dataclass(frozen=True)
class FileImported:
    """A file is in the project: `outputs` and `values` are what was made of it, `problem` says why nothing could be."""

    file: ImportedFile
    outputs: dict[str, str]
    values: dict[str, Any]
    problem: str = ""


@dataclass(frozen=True)
class ImportFailed:
    """A file could not be taken in this time; the intake decides how often it is tried. `full` says that no file could: it is the project's disk."""

    source: str
    reason: str
    full: bool = False


class Prepare(Protocol):
    """Makes a file that was taken in ready for processing."""

    def __call__(self, taken: ImportedFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return its outputs and values."""

    def retry(self) -> None:
        """Forget what was remembered of failures."""

    def take_settings(self, settings: SessionSettings) -> None:
        """Go on with settings that have changed."""


AGAIN_SECONDS, LONGEST_AGAIN_SECONDS = 2.0, 300.0
"""Pause before a file whose preparation a passing fault has spoiled is prepared again; it doubles with each attempt."""


@dataclass
class Unprepared:
    """A file that was taken in and could not be prepared; `passing` says that trying again may help by itself."""

    file: ImportedFile
    passing: bool
    attempts: int = 1
    due: float = 0.0


class SourceThread(threading.Thread):
    """Look, and report, until `end` is set; what was found is taken in lanes beside it, so that looking goes on."""

    def __init__(
        self,
        intake: Intake,
        prepare: Prepare,
        events: queue.Queue[Any],
        poll_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="arrivals", daemon=True)
        self.intake, self.prepare, self.events, self.poll_seconds = intake, prepare, events, poll_seconds
        self.end = threading.Event()
        self.paused = threading.Event()
        self._lanes = Lanes(self._take, events.put, self.paused, clock=clock)
        self._lock = threading.Lock()
        self._unprepared: dict[str, Unprepared] = {}
        self._awaiting: dict[str, tuple[ImportedFile, str]] = {}
        self._asked = queue.SimpleQueue[bool]()
        self._looking_since = 0.0

    @property
    def doing(self) -> tuple[str, float]:
        """What holds up new files now, and since when (monotonic seconds); read by the session's watchdog."""
        since = self._looking_since
        return ("looking at the source", since) if since else self._lanes.stuck()

    def run(self) -> None:
        """Tell what earlier sessions took (a session may have died before it noted that), then look again and again."""
        try:
            for taken in self.intake.taken():
                self._prepare(taken)
            while not self.end.is_set():
                started = time.monotonic()
                if not self.paused.is_set():
                    self._prepare_again()
                    self.look()
                self.end.wait(max(0.05, self.poll_seconds - (time.monotonic() - started)))
        except BaseException as error:  # the session must hear of it: without this thread it would wait for ever
            self.events.put(error)
            raise
        finally:
            self._lanes.end()

    def retry(self, *, all_: bool = True) -> None:
        """Try again soon what could not be prepared because of a passing fault; with `all_`, whatever failed, also what was set aside."""
        self._asked.put(all_)
        if all_:
            self.intake.retry()

    def _prepare_again(self) -> None:
        asked = []
        while not self._asked.empty():
            asked.append(self._asked.get())
        if any(asked):
            self.prepare.retry()
        now = time.monotonic()
        with self._lock:
            unprepared = list(self._unprepared.values())
            awaiting = [taken for taken, _ in self._awaiting.values()]
        for taken in awaiting:
            self._prepare(taken)
        for each in unprepared:
            if any(asked) or (each.passing and (asked or each.due <= now)):
                self._prepare(each.file)

    def look(self) -> None:
        """Look once, and give what was found to the lanes."""
        taking = self._lanes.sources()  # what is no longer among these was told before this look is
        report = self._look_once()
        self._lanes.put(report.new)
        report.taking = taking
        self._tell_awaiting(report)
        report.standing += [self._slow(arrival) for arrival in self._lanes.slow()]
        self.events.put(SourceSeen(report))

    def _tell_awaiting(self, report: LookReport) -> None:
        """Say of the files that wait for another one that they wait, so that the session does not end without them."""
        with self._lock:
            awaiting = list(self._awaiting.values())
        if not awaiting:
            return
        report.waiting += [Waiting(taken.source, reason) for taken, reason in awaiting]
        many = "1 file waits" if len(awaiting) == 1 else f"{len(awaiting)} files wait"
        sentence = f"{awaiting[-1][1]} {many} for it; raw data are taken in meanwhile."
        report.standing.append(Trouble("awaited", sentence))

    def _slow(self, arrival: Arrival) -> Trouble:
        size, doing = arrival.sighting.size / 1e9, self.intake.doing(arrival.source)
        sentence = f"{arrival.source} ({size:.2f} GB) takes long: it is being {doing}. Other files do not wait for it."
        return Trouble(f"slow-file:{arrival.source}", sentence, "info")

    def _take(self, arrival: Arrival) -> None:
        try:
            taken = self.intake.take(arrival)
        except (BeamsideError, OSError) as error:
            self.events.put(ImportFailed(arrival.source, in_words(error), isinstance(error, DestinationError)))
        except Exception as error:  # whatever one file raises, the others go on; the intake counts it
            log.exception("%s could not be taken", arrival.source)
            self.events.put(ImportFailed(arrival.source, f"{arrival.source}: {in_words(error)}"))
        else:
            if taken is not None:
                self._prepare(taken)

    def _look_once(self) -> LookReport:
        """Look at the source; whatever that raises is an outage of the source, not the end of the session."""
        self._looking_since = time.monotonic()
        try:
            return self.intake.look()
        except Exception as error:
            log.exception("the source could not be looked at")
            sentence = f"The source could not be looked at ({in_words(error)}); it is tried again."
            return LookReport(complete=False, standing=[Trouble("look-failed", sentence, "error")])
        finally:
            self._looking_since = 0.0

    def _prepare(self, taken: ImportedFile) -> None:
        try:
            outputs, values = self.prepare(taken)
        except AwaitedError as error:
            with self._lock:
                self._awaiting[taken.name] = (taken, str(error))
        except (BeamsideError, OSError) as error:
            self._put_off(taken, passing=isinstance(error, NotReadyError) or not isinstance(error, InputError))
            self.events.put(FileImported(taken, {}, {}, in_words(error)))
        except Exception as error:  # one strange file must not end the session; the log has where it came from
            log.exception("%s could not be prepared", taken.path)
            self._put_off(taken, passing=False)
            self.events.put(FileImported(taken, {}, {}, in_words(error)))
        else:
            with self._lock:
                self._unprepared.pop(taken.name, None)
                self._awaiting.pop(taken.name, None)
            if self.intake.kind.fault in values:
                self._put_off(taken, passing=False)
            self.events.put(FileImported(taken, outputs, values))

    def _put_off(self, taken: ImportedFile, *, passing: bool) -> None:
        with self._lock:
            before = self._unprepared.get(taken.name)
            attempts = before.attempts + 1 if before is not None else 1
            pause = min(LONGEST_AGAIN_SECONDS, AGAIN_SECONDS * 2.0 ** (attempts - 1))
            self._unprepared[taken.name] = Unprepared(taken, passing, attempts, time.monotonic() + pause)
