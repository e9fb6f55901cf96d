"""Names of files that are still being written, and removing those whose writer was killed.

Such a file names its process and where that runs, so that one in use is never taken for a left-over: processes are looked up only where they can be
seen. Of other machines, and of versions that did not say where, what has not changed for days by the file system's own clock counts as abandoned.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

LONGEST_FILE_NAME = 255
"""Bytes that a file system takes as a name."""

FOREIGN_SECONDS = 7 * 86400.0
"""After so long without a change, the file of a process that cannot be seen from here counts as abandoned."""

_TEMPORARY = re.compile(r"^\..*\.(?:(?P<place>[0-9a-f]{8})-)?(?P<pid>\d+)-\d+\.tmp$", re.DOTALL)


@functools.cache
def this_place() -> str:
    """Return a mark of the set of processes that can be seen from here: a machine, or a container with processes of its own."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def temporary_name(name: str) -> str:
    """Return the hidden name under which this thread writes what becomes `name`; long names are shortened to fit."""
    ending = f".{this_place()}-{os.getpid()}-{threading.get_ident()}.tmp"
    room = LONGEST_FILE_NAME - len(ending) - 1
    encoded = os.fsencode(name)
    if len(encoded) > room:
        mark = hashlib.sha256(encoded).hexdigest()[:8]
        name = os.fsdecode(encoded[: room - 9]) + f"~{mark}"
    return f".{name}{ending}"


def left_over(name: str, age_seconds: Callable[[], float]) -> bool:
    """Tell whether `name` is that of a file whose writer is gone; `age_seconds` says how long it has not changed."""
    match = _TEMPORARY.match(name)
    if match is None:
        return False
    if match["place"] == this_place():
        return not is_alive(int(match["pid"]))
    return not (match["place"] is None and is_alive(int(match["pid"]))) and age_seconds() > FOREIGN_SECONDS


def is_alive(pid: int) -> bool:
    """Tell whether there is a process of that number; one of another user counts."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def sweep(root: Path, *, skip: tuple[str, ...] = ()) -> list[Path]:
    """Remove the left-over temporary files below `root`; return which. What cannot be looked at or removed is left alone.

    Parameters
    ----------
    skip : names of folders in `root` that are not entered
    """
    removed = []
    for path in _temporaries(root, skip):
        try:
            if left_over(path.name, functools.partial(_age, path)):
                path.unlink()
                removed.append(path)
        except OSError:
            continue
    return removed


def _temporaries(root: Path, skip: tuple[str, ...]) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:
            folders[:] = [name for name in folders if name not in skip]
        yield from (Path(folder, name) for name in files if name.startswith(".") and name.endswith(".tmp"))


def _age(path: Path) -> float:
    """Return how long a file has not changed, by the clock of its file system: that of a file which is made now beside it."""
    probe = path.with_name(temporary_name("age"))
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
