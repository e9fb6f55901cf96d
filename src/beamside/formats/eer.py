"""EER movies (electron event representation): every electron that the camera counted, with its place inside the pixel.

An EER file is a BigTIFF file with one directory for each raw frame of the camera, some hundred a second. A frame is a stream of bits, the lowest of
each byte first: the number of pixels to skip, then the place of the next electron inside its pixel, x before y. A skip of all ones is a long way
without an electron, and has no place after it. Places are signed. The bits of each are in the compression's number, or in tags (M. Leichsenring, "EER
file format documentation 3.0", Thermo Fisher Scientific 2023). The decoder is imagecodecs'.

Frames of the oldest kind (compression 65000, 8 + 4 bits) have a place after long skips too, by the account of RELION 3.1, which reads no others; a
frame ends where the sensor does, which tells the two apart.

Rows: unlike in other TIFF files, the first row of an EER frame is the first row of the array, as RELION has it; see `beamside.formats.tiff`.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from beamside.errors import ConfigError, CorruptFileError, InputError
from beamside.formats.claims import check_claim, unexplained
from beamside.formats.rendering import sum_type
from beamside.formats.tiff_directories import Page, read_directories

PathLike = str | os.PathLike[str]


_WIDTH, _LENGTH, _COMPRESSION, _STRIPS, _STRIP_BYTES = 256, 257, 259, 273, 279
_METADATA, _SKIP_BITS, _X_BITS, _Y_BITS = 65001, 65007, 65008, 65009
_FIXED_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2)}
_VARIABLE_BITS = 65002
_EVEN = 65000
_MAX_SIDE = 1 << 14
_METADATA_BYTES = 1 << 20
_PROBED = 3
_PADDING_ELECTRONS = 2
"""Bits that fill a frame's last word can look like so many electrons behind its end."""


@dataclass(frozen=True)
class Coding:
    """Bits of the numbers in a frame: of the pixels to skip, and of an electron's place in x and in y inside its pixel."""

    skip: int
    x: int
    y: int

    def __post_init__(self) -> None:
        if not (
            4 <= self.skip < 15 and 1 <= self.x <= 4 and 1 <= self.y <= 4 and 8 < self.skip + self.x + self.y <= 16
        ):
            raise ConfigError(f"EER frames cannot have {self.skip} + {self.x} + {self.y} bits an electron")


@dataclass(frozen=True)
class EerInfo:
    """What a complete EER file holds.

    Attributes
    ----------
    frames : raw frames
    shape : (height, width) of the sensor
    coding : bits of the numbers
    metadata : what the camera says, by the names of `beamside.acquisition.epu`: ``pixel_size`` (Å), ``total_dose`` (e/Å²), ``exposure_time`` (s),
        ``frames``, ``time``; and ``unexplained_bytes``, when the file has many that no directory refers to; each may be absent
    evenly : of the oldest kind, where all numbers may have 12 bits
    """

    frames: int
    shape: tuple[int, int]
    coding: Coding
    metadata: Mapping[str, float | str]
    evenly: bool = False


def check_eer_complete(path: PathLike) -> EerInfo:
    """Read every directory of an EER file and check that all that it refers to is inside the file.

    Raises
    ------
    NotReadyError
        When something is missing: the file is truncated or still being written.
    CorruptFileError
        When it is not an EER file, or its frames differ in size or coding.
    """
    with EerFrames(path) as movie:
        movie.check_shape()
        return movie.info


def _read(path: PathLike) -> tuple[EerInfo, list[Page]]:
    directories = read_directories(path, frozenset({_METADATA, _SKIP_BITS, _X_BITS, _Y_BITS}))
    pages = directories.pages
    frames = [page for page in pages if _number(page, _COMPRESSION, 1) in (*_FIXED_BITS, _VARIABLE_BITS)]
    if not frames:  # a sum that the camera adds is an ordinary image, and is not a frame
        raise CorruptFileError(
            f"{path} has no frames of electron events: it is not an EER movie, although its name says so."
        )
    kinds = {
        (_number(page, _LENGTH), _number(page, _WIDTH), _number(page, _COMPRESSION), _coding(page, path))
        for page in frames
    }
    if len(kinds) != 1:
        raise CorruptFileError(f"{path} holds frames of several sizes or codings: a movie has frames of one kind.")
    height, width, compression, coding = kinds.pop()
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise CorruptFileError(f"{path} is damaged: it says that its frames have {width} x {height} pixels.")
    longest = max(int(page[_STRIP_BYTES].sum()) if _STRIP_BYTES in page else 0 for page in frames)
    pixels_of_a_bit = ((1 << coding.skip) - 1) / coding.skip
    check_claim(path, "a frame", (height, width), 1, int(longest * pixels_of_a_bit) + 1)
    text = next((bytes(page[_METADATA].astype(np.uint8)) for page in pages if _METADATA in page), b"")
    metadata = _read_metadata(text) | unexplained(directories.size - directories.end, longest)
    return EerInfo(len(frames), (height, width), coding, metadata, compression == _EVEN), frames


