"""Where an index is kept, and how it is opened, made, and thrown away.

An index is disposable. One that is damaged is made again; where one cannot be written, because the project belongs to someone else or lies on a
read-only mount, the reader has an index of its own: in the user's cache, or for the moment in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from beamside.project.journal import read_journal
from beamside.project.project import Project

SCHEMA_VERSION = 7
LOCK_SECONDS = 30.0
"""How long to wait for another process that has the database."""
_SCHEMA = """
CREATE TABLE position (journal TEXT PRIMARY KEY, offset INTEGER NOT NULL, mark TEXT NOT NULL);
CREATE TABLE damage (journal TEXT NOT NULL, offset INTEGER NOT NULL, why TEXT NOT NULL, found REAL NOT NULL,
    PRIMARY KEY (journal, offset));
CREATE TABLE job (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, type TEXT NOT NULL, label TEXT NOT NULL, status TEXT NOT NULL,
    parameters TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE item (job TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL, reason TEXT NOT NULL,
    arrived REAL NOT NULL, changed REAL NOT NULL, seconds REAL NOT NULL, device TEXT NOT NULL, result TEXT, first INTEGER NOT NULL,
    newest INTEGER NOT NULL, PRIMARY KEY (job, name)) WITHOUT ROWID;
CREATE INDEX item_in_state ON item (state, job, changed);
CREATE TABLE metric (job TEXT NOT NULL, item TEXT NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY (job, item, name)) WITHOUT ROWID;
CREATE TABLE passage (job TEXT NOT NULL, item TEXT NOT NULL, time REAL NOT NULL, state TEXT NOT NULL, again INTEGER NOT NULL);
CREATE INDEX passage_of_job ON passage (job, time);
CREATE TABLE event (time REAL NOT NULL, kind TEXT NOT NULL, record TEXT NOT NULL);
"""
TABLES = ("position", "damage", "job", "item", "metric", "passage", "event")
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
MEMORY = Path(":memory:")
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def index_path(project: Project) -> Path:
    """Return where the index of `project` is kept: in the project, or in the user's cache when that is on a network file system."""
    return next(index_places(project))


def index_places(project: Project) -> Iterator[Path]:
    """Yield where an index of `project` may be kept, the best place first; the last one is no file, and always works."""
    if file_system_type(project.root) not in NETWORK_FILE_SYSTEMS:
        yield project.private / "index.sqlite"
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield _in_cache(project)
    yield MEMORY


def _in_cache(project: Project) -> Path:
    """Return the place in the user's cache; a copy of a project has the same identity, and its own place."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    records = (record for record, _ in read_journal(project.project_journal, damaged=lambda _: None))
    identity = next((str(record.get("identity")) for record in records if record.get("event") == "project"), "unknown")
    place = hashlib.sha256(os.fsencode(project.root.resolve())).hexdigest()[:12]
    return cache / "beamside" / "index" / f"{identity}-{place}.sqlite"


def file_system_type(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that holds `path` ("ext4", "nfs4", ...), or "unknown"."""
    if not mounts.exists():
        return "unknown"
    resolved, best, kind = os.fsencode(path.resolve()), b"", "unknown"
    for line in mounts.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), before.split(b" ")[4])
        inside = resolved == point or resolved.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0].decode(errors="replace")
    return kind


def remove_index(project: Project) -> None:
    """Delete the index and its companions; the next use makes it again."""
    remove_files(index_path(project))


def remove_files(path: Path) -> None:
    """Delete a database with its companions, these first: without them, what is left of it is not taken for a whole one."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def is_damaged(error: sqlite3.Error) -> bool:
    """Tell whether an error says that the file is no sound database with our tables, so that it has to be made again."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in _DAMAGED or (code == sqlite3.SQLITE_ERROR and "no such" in str(error))


def connect(path: Path) -> sqlite3.Connection:
    """Open the index at `path`, which is made when it is not there, is of another version, or is damaged. Raises sqlite3.Error, OSError."""
    if path == MEMORY:
        return _opened(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        remove_files(path)
        return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            connection.close()
            remove_files(path)
            return _opened(path)
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            _create(connection)
    except BaseException:
        connection.close()
        raise
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
