"""EER files of a simulated camera: movies become electrons, and electrons the bits of a file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beamside.errors import ConfigError
from beamside.formats.eer import Coding

Array = npt.NDArray[np.int64]

_FIXED_COMPRESSION = {(8, 2, 2): 65000, (7, 2, 2): 65001}
_VARIABLE_COMPRESSION = 65002
_STRIP_PLACE, _METADATA = 273, 65001
_SHORT, _LONG, _UNDEFINED, _LONG8 = 3, 4, 7, 16
_HEADER = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)


@dataclass(frozen=True)
class Electrons:
    """The electrons of one raw frame: flat indices of their pixels, growing and each at most once, and their places inside, in steps of the coding.

    Attributes
    ----------
    pixels : ``(n,)``, row by row, the first row first
    x, y : ``(n,)`` from 0 at the pixel's first edge to 2 ** bits - 1
    """

    pixels: Array
    x: Array
    y: Array


def split_counts(
    counts: npt.NDArray[np.uint8], frames: int, coding: Coding, rng: np.random.Generator
) -> list[Electrons]:
    """Return the raw frames of a fraction: every electron of `counts` ``(h, w)`` falls into one of `frames`, at most one in each pixel and frame.

    Raises ConfigError when a pixel has more electrons than there are frames.
    """
    flat = counts.reshape(-1)
    if int(flat.max(initial=0)) > frames:
        raise ConfigError(
            f"A pixel has {flat.max()} electrons, and {frames} raw frames hold at most one each; take more raw frames."
        )
    pixels = np.repeat(np.arange(flat.size), flat)
    order = np.arange(len(pixels)) - np.repeat(np.cumsum(flat, dtype=np.int64) - flat, flat)
    # the electrons of a pixel take frames that follow each other around, so that no two take the same
    start, step = rng.integers(0, frames, flat.size), max(1, frames // 3)
    while np.gcd(step, frames) != 1:
        step += 1
    frame = (start[pixels] + order * step) % frames
    x, y = (rng.integers(0, 1 << bits, len(pixels)) for bits in (coding.x, coding.y))
    return [Electrons(pixels[chosen], x[chosen], y[chosen]) for chosen in (frame == index for index in range(frames))]


def encode_frame(electrons: Electrons, size: int, coding: Coding, *, evenly: bool = False) -> bytes:
    """Return the bits of a raw frame of `size` pixels, filled up to whole 16-bit words; `evenly` gives long skips a place, too."""
    longest = (1 << coding.skip) - 1
    pixels = electrons.pixels
    skips = np.diff(pixels, prepend=-1) - 1
    last = size - 1 - (int(pixels[-1]) if len(pixels) else -1)
    # for each electron: long skips, the rest, its place; at the end the skips to the end of the frame
    long_skips = np.append(skips // longest, last // longest)
    rests = np.append(skips % longest, last % longest)
    places = (electrons.x ^ 1 << coding.x - 1) | (electrons.y ^ 1 << coding.y - 1) << coding.x
    words = long_skips + 1
    owner = np.repeat(np.arange(len(words)), words)
    is_rest = np.zeros(len(owner), bool)
    is_rest[np.cumsum(words) - 1] = True
    values, lengths = np.full(len(owner), longest), np.full(len(owner), coding.skip)
    values[is_rest] = rests | np.append(places, 0) << coding.skip
    lengths[is_rest | evenly] += coding.x + coding.y
    starts = np.cumsum(lengths) - lengths
    bits = np.zeros(-(-int(lengths.sum()) // 16) * 16, np.uint8)
    for bit in range(coding.skip + coding.x + coding.y):
        has = lengths > bit
        bits[starts[has] + bit] = values[has] >> bit & 1
    return np.packbits(bits, bitorder="little").tobytes()


def camera_xml(
    frames: int, shape: tuple[int, int], pixel_size: float, total_dose: float, exposure_time: float
) -> bytes:
    """Return the camera's XML: `pixel_size` in Å, `total_dose` in e/Å², `exposure_time` in s."""
    items = (
        ("acquisitionID", None, "simulated"),
        ("cameraName", None, "SIM-Events"),
        ("exposureTime", "s", f"{exposure_time:.6f}"),
        ("meanDoseRate", "e/pixel/s", f"{total_dose * pixel_size**2 / exposure_time:.6f}"),
        ("numberOfFrames", None, f"{frames}"),
        ("sensorImageHeight", "pixel", f"{shape[0]}"),
        ("sensorImageWidth", "pixel", f"{shape[1]}"),
        ("sensorPixelSize.height", "m", f"{pixel_size * 1e-10:.6e}"),
        ("sensorPixelSize.width", "m", f"{pixel_size * 1e-10:.6e}"),
        ("totalDose", "e/pixel", f"{total_dose * pixel_size**2:.6f}"),
    )
    lines = (f'<item name="{name}"{f" unit={unit!r}" if unit else ""}>{value}</item>' for name, unit, value in items)
    return b"<metadata>" + "".join(lines).replace("'", '"').encode() + b"</metadata>"


