"""How a movie's frames are processed: as the camera wrote them, or, of EER movies, in fractions of many raw frames.

Fractions follow RELION: ``rlnEERGrouping`` raw frames in each, and frames at the end that do not fill one are left out. How many frames come nearest
to the dose that was asked for is found for each movie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from beamside.errors import ConfigError
from beamside.formats.rendering import EER_SUFFIX, Rendering, grouping
from beamside.jobs.base import Optics

_MOST_DOSE = 250.0
"""No exposure has so many e/Å²: the dose of a frame was given for one of another kind."""


@dataclass(frozen=True)
class Fractions:
    """The frames of a movie as they are processed.

    Attributes
    ----------
    frames, dose : their number, and e/Å² in each
    rendering : of an EER movie; None otherwise
    left_over : raw frames at the end of an EER movie that are not used
    """

    frames: int
    dose: float
    rendering: Rendering | None = None
    left_over: int = 0


def is_eer(movie: str) -> bool:
    """Return True for the name of an EER movie."""
    return PurePath(movie).suffix.lower() == EER_SUFFIX


def upsampling_of(movie: str, parameters: Any) -> int:
    """Return how many pixels of the processed movie, along a side, are one of the camera's."""
    return int(parameters.eer_upsampling) if is_eer(movie) else 1


def fractions(movie: str, frames: int, parameters: Any, optics: Optics) -> Fractions:
    """Return how a movie of the camera's `frames` is processed.

    Parameters
    ----------
    movie : its name
    frames : as the camera wrote them
    parameters : of motion correction
    optics : the session's

    Raises
    ------
    ConfigError
        When the dose cannot be that of raw frames.
    """
    dose = optics.frame_dose(frames)
    if not is_eer(movie):
        return Fractions(frames, dose)
    if dose * frames > _MOST_DOSE:
        raise ConfigError(
            f"The EER movie {PurePath(movie).name} has {frames:,} raw frames, and a dose of {dose:g} e/Å² in each makes {dose * frames:,.0f} e/Å²: "
            "give the dose of a raw frame with --dose, or that of a whole movie with --total-dose."
        )
    group = grouping(frames, dose, parameters.eer_dose)
    return Fractions(
        group.fractions, dose * group.size, Rendering(parameters.eer_upsampling, group.size), group.left_over
    )


def left_over_sentence(movie: str, frames: int, parameters: Any, optics: Optics) -> str:
    """Return what a person should know of how an EER movie is divided; "" for others, and where it cannot be."""
    try:
        found = fractions(movie, frames, parameters, optics)
    except ConfigError:  # the movie's own job tells of it
        return ""
    if found.rendering is None or not found.left_over:
        return ""
    return (
        f"EER movies of {frames:,} raw frames are processed in {found.frames} fractions of {found.rendering.group} raw frames "
        f"({found.dose:.3g} e/Å²); the last {found.left_over} raw frames ({found.left_over / frames:.1%} of the dose) are left out."
    )
