"""What is computed again at the moment, and why."""

from __future__ import annotations

from collections import Counter

from beamside.acquisition.reports import Trouble
from beamside.flow.stages import Stage

AGAIN = "again:"
"""How the keys of what is told here begin."""


class DoneAgain:
    """The results that are being made again, by stage, with the reason. `changed` says that there is news since it was last told.

    What is finished counts until all is: a stage that gets its inputs one by one is told once, and not with each of them.
    """

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], str] = {}
        self._open: Counter[tuple[str, str]] = Counter()
        self._all: Counter[tuple[str, str]] = Counter()
        self.changed = False

    def add(self, stage: Stage, item: str, reason: str) -> None:
        """A result that was there begins to be made again. What a gate holds back is not, until it opens."""
        entry = stage.entry(item)
        if entry is None or entry.result is None or stage.is_held_back(item):
            return
        title = stage.title
        self._take_out(title, item)
        self._reasons[title, item] = reason
        self._open[title, reason] += 1
        self._all[title, reason] += 1
        self.changed = True

    def leave(self, stage: Stage, item: str) -> None:
        """The item is not made again for now: a gate holds it back."""
        if self._take_out(stage.title, item):
            self._clear_at_the_end()

    def discard(self, stage: Stage, item: str) -> None:
        """The item has an outcome."""
        title = stage.title
        reason = self._reasons.pop((title, item), None)
        if reason is None:
            return
        self._open[title, reason] -= 1
        self._clear_at_the_end()

    def _take_out(self, title: str, item: str) -> bool:
        reason = self._reasons.pop((title, item), None)
        if reason is not None:
            self._open[title, reason] -= 1
            self._all[title, reason] -= 1
        return reason is not None

    def _clear_at_the_end(self) -> None:
        self.changed = True
        if not self._reasons:
            self._open.clear()
            self._all.clear()

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def troubles(self) -> list[Trouble]:
        """Return what is to be told of them."""
        return [
            Trouble(f"{AGAIN}{title}:{reason}", _sentence(title, reason, number, self._open[title, reason]), "info")
            for (title, reason), number in self._all.items()
            if number > 0
        ]


def _sentence(title: str, reason: str, number: int, still: int) -> str:
    results = f"{number} {'result' if number == 1 else 'results'}"
    if not still:
        return f"{title}: {results} {'was' if number == 1 else 'were'} computed again ({reason})."
    done = f"; {number - still} of them done" if still < number else ""
    return f"{title}: {results} {'is' if number == 1 else 'are'} computed again ({reason}){done}."
