"""The items of a check with their states: those of the tables, and "asked", of an item that waits for a person's answer.

They are given to workers as the items of jobs are: by the same dispatcher, with the same identity, pauses and log. What a check has decided or asks
is in the journal as its own records. From these, and from what is taken in, a session finds the states anew, so here is nothing that could be lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from beamside.errors import TransitionError
from beamside.flow.retries import pause_after
from beamside.jobs.errands import Errand
from beamside.project.records import ItemEntry, ItemState

log = logging.getLogger(__name__)

RESTS = frozenset({ItemState.WAITING, ItemState.ASKED, ItemState.DONE, ItemState.FAILED})
"""The states in which an item of a check may be while no worker has it."""

CHECK_ALLOWED: Mapping[ItemState, frozenset[ItemState]] = {
    ItemState.WAITING: RESTS | {ItemState.QUEUED},
    ItemState.QUEUED: RESTS | {ItemState.RUNNING},
    ItemState.RUNNING: RESTS,
    # What is settled or asked is looked at again as items come; what has failed is tried again when that is asked for.
    ItemState.DONE: RESTS,
    ItemState.ASKED: RESTS,
    ItemState.FAILED: frozenset({ItemState.WAITING}),
}
"""The transitions of a check's items. All that a job's item may do is among them, but for what comes to rest being rejected."""


class Settling(Protocol):
    """What a check does with what workers bring."""

    def wanted(self, name: str) -> Errand | None:
        """Return what a worker is to do for an item now; None when nothing is due."""

    def found(self, name: str, result: Mapping[str, Any]) -> None:
        """Take what a worker has found for an item; the item comes to rest in a state."""

    def spoiled(self, name: str, reason: str, *, permanent: bool) -> None:
        """A worker has found nothing; unless that is permanent, the item is tried again after a pause, as long as it is not given up."""


class CheckItems:
    """A table of what a check has to settle. Only the session's own thread uses it.

    Parameters
    ----------
    job : how the check is called where workers tell what they have in hand
    title : the same for people
    clock : monotonic seconds
    """

    def __init__(self, job: str, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = self.job = job
        self.title = title
        self.entries: dict[str, ItemEntry] = {}
        self.in_flight: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._clock = clock

    def add(self, name: str) -> None:
        """Have an item; it waits until something is due."""
        self.entries.setdefault(name, ItemEntry(name, ItemState.WAITING))

    def entry(self, name: str) -> ItemEntry | None:
        """Return an item, or None."""
        return self.entries.get(name)

    def state(self, name: str) -> ItemState:
        """Return where an item is."""
        return self.entries[name].state

    def has_given_up(self, name: str) -> str:
        """Return why an item was given up; "" when it was not."""
        entry = self.entries[name]
        return entry.reason if entry.state is ItemState.FAILED else ""

    def rest(self, name: str, state: ItemState, reason: str = "") -> None:
        """Let an item be in a state while no worker has it; of one that a worker has, this is said again when that is done."""
        if name not in self.in_flight:
            self._to(name, state, reason)

    def again(self, name: str) -> None:
        """Let an item be tried at once, whatever was spoiled before."""
        self._not_before.pop(name, None)
        if name not in self.in_flight:
            self.entries[name].attempt = 0
            if self.entries[name].state is ItemState.FAILED:
                self._to(name, ItemState.WAITING)

    def ready(self) -> list[str]:
        """Return the items that may be given out, whether or not anything is due."""
        now = self._clock()
        return [
            name
            for name, entry in self.entries.items()
            if name not in self.in_flight
            and entry.state in (ItemState.WAITING, ItemState.DONE)
            and self._not_before.get(name, 0.0) <= now
        ]

    def queued(self, name: str) -> int:
        """An item is given to the executor; returns the number of this task of the item."""
        entry = self.entries[name]
        if entry.state is ItemState.DONE:
            self._to(name, ItemState.WAITING)
        self._to(name, ItemState.QUEUED)
        entry.attempt, entry.task = entry.attempt + 1, entry.task + 1
        self.in_flight.add(name)
        return entry.task

    def running(self, name: str) -> None:
        """A worker has begun with an item."""
        self._to(name, ItemState.RUNNING)

    def outcome(self, check: Settling, name: str, task: int, outcome: Mapping[str, Any]) -> None:
        """Let the check take what became of a task. The first outcome of the present task counts, and no other."""
        entry = self.entries[name]
        if name not in self.in_flight or entry.task != task:
            log.warning("%s: %s: a late outcome of task %d is left out", self.title, name, task)
            return
        self.in_flight.discard(name)
        result, reason = outcome["result"], str(outcome["reason"])
        if result is None:
            log.warning("%s: %s: %s%s", self.title, name, reason, "\n" + outcome["log"] if outcome["log"] else "")
            self._not_before[name] = self._clock() + pause_after(entry.attempt)
            self._to(name, ItemState.WAITING, reason)
            check.spoiled(name, reason, permanent=bool(outcome["permanent"]))
            return
        self._not_before[name] = self._clock() + pause_after(entry.attempt)  # should the check stumble over it
        self._to(name, ItemState.WAITING)
        check.found(name, result)
        entry.attempt = 0
        self._not_before.pop(name, None)

    def _to(self, name: str, state: ItemState, reason: str = "") -> None:
        entry = self.entries[name]
        if state is not entry.state and state not in CHECK_ALLOWED[entry.state]:
            raise TransitionError(f"{self.title}: {name} cannot go from {entry.state.value} to {state.value}.")
        entry.state, entry.reason = state, reason
