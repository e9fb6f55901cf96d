"""TIFF movies: what is in them, whether they are complete, their frames, and writing them with LZW.

What the directories say is read by `beamside.formats.tiff_directories`; pixels are decoded by tifffile and imagecodecs.

Rows: TIFF stores the top row of an image first, MRC the bottom row. Arrays are in MRC's order everywhere in Beamside, so rows are reversed on the
way in and out, as RELION, IMOD and MotionCor2 do: coordinates, motion and gain references then mean the same for a movie in either format.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from beamside.errors import CorruptFileError
from beamside.formats.atomic import atomic_path
from beamside.formats.claims import check_claim, row_bytes, unexplained
from beamside.formats.descriptions import described_images
from beamside.formats.mrc import HALVED_SIZES, unpack
from beamside.formats.tiff_directories import (
    BITS,
    COMPRESSION,
    DESCRIPTION,
    LENGTH,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_BYTES,
    STRIP_ROWS,
    STRIPS,
    TILE_BYTES,
    TILE_LENGTH,
    TILE_WIDTH,
    WIDTH,
    Directories,
    Page,
    read_directories,
)
from beamside.formats.tiff_pages import FILL_ORDER, PREDICTOR, read_page, write_pages

PathLike = str | os.PathLike[str]

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
_MAX_SIDE = 1 << 17


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


def check_tiff_complete(path: PathLike) -> TiffInfo:
    """Read every directory of a TIFF file and check that all that it refers to is inside the file.

    Raises
    ------
    NotReadyError
        When something is missing: the file is truncated or still being written.
    CorruptFileError
        When it is not a TIFF file, or holds something that is not a movie (images of several sizes, colour).
    """
    return _summarise(read_directories(path, first=frozenset({DESCRIPTION})), path)


def _check_sizes(tags: Page, what: str, path: PathLike) -> None:
    """Compare the pixels that a directory claims with its strips or tiles and the bytes that these have."""
    height, width = int(tags[LENGTH][0]), int(tags[WIDTH][0])
    bits = _first(tags, BITS, 1) * max(_first(tags, SAMPLES, 1), 1)
    lengths = tags.get(STRIP_BYTES, tags.get(TILE_BYTES))
    assert lengths is not None
    stored, largest, parts = int(lengths.sum()), int(lengths.max()), len(lengths)
    compression = _compression(tags)
    check_claim(path, f"the image of {what}", (height, width), bits, stored, compression)
    if TILE_WIDTH not in tags and STRIPS in tags:
        part = min(_first(tags, STRIP_ROWS, height) & 0xFFFFFFFF or height, height), width
    else:
        part = _first(tags, TILE_LENGTH, 0), _first(tags, TILE_WIDTH, 0)
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
    kinds = {(int(p[LENGTH][0]), int(p[WIDTH][0]), _first(p, SAMPLES, 1), _page_dtype(p, path)) for p in pages}
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
    if _is_halved(width, height, _first(pages[0], BITS, 1)):
        width *= 2
    metadata = _check_description(directories, (height, width), path)
    return TiffInfo(len(pages), (height, width), dtype, _compression(pages[0]), metadata)


def _check_description(directories: Directories, shape: tuple[int, int], path: PathLike) -> dict[str, float | str]:
    """Compare the directories with what a description says, and with the bytes of the file."""
    first, frames = directories.pages[0], len(directories.pages)
    lengths = first.get(STRIP_BYTES, first.get(TILE_BYTES))
    image_bytes = int(lengths.sum()) if lengths is not None else 0
    extra = directories.size - directories.end
    stated = described_images(first[DESCRIPTION].tobytes() if DESCRIPTION in first else b"", shape)
    if stated > frames and extra >= (stated - frames) * image_bytes > 0 and _compression(first) == "none":
        raise CorruptFileError(
            f"{path} has {stated} images by its description and its size, and {frames} by its directories, which other programs go by: "
            "save it with a directory for each frame."
        )
    return {**({"described_frames": float(stated)} if stated else {}), **unexplained(extra, image_bytes)}


def _compression(page: Page) -> str:
    number = _first(page, COMPRESSION, 1)
    return _COMPRESSIONS.get(number, f"tiff-{number}")


def _is_halved(width: int, height: int, bits: int) -> bool:
    """Tell whether bytes are pairs of 4-bit pixels, by a size that no other frames have."""
    return bits == 8 and (width, height) in HALVED_SIZES


def _first(tags: Page, tag: int, default: int) -> int:
    values = tags.get(tag)
    return int(values[0]) if values is not None and len(values) else default


def _page_dtype(tags: Page, path: PathLike) -> np.dtype[Any]:
    bits, form = _first(tags, BITS, 1), _first(tags, SAMPLE_FORMAT, 1)
    if form in (1, 4) and 0 < bits <= 8:
        return np.dtype(np.uint8)  # 4-bit frames are unpacked to bytes
    code = {1: "u", 2: "i", 3: "f", 4: "u"}.get(form)
    if code is None or bits not in (8, 16, 32, 64) or (code == "f" and bits == 8):
        raise CorruptFileError(f"{path} has pixels of {bits} bits in format {form}, which is not a type of movies.")
    return np.dtype(f"{code}{bits // 8}")


class TiffFrames:
    """An open TIFF movie whose frames can be decoded by several threads at once; use it in a ``with`` block."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self._directories = read_directories(path, frozenset({FILL_ORDER, PREDICTOR}), frozenset({DESCRIPTION}))
        self.info = _summarise(self._directories, path)
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._tiff: tifffile.TiffFile | None = None
        self._pages: list[tifffile.TiffPage | tifffile.TiffFrame] = []
        self._lock = threading.Lock()

    def frame(self, index: int) -> NDArray[Any]:
        """Decode one frame (height, width), the last row of the file first."""
        pages, order = self._directories.pages, self._directories.order
        array = read_page(self._file.fileno(), pages[index], order)
        if array is None:
            array = self._decoded(index)
        if array.ndim == 2 and _is_halved(array.shape[1], array.shape[0], 8 * array.itemsize):
            array = unpack(array.view(np.uint8), 2 * array.shape[1])
        if array.shape != self.info.shape:
            raise CorruptFileError(f"{self.path} is damaged: frame {index + 1} decodes to shape {array.shape}.")
        return np.ascontiguousarray(array[::-1], self.info.dtype)

    def _decoded(self, index: int) -> NDArray[Any]:
        """Let tifffile decode a page of any kind."""
        height, width = self.info.shape
        page = self._general_pages()[index]
        with _decoding(f"{self.path} is damaged: frame {index + 1} cannot be decoded"):
            if page.shape not in ((height, width), (height, width // 2)):  # before anything of that size is made
                raise CorruptFileError(f"{self.path} is damaged: frame {index + 1} has the shape {page.shape}.")
            return np.asarray(page.asarray(maxworkers=1))

    def _general_pages(self) -> Sequence[tifffile.TiffPage | tifffile.TiffFrame]:
        """Return tifffile's pages: all are read before the first one is decoded, as reading them moves the file's position."""
        with self._lock:
            if not self._pages:
                with _decoding(f"{self.path} is damaged: its directories cannot be understood"):
                    self._tiff = tifffile.TiffFile(self.path)
                    self._tiff.filehandle.set_lock(True)
                    self._pages = [self._tiff.pages[number] for number in range(self.info.frames)]
            return self._pages

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._tiff is not None:
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

    Raises
    ------
    OverflowError
        When the frames are more than a TIFF file can address, 4 GB.
    """
    source = iter(frames[None] if isinstance(frames, np.ndarray) and frames.ndim == 2 else frames)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, durable=durable) as temporary, open(temporary, "wb", buffering=0) as file:
        count = write_pages(file.fileno(), _strips(source, compression, max(threads, 1)), compression)
        if count == 0:
            raise ValueError("a movie has at least one frame")
    return count


def _strips(
    frames: Iterator[NDArray[Any]], compression: str, threads: int
) -> Iterator[tuple[tuple[int, int], np.dtype[Any], bytes]]:
    """Yield shape, type and bytes of each frame, top row first."""
    encode = _encode if compression == "lzw" else _plain
    if threads == 1:
        for frame in map(_top_first, frames):
            yield frame.shape, frame.dtype, encode(frame)
        return
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(frames, 2 * threads):
            for frame, strip in zip(batch, pool.map(encode, batch), strict=True):
                yield frame.shape, frame.dtype, strip


def _top_first(frame: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(frame[::-1], frame.dtype.newbyteorder("<"))


def _batches(frames: Iterator[NDArray[Any]], size: int) -> Iterator[list[NDArray[Any]]]:
    batch: list[NDArray[Any]] = []
    for frame in frames:
        batch.append(_top_first(frame))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _encode(frame: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.lzw_encode(frame.tobytes()))


def _plain(frame: NDArray[Any]) -> bytes:
    return frame.tobytes()
