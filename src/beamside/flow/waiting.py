"""What a session waits for, in words: nobody should have to guess why nothing happens."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from beamside.acquisition.reports import LookReport


def waits(
    *,
    root: Path,
    state: str,
    space: float,
    held: Sequence[str],
    busy: bool,
    source: Callable[[], str],
) -> list[str]:
    """Return what a session waits for, the most important first; nothing while it is at work and nothing holds it up.

    Parameters
    ----------
    root : the project, for commands that can be typed
    state : "running", "paused" or "stopping"
    space : GB that must be free before it goes on; 0 when there is room
    held : what items wait for before they may flow, in words
    busy : whether items are processed or wait for a worker
    source : says what its source waits for; "" when for nothing
    """
    name = shlex.quote(str(root))
    found = []
    if state == "paused":
        found.append(f"`beamside session resume {name}`: it is paused")
    if space:
        found.append(f"{space:g} GB of free space on the disk of {root}")
    found += held
    if found or busy or state != "running":
        return found
    return [*filter(None, [source()])]


def for_the_source(report: LookReport | None, patterns: tuple[str, ...], finishing: bool) -> str:
    """Return what a source that is watched waits for.

    Parameters
    ----------
    report : the last look at it
    patterns : where files are looked for
    finishing : whether the session ends when there is no more
    """
    if report is None:
        return "the first look at the source"
    if report.waiting:
        first = report.waiting[0]
        more = f", and {len(report.waiting) - 1} more" if len(report.waiting) > 1 else ""
        reason = first.reason.removeprefix(first.source).strip().rstrip(".")
        return f"{os.path.basename(first.source)} ({reason}){more}"
    if report.taking:
        more = f", and {len(report.taking) - 1} more" if len(report.taking) > 1 else ""
        return f"{os.path.basename(report.taking[0])} (is being taken in){more}"
    return _for_files(report, patterns, finishing)


def _for_files(report: LookReport, patterns: tuple[str, ...], finishing: bool) -> str:
    if not report.complete:
        return "the source, which cannot be read at present"
    if finishing:
        return "a last look at the source"
    if not report.matched:
        return f"the first file that matches {', '.join(patterns)}"
    return f"new files; {report.matched} have been seen"
