"""What is computed again at the moment, and why."""

from __future__ import annotations

from collections import Counter

from beamside.acquisition.arrivals import Trouble
from beamside.flow.stages import Stage

AGAIN = "again:"
"""How the keys of what is told here begin."""


class DoneAgain:
    """The results that are being made again, by stage, with the reason. `changed` says that there is news since it was last told."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], str] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self.changed = False

    def add(self, stage: Stage, item: str, reason: str) -> None:
        """A result that was there begins to be made again."""
        entry = stage.entry(item)
        if entry is None or entry.result is None:
            return
        self.discard(stage, item)
        title = stage.job_type.title
        self._reasons[title, item] = reason
        self._counts[title, reason] += 1
        self.changed = True

    def discard(self, stage: Stage, item: str) -> None:
        """The item has an outcome."""
        title = stage.job_type.title
        reason = self._reasons.pop((title, item), None)
        if reason is not None:
            self._counts[title, reason] -= 1
            self.changed = True

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def troubles(self) -> list[Trouble]:
        """Return what is to be told of them."""
        return [
            Trouble(
                f"{AGAIN}{title}:{reason}",
                f"{title}: {number} {'result is' if number == 1 else 'results are'} computed again ({reason}).",
                "info",
            )
            for (title, reason), number in self._counts.items()
            if number > 0
        ]
