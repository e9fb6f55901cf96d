"""The SQLite index: a disposable projection of the journals, for queries of reports, web pages and monitors.

It remembers how far it has read each journal, with a mark of what stands before that place, in the same transaction as what it took from there. So
catching up is exact after any kind of death, and a journal that is not the one it was made from (its end was lost with the power, or it was restored)
is noticed: then the index is thrown away and made anew, as the journals are the truth.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from beamside.formats.printable import printable
from beamside.project.index_file import MEMORY, TABLES, connect, index_places, is_damaged, remove_files
from beamside.project.index_records import ItemRecords, ProjectRecords, Records
from beamside.project.journal import IMPOSSIBLE, NO_RECORD, Damage, Record, damage_sentences, read_journal
from beamside.project.project import Project

MARK_BYTES = 4096
"""So much of a journal, before the place to which it was read, tells whether it still is the same."""


class _OutOfStepError(Exception):
    """A journal is not the one that the index was made from."""


class Index:
    """Queries over a project. `catch_up` takes in what the journals have gained since."""

    def __init__(self, project: Project, path: Path | None = None, *, elsewhere: bool = True) -> None:
        """Choose the place: `path`, or the usual one; with `elsewhere`, another one where that cannot be written."""
        self.project = project
        places = iter([path] if path else index_places(project))
        self._places = places if elsewhere else iter([next(places)])
        self.path = next(self._places)
        self._connection: sqlite3.Connection | None = None
        self._file = 0

    def catch_up(self, most: int | None = None) -> int:
        """Take in new records of all journals, of each no more than `most`; returns how many.

        An index that is damaged, or not of these journals, is made anew; where it cannot be written, the next place is tried. Raises
        sqlite3.Error or OSError when there is none.
        """
        made_anew = False
        while True:
            try:
                return self._take_new(most)
            except (_OutOfStepError, sqlite3.IntegrityError):
                if made_anew:
                    raise
                made_anew = True
                self._empty()
            except sqlite3.DatabaseError as error:
                if is_damaged(error) and not made_anew:
                    made_anew = True
                    self._throw_away()
                else:
                    self._move_on(error)
            except OSError as error:
                self._move_on(error)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many items are in each state, by job."""
        counts: dict[str, dict[str, int]] = {}
        for job, state, number in self._rows("SELECT job, state, COUNT(*) FROM item GROUP BY state, job"):
            counts.setdefault(job, {})[state] = number
        return counts

    def metric(self, job: str, name: str) -> list[tuple[str, float, float]]:
        """Return (item, time of the result, value) of one metric for the finished items of a job, in order of time."""
        query = (
            "SELECT m.item, i.changed, m.value FROM metric m JOIN item i ON i.job = m.job AND i.name = m.item "
            "WHERE m.job = ? AND m.name = ? AND i.state IN ('done', 'rejected') ORDER BY i.changed"
        )
        return self._rows(query, (job, name))

    def devices(self, job: str) -> list[tuple[str, int]]:
        """Return (what results were computed on, how many), the most first; of results that do not say it there is nothing."""
        query = "SELECT device, COUNT(*) FROM item WHERE job = ? AND device != '' GROUP BY device ORDER BY 2 DESC, 1"
        return self._rows(query, (job,))

    def results(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (item, result) of the finished items of a job, in order of arrival."""
        query = "SELECT name, result FROM item WHERE job = ? AND result IS NOT NULL ORDER BY first"
        for name, result in self._rows(query, (job,)):
            yield name, json.loads(result)

    def newest_values(self, job: str) -> dict[str, Any]:
        """Return the values of the result that a job had last; none before there is one."""
        rows = self._rows(
            "SELECT result FROM item WHERE job = ? AND result IS NOT NULL ORDER BY newest DESC LIMIT 1", (job,)
        )
        return dict(json.loads(rows[0][0]).get("values") or {}) if rows else {}

    def problems(self) -> list[tuple[str, str, str, str]]:
        """Return (job, item, state, reason) of everything that failed or was rejected."""
        query = "SELECT job, name, state, reason FROM item WHERE state IN ('failed', 'rejected') ORDER BY changed"
        return self._rows(query)

    def jobs(self) -> dict[str, str]:
        """Return the name of the newest job with each label, by label."""
        return dict(self._rows("SELECT label, name FROM job ORDER BY number"))

    def events(self, kind: str) -> list[Record]:
        """Return the records of one kind from the project's journal, in order, with texts as they can be shown.

        Of the kind "problem" there are also some that no journal has: what is wrong with the journals themselves.
        """
        rows = self._rows("SELECT record FROM event WHERE kind = ? ORDER BY rowid", (kind,))
        records = [_shown(json.loads(record)) for (record,) in rows]
        return [*records, *self._damage()] if kind == "problem" else records

    def _damage(self) -> list[Record]:
        rows = self._rows("SELECT journal, offset, why, found FROM damage ORDER BY journal, offset")
        sentences = damage_sentences(Damage(self.project.journals / name, offset, why) for name, offset, why, _ in rows)
        found = {name: moment for name, _, _, moment in reversed(rows)}
        common = {"event": "problem", "state": "open", "severity": "warning", "count": 1}
        return [
            {**common, "key": f"journal:{name}", "sentence": printable(sentence), "time": found[name]}
            for name, sentence in sentences.items()
        ]

    def settings(self) -> dict[str, Any]:
        """Return the session's newest settings."""
        records = self.events("settings")
        return dict(records[-1]["settings"]) if records else {}

    def passages(self, job: str) -> list[tuple[str, float, str]]:
        """Return (item, time, state) for each time that an item of a job began to wait or was finished, in the order of the journal.

        The state of an item says how it is now. What is done again was finished before, and that belongs to what the session did.
        """
        return self._rows("SELECT item, time, state FROM passage WHERE job = ? ORDER BY rowid", (job,))

    def last_finished(self, job: str, seconds: float, *, again: bool = True) -> list[float]:
        """Return when items of a job were finished in the last `seconds` of its work; without `again`, only those that had no result before."""
        finished = "job = ? AND state IN ('done', 'rejected', 'failed')" + ("" if again else " AND NOT again")
        newest = f"SELECT time FROM passage WHERE {finished} ORDER BY time DESC LIMIT 1"  # by its index; for max(time) all would be read
        query = f"SELECT time FROM passage WHERE {finished} AND time > ({newest}) - ? ORDER BY time"
        return [moment for (moment,) in self._rows(query, (job, job, seconds))]

    def waiting(self, job: str) -> list[str]:
        """Return the items of a job that wait, none of which a worker has."""
        query = "SELECT name FROM item WHERE job = ? AND state IN ('waiting', 'queued')"
        return [name for (name,) in self._rows(query, (job,))]

    def newest(self, job: str, time: Literal["arrived", "changed"]) -> float:
        """Return when the newest item of a job arrived, or when the newest finished one changed; 0 when there is none."""
        finished = "AND state IN ('done', 'rejected', 'failed')" if time == "changed" else ""
        query = f"SELECT max({time}) FROM item WHERE job = ? {finished}"
        [(found,)] = self._rows(query, (job,))
        return float(found or 0.0)

    def newest_metrics(self, job: str) -> dict[str, float]:
        """Return the metrics of the item that was finished last."""
        query = (
            "SELECT name, value FROM metric WHERE job = ?1 AND item = (SELECT name FROM item WHERE job = ?1 "
            "AND state IN ('done', 'rejected') ORDER BY newest DESC LIMIT 1)"
        )
        return dict(self._rows(query, (job,)))

    def items(self, job: str) -> list[dict[str, Any]]:
        """Return every item of a job with its state, times and reason, in order of arrival."""
        query = "SELECT name, state, attempt, reason, arrived, changed, seconds FROM item WHERE job = ? ORDER BY first"
        names = ("name", "state", "attempt", "reason", "arrived", "changed", "seconds")
        return [dict(zip(names, row, strict=True)) for row in self._rows(query, (job,))]

    def close(self) -> None:
        """Close the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- inside -----------------------------------------------------------------------------------------------------

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query; a part of the file that turns out to be damaged is reason to make all of it again."""
        try:
            return self._opened().execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            if not is_damaged(error):
                raise
        self._throw_away()
        self.catch_up()
        return self._opened().execute(query, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        """Return the connection to the file that is there now: another process may have put one in the place of the one that was open."""
        if self._connection is not None and self.path != MEMORY and _file_number(self.path) != self._file:
            self.close()
        if self._connection is None:
            self._connection = connect(self.path)
            self._file = _file_number(self.path)
        return self._connection

    def _move_on(self, error: Exception) -> None:
        """Go to the next place; raise `error` when there is none."""
        self.close()
        place = next(self._places, None)
        if place is None:
            raise error
        self.path = place

    def _throw_away(self) -> None:
        damaged = self._file
        self.close()
        if self.path != MEMORY and (damaged == 0 or _file_number(self.path) == damaged):
            remove_files(self.path)

    def _empty(self) -> None:
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")

    def _take_new(self, most: int | None) -> int:
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            taken = self._take(connection, self.project.project_journal, ProjectRecords(connection), most)
            for (job,) in connection.execute("SELECT name FROM job ORDER BY number").fetchall():
                taken += self._take(connection, self.project.job_journal(job), ItemRecords(connection, job), most)
        return taken

    @staticmethod
    def _has_damage(connection: sqlite3.Connection, path: Path) -> bool:
        return connection.execute("SELECT 1 FROM damage WHERE journal = ? LIMIT 1", (path.name,)).fetchone() is not None

    def _take(self, connection: sqlite3.Connection, path: Path, records: Records, most: int | None) -> int:
        row = connection.execute("SELECT offset, mark FROM position WHERE journal = ?", (path.name,)).fetchone()
        offset, mark = row or (0, "")
        if offset and _mark(path, offset) != mark:
            raise _OutOfStepError
        begin = offset

        def note(damage: Damage) -> None:
            nonlocal begin
            begin = damage.behind
            row = (path.name, damage.offset, damage.why, time.time())
            connection.execute("INSERT OR IGNORE INTO damage VALUES (?, ?, ?, ?)", row)

        taken = 0
        for record, behind in islice(read_journal(path, offset, note), most):
            try:
                sound = records.take(record, behind)
            except (KeyError, TypeError, ValueError):
                note(Damage(path, begin, NO_RECORD))
            else:
                if not sound and not self._has_damage(connection, path):
                    note(Damage(path, begin, IMPOSSIBLE))
            taken, offset, begin = taken + 1, behind, behind
        if taken:
            records.write()
            position = (path.name, offset, _mark(path, offset))
            connection.execute("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", position)
        return taken


def _shown(value: Any) -> Any:
    """Return a record with its texts as they can be shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_shown(part) for part in value]
    return {name: _shown(part) for name, part in value.items()} if isinstance(value, dict) else value


def _mark(path: Path, offset: int) -> str:
    """Return a mark of what stands in a journal before `offset`; of a journal that is not so long, another one."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, offset - MARK_BYTES))
            before = stream.read(min(offset, MARK_BYTES))
    except FileNotFoundError:
        return ""
    return hashlib.sha256(before).hexdigest() if len(before) == min(offset, MARK_BYTES) else ""


def _file_number(path: Path) -> int:
    """Return what tells a file from another one that takes its place; 0 when there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
