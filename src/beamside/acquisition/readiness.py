"""Is a file written to its end?

Two independent answers have to agree: its size and date have stayed the same over at least two looks (`Settling`), and all that its
own structure refers to is there (`inspect_file`). Dates are only compared with earlier dates of the same file, never with this machine's
clock, because the microscope's clock and the file server's are often wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from beamside.acquisition.scan import Sighting
from beamside.errors import CorruptFileError, InputError
from beamside.formats.claims import damage_is_ours, unexplained
from beamside.formats.eer import check_eer_complete
from beamside.formats.image import ImageInfo, check_png_complete
from beamside.formats.movies import MRC_SUFFIXES, PNG_SUFFIXES, TIFF_SUFFIXES
from beamside.formats.mrc import PACKED_MODE, check_mrc_movie
from beamside.formats.rendering import EER_SUFFIX
from beamside.formats.tiff import check_tiff_complete


class Settling:
    """Remembers what files looked like, and tells which have stopped changing.

    Parameters
    ----------
    seconds : time that a file must stay the same, by this machine's monotonic clock
    clock : the monotonic clock
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[str, tuple[Sighting, float]] = {}

    def observe(self, sighting: Sighting, seconds: float | None = None) -> bool:
        """Take in a sighting; return whether the file looked the same before, for long enough: `seconds`, or as long as others."""
        before = self._seen.get(sighting.path)
        if before is None or before[0] != sighting:
            self._seen[sighting.path] = (sighting, self._clock())
            return False
        return self._clock() - before[1] >= (self._seconds if seconds is None else seconds)

    def forget(self, path: str) -> None:
        """Drop a file that was taken or has gone."""
        self._seen.pop(path, None)


def inspect_file(path: str) -> ImageInfo:
    """Check that a movie or micrograph is structurally complete, and say what it holds.

    Raises
    ------
    NotReadyError
        When something that the file refers to is missing.
    CorruptFileError
        When the file cannot become a movie by waiting.
    """
    try:
        with damage_is_ours(path):
            return _inspect_file(path)
    except OSError as error:
        raise CorruptFileError(
            f"{path} cannot be read ({error.strerror}): check its permissions and the disk."
        ) from error


def _inspect_file(path: str) -> ImageInfo:
    suffix = Path(path).suffix.lower()
    if suffix in TIFF_SUFFIXES:
        tiff = check_tiff_complete(path)
        return ImageInfo(tiff.frames, tiff.shape, tiff.dtype, tiff.compression, tiff.metadata)
    if suffix in MRC_SUFFIXES:
        mrc, extra = check_mrc_movie(path)
        compression = "packed" if mrc.mode == PACKED_MODE else "none"
        told = unexplained(extra, mrc.section_bytes)
        return ImageInfo(mrc.shape[0], mrc.shape[1:], mrc.dtype.newbyteorder("="), compression, told)
    if suffix == EER_SUFFIX:
        eer = check_eer_complete(path)
        return ImageInfo(eer.frames, eer.shape, np.dtype(np.uint8), "eer", eer.metadata)
    if suffix in PNG_SUFFIXES:
        return check_png_complete(path)
    raise InputError(f"{path} is not a movie or micrograph: give TIFF, MRC, MRCS, EER or PNG files.")
