"""MRC and MRCS files: images, stacks and volumes.

The format is described in Cheng et al., J. Struct. Biol. 192, 146 (2015), "MRC2014", with the extensions for half-precision (mode 12)
and 4-bit data (mode 101). Reading is tolerant, as microscope software often leaves the header's newer fields empty; only what is
needed to find the pixels must be right. Arrays are in file order: row 0 is the first row of the file.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from beamside.errors import CorruptFileError, NotReadyError
from beamside.formats.atomic import atomic_path

HEADER_BYTES = 1024
PACKED_MODE = 101
_DTYPES: dict[int, str] = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 12: "f2"}
_MODES = {np.dtype(code): mode for mode, code in _DTYPES.items()}
_IMOD_STAMP = 1146047817
_SIGNED_BYTES, _PACKED_BYTES = 1, 16
_BIG_ENDIAN_STAMP = 0x11
_SAMPLE_BYTES = 1 << 16
_REFUSED = {3: "complex 16-bit numbers", 16: "colours"}
HALVED_SIZES = frozenset({(3838, 7420), (3710, 7676), (5760, 8184), (4092, 11520)})
"""Width and height of super-resolution frames of K2 and K3 cameras whose 4-bit pixels are packed and counted as bytes, half as many in a row.
SerialEM writes such files, and IMOD and RELION know them by their size."""
_MAX_SIDE = 1 << 24

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class MrcHeader:
    """What the header says.

    Attributes
    ----------
    shape : (nz, ny, nx), sections, rows, columns
    mode : MRC mode: 0, 1, 2, 4, 6, 12 or 101 (also where packed 4-bit pixels are called bytes)
    dtype : type of the pixels in the file, with its byte order (unsigned bytes for mode 101, once unpacked)
    pixel_size : Å per pixel along x; 0 when the header does not say
    data_offset : byte at which pixels start
    shifted : bytes lie 128 below the counts that they stand for, as IMOD stores them; reading gives the counts
    """

    shape: tuple[int, int, int]
    mode: int
    dtype: np.dtype[Any]
    pixel_size: float
    data_offset: int
    shifted: bool = False

    @property
    def section_bytes(self) -> int:
        """Bytes of one section in the file."""
        _, ny, nx = self.shape
        if self.mode == PACKED_MODE:
            return (nx + 1) // 2 * ny
        return nx * ny * self.dtype.itemsize

    @property
    def expected_size(self) -> int:
        """Bytes that the file has when it is complete."""
        return self.data_offset + self.shape[0] * self.section_bytes


def read_header(path: PathLike) -> MrcHeader:
    """Read the header of an MRC file.

    Raises
    ------
    NotReadyError
        When the file is shorter than a header.
    CorruptFileError
        When it is not an MRC file, or of a mode that is not supported.
    """
    with open(path, "rb") as file:
        raw = file.read(HEADER_BYTES)
        return _parse_header(raw, file, path)


def _parse_header(raw: bytes, file: BinaryIO, path: PathLike) -> MrcHeader:
    if len(raw) < HEADER_BYTES:
        raise NotReadyError(f"{path} has {len(raw)} bytes, less than an MRC header; it may still be written.")
    if not any(raw[:16]):
        raise NotReadyError(f"{path} starts with zeros instead of an MRC header; it may still be written.")
    order = _byte_order(raw)
    if order is None and (mode := _other_mode(raw)):
        raise CorruptFileError(
            f"{path} has {_REFUSED.get(mode, 'numbers of an unknown type')} (MRC mode {mode}): modes 0, 1, 2, 6, 12 and 101 are read."
        )
    if order is None:
        raise CorruptFileError(
            f"{path} is not an MRC file (its size and mode make no sense): give an MRC, MRCS or TIFF file."
        )
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
    columns = struct.unpack_from(order + "i", raw, 28)[0]
    width = struct.unpack_from(order + "f", raw, 40)[0]
    extended = struct.unpack_from(order + "i", raw, 92)[0]
    if extended < 0:
        raise CorruptFileError(f"{path} has a damaged MRC header: an extended header of {extended} bytes.")
    pixel_size = width / columns if columns > 0 and np.isfinite(width) and width > 0 else 0.0
    offset = HEADER_BYTES + extended
    if mode == 0:
        nx, mode = _unpacked(raw, order, (nx, ny, nz), os.path.getsize(path) - offset)
    dtype = _dtype(raw, mode, order)
    shifted = mode == 0 and dtype == np.int8 and _is_shifted(raw, order, file, offset)
    return MrcHeader((nz, ny, nx), mode, np.dtype("u1") if shifted else dtype, float(pixel_size), offset, shifted)


def _unpacked(raw: bytes, order: str, size: tuple[int, int, int], bytes_there: int) -> tuple[int, int]:
    """Return the width and the mode of a file of bytes, which can be packed 4-bit pixels: IMOD's flags say so, or a size that no other frames have.

    With the flag, some programs count pixels in a row and others bytes; how long the file is tells which.
    """
    nx, ny, nz = size
    stamp, flags = struct.unpack_from(order + "2i", raw, 152)
    if stamp == _IMOD_STAMP and flags & _PACKED_BYTES:
        return (nx if bytes_there == (nx + 1) // 2 * ny * nz else nx * 2), PACKED_MODE
    return (nx * 2, PACKED_MODE) if (nx, ny) in HALVED_SIZES else (nx, 0)


def _other_mode(raw: bytes) -> int:
    """Return the mode of a header that makes sense but for that; else 0."""
    for order in ("<", ">"):
        nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
        if all(0 < side <= _MAX_SIDE for side in (nx, ny, nz)) and 0 < mode < 256:
            return int(mode)
    return 0


def _byte_order(raw: bytes) -> Literal["<", ">"] | None:
    """Return the byte order in which the header makes sense; where it does in both (bytes, with round sides), the machine stamp decides."""
    orders: tuple[Literal["<", ">"], ...] = (">", "<") if raw[212] == _BIG_ENDIAN_STAMP else ("<", ">")
    for order in orders:
        nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
        if all(0 < side <= _MAX_SIDE for side in (nx, ny, nz)) and (mode in _DTYPES or mode == PACKED_MODE):
            return order
    return None


def _dtype(raw: bytes, mode: int, order: str) -> np.dtype[Any]:
    if mode == PACKED_MODE:
        return np.dtype("u1")
    if mode == 0:
        return np.dtype("i1") if _has_signed_bytes(raw, order) else np.dtype("u1")
    return np.dtype(order + _DTYPES[mode])


def _has_signed_bytes(raw: bytes, order: str) -> bool:
    """Tell whether the bytes of mode 0 are signed.

    They are by the standard. IMOD, and SerialEM through it, mark in their own field which they wrote; where there is no mark, a header whose
    greatest value is no signed byte, and whose least one is not negative, speaks of unsigned ones (IMOD's rule, too).
    """
    stamp, flags = struct.unpack_from(order + "2i", raw, 152)
    if stamp == _IMOD_STAMP:
        return bool(flags & _SIGNED_BYTES)
    least, greatest = struct.unpack_from(order + "2f", raw, 76)
    return not (least >= 0 and 127 < greatest <= 255)


def _is_shifted(raw: bytes, order: str, file: BinaryIO, offset: int) -> bool:
    """Tell whether signed bytes lie 128 below what they stand for: IMOD writes a count of 0 as -128.

    Only where its mark is, and only where there are negative ones, as a count cannot be: another program may have written the mark with counts
    as they are.
    """
    if struct.unpack_from(order + "i", raw, 152)[0] != _IMOD_STAMP:
        return False
    file.seek(offset)
    return bool((np.frombuffer(file.read(_SAMPLE_BYTES), np.int8) < 0).any())


def mrc_expected_size(path: PathLike) -> int:
    """Return the bytes that the file must have by its own header."""
    return read_header(path).expected_size


def check_mrc_complete(path: PathLike) -> MrcHeader:
    """Return the header of a complete file.

    Raises
    ------
    NotReadyError
        When the file is shorter than its header says.
    CorruptFileError
        When it is not an MRC file.
    """
    header = read_header(path)
    size = os.path.getsize(path)
    if size < header.expected_size:
        raise NotReadyError(
            f"{path} has {size:,} of the {header.expected_size:,} bytes that its MRC header says: it is truncated or still being written."
        )
    return header


def check_mrc_movie(path: PathLike) -> tuple[MrcHeader, int]:
    """Return the header of a complete movie or image, and how many bytes the file has beyond what the header says.

    Raises
    ------
    NotReadyError
        When the file is shorter than its header says, or longer by one or more sections: the header was not brought up to date.
    CorruptFileError
        When it is not an MRC file.
    """
    header = check_mrc_complete(path)
    extra = os.path.getsize(path) - header.expected_size
    if extra >= header.section_bytes:
        there = header.shape[0] + extra // header.section_bytes
        raise NotReadyError(
            f"{path} has the bytes of {there} images, and its MRC header says {header.shape[0]}: it is still being written, or its header "
            "is wrong; correct the header (IMOD's alterheader does that) if it is the whole movie."
        )
    return header, extra


def read_sections(path: PathLike, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Read sections ``start:stop`` as an array (n, ny, nx) in native byte order and the file's type (4-bit data as uint8)."""
    header = check_mrc_complete(path)
    stop = header.shape[0] if stop is None else min(stop, header.shape[0])
    count = max(stop - start, 0)
    offset = header.data_offset + start * header.section_bytes
    _, ny, nx = header.shape
    if header.mode == PACKED_MODE:
        packed = _pixels(path, np.dtype(np.uint8), count * header.section_bytes, offset)
        return unpack(packed.reshape(count, ny, -1), nx)
    sections = _pixels(path, header.dtype, count * ny * nx, offset).reshape(count, ny, nx)
    if header.shifted:
        sections ^= 0x80
    return sections.astype(header.dtype.newbyteorder("="), copy=False)


def _pixels(path: PathLike, dtype: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
    pixels = np.fromfile(path, dtype, count, offset=offset)
    if len(pixels) < count:
        raise NotReadyError(f"{path} became shorter while it was read; it may still be written.")
    return pixels


def unpack(packed: NDArray[np.uint8], nx: int) -> NDArray[np.uint8]:
    """Split bytes into 4-bit pixels; the low half comes first (IMOD's and SerialEM's convention)."""
    pixels = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.uint8)
    pixels[..., 0::2] = packed & 15
    pixels[..., 1::2] = packed >> 4
    return np.ascontiguousarray(pixels[..., :nx])


def read_mrc(path: PathLike) -> NDArray[Any]:
    """Read a whole file: (ny, nx) when it has one section, (nz, ny, nx) otherwise."""
    sections = read_sections(path)
    return sections[0] if len(sections) == 1 else sections


def map_mrc(path: PathLike) -> NDArray[Any]:
    """Map a complete file read-only into memory as (nz, ny, nx), in the file's own type and byte order; not for 4-bit data."""
    header = check_mrc_complete(path)
    if header.mode == PACKED_MODE:
        raise CorruptFileError(
            f"{path} has packed 4-bit data (mode 101), which cannot be memory-mapped: read it instead."
        )
    if header.shifted:
        raise CorruptFileError(f"{path} has IMOD's signed bytes, which cannot be memory-mapped: read it instead.")
    return np.memmap(path, header.dtype, "r", header.data_offset, header.shape)


def write_mrc(
    path: PathLike,
    data: NDArray[Any],
    pixel_size: float = 0.0,
    *,
    volume: bool = False,
    durable: bool = True,
) -> None:
    """Write an image (ny, nx), or a stack or volume (nz, ny, nx), atomically.

    Parameters
    ----------
    path : file to write; it is never seen half written
    data : int8, int16, uint16, float16, float32 and complex64 are kept; bool becomes int8, uint8 uint16, all other reals float32
    pixel_size : Å; 0 when not known
    volume : a 3-D array is one volume and not a stack of images
    durable : force the file to the disk
    """
    array = np.ascontiguousarray(data, _stored_type(data.dtype))
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"an MRC file holds a 2-D or 3-D array that is not empty, not one of shape {data.shape}")
    sections = array[None] if array.ndim == 2 else array
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, durable=durable) as temporary, open(temporary, "wb") as file:
        file.write(make_header(sections, pixel_size, volume=volume))
        file.write(sections.data)


