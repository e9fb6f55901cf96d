"""Sums of the frames of movies, as a gain reference is compared with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beamside.errors import BeamsideError, in_words
from beamside.formats.movies import open_movie
from beamside.formats.rendering import EER_SUFFIX
from beamside.imaging.gain.orientation import compared_window


def sum_of_movies(
    paths: Sequence[Path], shape: tuple[int, int], ratio: float
) -> tuple[NDArray[np.float32], int, int, list[str]]:
    """Return the sum of all frames inside the window that is compared, the number of frames and of movies in it, and why others are not."""
    window = compared_window(shape, ratio)
    total = np.zeros(tuple(part.stop - part.start for part in window), np.float32)
    frames = used = 0
    unreadable = []
    for path in paths:
        part = np.zeros_like(total)
        try:
            with open_movie(path) as movie:
                for index in range(movie.frames):
                    part += movie.frame(index)[window]
                frames += movie.frames
        except (BeamsideError, OSError) as error:  # the movie's own job tells of it
            unreadable.append(f"{path.name}: {in_words(error)}")
            continue
        total += part
        used += 1
    return total, frames, used, unreadable


def is_eer(movies: Sequence[str]) -> bool:
    """Return True when there are EER movies among these."""
    return any(Path(movie).suffix.lower() == EER_SUFFIX for movie in movies)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
