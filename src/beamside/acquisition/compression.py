"""Lossless recompression of movies that the camera wrote uncompressed.

Counts at one electron per Å² take far less than their 8 or 16 bits; LZW in a TIFF file is what RELION, MotionCor and cisTEM all read.
The result is decoded again and compared pixel by pixel before it replaces anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.acquisition.transfer import destination_error
from beamside.errors import TransferError
from beamside.formats.image import ImageInfo
from beamside.formats.movies import MRC_SUFFIXES, TIFF_SUFFIXES, Movie, open_movie
from beamside.formats.tiff import write_tiff

_KEPT_TYPES = {np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16)}


def can_compress(info: ImageInfo) -> bool:
    """Tell whether a file is an uncompressed movie of whole numbers; single images and floating-point data stay as they are."""
    return (
        info.frames > 1
        and info.compression in ("none", "packed")
        and (info.dtype in _KEPT_TYPES or info.dtype == np.int8)
    )


def compress_movie(source: Path, destination: Path, *, threads: int = 1) -> bool:
    """Write `source` as an LZW TIFF and verify every pixel; return False, leaving nothing, when that saves no space.

    Signed bytes are stored as unsigned ones, which is exact as counts are never negative; a movie with negative ones is left as it is.

    Raises
    ------
    TransferError
        When writing fails, or the decoded pixels differ.
    """
    with open_movie(source) as movie:
        if movie.dtype == np.int8 and any(movie.frame(index).min() < 0 for index in range(movie.frames)):
            return False
        try:
            write_tiff(destination, _frames(movie), threads=threads)
        except OverflowError:  # more than a TIFF file can have
            return False
        except OSError as error:
            raise destination_error(error, destination) from error
        try:
            with open_movie(destination) as written:
                same = _are_same(movie, written)
            smaller = destination.stat().st_size < source.stat().st_size
        except BaseException:
            destination.unlink(missing_ok=True)
            raise
    if same and smaller:
        return True
    destination.unlink()
    if not same:
        raise TransferError(f"Compressing {source.name} changed its pixels: check this machine's memory and disk.")
    return False


def same_pixels(one: Path, other: Path) -> bool:
    """Tell whether two movies have the same frames, pixel by pixel, whatever their formats."""
    with open_movie(one) as first, open_movie(other) as second:
        return _are_same(first, second)


def _are_same(first: Movie, second: Movie) -> bool:
    if (first.frames, first.shape) != (second.frames, second.shape):
        return False
    return all(_equal(first, second, index) for index in range(first.frames))


def same_ends(one: Path, other: Path) -> bool:
    """Tell whether two movies have as many frames of one shape, and the same first and last ones, whatever their formats."""
    with open_movie(one) as first, open_movie(other) as second:
        if (first.frames, first.shape) != (second.frames, second.shape):
            return False
        return all(_equal(first, second, index) for index in {0, first.frames - 1})


def continues(longer: Path, shorter: Path) -> bool:
    """Tell whether a movie begins with the first frame of another one and has no fewer: then it is that one as it went on to be written.

    A first frame without any counts is room that was set aside, and says nothing.
    """
    with open_movie(longer) as now, open_movie(shorter) as before:
        if now.frames < before.frames or now.shape != before.shape:
            return False
        first = before.frame(0)
        return bool(first.min() == first.max()) or np.array_equal(first, now.frame(0))


def ends_blank(path: Path, frames: int) -> bool:
    """Tell whether the last of several frames has no counts: some programs set room aside for a whole movie, and fill it frame by frame.

    Files of electron events have no room for frames that are not there.
    """
    if frames < 2 or path.suffix.lower() not in (*TIFF_SUFFIXES, *MRC_SUFFIXES):
        return False
    with open_movie(path) as movie:
        last = movie.frame(movie.frames - 1)
    return not last.any()


def _equal(one: Movie, other: Movie, index: int) -> bool:
    return np.array_equal(one.frame(index), other.frame(index))


def _frames(movie: Movie) -> Iterator[NDArray[Any]]:
    for index in range(movie.frames):
        frame = movie.frame(index)
        yield frame.view(np.uint8) if frame.dtype == np.int8 else frame
