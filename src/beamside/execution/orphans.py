"""Workers end when their session is gone, however it went."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import psutil

_INTERVAL = 1.0
_watched: set[int] = set()


def end_with_session(pid: int, created: float) -> None:
    """End this process, from a thread, once the session process `pid` that began at `created` is no longer there.

    A new process may get the same number, so the time at which it began counts too. A worker also ends when its pool is gone: what it does then
    reaches nobody, and another worker may already do the same.
    """
    if pid in _watched or pid == os.getpid():
        return
    _watched.add(pid)
    threading.Thread(target=_watch, args=(pid, created), daemon=True, name="session-watch").start()


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


def _end_pool(session: int) -> None:
    """End this worker and what its pool, which is gone, has left behind: all of them are in one process group, which is not the session's."""
    if "PARSL_WORKER_RANK" in os.environ:
        with contextlib.suppress(ProcessLookupError):
            if os.getpgrp() != os.getpgid(session):
                os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _watch(pid: int, created: float) -> None:
    parent = os.getppid()
    while abs(process_created(pid) - created) < 1.0:
        if os.getppid() != parent:
            _end_pool(pid)
        time.sleep(_INTERVAL)
    if "PARSL_WORKER_RANK" in os.environ:
        # The pool that started this worker would start another one in its place, and leaves helpers of its own behind when it is killed.
        with contextlib.suppress(psutil.Error):
            pool = psutil.Process(os.getppid())
            for process in (pool, *pool.children(recursive=True)):
                if process.pid != os.getpid():
                    process.kill()
    os._exit(1)
