"""The inbox as files: each is a command that waits, with an id; its outcome goes to the journal.

A file appears by an atomic rename, and who carries it out removes it only after the outcome is in the journal. So a command is neither half read nor
lost, and when a session dies between doing and removing, the next one knows from the journal that it was done.
"""

from __future__ import annotations

import getpass
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from beamside.errors import ConfigError, ProjectError
from beamside.flow.commands import ForHolder, ForSession, command_of, fields_of
from beamside.formats.atomic import replace_file
from beamside.project.guard import guard, is_trusted
from beamside.project.journal import read_journal
from beamside.project.lease import Lease
from beamside.project.project import Project

Kind = Literal["done", "refused", "ended"]
"""done: it was carried out; refused: it cannot be, and the sentence says why; ended: the session ended before it was."""

ASIDE = "not-commands"
"""Folder in the inbox for what was found there and is no command."""


@dataclass(frozen=True)
class Message:
    """A command that waits in the inbox, as it stands in its file.

    Attributes
    ----------
    command : what it is by the declarations; None when there is no such command, or its fields are wrong: then `refusal` says so
    who : the account of the one who asks; "" in files of earlier versions
    """

    name: str
    path: Path
    fields: Mapping[str, Any] = field(default_factory=dict)
    who: str = ""
    command: ForSession | ForHolder | None = None
    refusal: str = ""

    @property
    def id(self) -> str:
        """What tells it from all other commands."""
        return self.path.stem


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    kind: Kind
    sentence: str


def account() -> str:
    """Return the name of the account that runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a service without a name
        return f"uid {os.getuid()}"


def send(project: Project, name: str, fields: Mapping[str, Any] | None = None) -> str:
    """Put a command into the inbox; return its id.

    Raises ConfigError for one that is not declared so, and ProjectError when the inbox cannot be written, or is another user's.
    """
    command = command_of(name, fields or {})
    content = json.dumps({"command": name, "details": fields_of(command), "who": account()}).encode()
    try:
        guard(project)
        # Commands are taken in the order of their names, so a number tells it, and no clock.
        last = max((_number(path) for path in _entries(project)), default=0)
        identity = f"{last + 1:020d}-{uuid.uuid4().hex[:12]}"
        replace_file(project.inbox / f"{identity}.json", content)
    except OSError as error:
        raise ProjectError(
            f"The session {project.root} cannot be told anything: its inbox {project.inbox} cannot be written ({error.strerror}); "
            "ask the one who started it, or check its permissions and the disk."
        ) from error
    return identity


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
    if path.suffix != ".json" or not isinstance(content, dict) or not isinstance(content.get("command"), str):
        return "it names no command"
    return _understood(path, content)


def _understood(path: Path, content: Mapping[str, Any]) -> Message:
    """Return the command that a file's content says; the first version wrote no details, and none of the first ones who asked."""
    name, fields, who = content["command"], content.get("details", {}), content.get("who", "")
    who = who if isinstance(who, str) else ""
    if not isinstance(fields, dict):
        return Message(name, path, {}, who, refusal=f"The details of the command {name!r} are no fields with values.")
    try:
        return Message(name, path, fields, who, command_of(name, fields))
    except ConfigError as error:
        return Message(name, path, fields, who, refusal=str(error))


def withdraw(project: Project, identity: str, offset: int = 0) -> bool:
    """Take a command back that nobody has taken; returns False when somebody has: then the journal says so behind `offset`.

    Raises ProjectBusyError when a session runs.
    """
    lease = Lease(project.lease_path)  # nobody carries it out at the same moment
    try:
        if recorded(project, identity, offset):
            return False
        (project.inbox / f"{identity}.json").unlink()
    except FileNotFoundError:
        return False
    finally:
        lease.release()
    return True


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