def _number(page: Mapping[int, NDArray[Any]], tag: int, default: int = 0) -> int:
    values = page.get(tag)
    return int(values[0]) if values is not None and len(values) else default


def _coding(page: Mapping[int, NDArray[Any]], path: PathLike) -> Coding:
    bits = _FIXED_BITS.get(_number(page, _COMPRESSION))
    if bits is None:
        bits = (_number(page, _SKIP_BITS, 7), _number(page, _X_BITS, 2), _number(page, _Y_BITS, 2))
    try:
        return Coding(*bits)
    except ConfigError as error:
        raise CorruptFileError(f"{path} is damaged: {error}.") from None


def _read_metadata(text: bytes) -> dict[str, float | str]:
    """Return what the camera's XML says: items with a name, often a unit, and a value; nothing when it cannot be read."""
    try:
        root = ET.fromstring(text[:_METADATA_BYTES].rstrip(b"\0").decode(errors="replace"))
    except (ET.ParseError, ValueError):
        return {}
    items = {item.get("name"): (item.text or "").strip() for item in root.iter("item")}
    width, height = (_metres(items.get(f"sensorPixelSize.{side}", "")) for side in ("width", "height"))
    found: dict[str, float | str] = {}
    if width > 0:
        found["pixel_size"] = width
    dose = _value(items.get("totalDose", ""))  # electrons a pixel
    if dose > 0 and width > 0 and height > 0:
        found["total_dose"] = dose / (width * height)
    for name, key in (("exposureTime", "exposure_time"), ("numberOfFrames", "frames")):
        if (value := _value(items.get(name, ""))) > 0:
            found[key] = value
    if items.get("timestamp"):
        found["time"] = items["timestamp"]
    return found


def _value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if isfinite(value) else 0.0


def _metres(text: str) -> float:
    return _value(text) * 1e10


