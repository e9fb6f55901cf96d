"""How the raw frames of an EER movie become the frames of a movie; without the decoder, so that jobs can be planned without loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beamside.errors import ConfigError, InputError

EER_SUFFIX = ".eer"
UPSAMPLINGS = (1, 2)
"""Pixels of a rendered frame to one of the sensor, along a side: 4K and 8K for Falcon cameras."""

_ALL_FRAMES = 40


@dataclass(frozen=True)
class Grouping:
    """How raw frames become fractions: frames in each, fractions, and frames at the end that do not fill one."""

    size: int
    fractions: int
    left_over: int


@dataclass(frozen=True)
class Rendering:
    """How raw frames become the frames of a movie.

    Attributes
    ----------
    upsampling : 1 for the sensor's pixels, 2 for half of them ("8K")
    group : raw frames in each frame of the movie; what is left over at the end is left out, as in RELION. 0: up to 40, and all are used
    """

    upsampling: int = 1
    group: int = 0

    def __post_init__(self) -> None:
        if self.upsampling not in UPSAMPLINGS or self.group < 0:
            raise ConfigError(
                f"EER movies are rendered with upsampling 1 or 2 and groups of 1 frame or more, not {self.upsampling} and {self.group}"
            )

    def groups(self, frames: int) -> list[tuple[int, int]]:
        """Return the first raw frame of each group and the one after its last."""
        if self.group:
            return [(start, start + self.group) for start in range(0, frames - self.group + 1, self.group)]
        return [(start, min(start + _ALL_FRAMES, frames)) for start in range(0, frames, _ALL_FRAMES)]


def sum_type(frames: int) -> np.dtype[Any]:
    """Return the type that holds the electrons of so many raw frames: each has at most one in a pixel.

    Raises InputError when there are too many.
    """
    if frames > np.iinfo(np.uint16).max:
        raise InputError(f"{frames} raw frames are too many for one fraction: lower the dose of a fraction.")
    return np.dtype(np.uint8 if frames <= np.iinfo(np.uint8).max else np.uint16)


def grouping(frames: int, dose_per_frame: float, dose_per_fraction: float) -> Grouping:
    """Return how many of a movie's raw frames come nearest to the dose that a fraction is to have; at least one, at most all of them.

    Parameters
    ----------
    frames : raw frames of the movie
    dose_per_frame, dose_per_fraction : e/Å²
    """
    size = max(1, min(frames, round(dose_per_fraction / dose_per_frame)))
    return Grouping(size, frames // size, frames % size)
