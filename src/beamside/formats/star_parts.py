"""Tables in STAR files that grow by parts: what has been written before is copied, and only new parts are made.

A session writes the table of all particles again and again while it grows to millions of rows. Readers must never see half of a file, so a new one
takes the place of the old one each time; but its beginning is that of the old one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from beamside.formats.atomic import atomic_path
from beamside.formats.star import StarBlock, format_star

_BUFFER = 1 << 20


@dataclass(frozen=True)
class Part:
    """Rows of a table: `text` returns the lines, each with its end; as long as `identity` is the same, they are, too."""

    identity: Hashable
    text: Callable[[], str]


@dataclass(frozen=True)
class StarParts:
    """A STAR file whose last block, a loop without rows in `blocks`, has the rows of all `parts`."""

    blocks: Sequence[StarBlock]
    parts: Sequence[Part]


@dataclass(frozen=True)
class _Written:
    """What a file had in it when it was written, and what it looked like then."""

    head: bytes
    parts: list[tuple[Hashable, int]]
    file: tuple[int, int, int]


class PartsWriter:
    """Writes files of parts, and remembers what it has written where."""

    def __init__(self) -> None:
        self._written: dict[Path, _Written] = {}

    def write(self, path: Path, content: StarParts) -> None:
        """Write a file atomically; parts that begin it as they did when it was written last are copied from it."""
        text = format_star(content.blocks)
        end = text[-2:]  # what follows the rows of a loop
        head = _bytes(text[:-2])
        before = self._known(path, head)
        same = 0
        for (identity, _), part in zip(before, content.parts, strict=False):
            if identity != part.identity:
                break
            same += 1
        parts = before[:same]
        with atomic_path(path) as temporary, temporary.open("wb") as target:
            if same:
                with path.open("rb") as source:
                    _copy(source, target, len(head) + sum(size for _, size in parts))
            else:
                target.write(head)
            for part in content.parts[same:]:
                lines = _bytes(part.text())
                target.write(lines)
                parts.append((part.identity, len(lines)))
            target.write(_bytes(end))
        self._written[path] = _Written(head, parts, _look(path))

    def _known(self, path: Path, head: bytes) -> list[tuple[Hashable, int]]:
        """Return the parts that are in the file; none when it was not written here, or something else has changed it since."""
        written = self._written.pop(path, None)
        try:
            return list(written.parts) if written and (written.head, written.file) == (head, _look(path)) else []
        except FileNotFoundError:
            return []


def _look(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _copy(source: BinaryIO, target: BinaryIO, number: int) -> None:
    while number > 0:
        piece = source.read(min(number, _BUFFER))
        if not piece:
            raise OSError(f"{source.name} has become shorter while it was copied")
        target.write(piece)
        number -= len(piece)
