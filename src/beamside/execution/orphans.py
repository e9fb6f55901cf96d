"""Workers end when their session is gone, however it went.

Everything that a session starts for its workers (the interchange, the pool, the workers and the pool's own helper) watches the session process from
its first moment on: one that was killed while a pool still started would otherwise leave workers that never learn of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil

_INTERVAL = 1.0
_SESSION, _GROUP = "BEAMSIDE_POOL_SESSION", "BEAMSIDE_POOL_GROUP"
STALE_SECONDS = 300.0
"""A lease that has shown no sign of life for so long, by this host's own clock, is that of a session that is gone. Waits of NFS are far shorter."""

_watched: set[tuple[str, int]] = set()
_helpers: list[int] = []


def session_mark(lease: Path) -> tuple[int, float, str, str, str]:
    """Return how workers know the session that this process is: what `end_with_session` takes."""
    pid = os.getpid()
    return pid, process_created(pid), socket.gethostname(), str(lease), _read_lease(lease)[0]


def end_with_session(pid: int, created: float, host: str = "", lease: str = "", content: str = "") -> None:
    """End this process, now or from a thread, once the session process `pid` that began at `created` is no longer there.

    On another host than the session's (`host`, "" for this one) its process cannot be seen: there the file `lease`, with `content` while the session
    holds it, tells.

    A new process may get the same number, so the time at which it began counts too. A process also ends when the one that started it is gone, and
    the pool when its helper is: without them nothing that it does reaches anybody. With any of a pool's processes its whole group ends.
    """
    here = host in ("", socket.gethostname())
    if (host, pid) in _watched or (here and pid == os.getpid()):
        return
    _watched.add((host, pid))
    parent = os.getppid()
    holds: Callable[[], bool] = partial(_is_there, pid, created)
    if not here:
        holds = LeaseWatch(Path(lease), content).holds
    if not holds():
        _end()
    threading.Thread(target=_watch, args=(holds, parent), daemon=True, name="session-watch").start()


@dataclass
class LeaseWatch:
    """What a worker on another host sees of its session: the lease's file, whose time the session sets anew again and again.

    Attributes
    ----------
    lease, content : the file, and what is in it while the session holds it
    clock : seconds of this host; its clock is never compared with that of the one that sets the file's time
    """

    lease: Path
    content: str
    clock: Callable[[], float] = time.monotonic
    _seen: tuple[str, int] = ("", 0)
    _since: float = field(default=-1.0)

    def holds(self) -> bool:
        """Tell whether the session is to be taken as alive.

        A lease of another session ends it, when it is seen twice: one look may come while the file is written. A lease that was given back, is gone,
        cannot be read, or is not set anew may be a fault of the network, and ends it after `STALE_SECONDS`.
        """
        seen, now = _read_lease(self.lease), self.clock()
        another = seen[0] not in ("", self.content)
        if another and self._seen[0] == seen[0]:
            return False
        beats = seen[0] == self.content and seen != self._seen
        if beats or self._since < 0:
            self._since = now
        self._seen = seen
        return now - self._since < STALE_SECONDS


def _read_lease(lease: Path) -> tuple[str, int]:
    """Return what is in the file of a lease, and its time. Opening it makes NFS ask the server."""
    try:
        with lease.open("rb") as stream:
            return stream.read(4096).decode(errors="replace"), os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return "", 0


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


def _watch(holds: Callable[[], bool], parent: int) -> None:
    while holds() and os.getppid() == parent and all(process_created(helper) for helper in _helpers):
        time.sleep(_INTERVAL)
    _end()


def _end(leave: Callable[[int], object] = os._exit) -> None:
    """End this process; of a pool all that is in its process group, which is not the session's."""
    group = os.environ.get(_GROUP)
    if group and int(group) == os.getpgrp():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgrp(), signal.SIGKILL)
    leave(1)
