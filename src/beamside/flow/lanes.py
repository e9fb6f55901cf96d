"""Taking files in, one after the other, without a large or slow one holding up the rest.

Usual files go through one lane in the order in which they came, so that a session's items keep the order of the microscope. Files that are much
larger than others have a lane of their own. Where a file of usual size takes long (a bad disk, a network that hangs), another lane is opened
beside it for those that wait.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from beamside.acquisition.reports import Arrival

LARGE = 4.0
"""A file of more times the usual size goes through the lane of large files."""

SLOW_SECONDS = 20.0
"""A file that takes longer than this is named, and holds up its lane no longer."""

_MOST_RELIEF_LANES = 2
_SIZES = 200


@dataclass
class _Waiting:
    arrival: Arrival
    large: bool = False
    since: float = 0.0


class Lanes:
    """Gives arrivals to `work`, in threads; what `work` raises is given to `failed`.

    Parameters
    ----------
    work : takes one file in
    failed : told of an error that `work` lets through
    paused : while set, nothing new is begun
    clock : monotonic seconds
    """

    def __init__(
        self,
        work: Callable[[Arrival], None],
        failed: Callable[[BaseException], None],
        paused: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._failed, self._paused, self._clock = work, failed, paused, clock
        self._changed = threading.Condition()
        self._waiting: dict[str, _Waiting] = {}
        self._queues: dict[bool, deque[_Waiting]] = {False: deque(), True: deque()}  # the same, large files apart
        self._in_hand: list[_Waiting] = []
        self._sizes: deque[int] = deque(maxlen=_SIZES)
        self._threads: list[threading.Thread] = []
        self._relief = 0
        self._ended = False

    def put(self, arrivals: Iterable[Arrival]) -> None:
        """Add files; lanes are opened as they are needed. To be called at every look, also with none."""
        with self._changed:
            new = {arrival.source: _Waiting(arrival) for arrival in arrivals}
            if new:
                self._sizes.extend(one.arrival.sighting.size for one in new.values())
                self._waiting |= new
                self._queue()
            if self._waiting and not self._threads:
                self._open(large=False)
                self._open(large=True)
            self._relieve()
            self._changed.notify_all()

    def _queue(self) -> None:
        """Part what waits by size; what is usual is known better with each file that comes."""
        usual = statistics.median_low(self._sizes)
        for queue in self._queues.values():
            queue.clear()
        for one in self._waiting.values():
            one.large = one.arrival.sighting.size > LARGE * usual
            self._queues[one.large].append(one)

    def sources(self) -> list[str]:
        """Return the files that wait or are in hand."""
        with self._changed:
            return list(dict.fromkeys([*(one.arrival.source for one in self._in_hand), *self._waiting]))

    def slow(self) -> list[Arrival]:
        """Return the files that have been in hand for long."""
        with self._changed:
            now = self._clock()
            return [one.arrival for one in self._in_hand if now - one.since >= SLOW_SECONDS]

    def stuck(self) -> tuple[str, float]:
        """Return what holds up files that wait, and since when: every lane for them is slow. ("", 0.0) while they move."""
        with self._changed:
            usual = [one for one in self._in_hand if not one.large]
            now = self._clock()
            if (
                not self._queues[False]
                or len(usual) <= _MOST_RELIEF_LANES
                or any(now - one.since < SLOW_SECONDS for one in usual)
            ):
                return "", 0.0
            first = min(usual, key=lambda one: one.since)
            return f"taking {first.arrival.source}", max(one.since for one in usual)

    def end(self) -> None:
        """Begin nothing new, and wait for what is in hand."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _relieve(self) -> None:
        """Open another lane beside usual files that are slow, when others wait for them."""
        now = self._clock()
        usual = [one for one in self._in_hand if not one.large]
        all_slow = len(usual) > self._relief and all(now - one.since >= SLOW_SECONDS for one in usual)
        if self._queues[False] and all_slow and self._relief < _MOST_RELIEF_LANES and not self._paused.is_set():
            self._relief += 1
            self._open(large=False, relief=True)

    def _open(self, *, large: bool, relief: bool = False) -> None:
        name = "taking large files" if large else "taking files"
        thread = threading.Thread(target=self._run, args=(large, relief), name=name, daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive() or one.ident is None), thread]
        thread.start()

    def _run(self, large: bool, relief: bool) -> None:
        while (next_one := self._next(large, relief)) is not None:
            try:
                self._work(next_one.arrival)
            except BaseException as error:
                self._failed(error)
            finally:
                with self._changed:
                    # a file whose taking failed may be offered again, and be in another lane, before this one is rid of it
                    self._in_hand = [one for one in self._in_hand if one is not next_one]
                    self._changed.notify_all()

    def _next(self, large: bool, relief: bool) -> _Waiting | None:
        """Return the next file of a lane when there is one; None at the end, and for a lane of relief when no more wait."""
        with self._changed:
            while not self._ended:
                if self._queues[large] and not self._paused.is_set():
                    found = self._queues[large].popleft()
                    del self._waiting[found.arrival.source]
                    found.since = self._clock()
                    self._in_hand.append(found)
                    return found
                if relief:
                    break
                self._changed.wait()
            self._relief -= relief
            return None
