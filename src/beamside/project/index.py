"""The SQLite index: a disposable projection of the journals, for queries of reports, web pages and monitors.

It remembers how far it has read each journal, in the same transaction as what it took from there, so catching up is exact after any kind of
death. It is never kept on a network file system: there it goes to the user's cache directory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from beamside.project.journal import Record, read_journal
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES, ItemState

SCHEMA_VERSION = 1
LOCK_SECONDS = 30.0
"""How long to wait for another process that has the database."""
_SCHEMA = """
CREATE TABLE position (journal TEXT PRIMARY KEY, offset INTEGER NOT NULL);
CREATE TABLE job (name TEXT PRIMARY KEY, type TEXT NOT NULL, status TEXT NOT NULL, parameters TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE item (job TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL, reason TEXT NOT NULL,
    arrived REAL NOT NULL, changed REAL NOT NULL, seconds REAL NOT NULL, result TEXT, PRIMARY KEY (job, name)) WITHOUT ROWID;
CREATE TABLE metric (job TEXT NOT NULL, item TEXT NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY (job, item, name)) WITHOUT ROWID;
CREATE TABLE event (time REAL NOT NULL, kind TEXT NOT NULL, record TEXT NOT NULL);
"""
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "fuse.sshfs",
        "afs",
        "9p",
        "glusterfs",
        "fuse.glusterfs",
    }
)


class Index:
    """Queries over a project. `catch_up` takes in what the journals have gained since."""

    def __init__(self, project: Project, path: Path | None = None) -> None:
        self.project = project
        self.path = path or index_path(project)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _connect(self.path)

    def catch_up(self) -> int:
        """Take in new records of all journals; returns how many."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            taken = self._take(self.project.project_journal, "", self._apply_project)
            for (job,) in self._connection.execute("SELECT name FROM job ORDER BY created").fetchall():
                taken += self._take(self.project.job_journal(job), job, self._apply_item)
        return taken

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many items are in each state, by job."""
        counts: dict[str, dict[str, int]] = {}
        for job, state, number in self._connection.execute("SELECT job, state, COUNT(*) FROM item GROUP BY job, state"):
            counts.setdefault(job, {})[state] = number
        return counts

    def metric(self, job: str, name: str) -> list[tuple[str, float, float]]:
        """Return (item, time of the result, value) of one metric for the finished items of a job, in order of time."""
        query = (
            "SELECT m.item, i.changed, m.value FROM metric m JOIN item i ON i.job = m.job AND i.name = m.item "
            "WHERE m.job = ? AND m.name = ? AND i.state IN ('done', 'rejected') ORDER BY i.changed"
        )
        return self._connection.execute(query, (job, name)).fetchall()

    def results(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (item, result) of the finished items of a job, in order of arrival."""
        query = "SELECT name, result FROM item WHERE job = ? AND result IS NOT NULL ORDER BY arrived, name"
        for name, result in self._connection.execute(query, (job,)):
            yield name, json.loads(result)

    def problems(self) -> list[tuple[str, str, str, str]]:
        """Return (job, item, state, reason) of everything that failed or was rejected."""
        query = "SELECT job, name, state, reason FROM item WHERE state IN ('failed', 'rejected') ORDER BY changed"
        return self._connection.execute(query).fetchall()

    def jobs(self) -> dict[str, str]:
        """Return the name of the newest job of each type, by type."""
        return dict(self._connection.execute("SELECT type, name FROM job ORDER BY created"))

    def job_details(self, job: str) -> tuple[str, dict[str, Any]]:
        """Return a job's status and parameters."""
        status, parameters = self._connection.execute(
            "SELECT status, parameters FROM job WHERE name = ?", (job,)
        ).fetchone()
        return status, json.loads(parameters)

    def events(self, kind: str) -> list[Record]:
        """Return the records of one kind from the project's journal, in order."""
        rows = self._connection.execute("SELECT record FROM event WHERE kind = ? ORDER BY rowid", (kind,))
        return [json.loads(record) for (record,) in rows]

    def settings(self) -> dict[str, Any]:
        """Return the session's newest settings."""
        records = self.events("settings")
        return dict(records[-1]["settings"]) if records else {}

    def finished_times(self, job: str, *, states: tuple[str, ...] = ("done", "rejected", "failed")) -> list[float]:
        """Return when the finished items of a job were finished, in order."""
        marks = ",".join("?" * len(states))
        query = f"SELECT changed FROM item WHERE job = ? AND state IN ({marks}) ORDER BY changed"
        return [moment for (moment,) in self._connection.execute(query, (job, *states))]

    def newest(self, job: str, time: Literal["arrived", "changed"]) -> float:
        """Return when the newest item of a job arrived, or when the newest finished one changed; 0 when there is none."""
        finished = "AND state IN ('done', 'rejected', 'failed')" if time == "changed" else ""
        query = f"SELECT max({time}) FROM item WHERE job = ? {finished}"
        return float(self._connection.execute(query, (job,)).fetchone()[0] or 0.0)

    def newest_metrics(self, job: str) -> dict[str, float]:
        """Return the metrics of the item that was finished last."""
        query = (
            "SELECT name, value FROM metric WHERE job = ?1 AND item = (SELECT name FROM item WHERE job = ?1 "
            "AND state IN ('done', 'rejected') ORDER BY changed DESC LIMIT 1)"
        )
        return dict(self._connection.execute(query, (job,)))

    def items(self, job: str) -> list[dict[str, Any]]:
        """Return every item of a job with its state, times and reason, in order of arrival."""
        query = "SELECT name, state, attempt, reason, arrived, changed, seconds FROM item WHERE job = ? ORDER BY arrived, name"
        names = ("name", "state", "attempt", "reason", "arrived", "changed", "seconds")
        return [dict(zip(names, row, strict=True)) for row in self._connection.execute(query, (job,))]

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _take(self, path: Path, job: str, apply: Any) -> int:
        row = self._connection.execute("SELECT offset FROM position WHERE journal = ?", (path.name,)).fetchone()
        offset, taken = (row[0] if row else 0), 0
        for record, behind in read_journal(path, offset):
            apply(job, record)
            taken, offset = taken + 1, behind
        if taken:
            self._connection.execute("INSERT OR REPLACE INTO position VALUES (?, ?)", (path.name, offset))
        return taken

    def _apply_project(self, _job: str, record: Record) -> None:
        event, execute = record["event"], self._connection.execute
        if event == "job":
            row = (record["job"], record["type"], "Running", json.dumps(record["parameters"]), record["time"])
            execute("INSERT INTO job VALUES (?, ?, ?, ?, ?)", row)
        elif event == "parameters":
            execute("UPDATE job SET parameters = ? WHERE name = ?", (json.dumps(record["parameters"]), record["job"]))
        elif event == "status":
            execute("UPDATE job SET status = ? WHERE name = ?", (record["status"], record["job"]))
        execute("INSERT INTO event VALUES (?, ?, ?)", (record["time"], event, json.dumps(record)))

    def _apply_item(self, job: str, record: Record) -> None:
        state, name, execute = ItemState(record["state"]), record["item"], self._connection.execute
        execute(
            "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?, ?, 0, NULL) ON CONFLICT (job, name) DO UPDATE SET "
            "state = excluded.state, attempt = max(attempt, excluded.attempt), reason = excluded.reason, changed = excluded.changed",
            (
                job,
                name,
                state.value,
                record.get("attempt", 0),
                record.get("reason", ""),
                record["time"],
                record["time"],
            ),
        )
        if state in FINAL_STATES:
            result = record.get("result")
            execute(
                "UPDATE item SET result = ?, seconds = ? WHERE job = ? AND name = ?",
                (json.dumps(result) if result is not None else None, record.get("seconds", 0.0), job, name),
            )
            execute("DELETE FROM metric WHERE job = ? AND item = ?", (job, name))
            rows = [(job, name, key, value) for key, value in ((result or {}).get("metrics") or {}).items()]
            self._connection.executemany("INSERT INTO metric VALUES (?, ?, ?, ?)", rows)


def index_path(project: Project) -> Path:
    """Return where the index of `project` is kept: in the project, or in the user's cache when that is on a network file system."""
    if file_system_type(project.root) not in NETWORK_FILE_SYSTEMS:
        return project.private / "index.sqlite"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    identity = next(
        (record["identity"] for record, _ in read_journal(project.project_journal) if record["event"] == "project"),
        "unknown",
    )
    return cache / "beamside" / "index" / f"{identity}.sqlite"


def file_system_type(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that holds `path` ("ext4", "nfs4", ...), or "unknown"."""
    if not mounts.exists():
        return "unknown"
    resolved, best, kind = str(path.resolve()), "", "unknown"
    for line in mounts.read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def remove_index(project: Project) -> None:
    """Delete the index and its companions; the next use makes it again."""
    path = index_path(project)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        connection.close()
        path.unlink()
        return _connect(path)
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        _create(connection)
    return connection


def _create(connection: sqlite3.Connection) -> None:
    """Make the tables, unless another process has made them since."""
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait for others that are doing the same, so this does."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
