"""Asking a running session to do something: small files in its inbox, taken in order.

A file appears by an atomic rename, and the session removes it only after the command is in the journal, so a command is neither half read nor lost.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from beamside.project.project import Project

Command = Literal["pause", "resume", "finish", "stop", "report", "retry"]
"""pause: start nothing new; resume: go on; finish: process all that is there, then end; stop: end now; report: write the
report now; retry: try failed items again."""


@dataclass(frozen=True)
class Message:
    """A command that is waiting in the inbox."""

    command: Command
    path: Path


def send(project: Project, command: Command) -> None:
    """Put `command` into the session's inbox."""
    project.inbox.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{os.getpid()}-{command}.json"
    temporary = project.inbox / f".{name}"
    temporary.write_text(json.dumps({"command": command}))
    temporary.rename(project.inbox / name)


def receive(project: Project) -> list[Message]:
    """Return the waiting commands, oldest first; files that are not commands are removed."""
    if not project.inbox.is_dir():
        return []
    messages = []
    for path in sorted(project.inbox.glob("[!.]*.json")):
        command = path.stem.rsplit("-", 1)[-1]
        if command in get_args(Command):
            messages.append(Message(command, path))  # type: ignore[arg-type]
        else:
            path.unlink(missing_ok=True)
    return messages
