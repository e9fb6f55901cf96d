"""RELION's lock around ``default_pipeline.star``, with what RELION's own lacks: knowing when its holder is dead.

The lock is the directory ``.relion_lock`` (made atomically, on network file systems too), with a message file in it. RELION's programs take the
same one, and leave it behind when they die. A lock is stale when

- its message says that Beamside took it on this computer, and that process is no more; or
- this process has seen the very same lock (inode and time of change) for two minutes, in one attempt or over several. RELION holds it for
  milliseconds and gives up waiting after two minutes itself. Only our own monotonic clock is used, never the file's age.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from beamside.errors import ProjectBusyError, ProjectError

LOCK_DIRECTORY = ".relion_lock"
MESSAGE_FILE = "lock_default_pipeline.star"

_log = logging.getLogger(__name__)

_Identity = tuple[int, int]

_first_seen: dict[Path, tuple[_Identity, float]] = {}
"""Per lock: the identity last seen, and when (monotonic seconds) this process saw it first; so that several short attempts add up."""


class RelionLock:
    """Hold RELION's lock: ``with RelionLock(root): ...``. Keep it for a read and a write of the pipeline only.

    Parameters
    ----------
    root : project directory
    wait : seconds to wait for another holder before ProjectBusyError is raised
    stale_after : seconds after which an unchanged lock of an unknown holder is taken to be left behind
    poll : seconds between attempts

    Raises
    ------
    ProjectBusyError : when another program holds the lock; trying again later is right
    ProjectError : when the directory cannot be written
    """

    def __init__(self, root: Path, *, wait: float = 10.0, stale_after: float = 120.0, poll: float = 0.05) -> None:
        self.path = Path(root).absolute() / LOCK_DIRECTORY
        self.wait = wait
        self.stale_after = stale_after
        self.poll = poll
        self._message = ""

    def __enter__(self) -> Self:
        limit = time.monotonic() + self.wait
        while not self._take():
            stale = self._stale()
            if stale:
                self._clear(stale)
            elif time.monotonic() >= limit:
                who = self._holder() or "a RELION program"
                raise ProjectBusyError(
                    f"RELION's lock {self.path} is held by {who}; if none is running, remove that directory."
                )
            else:
                time.sleep(self.poll)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder() == self._message:  # otherwise somebody took it for stale and has it now
            (self.path / MESSAGE_FILE).unlink(missing_ok=True)
            try:
                self.path.rmdir()
            except OSError as problem:
                _log.warning(
                    "RELION's lock %s could not be removed: %s; remove it when no RELION runs.", self.path, problem
                )

    def _take(self) -> bool:
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            return False
        except OSError as error:
            raise ProjectError(
                f"RELION's lock {self.path} cannot be made: {error.strerror}; make the project directory writable."
            ) from error
        _first_seen.pop(self.path, None)
        self._message = f"beamside {_this_process()} {uuid.uuid4().hex}"
        try:
            (self.path / MESSAGE_FILE).write_text(f"{self._message}\n")
        except OSError as error:
            shutil.rmtree(
                self.path, ignore_errors=True
            )  # on a full disk the file is there, and empty: nobody would know whose it is
            raise ProjectError(
                f"RELION's lock {self.path} cannot be written: {error.strerror}; make room on the disk."
            ) from error
        return True

    def _holder(self) -> str:
        try:
            return (self.path / MESSAGE_FILE).read_text(errors="replace").strip()
        except OSError:
            return ""

    def _stale(self) -> _Identity | None:
        """Return the identity of the present lock when it is stale, else None."""
        identity = _identity(self.path)
        if identity is None:
            return None
        if _is_dead(self._holder()):
            return identity
        seen, since = _first_seen.get(self.path, (None, 0.0))
        if seen != identity:
            _first_seen[self.path] = (identity, time.monotonic())
            return None
        return identity if time.monotonic() - since > self.stale_after else None

    def _clear(self, stale: _Identity) -> None:
        holder = self._holder()
        aside = self.path.with_name(f"{LOCK_DIRECTORY}.stale.{uuid.uuid4().hex[:12]}")
        try:
            os.rename(self.path, aside)
        except OSError:
            return  # another process cleared it first
        if _identity(aside) != stale and not self.path.exists():
            os.rename(aside, self.path)  # between looking and renaming, somebody cleared it and took a new one
            return
        shutil.rmtree(aside, ignore_errors=True)
        _first_seen.pop(self.path, None)
        _log.warning("Cleared RELION's lock %s, left behind by %s.", self.path, holder or "a RELION program")


def _identity(path: Path) -> _Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.2f}"


def _is_dead(message: str) -> bool:
    """Return True when `message` names a process of this computer that is no more (or whose number another process has now)."""
    fields = message.split()
    if len(fields) != 5 or fields[0] != "beamside" or fields[1] != socket.gethostname():
        return False
    try:
        started = float(psutil.Process(int(fields[2])).create_time())
        return abs(started - float(fields[3])) > 2
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.AccessDenied):
        return False
