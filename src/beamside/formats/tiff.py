"""TIFF movies: what is in them, whether they are complete, their frames, and writing them with LZW.

The directories are walked here, without decoding anything, because the question "is this file complete?" needs an answer about every
byte that a directory refers to (TIFF 6.0, Aldus 1992; BigTIFF as libtiff defines it). Pixels are decoded by tifffile and imagecodecs.

Rows: TIFF stores the top row of an image first, MRC the bottom row. Arrays are in MRC's order everywhere in Beamside, so rows are reversed on the
way in and out, as RELION, IMOD and MotionCor2 do: coordinates, motion and gain references then mean the same for a movie in either format.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from beamside.errors import CorruptFileError, NotReadyError
from beamside.formats.atomic import atomic_path
from beamside.formats.claims import check_claim, row_bytes, unexplained
from beamside.formats.descriptions import described_images
from beamside.formats.mrc import HALVED_SIZES, unpack

PathLike = str | os.PathLike[str]

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _DESCRIPTION = 256, 257, 258, 259, 270
_STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES = 273, 277, 278, 279
_TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_NEEDED = frozenset(
    {_WIDTH, _LENGTH, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES}
    | {_TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _SAMPLE_FORMAT}
)
_INTEGER_TYPES = {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 13: "u4", 16: "u8", 17: "i8", 18: "u8"}
_TEXT_TYPES = (2, 7)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_COMPRESSIONS = {
    1: "none",
    5: "lzw",
    7: "jpeg",
    8: "deflate",
    32773: "packbits",
    32946: "deflate",
    50000: "zstd",
    34925: "lzma",
}
_MAX_PAGES = 100_000
_MAX_SIDE = 1 << 17
_MOST_PARTS = 1 << 24
"""Strips or tiles of all directories together: numbers of them are 8 bytes long in memory, whatever they are in the file."""
_MOST_TEXT = 1 << 20

Page = dict[int, NDArray[Any]]


@dataclass(frozen=True)
class TiffInfo:
    """What a complete TIFF file holds.

    Attributes
    ----------
    frames : number of images
    shape : (height, width) of each
    dtype : type of the decoded pixels
    compression : "none", "lzw", "deflate", "zstd", ... or "tiff-<number>"
    metadata : ``described_frames``, when a description in the file says how many there are; ``unexplained_bytes``, when the file has many that no
        directory refers to
    """

    frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    compression: str
    metadata: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Directories:
    """The directories of a file, each as its tags by number; the bytes of the file; and where the last of those ends that they refer to."""

    pages: list[Page]
    size: int
    end: int


@dataclass(frozen=True)
class _Layout:
    """How numbers are stored in this file: byte order, and the sizes that differ between classic TIFF and BigTIFF."""

    order: str
    count: str
    offset: str
    entry_bytes: int


class _TruncatedError(Exception):
    """A directory refers to bytes that the file does not have."""


def check_tiff_complete(path: PathLike) -> TiffInfo:
    """Read every directory of a TIFF file and check that all that it refers to is inside the file.

    Raises
    ------
    NotReadyError
        When something is missing: the file is truncated or still being written.
    CorruptFileError
        When it is not a TIFF file, or holds something that is not a movie (images of several sizes, colour).
    """
    return _summarise(read_directories(path, first=frozenset({_DESCRIPTION})), path)


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
        return Directories(pages, self.size, self.end)

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
        for start in range(0, len(entries), self.layout.entry_bytes):
            entry = entries[start : start + self.layout.entry_bytes]
            tag, kind, count = struct.unpack(order + "HH" + pointer, entry[:-inline])
            total = _TYPE_BYTES.get(kind, 1) * count
            is_number, is_text = kind in _INTEGER_TYPES, kind in _TEXT_TYPES and tag not in _NEEDED
            wanted = tag in needed and count > 0 and (is_number or is_text)
            if wanted:
                self.parts += 0 if is_text else count
                if self.parts > _MOST_PARTS:
                    raise CorruptFileError(f"{self.path} is damaged: {what} has a table of {count:,} numbers.")
            data = entry[-inline:][:total]
            if total > inline:
                position = struct.unpack(order + pointer, entry[-inline:])[0]
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
    offsets = tags.get(_STRIPS, tags.get(_TILES))
    lengths = tags.get(_STRIP_BYTES, tags.get(_TILE_BYTES))
    if offsets is None or lengths is None or _WIDTH not in tags or _LENGTH not in tags:
        raise CorruptFileError(f"{path} is damaged: {what} does not say where its pixels are.")
    if len(offsets) != len(lengths) or len(offsets) == 0:
        raise CorruptFileError(f"{path} is damaged: {what} has {len(offsets)} strips and {len(lengths)} lengths.")
    if offsets.min() < 0 or lengths.min() < 0:
        raise CorruptFileError(f"{path} is damaged: {what} says that its pixels are at an impossible place.")
    if not offsets.all() or not lengths.all():
        raise _TruncatedError(f"the pixels of {what} have not been written")
    end = max(int(offsets.max()), int(lengths.max()))
    end = int((offsets + lengths).max()) if end <= size else end
    if end > size:
        raise _TruncatedError(f"the pixels of {what} end at byte {end:,} and the file has {size:,}")
    return end


def _check_sizes(tags: Page, what: str, path: PathLike) -> None:
    """Compare the pixels that a directory claims with its strips or tiles and the bytes that these have."""
    height, width = int(tags[_LENGTH][0]), int(tags[_WIDTH][0])
    bits = _first(tags, _BITS, 1) * max(_first(tags, _SAMPLES, 1), 1)
    lengths = tags.get(_STRIP_BYTES, tags.get(_TILE_BYTES))
    assert lengths is not None
    stored, largest, parts = int(lengths.sum()), int(lengths.max()), len(lengths)
    compression = _compression(tags)
    check_claim(path, f"the image of {what}", (height, width), bits, stored, compression)
    if _TILE_WIDTH not in tags and _STRIPS in tags:
        part = min(_first(tags, _STRIP_ROWS, height) & 0xFFFFFFFF or height, height), width
    else:
        part = _first(tags, _TILE_LENGTH, 0), _first(tags, _TILE_WIDTH, 0)
        check_claim(path, f"a tile of {what}", part, bits, largest, compression)
    expected = -(-height // part[0]) * -(-width // part[1])
    if parts != expected:
        raise CorruptFileError(
            f"{path} is damaged: {what} has {parts} strips or tiles, and its {width} x {height} pixels take {expected}."
        )
    most = expected * part[0] * row_bytes(part[1], bits)  # some programs fill the last strip
    if compression == "none" and stored > most + largest // 100 + 64 * parts:
        raise CorruptFileError(
            f"{path} has {stored:,} bytes of pixels in {what}, where {width} x {height} pixels of {bits} bits take {most:,}: "
            "it is damaged, or holds more than one image in a directory."
        )


def _summarise(directories: Directories, path: PathLike) -> TiffInfo:
    pages = directories.pages
    kinds = {(int(p[_LENGTH][0]), int(p[_WIDTH][0]), _first(p, _SAMPLES, 1), _page_dtype(p, path)) for p in pages}
    if len(kinds) != 1:
        sizes = ", ".join(sorted({f"{height} x {width}" for height, width, _, _ in kinds}))
        raise CorruptFileError(
            f"{path} holds images of several kinds ({sizes}): a movie has frames of one size and type."
        )
    height, width, samples, dtype = kinds.pop()
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise CorruptFileError(f"{path} is damaged: it says that its frames have {width} x {height} pixels.")
    if samples != 1:
        raise CorruptFileError(f"{path} has {samples} colours a pixel: a movie or micrograph has one.")
    for number, page in enumerate(pages, start=1):
        _check_sizes(page, f"directory {number}", path)
    if _is_halved(width, height, _first(pages[0], _BITS, 1)):
        width *= 2
    metadata = _check_description(directories, (height, width), path)
    return TiffInfo(len(pages), (height, width), dtype, _compression(pages[0]), metadata)


def _check_description(directories: Directories, shape: tuple[int, int], path: PathLike) -> dict[str, float | str]:
    """Compare the directories with what a description says, and with the bytes of the file."""
    first, frames = directories.pages[0], len(directories.pages)
    lengths = first.get(_STRIP_BYTES, first.get(_TILE_BYTES))
    image_bytes = int(lengths.sum()) if lengths is not None else 0
    extra = directories.size - directories.end
    stated = described_images(first[_DESCRIPTION].tobytes() if _DESCRIPTION in first else b"", shape)
    if stated > frames and extra >= (stated - frames) * image_bytes > 0 and _compression(first) == "none":
        raise CorruptFileError(
            f"{path} has {stated} images by its description and its size, and {frames} by its directories, which other programs go by: "
            "save it with a directory for each frame."
        )
    return {**({"described_frames": float(stated)} if stated else {}), **unexplained(extra, image_bytes)}


def _compression(page: Page) -> str:
    number = _first(page, _COMPRESSION, 1)
    return _COMPRESSIONS.get(number, f"tiff-{number}")


def _is_halved(width: int, height: int, bits: int) -> bool:
    """Tell whether bytes are pairs of 4-bit pixels, by a size that no other frames have."""
    return bits == 8 and (width, height) in HALVED_SIZES


def _first(tags: Page, tag: int, default: int) -> int:
    values = tags.get(tag)
    return int(values[0]) if values is not None and len(values) else default


def _page_dtype(tags: Page, path: PathLike) -> np.dtype[Any]:
    bits, form = _first(tags, _BITS, 1), _first(tags, _SAMPLE_FORMAT, 1)
    if form in (1, 4) and 0 < bits <= 8:
        return np.dtype(np.uint8)  # 4-bit frames are unpacked to bytes
    code = {1: "u", 2: "i", 3: "f", 4: "u"}.get(form)
    if code is None or bits not in (8, 16, 32, 64) or (code == "f" and bits == 8):
        raise CorruptFileError(f"{path} has pixels of {bits} bits in format {form}, which is not a type of movies.")
    return np.dtype(f"{code}{bits // 8}")


class TiffFrames:
    """An open TIFF movie whose frames can be decoded by several threads at once; use it in a ``with`` block."""

    def __init__(self, path: PathLike) -> None:
        self.info = check_tiff_complete(path)
        self.path = Path(path)
        with _decoding(f"{path} is damaged: its directories cannot be understood"):
            self._tiff = tifffile.TiffFile(path)
        try:
            with _decoding(f"{path} is damaged: its directories cannot be understood"):
                self._tiff.filehandle.set_lock(True)
                self._pages = [self._tiff.pages[index] for index in range(self.info.frames)]
        except BaseException:
            self._tiff.close()
            raise

    def frame(self, index: int) -> NDArray[Any]:
        """Decode one frame (height, width), the last row of the file first."""
        height, width = self.info.shape
        with _decoding(f"{self.path} is damaged: frame {index + 1} cannot be decoded"):
            page = self._pages[index]
            if page.shape not in ((height, width), (height, width // 2)):  # before anything of that size is made
                raise CorruptFileError(f"{self.path} is damaged: frame {index + 1} has the shape {page.shape}.")
            array = page.asarray(maxworkers=1)
        if array.ndim == 2 and _is_halved(array.shape[1], array.shape[0], 8 * array.itemsize):
            array = unpack(array.view(np.uint8), 2 * array.shape[1])
        if array.shape != self.info.shape:
            raise CorruptFileError(f"{self.path} is damaged: frame {index + 1} decodes to shape {array.shape}.")
        return np.ascontiguousarray(array[::-1], self.info.dtype)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def __enter__(self) -> TiffFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _decoding(sentence: str) -> Iterator[None]:
    """Turn whatever the decoders raise for damaged bytes, which can be any error, into ours; the disk's errors and ours stay."""
    try:
        yield
    except (OSError, MemoryError, CorruptFileError):
        raise
    except Exception as error:
        raise CorruptFileError(f"{sentence} ({error}).") from error


