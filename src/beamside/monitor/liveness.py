"""Whether a session is really at work: its own word in the live file, how old that is, and what the system says of its process."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beamside.monitor.report_text import duration
from beamside.project.lease import Holder
from beamside.project.records import SESSION_ENDS

SILENT_SECONDS = 120.0
"""A session writes its live file every second or so. When it has not for so long, it does not answer, whatever it said last."""

STARTING_SECONDS = 300.0
"""How long a session may take until it writes its live file: it may first wait for RELION's lock."""

ENDED = (*SESSION_ENDS, "new")
NOT_RESPONDING = "not responding"


def session_state(
    live: Mapping[str, Any], holder: Holder | None, ended: str, *, live_age: float, held_for: float
) -> tuple[str, str]:
    """Return the state of a session, and a sentence when something is wrong with its process.

    Parameters
    ----------
    live : content of the live file, perhaps that of an earlier process
    holder : the process that holds the project's lease now
    ended : the newest state in the journal
    live_age, held_for : seconds since the live file was written, and since the lease was taken
    """
    if holder is None:
        return (ended, "") if ended in ENDED else ("dead", "")
    said = str(live.get("state", "starting"))
    of_this_process = (live.get("pid"), live.get("host")) == (holder.pid, holder.host)
    if said in ENDED and of_this_process:
        return said, ""  # it writes its last report
    silent = live_age if of_this_process else held_for
    where = f"Process {holder.pid} on {holder.host}"
    if holder.host == socket.gethostname() and is_suspended(holder.pid):
        return NOT_RESPONDING, (
            f"{where} has been suspended, as Ctrl-Z or SIGSTOP do it, for {duration(silent)}: `kill -CONT {holder.pid}` lets it go on."
        )
    if silent < (SILENT_SECONDS if of_this_process else STARTING_SECONDS):
        return (said, "") if of_this_process else ("starting", "")
    return NOT_RESPONDING, (
        f"{where} has given no sign of life for {duration(silent)}. If that machine is down, or the process hangs, end it "
        f"(`kill -9 {holder.pid}` there) and type `beamside session resume`; nothing is lost."
    )


def is_suspended(pid: int) -> bool:
    """Tell whether a process of this machine is stopped by a signal or a debugger."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return bool(fields) and fields[0] in "Tt" and pid != os.getpid()
