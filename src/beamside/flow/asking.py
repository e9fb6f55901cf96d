"""Asking a project something and waiting for the answer, whether a session runs or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from beamside.errors import ProjectBusyError
from beamside.flow.caretaker import carry_out_waiting
from beamside.flow.commands import ForHolder, command_of
from beamside.flow.control import Outcome, recorded, send, withdraw
from beamside.project.project import Project

ANSWER_SECONDS = 15.0
"""How long somebody who asked waits for the outcome. A session looks twice a second, and is at times busy for a few."""


def ask(
    project: Project,
    name: str,
    fields: Mapping[str, Any] | None = None,
    *,
    seconds: float = ANSWER_SECONDS,
    pause: Callable[[float], object] = time.sleep,
) -> Outcome | None:
    """Send a command and wait for its outcome; None when there is none after so many seconds: then the command still waits in the inbox.

    When no session runs, what can be done without one is done here and now. What cannot is taken back, and the outcome says that the session has
    ended.
    """
    command = command_of(name, fields or {})
    journal = project.project_journal
    offset = journal.stat().st_size if journal.exists() else 0
    identity = send(project, name, fields)
    deadline = time.monotonic() + seconds
    while True:
        runs = project.writer_process() is not None
        if outcome := recorded(project, identity, offset):
            return outcome
        if not runs:
            try:
                if isinstance(command, ForHolder):
                    carry_out_waiting(project)
                elif withdraw(project, identity, offset):
                    return Outcome("ended", "The session ended before this reached it.")
                if outcome := recorded(project, identity, offset):
                    return outcome
            except ProjectBusyError:
                pass  # a session has begun at this moment, and answers
        if time.monotonic() > deadline:
            return None
        pause(0.1)
