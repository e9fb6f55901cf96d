"""DM3 and DM4 files of Gatan's DigitalMicrograph: one image, as gain references are kept in.

The file is a tree of tags. Names, counts and descriptions of types are big-endian; values have the byte order that the header says. DM4 has 64-bit
numbers where DM3 has 32-bit ones, and the length of every tag (description by C. Boothroyd, "The DM3/DM4 image file format", and IMOD's
documentation). Only what is needed to find the image is read.

Rows: the first row of the file is the top one, as in TIFF, and becomes the last row of the array; see `beamside.formats.tiff`.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from beamside.errors import CorruptFileError, InputError, NotReadyError

PathLike = str | os.PathLike[str]

_GROUP, _VALUE = 20, 21
_STRUCT, _STRING, _ARRAY = 15, 18, 20
_SIMPLE = {2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "u1", 10: "i1", 11: "i8", 12: "u8"}
_PIXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 14: "u1", 39: "i8", 40: "u8"}
_COLOURS = 23
_COMPLEX = (3, 13)
_ANGSTROMS = {"µm": 1e4, "um": 1e4, "nm": 10.0, "å": 1.0, "a": 1.0, "pm": 0.01}
_MOST_TAGS = 200_000
_MOST_LEVELS = 40
_LONGEST_TYPE = 512
_MOST_BYTES_READ = 4096
_MAX_SIDE = 1 << 17


@dataclass(frozen=True)
class DmImage:
    """Where the image of a file is.

    Attributes
    ----------
    shape : (height, width)
    dtype : of the pixels in the file, with its byte order
    offset : byte at which they start
    pixel_size : Å, when the file says; 0 otherwise
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    offset: int
    pixel_size: float


@dataclass(frozen=True)
class _Array:
    """An array in the file: where it is, its bytes, and what they say when they are characters."""

    offset: int
    size: int
    text: str = ""


_Value = float | _Array
_Tree = dict[str, "_Tree | _Value"]


class _TruncatedError(Exception):
    """The file ends before what it announces."""


@dataclass
class _Reader:
    """Reads tags one after the other; `wide` in DM4, `order` that of values."""

    file: BinaryIO
    size: int
    wide: bool
    order: str
    tags: int = 0
    path: PathLike = ""
    formats: dict[str, str] = field(default_factory=lambda: {"1": "B", "2": "H", "4": "i", "8": "q"})

    def number(self, length: str) -> int:
        """Return a big-endian number of `length` bytes; "w" stands for 4 in DM3 and 8 in DM4."""
        code = self.formats["8" if self.wide else "4"] if length == "w" else self.formats[length]
        return int(struct.unpack(">" + code, self.bytes(struct.calcsize(">" + code)))[0])

    def bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        if count < 0:
            raise self.damaged("a tag has a negative length")
        self.expect(count)
        return self.file.read(count)

    def expect(self, count: int) -> int:
        """Return the place in the file, after checking that `count` bytes follow."""
        place = self.file.tell()
        if place + count > self.size:
            raise _TruncatedError(f"a tag ends at byte {place + count:,} and the file has {self.size:,}")
        return place

    def damaged(self, problem: str) -> CorruptFileError:
        """Return the error that says what is wrong."""
        return CorruptFileError(f"{self.path} is damaged: {problem}.")

    def group(self, level: int = 0) -> _Tree:
        """Return a group of tags; those without a name are called by their number, and of two with one name the first counts."""
        if level > _MOST_LEVELS:
            raise self.damaged("its tags lie in each other without end")
        self.bytes(2)
        tree: _Tree = {}
        for index in range(self.number("w")):
            self.tags += 1
            if self.tags > _MOST_TAGS:
                raise self.damaged("it has more tags than any image")
            kind = self.number("1")
            name = self.bytes(self.number("2")).decode("latin-1") or str(index)
            if self.wide:
                self.number("8")
            if kind == _GROUP:
                tree.setdefault(name, self.group(level + 1))
            elif kind == _VALUE:
                tree.setdefault(name, self.value())
            else:
                raise self.damaged(f"it has a tag of kind {kind}, and there are only 20 and 21")
        return tree

    def value(self) -> _Value:
        """Return the value of a tag: a number, or where an array is."""
        if self.bytes(4) != b"%%%%":
            raise self.damaged("a value does not begin with its mark")
        count = self.number("w")
        if not 0 < count <= _MOST_BYTES_READ:
            raise self.damaged(f"the type of a value takes {count} numbers")
        info = [self.number("w") for _ in range(count)]
        if info[0] in _SIMPLE and count == 1:
            kind = np.dtype(self.order + _SIMPLE[info[0]])
            return float(np.frombuffer(self.bytes(kind.itemsize), kind)[0])
        size = self.size_of(info)
        place = self.expect(size)
        text = ""
        if info[0] == _ARRAY and info[1] == 4 and size <= _MOST_BYTES_READ:  # texts are arrays of 16-bit numbers
            text = self.bytes(size).decode("utf-16-le" if self.order == "<" else "utf-16-be", "replace")
        self.file.seek(place + size)
        return _Array(place, size, text)

    def size_of(self, info: list[int]) -> int:
        """Return the bytes that a value of this type takes."""
        kind = info[0]
        if len(info) > _LONGEST_TYPE:
            raise self.damaged("it has a value whose type has no end")
        if kind in _SIMPLE:
            return np.dtype(_SIMPLE[kind]).itemsize
        if kind == _STRING and len(info) == 2 and info[1] >= 0:
            return 2 * info[1]
        if kind == _STRUCT and len(info) >= 3 and len(info) == 3 + 2 * info[2]:
            return sum(self.size_of([one]) for one in info[4::2])
        if kind == _ARRAY and len(info) >= 3 and info[-1] >= 0:
            return self.size_of(info[1:-1]) * info[-1]
        raise self.damaged(f"it has a value of an unknown type ({', '.join(map(str, info[:6]))})")


