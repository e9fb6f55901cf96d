"""Workers end when their session is gone, however it went.

Everything that a session starts for its workers (the interchange, the pool, the workers and the pool's own helper) watches the session process from
its first moment on: one that was killed while a pool still started would otherwise leave workers that never learn of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil

_INTERVAL = 1.0
_SESSION, _GROUP = "BEAMSIDE_POOL_SESSION", "BEAMSIDE_POOL_GROUP"
_watched: set[int] = set()
_helpers: list[int] = []


def end_with_session(pid: int, created: float) -> None:
    """End this process, now or from a thread, once the session process `pid` that began at `created` is no longer there.

    A new process may get the same number, so the time at which it began counts too. A process also ends when the one that started it is gone, and
    the pool when its helper is: without them nothing that it does reaches anybody. With any of a pool's processes its whole group ends.
    """
    if pid in _watched or pid == os.getpid():
        return
    _watched.add(pid)
    parent = os.getppid()
    if not _is_there(pid, created):
        _end()
    threading.Thread(target=_watch, args=(pid, created, parent), daemon=True, name="session-watch").start()


def begin_pool(pid: int, created: float) -> None:
    """Make this process, a pool of workers of the session process `pid`, and all that it starts end with that session."""
    with contextlib.suppress(ProcessLookupError):
        if os.getpgrp() != os.getpgid(pid):
            os.environ[_GROUP] = str(os.getpgrp())
    os.environ[_SESSION] = f"{pid} {created}"
    end_with_session(pid, created)


class WatchedProcess(SpawnProcess):
    """A process of a pool, which watches the session from its first moment on."""

    def start(self) -> None:
        """Start it; the pool's helper, which keeps what the workers share, is watched in turn."""
        super().start()
        if self.name.startswith("SyncManager") and self.pid is not None:
            _helpers.append(self.pid)

    def run(self) -> None:
        """Watch, and do its work."""
        pid, created = os.environ[_SESSION].split()
        end_with_session(int(pid), float(created))
        super().run()


def process_created(pid: int) -> float:
    """Return when the process `pid` began, in seconds; 0 when there is none, or only what its parent has not yet been told of its end.

    On Linux the seconds count from the start of the machine, so that setting the clock never makes a living process look like another one.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0 if Path("/proc/self/stat").exists() else _created_by_clock(pid)
    return 0.0 if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _created_by_clock(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _is_there(pid: int, created: float) -> bool:
    return abs(process_created(pid) - created) < 1.0


def _watch(pid: int, created: float, parent: int) -> None:
    while _is_there(pid, created) and os.getppid() == parent and all(process_created(helper) for helper in _helpers):
        time.sleep(_INTERVAL)
    _end()


def _end(leave: Callable[[int], object] = os._exit) -> None:
    """End this process; of a pool all that is in its process group, which is not the session's."""
    group = os.environ.get(_GROUP)
    if group and int(group) == os.getpgrp():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgrp(), signal.SIGKILL)
    leave(1)
