"""What the workers of a session have in hand, and where: from the file that says what goes on right now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from beamside.formats.printable import printable
from beamside.monitor.report_text import duration

SHOWN = 4
"""So many tasks are named of each host and device; of more the number is told."""


@dataclass(frozen=True)
class AtWork:
    """A task in the hands of a worker: an item or a round of a job, where, and for how many seconds."""

    title: str
    item: str
    host: str
    pid: int
    device: str
    seconds: float


def read_at_work(live: Mapping[str, Any]) -> Iterator[AtWork]:
    """Yield what a live file says; what a session of another version says in another way is left out."""
    found = live.get("at_work")
    for said in found if isinstance(found, list) else ():
        with suppress(TypeError, ValueError):
            one = AtWork(**said)
            yield AtWork(
                printable(one.title),
                printable(one.item),
                printable(one.host),
                int(one.pid),
                printable(one.device),
                float(one.seconds),
            )


def at_work_lines(tasks: Sequence[AtWork]) -> list[str]:
    """Return a line for each host and device: "on node1, cuda:0: Motion correction of raw/m1 (12 s, process 4711)"."""
    places: dict[tuple[str, str], list[str]] = {}
    for task in tasks:
        words = f"{task.title} of {task.item} ({duration(task.seconds)}, process {task.pid})"
        places.setdefault((task.host, task.device), []).append(words)
    return [f"on {host}, {device}: {_listed(said)}" for (host, device), said in sorted(places.items())]


def _listed(said: Sequence[str]) -> str:
    more = [f"and {len(said) - SHOWN} more"] if len(said) > SHOWN else []
    return ", ".join([*said[:SHOWN], *more])
