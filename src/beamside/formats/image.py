"""Single images: micrographs, gain references, masks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beamside.errors import CorruptFileError, InputError, NotReadyError
from beamside.formats.claims import check_claim, damage_is_ours, unexplained
from beamside.formats.dm import find_dm_image, read_dm
from beamside.formats.movies import GAIN_SUFFIX, MRC_SUFFIXES, PNG_SUFFIXES, TIFF_SUFFIXES, open_movie

DM_SUFFIXES = (".dm3", ".dm4")
IMAGE_SUFFIXES = (*MRC_SUFFIXES, *TIFF_SUFFIXES, *PNG_SUFFIXES, *DM_SUFFIXES, GAIN_SUFFIX)
_MOST_PNG_PIXELS = 2 * 89_478_485  # Pillow decodes no more
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ImageInfo:
    """What a file holds.

    Attributes
    ----------
    frames : number of frames; of an EER movie, the camera's raw ones
    shape : (height, width)
    dtype, compression : of the pixels
    metadata : what the camera says in the file itself, by the names of `beamside.acquisition.epu`
    """

    frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    compression: str
    metadata: Mapping[str, float | str] = field(default_factory=dict)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read one image from MRC, TIFF (also named .gain), DM3, DM4 or a grey PNG of 8 or 16 bits, as float32 (height, width), in file order.

    Raises
    ------
    NotReadyError
        When the file is incomplete.
    CorruptFileError
        When it is damaged.
    InputError
        When it is missing, of another format, or a movie.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name.")
    with damage_is_ours(path):
        return _read_image(path)


def _read_image(path: Path) -> NDArray[np.float32]:
    suffix = path.suffix.lower()
    if suffix in PNG_SUFFIXES:
        return _read_png(path)
    if suffix in DM_SUFFIXES:
        return read_dm(path).astype(np.float32)
    if suffix not in (*MRC_SUFFIXES, *TIFF_SUFFIXES, GAIN_SUFFIX):
        raise InputError(f"{path} is not an image that can be read: give MRC, TIFF, DM4 or PNG.")
    with open_movie(path) as movie:
        if movie.frames != 1:
            raise InputError(f"{path} has {movie.frames} frames where one image is expected: is it a movie?")
        return movie.frame(0).astype(np.float32)


def read_pixel_size(path: str | os.PathLike[str]) -> float:
    """Return the pixel size (Å) that the header of an MRC, DM3 or DM4 file gives; 0 when it, or the format, does not say."""
    with damage_is_ours(path):
        return _read_pixel_size(path)


def _read_pixel_size(path: str | os.PathLike[str]) -> float:
    if Path(path).suffix.lower() in DM_SUFFIXES:
        return find_dm_image(path).pixel_size
    if Path(path).suffix.lower() not in MRC_SUFFIXES:
        return 0.0
    with open_movie(path) as movie:
        return movie.pixel_size


def _read_png(path: Path) -> NDArray[np.float32]:
    info = check_png_complete(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size was compared with the file's
            with Image.open(path) as image:
                pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; without a number, it is Pillow's way of saying that the content is damaged
        raise CorruptFileError(f"{path} is damaged: it cannot be decoded ({error}).") from error
    if pixels.shape != info.shape:
        raise CorruptFileError(f"{path} is damaged: it decodes to shape {pixels.shape}.")
    return pixels.astype(np.float32)


def check_png_complete(path: str | os.PathLike[str]) -> ImageInfo:
    """Check that every chunk of a PNG file is there, to the end chunk, and that it is a grey image (PNG specification, ISO/IEC 15948).

    Raises
    ------
    NotReadyError
        When the end is missing.
    CorruptFileError
        When it is not a PNG file, or has colours.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if start != _PNG_SIGNATURE[: len(start)] and any(start):
            raise CorruptFileError(f"{path} is not a PNG file, although its name says so.")
        position, header, stored = 8, b"", 0
        while True:
            file.seek(position)
            chunk = file.read(8)
            position += 12 + int.from_bytes(chunk[:4], "big")
            if len(chunk) < 8 or position > size:
                raise NotReadyError(f"{path} is truncated or still being written: its PNG end chunk is missing.")
            if chunk[4:] == b"IHDR":
                header = file.read(13)
            if chunk[4:] == b"IDAT":
                stored += int.from_bytes(chunk[:4], "big")
            if chunk[4:] == b"IEND":
                return _png_info(header, stored, size - position, path)


def _png_info(header: bytes, stored: int, extra: int, path: str | os.PathLike[str]) -> ImageInfo:
    if len(header) != 13:
        raise CorruptFileError(f"{path} is damaged: it has no PNG header.")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits, colour = header[8], header[9]
    if colour != 0:
        raise CorruptFileError(f"{path} is a colour image: a micrograph is grey; save it with 8 or 16 bits of grey.")
    check_claim(path, "the image", (height, width), bits, stored, "deflate")
    if height * width > _MOST_PNG_PIXELS:
        raise CorruptFileError(
            f"{path} has {width} x {height} pixels, more than any camera: it is damaged, or made to fill the memory."
        )
    dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
    return ImageInfo(1, (height, width), dtype, "png", unexplained(extra, stored))
