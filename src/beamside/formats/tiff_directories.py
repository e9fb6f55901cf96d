"""The directories of TIFF files: their tags, and whether everything that they refer to is in the file.

They are walked without decoding anything, because the question "is this file complete?" needs an answer about every byte that a directory refers to
(TIFF 6.0, Aldus 1992; BigTIFF as libtiff defines it).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from beamside.errors import CorruptFileError, NotReadyError

PathLike = str | os.PathLike[str]

WIDTH, LENGTH, BITS, COMPRESSION, DESCRIPTION = 256, 257, 258, 259, 270
STRIPS, SAMPLES, STRIP_ROWS, STRIP_BYTES = 273, 277, 278, 279
TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339
"""Numbers of tags."""

_NEEDED = frozenset(
    {WIDTH, LENGTH, BITS, COMPRESSION, STRIPS, SAMPLES, STRIP_ROWS, STRIP_BYTES}
    | {TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES, SAMPLE_FORMAT}
)
_INTEGER_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_TEXT_TYPES = (2, 7)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MAX_PAGES = 100_000
_MOST_PARTS = 1 << 24
"""Strips or tiles of all directories together: numbers of them are 8 bytes long in memory, whatever they are in the file."""
_MOST_TEXT = 1 << 20

Page = dict[int, NDArray[Any]]


@dataclass(frozen=True)
class Directories:
    """The directories of a file, each as its tags by number; the bytes of the file; where the last of those ends that they refer to; byte order."""

    pages: list[Page]
    size: int
    end: int
    order: str


@dataclass(frozen=True)
class _Layout:
    """How numbers are stored in this file: byte order, and the sizes that differ between classic TIFF and BigTIFF."""

    order: str
    count: str
    offset: str
    entry_bytes: int


class _TruncatedError(Exception):
    """A directory refers to bytes that the file does not have."""


def read_directories(
    path: PathLike, more: frozenset[int] = frozenset(), first: frozenset[int] = frozenset()
) -> Directories:
    """Return the tags of every directory by number, after checking that all that it refers to is inside the file.

    Parameters
    ----------
    path : TIFF or BigTIFF file
    more : numbers of tags to return besides those that say where and what the pixels are; texts come as their bytes
    first : the same, of the first directory only

    Raises
    ------
    NotReadyError
        When something is missing: the file is truncated or still being written.
    CorruptFileError
        When it is not a TIFF file, or its directories make no sense.
    """
    with open(path, "rb", buffering=1 << 16) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            layout, offset = _read_start(file, size, path)
            return _Walk(file, size, layout, path).directories(offset, _NEEDED | more, first)
        except _TruncatedError as problem:
            raise NotReadyError(f"{path} is truncated or still being written: {problem}.") from None


def _read_start(file: BinaryIO, size: int, path: PathLike) -> tuple[_Layout, int]:
    start = file.read(16)
    if len(start) < 8:
        raise _TruncatedError(f"it has {size} bytes, less than a TIFF header")
    if not any(start):
        raise _TruncatedError("it starts with zeros instead of a TIFF header")
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    magic = struct.unpack(order + "H", start[2:4])[0] if order else 0
    if order and magic == 42:
        layout, offset = _Layout(order, "H", "I", 12), struct.unpack(order + "I", start[4:8])[0]
    elif order and magic == 43:
        if len(start) < 16:
            raise _TruncatedError(f"it has {size} bytes, less than a BigTIFF header")
        layout, offset = _Layout(order, "Q", "Q", 20), struct.unpack(order + "Q", start[8:16])[0]
    else:
        raise CorruptFileError(f"{path} is not a TIFF file, although its name says so: give TIFF or MRC movies.")
    if offset == 0:
        raise _TruncatedError("its first directory has not been written")
    return layout, offset


def _read(file: BinaryIO, size: int, offset: int, count: int, what: str) -> bytes:
    if offset + count > size:
        raise _TruncatedError(f"{what} ends at byte {offset + count:,} and the file has {size:,}")
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise _TruncatedError(f"{what} could be read only in part")
    return data


class _Walk:
    """One walk through the directories of a file; `end` is where the last bytes end that any refers to."""

    def __init__(self, file: BinaryIO, size: int, layout: _Layout, path: PathLike) -> None:
        self.file, self.size, self.layout, self.path = file, size, layout, path
        self.end = self.parts = 0

    def directories(self, offset: int, needed: frozenset[int], first: frozenset[int]) -> Directories:
        """Return the needed tags of each directory, after checking that its pixels are inside the file."""
        seen: set[int] = set()
        pages: list[Page] = []
        order, number, pointer = self.layout.order, self.layout.count, self.layout.offset
        while offset:
            if offset in seen or len(seen) >= _MAX_PAGES:
                raise CorruptFileError(f"{self.path} is damaged: its directories form a loop.")
            seen.add(offset)
            what = f"directory {len(seen)}"
            count_bytes = struct.calcsize(number)
            count = int(struct.unpack(order + number, self.read(offset, count_bytes, what))[0])
            if count == 0 or count > 4096:
                raise _TruncatedError(f"{what} has {count} entries")
            pointer_bytes = struct.calcsize(pointer)
            block = self.read(offset + count_bytes, count * self.layout.entry_bytes + pointer_bytes, what)
            tags = self.tags(block[:-pointer_bytes], what, needed if pages else needed | first)
            self.reach(_check_pixels(tags, self.size, what, self.path))
            pages.append(tags)
            offset = struct.unpack(order + pointer, block[-pointer_bytes:])[0]
        return Directories(pages, self.size, self.end, order)

    def reach(self, end: int) -> None:
        """Note that something ends there."""
        self.end = max(self.end, end)

    def read(self, offset: int, count: int, what: str) -> bytes:
        """Return bytes of the file."""
        self.reach(offset + count)
        return _read(self.file, self.size, offset, count, what)

    def tags(self, entries: bytes, what: str, needed: frozenset[int]) -> Page:
        """Return the needed tags of a directory."""
        order, pointer = self.layout.order, self.layout.offset
        inline = struct.calcsize(pointer)
        tags: Page = {}
        for tag, kind, count, value in struct.iter_unpack(f"{order}HH{pointer}{inline}s", entries):
            total = _TYPE_BYTES.get(kind, 1) * count
            is_number, is_text = kind in _INTEGER_TYPES, kind in _TEXT_TYPES and tag not in _NEEDED
            wanted = tag in needed and count > 0 and (is_number or is_text)
            if wanted:
                self.parts += 0 if is_text else count
                if self.parts > _MOST_PARTS:
                    raise CorruptFileError(f"{self.path} is damaged: {what} has a table of {count:,} numbers.")
            elif total <= inline:
                continue
            data = value[:total]
            if total > inline:
                position = struct.unpack(order + pointer, value)[0]
                if position + total > self.size:
                    raise _TruncatedError(
                        f"a value of {what} ends at byte {position + total:,} and the file has {self.size:,}"
                    )
                self.reach(position + total)
                if wanted:
                    data = self.read(position, min(total, _MOST_TEXT) if is_text else total, f"a table of {what}")
            if wanted and is_number:
                tags[tag] = np.frombuffer(data, order + _INTEGER_TYPES[kind]).astype(np.int64)
            elif wanted:
                tags[tag] = np.frombuffer(data, np.uint8)
        return tags


def _check_pixels(tags: Page, size: int, what: str, path: PathLike) -> int:
    """Check that the pixels of a directory are inside the file, and can be as many as it says; return the byte at which they end."""
    offsets = tags.get(STRIPS, tags.get(TILES))
    lengths = tags.get(STRIP_BYTES, tags.get(TILE_BYTES))
    if offsets is None or lengths is None or WIDTH not in tags or LENGTH not in tags:
        raise CorruptFileError(f"{path} is damaged: {what} does not say where its pixels are.")
    if len(offsets) != len(lengths) or len(offsets) == 0:
        raise CorruptFileError(f"{path} is damaged: {what} has {len(offsets)} strips and {len(lengths)} lengths.")
    if len(offsets) == 1:  # of most movies; one number needs no vectors
        offset, length = int(offsets[0]), int(lengths[0])
        least, written, most, end = (
            min(offset, length),
            offset != 0 and length != 0,
            max(offset, length),
            offset + length,
        )
    else:
        least, written = min(offsets.min(), lengths.min()), bool(offsets.all() and lengths.all())
        most = max(int(offsets.max()), int(lengths.max()))
        end = int((offsets + lengths).max()) if most <= size else most
    if least < 0:
        raise CorruptFileError(f"{path} is damaged: {what} says that its pixels are at an impossible place.")
    if not written:
        raise _TruncatedError(f"the pixels of {what} have not been written")
    if end > size:
        raise _TruncatedError(f"the pixels of {what} end at byte {end:,} and the file has {size:,}")
    return end
