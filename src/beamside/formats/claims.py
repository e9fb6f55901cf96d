"""Comparing what a header claims with what the file can hold, before any memory is asked for.

A flipped bit in a header can ask for more memory than any machine has, and a file can be made to do so. Every reader compares the bytes that its
pixels take with the bytes that the file has for them; of compressed pixels, with the most that the compression can be the shorter for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from beamside.errors import BeamsideError, CorruptFileError

MOST_PIXELS = 1 << 28
"""Pixels of one image; the largest detectors have a third of this, in super-resolution."""

EXPANSION = {"none": 1, "packbits": 64, "lzw": 1400, "deflate": 1040}
"""The most bytes that come out for one byte of each compression: of LZW, one long run of equal pixels; of deflate, 258 bytes for 2 bits."""

_OTHER_EXPANSION = 1 << 17

_LEAST_UNEXPLAINED = 256
_MOST_UNEXPLAINED = 1 << 16


def check_claim(
    path: str | os.PathLike[str], what: str, shape: tuple[int, int], bits: int, stored: int, compression: str = "none"
) -> None:
    """Check that an image can be in the bytes that a file has for it.

    Parameters
    ----------
    path, what : the file, and what to call the image in the message
    shape, bits : (height, width) and bits of a pixel, as the header says
    stored, compression : bytes in the file, and how they are compressed: a name of `EXPANSION` or another

    Raises
    ------
    CorruptFileError
        When it cannot.
    """
    height, width = shape
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise CorruptFileError(f"{path} is damaged: it says that {what} has {width} x {height} pixels.")
    claimed = height * row_bytes(width, bits)
    if claimed > stored * EXPANSION.get(compression, _OTHER_EXPANSION):
        raise CorruptFileError(
            f"{path} is damaged: {what} of {width} x {height} pixels takes {claimed:,} bytes, and the file has {stored:,} for it."
        )


def row_bytes(width: int, bits: int) -> int:
    """Return the bytes of a row of pixels, which begins with a byte of its own."""
    return (width * bits + 7) // 8


def unexplained(extra: int, image_bytes: int) -> dict[str, float | str]:
    """Return what a file says of itself when it has `extra` bytes that its header does not account for: nothing when they are few.

    Parameters
    ----------
    extra : bytes
    image_bytes : those of an image in the file; some programs leave a little room at the end, but not half an image
    """
    tolerated = max(_LEAST_UNEXPLAINED, min(_MOST_UNEXPLAINED, image_bytes // 2))
    return {"unexplained_bytes": float(extra)} if extra > tolerated else {}


@contextmanager
def damage_is_ours(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a damaged file raises, which can be anything, into an error that names it; the disk's errors, the memory's and ours stay."""
    try:
        yield
    except (BeamsideError, OSError, MemoryError):
        raise
    except Exception as error:
        raise CorruptFileError(
            f"{path} is damaged or of a kind that is not known: it cannot be read ({type(error).__name__}: {error})."
        ) from error
