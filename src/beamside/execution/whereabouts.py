"""Workers tell when they begin with a task and when they end it, and where they are; the session reads it.

Each worker process has a file of its own, to which it adds a line, so that nothing but a common file system is needed. The file is opened anew for
each line: that is when a network file system shows it to others. What cannot be written (a full disk) is left out, and what is half written, damaged,
or of a task that is over is passed over: the session then knows less of where its tasks are, and nothing else is lost. No worker's clock is asked.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

SUFFIX = ".jsonl"
LOOK_BYTES = 1 << 18
"""So much of a file is read in one look; what is more follows in the next."""


@dataclass(frozen=True)
class Where:
    """A worker: host, process, and what it computes on ("cpu", or the card)."""

    host: str
    pid: int
    device: str = "cpu"

    def text(self) -> str:
        """Return it in words."""
        return f"process {self.pid} on {self.host}, {self.device}"


@dataclass(frozen=True)
class TaskName:
    """The identity of a task: its job, its item or round, and how often that was given out."""

    job: str
    item: str
    number: int


@dataclass(frozen=True)
class Said:
    """A worker began with a task or, unless `begins`, ended it."""

    task: TaskName
    where: Where
    begins: bool


@cache
def _host() -> str:
    return socket.gethostname()


def here(device: str = "cpu") -> Where:
    """Return where this process is."""
    return Where(_host(), os.getpid(), device)


def say(folder: Path, task: TaskName, where: Where, *, begins: bool) -> None:
    """Add to this process's file in `folder` that it begins with a task, or has ended it. Nothing is raised when it cannot be written."""
    said = {"begins": begins, "job": task.job, "item": task.item, "task": task.number, **asdict(where)}
    # The line break before it ends what a full disk has cut short.
    line = f"\n{json.dumps(said)}\n".encode()
    path = folder / f"{where.host.replace('/', '-')}-{where.pid}{SUFFIX}"
    with suppress(OSError):
        try:
            _append(path, line)
        except FileNotFoundError:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            _append(path, line)


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


@contextmanager
def telling(folder: str, task: TaskName, where: Where) -> Iterator[None]:
    """Tell in `folder`, unless it is "", that a task begins, and that it has ended, however it ends."""
    if not folder:
        yield
        return
    say(Path(folder), task, where, begins=True)
    try:
        yield
    finally:
        say(Path(folder), task, where, begins=False)


class Listener:
    """The session's side: what workers have said since it was asked last."""

    def __init__(self, folder: Path) -> None:
        """Listen in `folder`; what the workers of an earlier session have left there is removed."""
        self.folder = folder
        self._read: dict[str, tuple[int, int]] = {}
        for path in self._files():
            with suppress(OSError):
                path.unlink()

    def news(self) -> list[Said]:
        """Return what is new, of each worker in the order in which it was said."""
        return [said for path in self._files() for line in self._new_lines(path) if (said := _said(line)) is not None]

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == SUFFIX)
        except OSError:
            return []

    def _new_lines(self, path: Path) -> list[bytes]:
        try:
            # What is no plain file would hold the session up.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as stream:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    return []
                file, offset = self._read.get(path.name, (status.st_ino, 0))
                if file != status.st_ino or offset > status.st_size:
                    offset = 0  # another file of that name
                stream.seek(offset)
                data = stream.read(LOOK_BYTES)
        except OSError:
            return []
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == LOOK_BYTES:
            whole = LOOK_BYTES  # no worker writes such a line
        self._read[path.name] = status.st_ino, offset + whole
        return data[:whole].split(b"\n")


def _said(line: bytes) -> Said | None:
    """Return what a line says; None for one that says nothing."""
    try:
        found = json.loads(line)
        task = TaskName(str(found["job"]), str(found["item"]), int(found["task"]))
        return Said(task, Where(str(found["host"]), int(found["pid"]), str(found["device"])), bool(found["begins"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
