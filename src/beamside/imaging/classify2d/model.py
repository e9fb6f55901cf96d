"""What 2D classification is asked, and what it has found so far."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from beamside.errors import ConfigError, CorruptFileError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassifySettings:
    """Settings of a 2D classification.

    Attributes
    ----------
    classes : number of classes; while there are few particles, fewer are used
    pixel_size : Å
    particle_diameter : diameter of the circular mask of the class averages, Å; its soft edge comes on top
    voltage : kV
    spherical_aberration : mm
    amplitude_contrast : fraction
    seed : of all random numbers
    max_iterations : most iterations of one call of `classify`
    max_shift : furthest that a particle's centre can be from the middle of its box, Å
    tau2_fudge : how strongly to trust the data over the prior of smoothness; RELION's ``--tau2_fudge``
    start_resolution : Å, where the first iterations stop
    finest_resolution : Å, beyond which nothing is compared; 0 for the images' own limit
    merge_duplicates : let classes that show the same view become one; the others are left empty
    """

    classes: int = 50
    pixel_size: float = 4.0
    particle_diameter: float = 200.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    seed: int = 1
    max_iterations: int = 25
    max_shift: float = 24.0
    tau2_fudge: float = 2.0
    start_resolution: float = 32.0
    finest_resolution: float = 0.0
    merge_duplicates: bool = True

    def __post_init__(self) -> None:
        for name in ("classes", "pixel_size", "particle_diameter", "voltage", "max_iterations", "tau2_fudge"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"2D classification: {name} is {getattr(self, name)}, but it must be above zero.")
        if self.max_shift < 0:
            raise ConfigError(f"2D classification: max_shift is {self.max_shift} Å, but it cannot be negative.")


@dataclass(frozen=True)
class State:
    """A 2D classification after some iterations: all that is needed to go on, and all that was found.

    Attributes
    ----------
    iteration : iterations done since the start
    references : ``(k, b, b)``, regularised class averages, protein bright
    class_weights : ``(k,)`` fraction of the particles
    resolution : ``(k,)`` Å, where the signal-to-noise ratio of the average falls below 1
    quality : ``(k,)`` from 0 (noise) to 1, see `quality`
    signal : ``(rings,)`` power of the references, all classes together
    noise : ``(groups, rings)`` power of the noise
    label : ``(n,)`` class of each particle, -1 for those not seen yet
    psi : ``(n,)`` degrees, turns a shifted particle onto its class average (RELION's ``rlnAnglePsi``)
    shift : ``(n, 2)`` Å, y and x, brings the particle to the middle (RELION's ``rlnOriginYAngst``, ``rlnOriginXAngst``)
    pmax : ``(n,)`` posterior probability of the best hypothesis
    share : ``(n,)`` posterior probability of the class
    evidence : ``(n,)`` logarithm of the likelihood ratio against pure noise
    leverage : ``(k, rings)`` what a particle's own noise adds to the logarithm of its likelihood in its class
    shift_sd : Å, spread of the shifts along one axis
    current_resolution : Å, up to which particles were compared
    stage : iterations done since the last annealing
    annealed_at : number of particles when the last annealing started
    """

    iteration: int
    references: FloatArray
    class_weights: FloatArray
    resolution: FloatArray
    quality: FloatArray
    signal: FloatArray
    noise: FloatArray
    label: IntArray
    psi: FloatArray
    shift: FloatArray
    pmax: FloatArray
    share: FloatArray
    evidence: FloatArray
    leverage: FloatArray
    shift_sd: float
    current_resolution: float
    stage: int
    annealed_at: int

    @property
    def counts(self) -> IntArray:
        """Return how many particles ``(k,)`` have each class as their best."""
        return np.bincount(self.label[self.label >= 0], minlength=len(self.references)).astype(np.int64)

    def save(self, path: str | os.PathLike[str], **more: npt.NDArray[Any]) -> None:
        """Write everything, and `more` arrays, to `path` (``.npz``) in one step: a reader sees the old file or the whole new one."""
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        with open(partial, "wb") as stream:
            values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
            np.savez(stream, **values, **more)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> State:
        """Read what `save` wrote.

        Raises
        ------
        CorruptFileError
            when it is not such a file.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
                values = {field.name: stored[field.name] for field in fields(cls)}
        except (ValueError, KeyError, EOFError, OSError, BadZipFile, NotImplementedError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise CorruptFileError(
                f"{path} is not a checkpoint of a 2D classification ({error}); delete it, and classification starts anew."
            ) from error
        for name, array in values.items():
            if array.ndim == 0:
                values[name] = array.item()
        return cls(**values)