def find_dm_image(path: PathLike) -> DmImage:
    """Find the image of a DM3 or DM4 file, checking that all of the file is there.

    Raises
    ------
    NotReadyError
        When it is truncated.
    CorruptFileError
        When it is not such a file, or damaged.
    InputError
        When it has no image of real numbers, or a stack.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(16)
        if len(start) < 16:
            raise NotReadyError(f"{path} has {len(start)} bytes, less than a DM header; it may still be written.")
        version = int.from_bytes(start[:4], "big")
        if version not in (3, 4):
            raise CorruptFileError(f"{path} is not a DM3 or DM4 file, although its name says so.")
        wide = version == 4
        order = int.from_bytes(start[12:16] if wide else start[8:12], "big")
        if order not in (0, 1):
            raise CorruptFileError(
                f"{path} is damaged: its header says byte order {order}, and there are only 0 and 1."
            )
        file.seek(16 if wide else 12)
        reader = _Reader(file, size, wide, "<" if order else ">", path=path)
        try:
            tree = reader.group()
        except _TruncatedError as problem:
            raise NotReadyError(f"{path} is truncated or still being written: {problem}.") from None
    return _image(tree, reader)


def read_dm(path: PathLike) -> NDArray[Any]:
    """Read the image of a DM3 or DM4 file as (height, width) in its own type, the last row of the file first.

    Raises as `find_dm_image`.
    """
    image = find_dm_image(path)
    count = image.shape[0] * image.shape[1]
    pixels = np.fromfile(path, image.dtype, count, offset=image.offset)
    if len(pixels) < count:
        raise NotReadyError(f"{path} became shorter while it was read; it may still be written.")
    return np.ascontiguousarray(pixels.reshape(image.shape)[::-1], image.dtype.newbyteorder("="))


def _image(tree: _Tree, reader: _Reader) -> DmImage:
    """Return the last image of the file that is not a thumbnail, which has colours."""
    images = tree.get("ImageList")
    entries = (
        [entry.get("ImageData") for entry in images.values() if isinstance(entry, dict)]
        if isinstance(images, dict)
        else []
    )
    found = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("Data"), _Array)]
    chosen = [entry for entry in found if entry.get("DataType") != _COLOURS]
    if not chosen:
        raise InputError(f"{reader.path} holds no grey image: save the image itself from DigitalMicrograph.")
    return _describe(chosen[-1], reader)


def _describe(entry: _Tree, reader: _Reader) -> DmImage:
    kind, data, dimensions = entry.get("DataType"), entry.get("Data"), entry.get("Dimensions")
    if not isinstance(dimensions, dict) or not isinstance(data, _Array) or not isinstance(kind, float):
        raise reader.damaged("it does not say what its image is like")
    sides = [int(side) for side in dimensions.values() if isinstance(side, float) and math.isfinite(side)]
    while len(sides) > 2 and sides[-1] == 1:
        sides.pop()
    if len(sides) != 2:
        raise InputError(
            f"{reader.path} has {len(sides)} dimensions where an image has 2: save one image of the stack."
        )
    (width, height), number = sides, int(kind) if math.isfinite(kind) else 0
    if number in _COMPLEX:
        raise InputError(f"{reader.path} holds complex numbers: it is a transform, not an image.")
    if number not in _PIXELS or not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise reader.damaged(f"it says that its image has {width} x {height} pixels of type {number}")
    dtype = np.dtype(reader.order + _PIXELS[number])
    if data.size != width * height * dtype.itemsize:
        raise reader.damaged(f"its image of {width} x {height} pixels has {data.size:,} bytes")
    return DmImage((height, width), dtype, data.offset, _pixel_size(entry))


def _pixel_size(entry: _Tree) -> float:
    """Return the pixel size along x, Å; 0 when it is not said in a unit of length."""
    node: _Tree | _Value | None = entry
    for name in ("Calibrations", "Dimension", "0"):
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return 0.0
    scale, unit = node.get("Scale"), node.get("Units")
    if not isinstance(scale, float) or not isinstance(unit, _Array) or not (math.isfinite(scale) and scale > 0):
        return 0.0
    return scale * _ANGSTROMS.get(unit.text.strip().replace("μ", "µ").lower(), 0.0)
