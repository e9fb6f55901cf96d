"""Single pages of TIFF files, as cameras and Beamside itself write them: strips of whole pixels, plain or LZW, one after the other.

Most movies are nothing else, and a general reader or writer of TIFF takes longer to be set up than a small frame takes to be decoded. Whatever is
not of this simple kind, or is damaged, is for tifffile.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from beamside.formats.tiff_directories import (
    BITS,
    COMPRESSION,
    LENGTH,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_BYTES,
    STRIP_ROWS,
    STRIPS,
    TILES,
    WIDTH,
    Page,
)

FILL_ORDER, PREDICTOR = 266, 317
"""Tags that a page has to have at their defaults for `read_page`."""

_PLAIN, _LZW = 1, 5
_CODES = {1: "u", 2: "i", 3: "f"}
_LARGEST = 1 << 32
_ALIGNMENT = 16

_PHOTOMETRIC, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _SOFTWARE = 262, 282, 283, 296, 305
_TEXT, _SHORT, _LONG, _RATIONAL = 2, 3, 4, 5
_START = struct.pack("<2sHI", b"II", 42, 8)
_NUMBER, _ENTRY, _POINTER = struct.Struct("<H"), struct.Struct("<HHII"), struct.Struct("<I")
_WRITER = b"tifffile.py\0"
_VALUES = struct.pack("<IIII", 1, 1, 1, 1) + _WRITER


def read_page(descriptor: int, page: Page, order: str) -> NDArray[Any] | None:
    """Return the pixels of a page, row by row as they are in the file; None when that is not as simple as this function is.

    Parameters
    ----------
    descriptor : of the open file
    page : the page's tags, with `FILL_ORDER` and `PREDICTOR`
    order : byte order of the file, "<" or ">"
    """
    one = {tag: int(values[0]) for tag, values in page.items() if len(values)}
    height, width, bits = one[LENGTH], one[WIDTH], one.get(BITS, 1)
    form, compression = one.get(SAMPLE_FORMAT, 1), one.get(COMPRESSION, _PLAIN)
    simple = compression in (_PLAIN, _LZW) and STRIPS in page and STRIP_BYTES in page and TILES not in page
    defaults = all(one.get(tag, 1) == 1 for tag in (FILL_ORDER, PREDICTOR, SAMPLES))
    if not (simple and defaults and form in _CODES and bits in (8, 16, 32) and (form != 3 or bits == 32)):
        return None
    row = width * bits // 8
    rows = min(one.get(STRIP_ROWS, height) & (_LARGEST - 1) or height, height)
    strips, missing = [], height * row
    for offset, stored in zip(page[STRIPS].tolist(), page[STRIP_BYTES].tolist(), strict=True):
        wanted = min(rows * row, missing)
        strip = _strip(descriptor, offset, stored, wanted, compression)
        if strip is None or wanted == 0:
            return None
        strips.append(strip)
        missing -= wanted
    if missing:
        return None
    return np.frombuffer(b"".join(strips), f"{order}{_CODES[form]}{bits // 8}").reshape(height, width)


def _strip(descriptor: int, offset: int, stored: int, wanted: int, compression: int) -> bytes | None:
    """Return the bytes of a strip; None when it has other than those."""
    length = min(stored, wanted) if compression == _PLAIN else stored
    strip = os.pread(descriptor, length, offset)
    if len(strip) < length:
        return None
    if compression == _LZW:
        try:
            strip = bytes(imagecodecs.lzw_decode(strip, out=wanted))
        except Exception:  # what is wrong with it is said by the reader that everything else is left to
            return None
    return strip if len(strip) == wanted else None


def write_pages(
    descriptor: int, strips: Iterable[tuple[tuple[int, int], np.dtype[Any], bytes]], compression: str
) -> int:
    """Write pages of one strip each into an empty file; return how many.

    Byte for byte it is what tifffile writes of them, so that a movie gives the same file in whatever way it is written.

    Parameters
    ----------
    descriptor : of the file
    strips : of each page its shape (height, width), the type of its pixels, and their bytes
    compression : of the strips, "lzw" or "none"

    Raises
    ------
    OverflowError
        When they are more than a TIFF file of this kind can address.
    """
    count, end, pointer = 0, 0, 0
    for shape, dtype, strip in strips:
        offset = end + end % 2 if count else len(_START)
        directory, start = _directory(offset, shape, dtype, compression, len(strip))
        link = _POINTER.pack(offset) if count else _START
        _write_at(descriptor, link, pointer)
        _write_at(descriptor, directory, offset)
        _write_at(descriptor, strip, start)
        pointer = offset + _NUMBER.size + _entries(dtype) * _ENTRY.size
        end, count = start + len(strip), count + 1
    return count


def _entries(dtype: np.dtype[Any]) -> int:
    return 14 if dtype.kind != "u" else 13  # unsigned numbers are what is meant where nothing is said


def _directory(
    offset: int, shape: tuple[int, int], dtype: np.dtype[Any], compression: str, stored: int
) -> tuple[bytes, int]:
    """Return the bytes from a page's `offset` to its pixels, and where these begin."""
    values = offset + _NUMBER.size + _entries(dtype) * _ENTRY.size + _POINTER.size
    end = values + len(_VALUES)
    start = end + -end % _ALIGNMENT
    if start + stored + _ALIGNMENT > _LARGEST:
        raise OverflowError("more than 4 GB")
    entries = (
        (WIDTH, _LONG, 1, shape[1]),
        (LENGTH, _LONG, 1, shape[0]),
        (BITS, _SHORT, 1, 8 * dtype.itemsize),
        (COMPRESSION, _SHORT, 1, _LZW if compression == "lzw" else _PLAIN),
        (_PHOTOMETRIC, _SHORT, 1, 1),
        (STRIPS, _LONG, 1, start),
        (SAMPLES, _SHORT, 1, 1),
        (STRIP_ROWS, _LONG, 1, shape[0]),
        (STRIP_BYTES, _LONG, 1, stored),
        (_X_RESOLUTION, _RATIONAL, 1, values),
        (_Y_RESOLUTION, _RATIONAL, 1, values + 8),
        (_RESOLUTION_UNIT, _SHORT, 1, 1),
        (_SOFTWARE, _TEXT, len(_WRITER), values + 16),
        (SAMPLE_FORMAT, _SHORT, 1, {"u": 1, "i": 2, "f": 3}[dtype.kind]),
    )[: _entries(dtype)]
    table = b"".join(_ENTRY.pack(*entry) for entry in entries)
    directory = _NUMBER.pack(len(entries)) + table + _POINTER.pack(0) + _VALUES
    return directory.ljust(start - offset, b"\0"), start


def _write_at(descriptor: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count
