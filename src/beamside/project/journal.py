"""The journal: append-only files of JSON lines, from which everything else can be rebuilt.

One line is one record. A record counts once its newline is on disk; the rest of a line that a crash cut short is removed when the file is next opened
for writing, because nobody was told that it had happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from beamside.errors import ProjectError

Record = dict[str, Any]


class JournalFile:
    """The writing end of one journal file. There is only one writer: see ``lease.py``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        _remove_torn_tail(self._descriptor)

    def append(self, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Write `record` as one line; with `sync` it is on disk when this returns."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=True).encode() + b"\n"
        _write_whole(self._descriptor, line, self.path)
        if sync:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield the records of `path` from byte `offset`, each with the offset behind it; a line without its newline is not there yet.

    Raises
    ------
    ProjectError
        when a complete line is not a JSON object: the file was changed by something else.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError as error:
                raise _damaged(path, offset - len(line), str(error)) from error
            if not isinstance(record, dict):
                raise _damaged(path, offset - len(line), "not an object")
            yield record, offset


def _damaged(path: Path, offset: int, why: str) -> ProjectError:
    return ProjectError(
        f"The journal {path} is damaged at byte {offset} ({why}); restore this file from a backup, or remove that line "
        "and process the item again."
    )


def _remove_torn_tail(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    end, block = size, 65536
    while end > 0:
        start = max(0, end - block)
        cut = os.pread(descriptor, end - start, start).rfind(b"\n")
        if cut >= 0:
            end = start + cut + 1
            break
        end = start
    if end != size:
        os.ftruncate(descriptor, end)


def _write_whole(descriptor: int, data: bytes, path: Path) -> None:
    """Write all of `data` or nothing: a part of a line must not stay in front of the next one when the disk is full."""
    start = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError as error:
        os.ftruncate(descriptor, start)
        raise ProjectError(
            f"The journal {path} cannot be written: {error.strerror}; free space or check the disk, then resume."
        ) from error
