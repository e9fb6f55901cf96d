"""The journal: append-only files of JSON lines, from which everything else can be rebuilt.

One line is one record. A record counts once its newline is on disk; the rest of a line that a crash cut short is removed when the file is next opened
for writing, because nobody was told that it had happened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from beamside.errors import JournalError, ProjectError

Record = dict[str, Any]

# `json.dumps` would make one of these for every record
_PLAIN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ESCAPED = json.JSONEncoder(separators=(",", ":"))


class JournalFile:
    """The writing end of one journal file. There is only one writer: see ``lease.py``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unwritable(path, error) from error
        _remove_torn_tail(self._descriptor)
        self._cut_to: int | None = None

    def append(self, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Write `record` as one line; with `sync` it is on disk when this returns.

        Raises JournalError when it cannot be written, whatever the system refuses; then nothing of it counts.
        """
        line = _line(record)
        try:
            if self._cut_to is not None:
                self._cut(self._cut_to)
            start = os.fstat(self._descriptor).st_size
            try:
                _write_whole(self._descriptor, line, sync=sync)
            except OSError:
                self._cut(start)
                raise
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _cut(self, size: int) -> None:
        """Take back what was written of a record: it must not stay in front of the next one. A fault in this is made good before that."""
        self._cut_to = size
        os.ftruncate(self._descriptor, size)
        self._cut_to = None

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


@dataclass(frozen=True)
class Damage:
    """A complete line of a journal that is no record: the file was changed by something else, or its disk has a fault.

    It is at `offset`, and the next line at `behind`.
    """

    path: Path
    offset: int
    why: str
    behind: int = 0


NO_RECORD = "it is no record that this version knows"
IMPOSSIBLE = "it does not follow from what is before it"


def damage_sentences(damage: Iterable[Damage]) -> dict[str, str]:
    """Return a sentence for each journal that has damage, by the journal's name: what is wrong, what it means, and what to do."""
    lines: dict[Path, list[Damage]] = {}
    for found in damage:
        lines.setdefault(found.path, []).append(found)
    return {path.name: _damaged(found) for path, found in lines.items()}


def _damaged(lines: list[Damage]) -> str:
    first, number = lines[0], len(lines)
    many = f"in {number} lines, the first of them " if number > 1 else ""
    return (
        f"The journal {first.path} is damaged {many}at byte {first.offset} ({first.why}). What is written there is passed over, "
        "so items may be computed again that were finished; to avoid that, restore the file from a backup before the session goes on."
    )


def read_journal(
    path: Path, offset: int = 0, damaged: Callable[[Damage], None] | None = None
) -> Iterator[tuple[Record, int]]:
    """Yield the records of `path` from byte `offset`, each with the offset behind it; a line without its newline is not there yet.

    Lines that are no records are given to `damaged` and passed over.

    Raises
    ------
    ProjectError
        when there is such a line and no `damaged` to tell, or the file cannot be read.
    """
    for line in read_lines(path, offset):
        begin, offset = offset, offset + len(line)
        record = parse_record(line)
        if not isinstance(record, str):
            yield record, offset
        elif damaged is not None:
            damaged(Damage(path, begin, record, offset))
        else:
            raise ProjectError(_damaged([Damage(path, begin, record)]))


def read_lines(path: Path, offset: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the lines of a journal from byte `offset`, up to byte `end` where that is given; one without its newline is not there yet.

    Raises ProjectError when the file cannot be read; one that is not there has no lines.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ProjectError(f"The journal {path} cannot be read: {error.strerror}; check its permissions.") from error
    with stream:
        stream.seek(offset)
        for line in stream:
            offset += len(line)
            if not line.endswith(b"\n") or (end is not None and offset > end):
                return
            yield line


_decode = json.JSONDecoder().raw_decode
_SPACE = " \t\n\r"
"""What may be behind a record: JSON's white space."""


def parse_record(line: bytes) -> Record | str:
    """Return what a line says, or why it says nothing."""
    try:  # what begins so is UTF-8 for sure; of anything else, the encoding is looked at first
        if line.startswith(b'{"'):
            text = line.decode("utf-8", "surrogatepass")
            record, end = _decode(text, 0)
            if text[end:].strip(_SPACE):
                raise ValueError(f"there is more behind the record, at {end}")
        else:
            record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return str(error)
    return record if isinstance(record, dict) else "not an object"


def _line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line. Names of files that are not UTF-8 can only be written escaped; either way they come back as they were."""
    try:
        return _PLAIN.encode(record).encode() + b"\n"
    except UnicodeEncodeError:
        return _ESCAPED.encode(record).encode() + b"\n"


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


def _write_whole(descriptor: int, data: bytes, *, sync: bool) -> None:
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])
    if sync:
        os.fsync(descriptor)


def _unwritable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"The journal {path} cannot be written: {error.strerror}; free space or check the disk, then resume."
    )
