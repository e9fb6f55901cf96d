"""The session's end of its inbox: every command gets an outcome, also those that come when a session begins or ends."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from beamside.errors import BeamsideError, JournalError
from beamside.flow.control import ASIDE, Command, Kind, Message, receive, strangers
from beamside.formats.printable import printable
from beamside.project.project import ProjectWriter

log = logging.getLogger(__name__)

Do = Callable[[Command, Mapping[str, Any]], str]
"""Carries a command out and says what that means; raises BeamsideError when it cannot."""

OF_THE_NEXT = frozenset({"gain", "retry", "report", "recompute"})
"""Commands that make sense whichever session gets them; the others are about the one that ran."""


class Inbox:
    """The commands of a session. Only the session's own thread uses it."""

    def __init__(self, writer: ProjectWriter) -> None:
        self.writer, self.project = writer, writer.project

    def begin(self, for_another: Iterable[Message], *, unfinished: bool) -> None:
        """Answer what was asked before this session began, and is not for it; the rest waits for `work`.

        Parameters
        ----------
        for_another : the commands that were there before
        unfinished : whether the session before neither finished nor was stopped; then what it was asked to finish is still to be finished
        """
        for message in for_another:
            if message.id in self.writer.state.commands:
                self._remove(message)
            elif message.command == "resume":
                self._answer(message, "done", "The session was started again.")
            elif message.command not in OF_THE_NEXT and not (message.command == "finish" and unfinished):
                self._answer(
                    message, "ended", "The session ended before this reached it, and was started again to work."
                )

    def left(self, messages: Iterable[Message]) -> list[Message]:
        """Return those of `messages` that have no outcome yet."""
        return [message for message in messages if message.id not in self.writer.state.commands]

    def work(self, do: Do) -> None:
        """Carry out what waits, oldest first, up to a stop; whatever a command raises is its answer."""
        self._put_aside()
        for message in receive(self.project):
            if message.id in self.writer.state.commands:  # a session died between doing and removing
                self._remove(message)
                continue
            self._carry_out(message, do)
            if message.command == "stop":
                return

    def close(self, state: str, do: Do) -> None:
        """The session ends: answer what is about it, carry out an answer about the gain reference, and leave the rest to the next one."""
        for message in receive(self.project):
            if message.command == "gain":
                self._carry_out(message, do)
            elif message.command in ("stop", "finish"):
                self._answer(message, "done", f"The session has {state} already.")
            elif message.command not in OF_THE_NEXT:
                self._answer(message, "ended", "The session ended before this reached it.")

    def _carry_out(self, message: Message, do: Do) -> None:
        try:
            self._answer(message, "done", do(message.command, message.details))
        except JournalError:
            raise
        except BeamsideError as error:
            self._answer(message, "refused", str(error))
        except Exception as error:
            log.exception("the command %s could not be carried out", message.command)
            self._answer(message, "refused", f"{type(error).__name__}: {error}")

    def _answer(self, message: Message, outcome: Kind, sentence: str) -> None:
        log.info("asked to %s: %s (%s)", message.command, outcome, sentence)
        self.writer.command(message.id, message.command, message.details, outcome, sentence)
        self._remove(message)

    def _remove(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # it is in the journal, so it is not carried out again
            message.path.unlink(missing_ok=True)

    def _put_aside(self) -> None:
        for path, why in strangers(self.project):
            aside = self.project.inbox / ASIDE
            try:
                aside.mkdir(exist_ok=True)
                os.replace(path, aside / path.name)
            except OSError as error:
                log.debug("%s cannot be put aside: %s", path, error)
                continue
            self.writer.note("warning", printable(f"{path} is no command: {why}. It was put into {aside}."))
            log.warning("%s is no command: %s; it was put into %s", path, why, aside)