def eer_bytes(
    frames: Iterable[Electrons], shape: tuple[int, int], coding: Coding | None = None, metadata: bytes = b""
) -> bytes:
    """Return an EER file: BigTIFF, one directory and one strip a raw frame; `metadata` is the camera's XML, in the first directory.

    Without `coding`, it is the usual one of 7 + 2 + 2 bits.
    """
    coding = coding or Coding(7, 2, 2)
    evenly = coding == Coding(8, 2, 2)  # as RELION 3.1 reads them
    strips = [encode_frame(electrons, shape[0] * shape[1], coding, evenly=evenly) for electrons in frames]
    parts, position = [_HEADER], len(_HEADER)
    for index, strip in enumerate(strips):
        content = strip + (metadata if index == 0 else b"")
        entries = _entries(shape, coding, len(strip), len(content) - len(strip))
        start = position + 8 + 20 * len(entries) + 8
        end = start + len(content) + -(start + len(content)) % 8
        parts.append(_directory(entries, start, end if index + 1 < len(strips) else 0))
        parts.append(content.ljust(end - start, b"\0"))
        position = end
    return b"".join(parts)


def _entries(shape: tuple[int, int], coding: Coding, strip: int, metadata: int) -> list[tuple[int, int, int, int]]:
    """Return tag, type, count and value of a directory; places in the file are counted from the end of the directory, where the strip begins."""
    bits = (coding.skip, coding.x, coding.y)
    entries = [
        (256, _LONG, 1, shape[1]),
        (257, _LONG, 1, shape[0]),
        (258, _SHORT, 1, 1),
        (259, _SHORT, 1, _FIXED_COMPRESSION.get(bits, _VARIABLE_COMPRESSION)),
        (262, _SHORT, 1, 1),
        (_STRIP_PLACE, _LONG8, 1, 0),
        (277, _SHORT, 1, 1),
        (278, _LONG, 1, shape[0]),
        (279, _LONG8, 1, strip),
    ]
    if metadata:
        entries.append((_METADATA, _UNDEFINED, metadata, strip))
    if bits not in _FIXED_COMPRESSION:
        entries += [(65007 + index, _SHORT, 1, number) for index, number in enumerate(bits)]
    return entries


def _directory(entries: Sequence[tuple[int, int, int, int]], content: int, following: int) -> bytes:
    """Return the bytes of a directory whose strip begins at byte `content`."""
    packed = [struct.pack("<Q", len(entries))]
    for tag, kind, count, value in entries:
        packed.append(struct.pack("<HHQQ", tag, kind, count, value + content * (tag in (_STRIP_PLACE, _METADATA))))
    return b"".join((*packed, struct.pack("<Q", following)))
