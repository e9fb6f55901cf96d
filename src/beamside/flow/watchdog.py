"""The watchdog: nothing waits for ever in silence.

It looks at what has been given out and what comes back. Workers that do nothing are started anew, and when that does not help the session ends as
failed, with the reason; what takes long is told, so that a person can judge.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from beamside.acquisition.reports import Trouble
from beamside.execution.executors import WorkersLostError
from beamside.flow.problems import Problems

log = logging.getLogger(__name__)

IDLE_SECONDS = 300.0
"""Workers that have something in hand and have used no processor time for so long do nothing any more."""

SAMPLE_SECONDS = 30.0
"""Time between two looks at the workers' processor time, once nothing was finished for a while."""

WORK_SECONDS = 0.5
"""So much processor time between two looks is work; less is waiting."""

RESTARTS = 2
"""How often in a row workers that do nothing are started anew, before it is clear that this does not help."""

LONG_SECONDS = 1800.0
"""After so long without anything finished, people are told what is being worked at."""

SOURCE_SECONDS = 300.0
"""A look at the source, or taking a file, that takes longer is told."""


@runtime_checkable
class Mendable(Protocol):
    """An executor whose workers can be watched and started anew."""

    trouble: str
    broken: str

    def restart(self, reason: str) -> None:
        """Start the workers anew."""

    def cpu_seconds(self) -> float:
        """Return the processor time that the workers have used."""


@dataclass(frozen=True)
class Work:
    """What the session has to do at this moment.

    Attributes
    ----------
    given : what has been given to the workers: "motion raw/m1"
    waiting : how many items wait to be given
    finished : how many tasks the workers have brought back since the session began, those that were lost with them not counted
    source : what the arrival thread does, and since when (monotonic seconds); "" when it rests
    """

    given: Sequence[str]
    waiting: int
    finished: int
    source: tuple[str, float] = ("", 0.0)


class Watchdog:
    """Looks at a session's work now and then. Only the session's own thread uses it."""

    def __init__(self, problems: Problems, executor: Executor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._problems, self._executor, self._clock = problems, executor, clock
        self._since = self._worked = self._sampled = clock()
        self._finished = -1
        self._processor = 0.0
        self._restarts = 0
        self._had_work = False

    def look(self, work: Work) -> None:
        """Look at the work, tell what is wrong, and mend what can be mended.

        Raises
        ------
        WorkersLostError
            when the workers are given up: the session ends as failed, and goes on when it is resumed.
        """
        self._look_at_source(*work.source)
        self._look_at_workers()
        now = self._clock()
        if work.finished != self._finished or not (work.given or work.waiting) or bool(work.given) != self._had_work:
            if work.finished != self._finished:
                self._restarts = 0
            self._finished, self._had_work = work.finished, bool(work.given)
            self._worked = self._sampled = now
            if not (self._restarts and (work.given or work.waiting)):  # what restarted workers get again is no news
                self._since = now
                self._problems.hold("stalled", [])
            return
        if work.given or not self._restarts or now - self._worked > IDLE_SECONDS:
            self._problems.hold("stalled", self._stalled(now, work))

    def _look_at_source(self, doing: str, since: float) -> None:
        seconds = self._clock() - since
        if doing and seconds > SOURCE_SECONDS:
            sentence = (
                f"The session has been {doing} for {minutes(seconds)}: that disk, or the network to it, may hang. "
                "Nothing new is taken in meanwhile; what was taken is processed."
            )
            self._problems.hold("source-slow", [Trouble("source-slow", sentence, "error")])
        else:
            self._problems.hold("source-slow", [])

    def _look_at_workers(self) -> None:
        if not isinstance(self._executor, Mendable):
            return
        if self._executor.broken:
            self._problems.open("workers", self._executor.broken, "error")
            raise WorkersLostError(self._executor.broken)
        trouble = self._executor.trouble
        self._problems.hold("workers", [Trouble("workers", trouble, "error")] if trouble else [])

    def _stalled(self, now: float, work: Work) -> list[Trouble]:
        if not work.given:
            return self._nothing_given(now, work)
        if isinstance(self._executor, Mendable) and now - self._sampled > SAMPLE_SECONDS:
            used = self._executor.cpu_seconds()
            if abs(used - self._processor) > WORK_SECONDS:
                self._worked = now
            self._processor, self._sampled = used, now
            if now - self._worked > IDLE_SECONDS:
                return self._mend(now, work, self._executor)
        if self._restarts:
            return [
                Trouble("stalled", self._sentence(now, work, "the workers did nothing and were restarted"), "error")
            ]
        if now - self._since > LONG_SECONDS:
            return [Trouble("stalled", self._sentence(now, work, "the workers are busy with that"), "info")]
        return []

    def _mend(self, now: float, work: Work, executor: Mendable) -> list[Trouble]:
        if self._restarts >= RESTARTS:
            reason = self._sentence(
                now, work, f"the workers do nothing, even after they were restarted {RESTARTS} times"
            )
            self._problems.open("workers", reason, "error")
            raise WorkersLostError(f"{reason} Look for what holds them up (disks, memory), then resume the session.")
        self._restarts += 1
        self._worked = now
        executor.restart(f"nothing was finished for {minutes(now - self._since)} and the workers do nothing")
        return [Trouble("stalled", self._sentence(now, work, "the workers did nothing and were restarted"), "error")]

    def _nothing_given(self, now: float, work: Work) -> list[Trouble]:
        if now - self._worked <= IDLE_SECONDS:
            return []
        waiting = "1 item waits" if work.waiting == 1 else f"{work.waiting} items wait"
        sentence = (
            f"Nothing has been given to the workers for {minutes(now - self._worked)}, though {waiting}: "
            "stop the session and resume it; if that does not help, please report it with the session's log."
        )
        return [Trouble("stalled", sentence, "error")]

    def _sentence(self, now: float, work: Work, why: str) -> str:
        first = work.given[0]
        more = f" and {len(work.given) - 1} more" if len(work.given) > 1 else ""
        return f"Nothing was finished for {minutes(now - self._since)}, though {first}{more} wait for a result, because {why}."


def minutes(seconds: float) -> str:
    """Return a length of time for sentences."""
    if seconds < 7200:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h"