def _stored_type(dtype: np.dtype[Any]) -> DTypeLike:
    if dtype == np.bool_:
        return np.dtype("i1")
    if dtype == np.uint8:
        return np.dtype("<u2")
    native = dtype.newbyteorder("=")
    if native in _MODES:
        return native.newbyteorder("<")
    return np.dtype("<c8") if dtype.kind == "c" else np.dtype("<f4")


def make_header(sections: NDArray[Any], pixel_size: float, *, volume: bool) -> bytes:
    """Return the 1024 bytes of an MRC2014 header for an array (nz, ny, nx)."""
    nz, ny, nx = sections.shape
    mz = nz if volume else 1
    minimum, maximum, mean, deviation = _statistics(sections)
    header = bytearray(HEADER_BYTES)
    struct.pack_into("<4i", header, 0, nx, ny, nz, _MODES[sections.dtype.newbyteorder("=")])
    struct.pack_into("<3i", header, 28, nx, ny, mz)
    struct.pack_into("<6f", header, 40, nx * pixel_size, ny * pixel_size, mz * pixel_size, 90, 90, 90)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    struct.pack_into("<3f", header, 76, minimum, maximum, mean)
    struct.pack_into("<i", header, 88, 1 if volume else 0)
    struct.pack_into("<i", header, 108, 20141)
    header[208:216] = b"MAP \x44\x44\x00\x00"
    struct.pack_into("<f", header, 216, deviation)
    struct.pack_into("<i", header, 220, 1)
    header[224:304] = b"Beamside".ljust(80)
    return bytes(header)


_STATISTICS_PART = 1 << 15


def _statistics(sections: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return minimum, maximum, mean and standard deviation; the standard's "not known" (0, -1, -2, -1) where they make no sense."""
    if sections.dtype.kind == "c":
        return 0.0, -1.0, -2.0, -1.0
    values = (sections if sections.dtype != np.float16 else sections.astype(np.float32)).reshape(-1)
    # Deviations from a value that is there lose nothing to the size of the mean; parts that fit the cache are read once from memory.
    near, total, squares = np.float64(values[0]), 0.0, 0.0
    with np.errstate(all="ignore"):
        for start in range(0, values.size, _STATISTICS_PART):
            part = values[start : start + _STATISTICS_PART].astype(np.float64) - near
            total, squares = total + float(part.sum()), squares + float(part @ part)
        mean = total / values.size
        deviation = float(np.sqrt(max(squares / values.size - mean**2, 0.0)))
        found = (float(values.min()), float(values.max()), float(near + mean), deviation)
    limit = float(np.finfo(np.float32).max)
    return found if all(np.isfinite(v) and abs(v) <= limit for v in found) else (0.0, -1.0, -2.0, -1.0)
