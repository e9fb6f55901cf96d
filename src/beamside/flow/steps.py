"""The steps of the session's loop: what goes wrong in one is told, tried again, and never ends the loop.

A session works for days on files that nobody has seen before. An odd one must not stop the others, and neither must a disk that is full for a moment
or a mistake of the program. Only what concerns the project itself ends the session: a journal that cannot be written and workers that are given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from beamside.errors import JournalError, in_words
from beamside.execution.executors import WorkersLostError
from beamside.flow.problems import Problems

log = logging.getLogger(__name__)

Value = TypeVar("Value")

ENDING = (JournalError, WorkersLostError)
"""What ends a session."""


class Steps:
    """Runs steps for a session, and keeps what went wrong in each as a problem that is open as long as the step fails."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._failed: dict[str, str] = {}

    def run(self, what: str, step: Callable[[], Value], instead: Value) -> Value:
        """Return what `step` returns, or `instead` when it raises; `what` names it for people: "the search for finished items"."""
        try:
            found = step()
        except ENDING:
            raise
        except Exception as error:
            self.failed(what, error)
            return instead
        if self._failed.pop(what, None) is not None:
            self._problems.close(_key(what))
        return found

    def failed(self, what: str, error: Exception) -> None:
        """Tell that something went wrong in `what`; the place of a new error goes to the log."""
        said = in_words(error)
        if self._failed.get(what) != said:
            self._failed[what] = said
            log.error("%s went wrong", what, exc_info=error)
            sentence = f"Something went wrong in {what} ({said}). The session goes on and tries it again; its log has the details."
            self._problems.open(_key(what), sentence, "error")


def _key(what: str) -> str:
    return f"step:{what}"
