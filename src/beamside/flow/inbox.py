"""The inbox as the holder of the lease works it: every command gets an outcome, also those that come when a session begins or ends."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from functools import partial

from beamside.errors import BeamsideError, JournalError, in_words
from beamside.flow.commands import ForHolder, ForSession, Stop
from beamside.flow.control import ASIDE, Kind, Message, receive, strangers
from beamside.formats.printable import printable
from beamside.project.project import ProjectWriter

log = logging.getLogger(__name__)

DoInSession = Callable[[ForSession | ForHolder, str], str]
"""Carries a command out for a person and says what that means; raises BeamsideError when it cannot."""

Do = Callable[[ForHolder, str], str]
"""The same where no session runs."""


class Inbox:
    """The commands of a project. Only the thread that has the lease uses it."""

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
            elif not isinstance(message.command, ForSession):
                continue
            elif message.command.left == "done":
                self._answer(message, "done", "The session was started again.")
            elif message.command.left == "ended" or (message.command.left == "kept if unfinished" and not unfinished):
                self._answer(
                    message, "ended", "The session ended before this reached it, and was started again to work."
                )

    def left(self, messages: Iterable[Message]) -> list[Message]:
        """Return those of `messages` that have no outcome yet."""
        return [message for message in messages if message.id not in self.writer.state.commands]

    def work(self, do: DoInSession) -> None:
        """Carry out what waits, oldest first, up to a stop; whatever a command raises is its answer."""
        self._put_aside()
        for message in receive(self.project):
            if self._answered(message):
                continue
            command = message.command
            if command is not None:
                self._carry_out(message, partial(do, command, message.who))
            if isinstance(command, Stop):
                return

    def work_without_session(self, do: Do) -> None:
        """Carry out what waits and needs no session, oldest first. What is about a session stays for the next one."""
        self._put_aside()
        for message in receive(self.project):
            command = message.command
            if not self._answered(message) and isinstance(command, ForHolder):
                self._carry_out(message, partial(do, command, message.who))

    def close(self, state: str, do: DoInSession) -> None:
        """The session ends: answer what is about it, carry out what belongs to its end, and leave the rest to the next holder of the lease."""
        for message in receive(self.project):
            command = message.command
            if self._answered(message) or command is None:
                continue
            if isinstance(command, ForHolder):
                if command.at_end:
                    self._carry_out(message, partial(do, command, message.who))
            elif command.met_by_end:
                self._answer(message, "done", f"The session has {state} already.")
            elif command.left != "kept":
                self._answer(message, "ended", "The session ended before this reached it.")

    def _answered(self, message: Message) -> bool:
        """Tell whether nothing is to be done for a message any more; one that is not understood is refused."""
        if message.id in self.writer.state.commands:  # a session died between doing and removing
            self._remove(message)
            return True
        if message.command is None:
            self._answer(message, "refused", message.refusal)
            return True
        return False

    def _carry_out(self, message: Message, do: Callable[[], str]) -> None:
        try:
            sentence = do()
        except JournalError:
            raise
        except BeamsideError as error:
            self._answer(message, "refused", str(error))
        except Exception as error:
            log.exception("the command %s could not be carried out", message.name)
            self._answer(message, "refused", in_words(error))
        else:
            self._answer(message, "done", sentence)

    def _answer(self, message: Message, outcome: Kind, sentence: str) -> None:
        log.info("asked to %s: %s (%s)", printable(message.name), outcome, printable(sentence))
        self.writer.command(message.id, message.name, message.fields, outcome, sentence, who=message.who)
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
