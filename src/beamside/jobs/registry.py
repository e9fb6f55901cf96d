"""All job types that are known: the built-in ones and those of installed packages (entry point group ``beamside.jobs``)."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from beamside.errors import ConfigError
from beamside.jobs.base import JobType
from beamside.jobs.class2d import Classification2d
from beamside.jobs.ctf import CtfEstimation
from beamside.jobs.extract import Extraction
from beamside.jobs.importing import ImportMicrographs, ImportMovies
from beamside.jobs.motion import MotionCorrection
from beamside.jobs.pick import Picking
from beamside.jobs.select import Selection

WORKFLOWS: dict[str, tuple[type[JobType], ...]] = {
    "movies": (ImportMovies, MotionCorrection, CtfEstimation, Picking, Extraction, Classification2d, Selection),
    "micrographs": (ImportMicrographs, CtfEstimation, Picking, Extraction, Classification2d, Selection),
}
"""The chains of job types that a session can run, by mode; each follows the one before it."""


@cache
def workflow(mode: str) -> tuple[JobType, ...]:
    """Return the chain of job types of a mode, "movies" or "micrographs"."""
    if mode not in WORKFLOWS:
        raise ConfigError(f"There is no mode {mode!r}; use one of: {', '.join(WORKFLOWS)}.")
    return tuple(kind() for kind in WORKFLOWS[mode])


@cache
def parameter_types() -> tuple[JobType, ...]:
    """Return one job type of each name, in the order of the work: those whose parameters a session has."""
    return workflow("movies")


@cache
def additional_types() -> dict[str, JobType]:
    """Return the job types of installed packages, by name."""
    return {point.name: point.load()() for point in entry_points(group="beamside.jobs")}
