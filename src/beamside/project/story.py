"""The story of an item in one job, as the job's journal tells it."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from beamside.project.journal import Record, read_journal

SHOWN = 8
"""So many of an item's newest records are told."""


def item_story(journal: Path, item: str) -> str:
    """Return a sentence with an item's newest states: when, which attempt, and why. Lines that say nothing are passed over."""
    told: deque[str] = deque(maxlen=SHOWN + 1)
    for record, _ in read_journal(journal, damaged=lambda _: None):
        if record.get("item") == item:
            told.append(_state(record))
    if not told:
        return "Its journal says nothing of it."
    earlier = ["..."] if len(told) > SHOWN else []
    return f"Its journal says: {', '.join([*earlier, *list(told)[-SHOWN:]])}."


def _state(record: Record) -> str:
    when = record.get("time")
    details = [time.strftime("%H:%M:%S", time.localtime(when))] if isinstance(when, int | float) else []
    details += [f"{name} {record[name]}" for name in ("attempt", "task") if name in record]
    where = record.get("where")
    if isinstance(where, dict):
        details.append(", ".join(str(where[part]) for part in ("host", "pid", "device") if part in where))
    details += [str(record["reason"])] if record.get("reason") else []
    state = str(record.get("state", "no state"))
    return f"{state} ({'; '.join(details)})" if details else state
