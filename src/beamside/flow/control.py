"""Asking a running session to do something: small files in its inbox, each with an id, and an outcome in the journal.

A file appears by an atomic rename, and the session removes it only after the outcome is in the journal. So a command is neither half read nor lost,
and when a session dies between doing and removing, the next one knows from the journal that it was done. Who asked can wait for the outcome.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from beamside.errors import ProjectError
from beamside.formats.atomic import replace_file
from beamside.project.guard import guard, is_trusted
from beamside.project.journal import read_journal
from beamside.project.project import Project

Command = Literal["pause", "resume", "finish", "stop", "report", "retry", "gain", "recompute"]
"""pause: start nothing new; resume: go on; finish: process all that is there, then end; stop: end now; report: write the
report now; retry: try failed items again; recompute: compute results again as the details say; gain: use the gain reference as the details say."""

Kind = Literal["done", "refused", "ended"]
"""done: it was carried out; refused: it cannot be, and the sentence says why; ended: the session ended before it was."""

ASIDE = "not-commands"
"""Folder in the inbox for what was found there and is no command."""

ANSWER_SECONDS = 15.0
"""How long somebody who asked waits for the outcome. A session looks twice a second, and is at times busy for a few."""


@dataclass(frozen=True)
class Message:
    """A command that is waiting in the inbox."""

    command: Command
    path: Path
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What tells it from all other commands."""
        return self.path.stem


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    kind: Kind
    sentence: str


def send(project: Project, command: Command, details: Mapping[str, Any] | None = None) -> str:
    """Put `command` with its `details` into the session's inbox; return its id.

    Raises ProjectError when the inbox cannot be written, or is another user's.
    """
    content = json.dumps({"command": command, "details": dict(details or {})}).encode()
    try:
        guard(project)
        # Commands are taken in the order of their names, so a number tells it, and no clock.
        last = max((_number(path) for path in _entries(project)), default=0)
        name = f"{last + 1:020d}-{uuid.uuid4().hex[:12]}"
        replace_file(project.inbox / f"{name}.json", content)
    except OSError as error:
        raise ProjectError(
            f"The session {project.root} cannot be told anything: its inbox {project.inbox} cannot be written ({error.strerror}); "
            "ask the one who started it, or check its permissions and the disk."
        ) from error
    return name


def receive(project: Project) -> list[Message]:
    """Return the waiting commands, oldest first."""
    return [found for path in _entries(project) if isinstance(found := read_message(path), Message)]


def strangers(project: Project) -> list[tuple[Path, str]]:
    """Return what is in the inbox and is no command, each with the reason."""
    return [(path, found) for path in _entries(project) if isinstance(found := read_message(path), str)]


def read_message(path: Path) -> Message | str | None:
    """Return the command in a file; of one that is none, why; None when it has gone in the meantime."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    except (ValueError, RecursionError) as error:
        return f"it is not JSON ({error})"
    if not is_trusted(path):
        return "it is not from the user whose session this is"
    command = content.get("command") if isinstance(content, dict) else None
    details = content.get("details", {}) if isinstance(content, dict) else None
    if path.suffix != ".json" or command not in get_args(Command) or not isinstance(details, dict):
        return f"it names none of the commands {', '.join(get_args(Command))}"
    return Message(command, path, details)  # type: ignore[arg-type]


def withdraw(project: Project, identity: str) -> bool:
    """Take a command back that no session has taken; returns False when one has."""
    try:
        (project.inbox / f"{identity}.json").unlink()
    except FileNotFoundError:
        return False
    return True


def ask(
    project: Project,
    command: Command,
    details: Mapping[str, Any] | None = None,
    *,
    seconds: float = ANSWER_SECONDS,
    pause: Callable[[float], object] = time.sleep,
) -> Outcome | None:
    """Send a command and wait for its outcome; None when there is none after so many seconds: then the command still waits in the inbox.

    When the session ends without having seen it, the command is taken back, and the outcome says so.
    """
    journal = project.project_journal
    offset = journal.stat().st_size if journal.exists() else 0
    identity = send(project, command, details)
    deadline = time.monotonic() + seconds
    while True:
        runs = project.writer_process() is not None
        if outcome := recorded(project, identity, offset):
            return outcome
        if not runs and withdraw(project, identity):
            return Outcome("ended", "The session ended before this reached it.")
        if time.monotonic() > deadline:
            return None
        pause(0.1)


def recorded(project: Project, identity: str, offset: int = 0) -> Outcome | None:
    """Return the outcome of a command that the journal has behind `offset`, or None."""
    for record, _ in read_journal(project.project_journal, offset, lambda _damage: None):
        if record.get("event") == "command" and record.get("id") == identity:
            return Outcome(record["outcome"], record["sentence"])
    return None


def _entries(project: Project) -> Iterable[Path]:
    """Return what is in the inbox, in order; hidden files are still being written."""
    if not project.inbox.is_dir():
        return []
    return sorted(path for path in project.inbox.iterdir() if not path.name.startswith(".") and path.name != ASIDE)


def _number(path: Path) -> int:
    digits = path.name.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else 0
