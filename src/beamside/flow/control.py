"""Asking a running session to do something: small files in its inbox, taken in order.

A file appears by an atomic rename, and the session removes it only after the command is in the journal, so a command is neither half read nor lost.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from beamside.project.project import Project

Command = Literal["pause", "resume", "finish", "stop", "report", "retry", "gain", "recompute"]
"""pause: start nothing new; resume: go on; finish: process all that is there, then end; stop: end now; report: write the
report now; retry: try failed items again; recompute: compute results again as the details say; gain: use the gain reference as the details say."""


@dataclass(frozen=True)
class Message:
    """A command that is waiting in the inbox."""

    command: Command
    path: Path
    details: Mapping[str, Any] = field(default_factory=dict)


def send(project: Project, command: Command, details: Mapping[str, Any] | None = None) -> None:
    """Put `command` with its `details` into the session's inbox."""
    project.inbox.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{os.getpid()}-{command}.json"
    temporary = project.inbox / f".{name}"
    temporary.write_text(json.dumps({"command": command, "details": dict(details or {})}))
    temporary.rename(project.inbox / name)


def receive(project: Project) -> list[Message]:
    """Return the waiting commands, oldest first; files that are not commands are removed."""
    if not project.inbox.is_dir():
        return []
    messages = []
    for path in sorted(project.inbox.glob("[!.]*.json")):
        command = path.stem.rsplit("-", 1)[-1]
        if command in get_args(Command):
            messages.append(Message(command, path, _details(path)))  # type: ignore[arg-type]
        else:
            path.unlink(missing_ok=True)
    return messages


def _details(path: Path) -> dict[str, Any]:
    """Return the details of a command; of a file that is not one of ours, none."""
    try:
        found = json.loads(path.read_text())["details"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
