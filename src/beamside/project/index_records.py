"""Putting the records of journals into the index.

An item has several records, which often come together: what they say in the end is written once.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Protocol

from beamside.formats.printable import printable
from beamside.project.fold import check_format
from beamside.project.journal import Record
from beamside.project.records import ALLOWED, FINAL_STATES, STATES, ItemState

_TOGETHER = 2000
"""So many items are kept before they are written: of a long journal, not all at once."""


class Records(Protocol):
    """Takes the records of one journal in."""

    def take(self, record: Record, offset: int) -> bool:
        """Take a record; return whether it follows from what was before it. `offset` is that behind it."""

    def write(self) -> None:
        """Write what has been taken and is not in the index yet."""


class ProjectRecords:
    """Takes the records of the project's own journal in."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def take(self, record: Record, offset: int) -> bool:
        """Write a record at once: there are few, and each is kept."""
        event, execute = record["event"], self._connection.execute
        if "format" in record:
            check_format(record)
        if event == "job":
            label = record.get("label") or record["type"]
            row = (record["job"], record["type"], label, "Running", json.dumps(record["parameters"]), record["time"])
            execute("INSERT INTO job (name, type, label, status, parameters, created) VALUES (?, ?, ?, ?, ?, ?)", row)
        elif event == "parameters":
            execute("UPDATE job SET parameters = ? WHERE name = ?", (json.dumps(record["parameters"]), record["job"]))
        elif event == "status":
            execute("UPDATE job SET status = ? WHERE name = ?", (record["status"], record["job"]))
        execute("INSERT INTO event VALUES (?, ?, ?)", (record["time"], event, json.dumps(record)))
        return True

    def write(self) -> None:
        """Nothing is left to be written."""


@dataclass
class _Item:
    """An item of which records were taken; `finished` says that one of them gave it the result that is here."""

    state: ItemState | None
    has_result: bool
    attempt: int = 0
    reason: str = ""
    arrived: float = 0.0
    changed: float = 0.0
    first: int = 0
    newest: int = 0
    finished: bool = False
    seconds: float = 0.0
    device: str = ""
    result: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


class ItemRecords:
    """Takes the records of a job's journal in."""

    def __init__(self, connection: sqlite3.Connection, job: str) -> None:
        self._connection, self._job = connection, job
        self._items: dict[str, _Item] = {}
        self._passages: list[tuple[str, str, float, str, bool]] = []

    def take(self, record: Record, offset: int) -> bool:
        """Keep what a record says; nothing is kept of one that cannot be understood."""
        state, name, moment = STATES[record["state"]], printable(record["item"]), float(record["time"])
        attempt, reason = int(record.get("attempt", 0)), printable(record.get("reason", ""))
        seconds = float(record.get("seconds", 0.0))
        final, where = state in FINAL_STATES, record.get("where")
        device = printable(str(where.get("device", ""))) if isinstance(where, dict) else ""
        result = record.get("result") if final else None
        if not isinstance(result, dict | None):
            raise TypeError("a result is an object")
        metrics = dict((result or {}).get("metrics") or {})
        written = None if result is None else json.dumps(result)
        item = self._known(name, moment, offset)
        before = item.state
        item.state, item.attempt, item.reason = state, max(item.attempt, attempt), reason
        item.changed, item.newest = moment, offset
        if final or state is ItemState.WAITING:
            self._passages.append((self._job, name, moment, state.value, item.has_result))
        if final:
            item.finished, item.has_result = True, result is not None
            item.seconds, item.result, item.metrics = seconds, written, metrics
            item.device = device
        return state in ALLOWED.get(before, ())

    def _known(self, name: str, moment: float, offset: int) -> _Item:
        item = self._items.get(name)
        if item is not None:
            return item
        if len(self._items) >= _TOGETHER:
            self.write()
        query = "SELECT state, result IS NOT NULL, attempt FROM item WHERE job = ? AND name = ?"
        row = self._connection.execute(query, (self._job, name)).fetchone()
        item = _Item(STATES[row[0]], bool(row[1]), row[2]) if row else _Item(None, False)
        item.arrived, item.first = moment, offset
        self._items[name] = item
        return item

    def write(self) -> None:
        """Write the items."""
        many, items = self._connection.executemany, self._items.items()
        many(
            "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, 0, '', NULL, ?, ?) ON CONFLICT (job, name) DO UPDATE SET state = excluded.state, "
            "attempt = excluded.attempt, reason = excluded.reason, changed = excluded.changed, newest = excluded.newest",
            [(*self._row(name, item), item.first, item.newest) for name, item in items if not item.finished],
        )
        many(
            "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job, name) DO UPDATE SET state = excluded.state, "
            "attempt = excluded.attempt, reason = excluded.reason, changed = excluded.changed, seconds = excluded.seconds, "
            "device = excluded.device, result = excluded.result, newest = excluded.newest",
            [
                (*self._row(name, item), item.seconds, item.device, item.result, item.first, item.newest)
                for name, item in items
                if item.finished
            ],
        )
        many("INSERT INTO passage VALUES (?, ?, ?, ?, ?)", self._passages)
        finished = [(name, item.metrics) for name, item in items if item.finished]
        many("DELETE FROM metric WHERE job = ? AND item = ?", [(self._job, name) for name, _ in finished])
        many(
            "INSERT INTO metric VALUES (?, ?, ?, ?)",
            [(self._job, name, metric, value) for name, metrics in finished for metric, value in metrics.items()],
        )
        self._items, self._passages = {}, []

    def _row(self, name: str, item: _Item) -> tuple[Any, ...]:
        assert item.state is not None
        return self._job, name, item.state.value, item.attempt, item.reason, item.arrived, item.changed
