"""What is remembered of each file at the source between two looks."""

from __future__ import annotations

from dataclasses import dataclass

from beamside.acquisition.reports import SetAside
from beamside.acquisition.scan import Sighting

_MAX_DELAY = 300.0
_DOUBTED_LOOKS = 3


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
    doubted : times it was found complete, but not as other evidence says that it should be
    last : what it looked like last
    """

    attempts: int = 0
    not_before: float = 0.0
    reason: str = ""
    offered: bool = False
    set_aside: Sighting | None = None
    passed_over: bool = False
    doubted: int = 0
    last: Sighting | None = None

    def see(self, sighting: Sighting) -> None:
        """Take in how the file looks now; a changed file gets a new chance."""
        if self.last is not None and self.last != sighting and not self.offered:
            self.attempts, self.not_before, self.set_aside, self.doubted = 0, 0.0, None, 0
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

    def doubt(self, reason: str, now: float, *, wait: float) -> bool:
        """Wait a little longer for a file that is complete by itself but looks unfinished; return False when that was done a few times."""
        if self.doubted >= _DOUBTED_LOOKS:
            return False
        self.doubted += 1
        self.reason = f"{reason}; it may still be written"
        self.not_before = now + wait * 2 ** (self.doubted - 1)
        return True
