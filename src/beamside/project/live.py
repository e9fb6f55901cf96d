"""What a running session knows about this very moment, in one small file that is replaced every second.

The file says when it was written by two clocks: that of the wall, and the one that counts from the start of the machine and that nobody sets. On the
machine where the session runs the second tells how long ago it was; from elsewhere only the first can.

On a full disk there is no room for a new file: then the old one is written over, as far as the file system does that without new room.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from beamside.formats.atomic import atomic_path
from beamside.project.project import Project

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def live_path(project: Project) -> Path:
    """Return where the file is."""
    return project.private / "live.json"


def write_live(project: Project, content: dict[str, Any]) -> None:
    """Replace the file, with the process that wrote it, and when; it is not worth an fsync."""
    path = live_path(project)
    stamp = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "time": time.time(),
        "boot": boot(),
        "uptime": uptime(),
    }
    try:
        with atomic_path(path, durable=False) as temporary:
            temporary.write_text(json.dumps({**content, **stamp}))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        if not any(_write_over(path, json.dumps({**said, **stamp})) for said in (content, _shortest(content))):
            raise


def _shortest(content: dict[str, Any]) -> dict[str, Any]:
    return {"state": content.get("state", "")}


def _write_over(path: Path, text: str) -> bool:
    """Write `text` over what is in a file, in one piece, without making it longer; returns False when it does not fit."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        data, size = text.encode(), os.fstat(descriptor).st_size
        return len(data) <= size and os.pwrite(descriptor, data.ljust(size), 0) == size
    finally:
        os.close(descriptor)


def read_live(project: Project) -> dict[str, Any]:
    """Return its content; empty when there is none."""
    try:
        content = json.loads(live_path(project).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def age(live: dict[str, Any]) -> float:
    """Return how many seconds ago a live file was written."""
    if live.get("boot") == boot() and isinstance(live.get("uptime"), int | float):
        return max(0.0, uptime() - float(live["uptime"]))
    return max(0.0, time.time() - float(live.get("time", 0.0)))


def uptime() -> float:
    """Return the seconds since this machine was started, time asleep included."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return float(time.clock_gettime(clock))


def boot() -> str:
    """Return what names this start of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
