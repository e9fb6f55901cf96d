"""What is remembered of each file at the source between two looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from beamside.acquisition.arrivals import SetAside
from beamside.acquisition.scan import Sighting

_MAX_DELAY = 300.0
_USUAL_AFTER = 3
_SHORT_LOOKS = 3
_UNEQUAL = 50
"""Movies of raw frames differ by a few in length; one part in so many is no reason to wait."""


@dataclass
class SourceState:
    """A file that is not taken yet.

    Attributes
    ----------
    attempts : failures so far, of the file as it is now
    not_before : when it is looked at again, by the monotonic clock
    reason : why it waits
    offered : it was given to the session loop, which has not answered yet
    set_aside : what it looked like when it was given up
    passed_over : it is complete, and not what the session processes
    short_looks : times it was found complete, but with fewer frames than the others
    last : what it looked like last
    """

    attempts: int = 0
    not_before: float = 0.0
    reason: str = ""
    offered: bool = False
    set_aside: Sighting | None = None
    passed_over: bool = False
    short_looks: int = 0
    last: Sighting | None = None

    def see(self, sighting: Sighting) -> None:
        """Take in how the file looks now; a changed file gets a new chance."""
        if self.last is not None and self.last != sighting and not self.offered:
            self.attempts, self.not_before, self.set_aside, self.short_looks = 0, 0.0, None, 0
            self.passed_over = False
        self.last = sighting

    def fail(self, reason: str, now: float, *, wait: float, limit: int) -> SetAside | None:
        """Count a failure; return the file's epitaph when it was the last that is allowed."""
        self.attempts += 1
        self.reason = reason
        self.not_before = now + min(wait * 2 ** (self.attempts - 1), _MAX_DELAY)
        if self.attempts < limit or self.last is None:
            return None
        self.set_aside = self.last
        return SetAside(self.last.path, reason, self.attempts)


class UsualFrames:
    """Remembers how many frames movies have, to be wary of shorter ones, as a TIFF file that still grows can look complete."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, frames: int) -> None:
        """Take in a movie that was taken."""
        self._counts[frames] += 1

    def is_short(self, frames: int, state: SourceState, stated: int = 0) -> bool:
        """Tell whether to wait, because a movie has fewer frames than most, or than `stated` in itself; only a few times for the same file."""
        usual = max(self._counts, key=lambda n: self._counts[n], default=0)
        is_short = frames < usual - usual // _UNEQUAL and self._counts[usual] >= _USUAL_AFTER
        if not (is_short or frames < stated) or state.short_looks >= _SHORT_LOOKS:
            return False
        state.short_looks += 1
        than = f"it says that it has {stated}" if frames < stated else f"others have {usual}"
        state.reason = f"has {frames} frames where {than}; it may still be written"
        return True
