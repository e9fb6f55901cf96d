"""Movies of any format, frame by frame."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.errors import CorruptFileError, InputError
from beamside.formats.claims import damage_is_ours
from beamside.formats.eer import EerFrames
from beamside.formats.mrc import check_mrc_movie, read_sections
from beamside.formats.rendering import EER_SUFFIX, Rendering, sum_type
from beamside.formats.tiff import TiffFrames

TIFF_SUFFIXES = (".tif", ".tiff")
MRC_SUFFIXES = (".mrc", ".mrcs")
PNG_SUFFIXES = (".png",)
GAIN_SUFFIX = ".gain"


class Movie(ABC):
    """An open movie.

    Attributes
    ----------
    path : its file
    frames : number of frames
    shape : (height, width) of a frame
    dtype : type of the pixels as `frame` returns them
    pixel_size : Å, when the header says; 0 otherwise
    """

    path: Path
    frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    pixel_size: float = 0.0

    @abstractmethod
    def frame(self, index: int) -> NDArray[Any]:
        """Return one frame (height, width); may be called from several threads."""

    def read(self, start: int = 0, stop: int | None = None, *, threads: int = 1) -> NDArray[Any]:
        """Return frames ``start:stop`` as (n, height, width), decoded by `threads` threads."""
        indices = range(self.frames)[start:stop]
        result = np.empty((len(indices), *self.shape), self.dtype)

        def fill(position: int) -> None:
            result[position] = self.frame(indices[position])

        if threads <= 1 or len(indices) < 2:
            for position in range(len(indices)):
                fill(position)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(fill, range(len(indices))))
        return result

    def close(self) -> None:  # noqa: B027
        """Close the file; formats that keep none open have nothing to do."""

    def __enter__(self) -> Movie:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _TiffMovie(Movie):
    def __init__(self, path: Path) -> None:
        self._file = TiffFrames(path)
        info = self._file.info
        self.path, self.frames, self.shape, self.dtype = path, info.frames, info.shape, info.dtype

    def frame(self, index: int) -> NDArray[Any]:
        return self._file.frame(range(self.frames)[index])

    def close(self) -> None:
        self._file.close()


class _MrcMovie(Movie):
    def __init__(self, path: Path) -> None:
        header, _ = check_mrc_movie(path)
        if header.dtype.kind == "c":
            raise CorruptFileError(f"{path} holds complex numbers (MRC mode 4): it is a transform, not a movie.")
        self.path, self.pixel_size = path, header.pixel_size
        self.frames, self.shape = header.shape[0], header.shape[1:]
        self.dtype = header.dtype.newbyteorder("=")

    def frame(self, index: int) -> NDArray[Any]:
        position = range(self.frames)[index]
        return np.asarray(read_sections(self.path, position, position + 1)[0])


class _EerMovie(Movie):
    """An EER movie whose raw frames are rendered in groups, each when it is asked for."""

    def __init__(self, path: Path, rendering: Rendering) -> None:
        self._file = EerFrames(path)
        info, self._rendering = self._file.info, rendering
        self.path = path
        self._groups = rendering.groups(info.frames)
        try:
            self._file.check_shape()
        except BaseException:
            self.close()
            raise
        if not self._groups:
            self.close()
            raise InputError(
                f"{path} has {info.frames} raw frames, fewer than the {rendering.group} of a fraction: lower the dose of a fraction."
            )
        self.frames = len(self._groups)
        self.shape = (info.shape[0] * rendering.upsampling, info.shape[1] * rendering.upsampling)
        self.dtype = sum_type(max(stop - start for start, stop in self._groups))
        self.pixel_size = float(info.metadata.get("pixel_size", 0.0)) / rendering.upsampling

    def frame(self, index: int) -> NDArray[Any]:
        start, stop = self._groups[index]
        return self._file.sum(start, stop, self._rendering.upsampling).astype(self.dtype, copy=False)

    def close(self) -> None:
        self._file.close()


def open_movie(path: str | os.PathLike[str], rendering: Rendering | None = None) -> Movie:
    """Open a TIFF, MRC, MRCS or EER movie (one image is a movie of one frame); use it in a ``with`` block.

    Parameters
    ----------
    path : its file
    rendering : how the raw frames of an EER movie become frames; without it, in the sensor's pixels, all of them. Other movies take no notice

    Raises
    ------
    NotReadyError
        When the file is incomplete.
    CorruptFileError
        When it is damaged or not what its name says.
    InputError
        When its format is not supported.
    """
    path = Path(path)
    with damage_is_ours(path):
        return _open_movie(path, rendering)


def _open_movie(path: Path, rendering: Rendering | None) -> Movie:
    suffix = path.suffix.lower()
    if suffix == EER_SUFFIX:
        return _EerMovie(path, rendering or Rendering())
    if suffix in (*TIFF_SUFFIXES, GAIN_SUFFIX):
        return _TiffMovie(path)
    if suffix in MRC_SUFFIXES:
        return _MrcMovie(path)
    raise InputError(
        f"{path} is not a movie that can be read: give TIFF (.tif, .tiff), MRC (.mrc, .mrcs) or EER (.eer)."
    )