def write_tiff(
    path: PathLike,
    frames: NDArray[Any] | Iterator[NDArray[Any]],
    *,
    compression: str = "lzw",
    threads: int = 1,
    durable: bool = True,
) -> int:
    """Write frames, one page each and one strip a page, atomically; return how many.

    Parameters
    ----------
    path : file to write
    frames : (n, height, width), one (height, width) image, or an iterator over equal (height, width) frames
    compression : "lzw" or "none"
    threads : frames compressed at the same time
    durable : force the file to the disk
    """
    source = iter(frames[None] if isinstance(frames, np.ndarray) and frames.ndim == 2 else frames)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        atomic_path(path, durable=durable) as temporary,
        tifffile.TiffWriter(temporary) as writer,
        ThreadPoolExecutor(threads) as pool,
    ):
        for batch in _batches(source, max(threads, 1) * 2):
            strips = pool.map(_encode if compression == "lzw" else _plain, batch)
            for frame, strip in zip(batch, strips, strict=True):
                writer.write(
                    iter([strip]),
                    shape=frame.shape,
                    dtype=frame.dtype.newbyteorder("="),
                    compression=None if compression == "none" else compression,
                    photometric="minisblack",
                    rowsperstrip=frame.shape[0],
                    metadata=None,
                    contiguous=False,
                )
                count += 1
        if count == 0:
            raise ValueError("a movie has at least one frame")
    return count


def _batches(frames: Iterator[NDArray[Any]], size: int) -> Iterator[list[NDArray[Any]]]:
    batch: list[NDArray[Any]] = []
    for frame in frames:
        batch.append(np.ascontiguousarray(frame[::-1], frame.dtype.newbyteorder("<")))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _encode(frame: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.lzw_encode(frame.tobytes()))


def _plain(frame: NDArray[Any]) -> bytes:
    return frame.tobytes()
