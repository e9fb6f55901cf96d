"""One writer: the process that holds a project's lease.

The lease is an advisory lock on a file, which the system takes back when its holder dies in whatever way. The file's content says who holds it,
for people and for workers on other hosts, and its time is set anew again and again while the lease is held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from beamside.errors import ProjectBusyError, ProjectError

LOCK_ATTEMPTS = 10

BEAT_SECONDS = 15.0
"""How often the holder sets the file's time."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    pid: int
    host: str
    since: float


class Lease:
    """Hold the right to write to a project.

    Raises ProjectBusyError when another process has it, and ProjectError when nobody can have it here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ProjectError(
                f"The project {path.parent.parent} cannot be written ({error.strerror}): ask the one whose it is, "
                "or check the permissions and the disk."
            ) from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            holder = _read_holder(self._descriptor)
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise ProjectError(
                    f"{path} cannot be locked: {error.strerror}; the file system must support file locks."
                ) from error
            who = f"process {holder.pid} on {holder.host}" if holder else "another process"
            raise ProjectBusyError(
                f"The project {path.parent.parent} is being written by {who}; stop that session first."
            ) from error
        content = json.dumps(asdict(Holder(os.getpid(), socket.gethostname(), time.time()))).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, content, 0)
        self._released = threading.Event()
        self._beating = threading.Lock()
        threading.Thread(target=self._beat, name="lease", daemon=True).start()

    def release(self) -> None:
        """Give the lease back."""
        self._released.set()
        with self._beating:
            if self._descriptor >= 0:
                os.ftruncate(self._descriptor, 0)
                os.close(self._descriptor)
                self._descriptor = -1

    def beat(self) -> None:
        """Set the file's time, by which other hosts see that the holder lives."""
        with self._beating, contextlib.suppress(OSError):  # of a server that does not answer now
            if self._descriptor >= 0:
                os.utime(self._descriptor)

    def _beat(self) -> None:
        while not self._released.wait(BEAT_SECONDS):
            self.beat()


def current_holder(path: Path) -> Holder | None:
    """Return who holds the lease `path` now, or None; works from any process and takes nothing.

    Where files cannot be locked nobody can have it, and what a visitor may not read has to be taken as not held.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        return _read_holder(descriptor) or Holder(0, "unknown", 0.0)
    finally:
        os.close(descriptor)
    return None


def _lock(descriptor: int) -> None:
    """Take the lock; a process that only looks who has it holds it for an instant, so one refusal says nothing."""
    for _ in range(LOCK_ATTEMPTS - 1):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        time.sleep(0.02)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_holder(descriptor: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None
