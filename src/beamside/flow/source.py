"""Where the items of a scheduler come from. The scheduler works the same whatever that is, and also when nothing comes any more."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, Protocol

from beamside.flow.checks import Check, NoCheck, Surroundings
from beamside.flow.settings import SessionSettings
from beamside.flow.steps import Steps


class Source(Protocol):
    """Brings items into a scheduler's tables. Only the scheduler's own thread calls it; what it finds elsewhere it tells by the queue of events."""

    @property
    def doing(self) -> tuple[str, float]:
        """What holds up new items now, and since when (monotonic seconds); "" when nothing does."""

    @property
    def waiting(self) -> int:
        """How many items have been seen, and are not in the project yet."""

    def check(self, around: Surroundings) -> Check:
        """Return what has to be settled before its items may flow."""

    def begin(self, around: Surroundings, check: Check, events: queue.Queue[Any], steps: Steps) -> None:
        """Begin to bring items; what is to be known of them comes as `events`, which `take` is given."""

    def take(self, event: Any) -> None:
        """Take an event."""

    def instead(self, event: Any, reason: str) -> tuple[str, Callable[[], None]] | None:
        """Return what an event is about, in words, and what is done when it could not be taken, so that this item fails; None for no item."""

    def pause(self, paused: bool) -> None:
        """Bring nothing while it is paused."""

    def retry(self, *, all_: bool = True) -> None:
        """Try again what a passing fault has spoiled; with `all_`, whatever failed."""

    def take_settings(self, settings: SessionSettings) -> None:
        """Go on with settings that have changed."""

    def look_anew(self) -> None:
        """There is something to do again: whether there is no more has to be seen anew."""

    def is_empty(self) -> bool:
        """Tell whether there is no more, as far as can be seen."""

    def is_idle(self) -> bool:
        """Tell whether nothing has come for so long that the work is to be finished."""

    def waits(self, *, finishing: bool) -> str:
        """Return what it waits for, in words; "" when for nothing."""

    def end(self) -> None:
        """Bring nothing more."""

    def close(self) -> None:
        """Wait until what it has begun has come to an end."""


class NoSource:
    """Nothing comes: the scheduler works on the items that the project has, and ends when all is done with them."""

    doing = ("", 0.0)
    waiting = 0

    def check(self, around: Surroundings) -> Check:
        """Nothing that comes has to wait."""
        return NoCheck(around)

    def begin(self, around: Surroundings, check: Check, events: queue.Queue[Any], steps: Steps) -> None:
        """There is nothing to begin."""

    def take(self, event: Any) -> None:
        """Nothing is told."""

    def instead(self, event: Any, reason: str) -> tuple[str, Callable[[], None]] | None:
        """No event is about an item."""
        return None

    def pause(self, paused: bool) -> None:
        """There is nothing to pause."""

    def retry(self, *, all_: bool = True) -> None:
        """There is nothing to try again."""

    def take_settings(self, settings: SessionSettings) -> None:
        """No setting matters."""

    def look_anew(self) -> None:
        """There is nothing to look at."""

    def is_empty(self) -> bool:
        """There is no more."""
        return True

    def is_idle(self) -> bool:
        """There never was anything."""
        return True

    def waits(self, *, finishing: bool) -> str:
        """It waits for nothing."""
        return ""

    def end(self) -> None:
        """Nothing has begun."""

    def close(self) -> None:
        """Nothing has begun."""
