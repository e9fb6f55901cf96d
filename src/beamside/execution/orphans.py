"""Workers end when their session is gone, however it went."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import psutil

_INTERVAL = 1.0
_watched: set[int] = set()


def end_with_session(pid: int, created: float) -> None:
    """End this process, from a thread, once the session process `pid` that began at `created` is no longer there.

    A new process may get the same number, so the time at which it began counts too.
    """
    if pid in _watched or pid == os.getpid():
        return
    _watched.add(pid)
    threading.Thread(target=_watch, args=(pid, created), daemon=True, name="session-watch").start()


def process_created(pid: int) -> float:
    """Return when the process `pid` began, in seconds; 0 when there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def _watch(pid: int, created: float) -> None:
    while abs(process_created(pid) - created) < 1.0:
        time.sleep(_INTERVAL)
    if "PARSL_WORKER_RANK" in os.environ:
        # The pool that started this worker would start another one in its place, and leaves helpers of its own behind when it is killed.
        with contextlib.suppress(psutil.Error):
            pool = psutil.Process(os.getppid())
            for process in (pool, *pool.children(recursive=True)):
                if process.pid != os.getpid():
                    process.kill()
    os._exit(1)
