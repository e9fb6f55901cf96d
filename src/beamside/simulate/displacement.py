"""How the specimen moves while it is exposed: truth that no motion correction knows.

Drift is fast in the first frames and dies away; frames jitter; and the ice bends, in one of two families. `Bumps`, the usual one: a few wide
bumps of displacement, each with a direction and a time course of its own, Gaussian in space and saturating exponentials in time, so the field
is smooth but no polynomial in x, y or t describes it. `Quadratic`: second order in space and third order in time, which is exactly what
RELION's motion model can follow (Zheng et al., Nature Methods 14 (2017) 331, use the same one).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beamside.errors import ConfigError

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

FAMILIES = ("bumps", "polynomial")
"""Kinds of local motion."""


@dataclass(frozen=True)
class Bumps:
    """Spatial modes: Gaussians.

    Attributes
    ----------
    centres : ``(modes, 2)`` y, x in pixels
    widths : ``(modes,)`` standard deviation in pixels
    """

    centres: Array
    widths: Array

    def profile(self, positions: Array, axis: int) -> Array:
        """Return the factor ``(m, modes)`` of each mode that depends on the coordinate `axis`, at `positions` ``(m,)`` in pixels."""
        offset = (positions[:, None] - self.centres[:, axis]) / self.widths
        return np.asarray(np.exp(-(offset**2) / 2))


@dataclass(frozen=True)
class Quadratic:
    """Spatial modes: x, x², y, y² and x y, where x and y run from -0.5 to 0.5 over the field.

    Attributes
    ----------
    shape : height and width of the field in pixels
    """

    shape: tuple[int, int]

    def profile(self, positions: Array, axis: int) -> Array:
        """Return the factor ``(m, modes)`` of each mode that depends on the coordinate `axis`, at `positions` ``(m,)`` in pixels."""
        powers = ((0, 0, 1, 2, 1), (1, 2, 0, 0, 1))[axis]
        place = positions / self.shape[axis] - 0.5
        return np.stack([place**power for power in powers], axis=1)


@dataclass(frozen=True)
class Displacement:
    """Displacement of the specimen in pixels, zero in the first frame.

    Attributes
    ----------
    drift : ``(frames, 2)`` y, x, the same everywhere
    modes : how local motion depends on the place: each mode is a product of a function of y and one of x
    courses : ``(frames, modes, 2)`` y, x displacement that each mode stands for
    """

    drift: Array
    modes: Bumps | Quadratic
    courses: Array

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.drift)

    def at(self, points: npt.ArrayLike) -> Array:
        """Return the displacement ``(frames, m, 2)`` (y, x) in pixels of the specimen that is at `points` ``(m, 2)`` (y, x) in the first frame."""
        places = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        shares = self.modes.profile(places[:, 0], 0) * self.modes.profile(places[:, 1], 1)
        return np.asarray(self.drift[:, None, :] + np.einsum("mb,fbc->fmc", shares, self.courses))

    def strips(self, frame: int, shape: tuple[int, int], height: int) -> Iterator[tuple[slice, Image, Image]]:
        """Yield strips of at most `height` rows with the y and x displacement ``(rows, w)`` in pixels of what is seen at each pixel in `frame`."""
        rows, columns = (
            self.modes.profile(np.arange(side) - drift, axis).astype(np.float32)
            for axis, (side, drift) in enumerate(zip(shape, self.drift[frame], strict=True))
        )
        columns = np.ascontiguousarray(columns.T)
        amplitudes, drift = self.courses[frame].astype(np.float32), self.drift[frame].astype(np.float32)
        for top in range(0, shape[0], height):
            part = slice(top, min(top + height, shape[0]))
            dy, dx = ((rows[part] * amplitudes[:, axis]) @ columns + drift[axis] for axis in (0, 1))
            yield part, dy, dx

    def largest(self, shape: tuple[int, int]) -> float:
        """Return the largest displacement in pixels, along one axis, anywhere in a field of `shape`."""
        grid = np.stack(np.meshgrid(np.linspace(0, shape[0], 9), np.linspace(0, shape[1], 9), indexing="ij"), axis=-1)
        return float(np.abs(self.at(grid)).max())

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        place: dict[str, Any] = (
            {"shape": list(self.modes.shape)}
            if isinstance(self.modes, Quadratic)
            else {name: np.round(getattr(self.modes, name), 6).tolist() for name in ("centres", "widths")}
        )
        return {name: np.round(getattr(self, name), 6).tolist() for name in ("drift", "courses")} | place

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Displacement:
        """Make a displacement from its JSON form."""
        drift, frames = np.array(data["drift"], dtype=np.float64), len(data["drift"])
        modes: Bumps | Quadratic
        if "shape" in data:
            modes, count = Quadratic((int(data["shape"][0]), int(data["shape"][1]))), 5
        else:
            count = len(data["widths"])
            modes = Bumps(
                np.array(data["centres"], dtype=np.float64).reshape(count, 2),
                np.array(data["widths"], dtype=np.float64).reshape(count),
            )
        courses = np.array(data["courses"], dtype=np.float64).reshape(frames, count, 2)
        return cls(drift.reshape(frames, 2), modes, courses)


def random_displacement(
    frames: int,
    shape: tuple[int, int],
    drift: float,
    local: float,
    jitter: float,
    rng: np.random.Generator,
    family: str = "bumps",
) -> Displacement:
    """Draw a displacement; all lengths in pixels.

    Parameters
    ----------
    drift : typical length of the drift over the exposure, most of it in the first frames
    local : root mean square over the field of the local displacement that has built up by the last frame
    jitter : standard deviation of each frame's own shift along each axis
    family : of the local motion, one of `FAMILIES`

    Raises
    ------
    ConfigError
        when there is no such family.
    """
    time = np.arange(frames, dtype=np.float64)
    course = drift * rng.uniform(0.7, 1.3) * _unit(rng) * (1 - np.exp(-time / rng.uniform(2.5, 6)))[:, None]
    course += drift * rng.uniform(0.1, 0.3) * _unit(rng) * (time / max(frames - 1, 1))[:, None]
    course += rng.normal(0, jitter, (frames, 2))
    if family == "bumps":
        result = _random_bumps(course - course[0], shape, rng)
    elif family == "polynomial":
        result = _random_polynomial(course - course[0], shape, rng)
    else:
        raise ConfigError(f"There is no local motion of the family {family!r}; choose one of {', '.join(FAMILIES)}.")
    return _scaled(result, shape, local * rng.uniform(0.8, 1.2))


def _random_bumps(drift: Array, shape: tuple[int, int], rng: np.random.Generator) -> Displacement:
    bumps, time = 7, np.arange(len(drift), dtype=np.float64)
    centres = rng.uniform(-0.1, 1.1, (bumps, 2)) * np.array(shape)
    widths = rng.uniform(0.18, 0.42, bumps) * min(shape)
    amplitudes = rng.normal(0, 1, (bumps, 2))
    rises = 1 - np.exp(-time[:, None] / rng.uniform(2, 18, bumps))
    return Displacement(drift, Bumps(centres, widths), rises[:, :, None] * amplitudes)


def _random_polynomial(drift: Array, shape: tuple[int, int], rng: np.random.Generator) -> Displacement:
    """Draw cubic time courses: mostly ``1 - (1 - t)³``, fast at first and at rest in the end, with some t and t² of other directions."""
    time = np.linspace(0, 1, len(drift))[:, None, None]
    early, steady, late = (size * rng.normal(0, 1, (5, 2)) for size in (1.0, 0.4, 0.4))
    courses = (1 - (1 - time) ** 3) * early + time * steady + time**2 * late
    # A square of a place is at most 0.25 and x y no more, where x and y reach 0.5; this makes all of them matter alike.
    strength = np.array([1.0, 2.6, 1.0, 2.6, 2.6])[:, None]
    return Displacement(drift, Quadratic(shape), courses * strength)


def _unit(rng: np.random.Generator) -> Array:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def _scaled(displacement: Displacement, shape: tuple[int, int], local: float) -> Displacement:
    """Scale the bumps so that the last frame's displacement about its mean over the field has root mean square length `local`."""
    grid = np.stack(np.meshgrid(np.linspace(0, shape[0], 9), np.linspace(0, shape[1], 9), indexing="ij"), axis=-1)
    last = displacement.at(grid)[-1] - displacement.drift[-1]
    size = float(np.sqrt(((last - last.mean(axis=0)) ** 2).sum(axis=1).mean()))
    factor = local / size if size > 0 else 0.0
    return Displacement(displacement.drift, displacement.modes, displacement.courses * factor)