class EerFrames:
    """An open EER movie, whose sums of raw frames can be rendered by several threads at once; use it in a ``with`` block."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.info, pages = _read(path)
        self._strips = [_strips(page) for page in pages]
        self._file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115

    def sum(self, start: int, stop: int, upsampling: int = 1) -> NDArray[Any]:
        """Return the electrons of the raw frames ``start:stop`` in each pixel, ``(height, width) * upsampling``, of `sum_type`.

        Raises
        ------
        CorruptFileError
            When a frame cannot be decoded.
        """
        indices = range(self.info.frames)[start:stop]
        height, width = self.info.shape
        if upsampling > 1 and (height % (1 << self.info.coding.y) or width % (1 << self.info.coding.x)):
            raise InputError(
                f"{self.path} has frames of {width} x {height} pixels, which cannot be rendered with upsampling {upsampling}: use 1."
            )
        total = np.zeros((height * upsampling, width * upsampling), sum_type(len(indices)))
        for index in indices:
            self._add(index, total, upsampling)
        return _place(total, self.info.coding) if upsampling > 1 else total

    def check_shape(self) -> None:
        """Check that the frames go beyond the first half of the sensor that the header claims: of a larger one, pixels would lie in wrong places.

        Raises
        ------
        CorruptFileError
            When none of the first ones does, or one cannot be decoded.
        """
        height, width = self.info.shape
        if height < 2 or self.info.evenly:  # of the oldest kind, a frame tells by itself where it ends
            return
        whole, half = np.zeros((height, width), np.uint8), np.zeros((height // 2, width), np.uint8)
        for index in range(min(_PROBED, self.info.frames)):
            self._add(index, whole, 1)
            if np.count_nonzero(whole[len(half) :]) > _PADDING_ELECTRONS:
                return
            try:
                self._decode(self._data(index), half, 1)
            except (imagecodecs.EerError, ValueError):
                return  # without an electron there, and yet too long for the half
        raise CorruptFileError(
            f"{self.path} is damaged: its frames end before the middle of the {width} x {height} pixels that it says they have."
        )

    def _decode(self, data: bytes, total: NDArray[Any], upsampling: int) -> None:
        coding = self.info.coding
        imagecodecs.eer_decode(data, total.shape, coding.skip, coding.x, coding.y, superres=upsampling - 1, out=total)

    def _add(self, index: int, total: NDArray[Any], upsampling: int) -> None:
        data = self._data(index)
        if self.info.evenly and _add_evenly(data, total, upsampling):
            return
        try:
            self._decode(data, total, upsampling)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            raise CorruptFileError(
                f"{self.path} is damaged: raw frame {index + 1} cannot be decoded ({error})."
            ) from error

    def _data(self, index: int) -> bytes:
        parts = []
        for offset, length in self._strips[index]:
            part = os.pread(self._file.fileno(), length, offset)
            if len(part) < length:
                raise CorruptFileError(
                    f"{self.path} became shorter while it was read: raw frame {index + 1} is not all there."
                )
            parts.append(part)
        data = b"".join(parts)
        return data + b"\0" if len(data) % 2 else data  # the decoder reads words

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> EerFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _strips(page: Mapping[int, NDArray[Any]]) -> Sequence[tuple[int, int]]:
    return list(zip(page[_STRIPS].tolist(), page[_STRIP_BYTES].tolist(), strict=True))


def _add_evenly(data: bytes, total: NDArray[Any], upsampling: int) -> bool:
    """Add the electrons of a frame whose numbers all have 12 bits; do nothing and return False when it does not end with the sensor."""
    height, width = (side // upsampling for side in total.shape)
    triples = np.frombuffer(data + bytes(-len(data) % 3), np.uint8).reshape(-1, 3)
    skips = np.stack([triples[:, 0], triples[:, 1] >> 4 | triples[:, 2] << 4], axis=1).reshape(-1)
    places = np.stack([triples[:, 1] & 15, triples[:, 2] >> 4], axis=1).reshape(-1)
    is_electron = skips < 255
    after = np.cumsum(skips + is_electron.astype(np.int64))
    size = height * width
    used = int(np.searchsorted(after - is_electron, size))  # numbers before the one whose skip reaches the end
    reached = int(after[used] - is_electron[used]) if used < len(after) else int(after[-1]) if len(after) else 0
    if reached != size:
        return False
    chosen = is_electron[:used]
    pixels = after[:used][chosen] - 1
    if upsampling > 1:
        # the highest bits of the places, which are signed
        x, y = places[:used][chosen] >> 1 & 1 ^ 1, places[:used][chosen] >> 3 ^ 1
        row, column = np.divmod(pixels, width)
        pixels = (row * 2 + y) * (width * 2) + column * 2 + x
    total.reshape(-1)[pixels] += 1
    return True


def _place(total: NDArray[Any], coding: Coding) -> NDArray[Any]:
    """Exchange the halves of each pixel where the decoder has them the wrong way round.

    Places are signed, so their highest bit is set in the first half of a pixel. Releases of imagecodecs (2026.3) take another bit for it, which is
    the same one where there are 1 or 2 bits.
    """
    height, width = total.shape
    halves = total.reshape(height // 2, 2, width // 2, 2)
    if not _first_half_is_first(coding.skip, coding.x, coding.y, "x"):
        halves = halves[..., ::-1]
    if not _first_half_is_first(coding.skip, coding.x, coding.y, "y"):
        halves = halves[:, ::-1]
    return np.ascontiguousarray(halves).reshape(height, width)


@cache
def _first_half_is_first(skip: int, x: int, y: int, axis: str) -> bool:
    """Decode one electron in the first half of the first pixel; tell whether it comes out there."""
    code = 1 << (skip + x - 1) | 1 << (skip + x + y - 1)
    size = 16 * 2
    pixels = np.zeros((size, size), np.uint8)
    bits = skip + x + y
    # the electron, and long skips over the pixels that follow
    rest, left = 0, size * size // 4 - 1
    position = bits
    while left >= (1 << skip) - 1:
        rest |= ((1 << skip) - 1) << position
        position, left = position + skip, left - ((1 << skip) - 1)
    rest |= left << position
    length = (position + bits + 15) // 16 * 2 + 2
    imagecodecs.eer_decode((code | rest).to_bytes(length, "little"), pixels.shape, skip, x, y, superres=1, out=pixels)
    (row,), (column,) = pixels.nonzero()
    return bool((column if axis == "x" else row) == 0)
