"""How the specimen moves while it is exposed: truth that no motion correction knows.

Drift is fast in the first frames and dies away; frames jitter; and the ice bends: a few wide bumps of displacement, each with a direction and
a time course of its own. Bumps are Gaussian in space and saturating exponentials in time, so the field is smooth but no polynomial in x, y or t
describes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Displacement:
    """Displacement of the specimen in pixels, zero in the first frame.

    Attributes
    ----------
    drift : ``(frames, 2)`` y, x, the same everywhere
    centres : ``(bumps, 2)`` y, x in pixels
    widths : ``(bumps,)`` standard deviation in pixels
    courses : ``(frames, bumps, 2)`` y, x displacement at each bump's centre
    """

    drift: Array
    centres: Array
    widths: Array
    courses: Array

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.drift)

    def at(self, points: npt.ArrayLike) -> Array:
        """Return the displacement ``(frames, m, 2)`` (y, x) in pixels of the specimen that is at `points` ``(m, 2)`` (y, x) in the first frame."""
        places = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        square = ((places[:, None, :] - self.centres) ** 2).sum(axis=2)
        shares = np.exp(-square / (2 * self.widths**2))
        return np.asarray(self.drift[:, None, :] + np.einsum("mb,fbc->fmc", shares, self.courses))

    def strips(self, frame: int, shape: tuple[int, int], height: int) -> Iterator[tuple[slice, Image, Image]]:
        """Yield strips of at most `height` rows with the y and x displacement ``(rows, w)`` in pixels of what is seen at each pixel in `frame`."""
        rows = self._profile(np.arange(shape[0]) - self.drift[frame, 0], 0)
        columns = np.ascontiguousarray(self._profile(np.arange(shape[1]) - self.drift[frame, 1], 1).T)
        amplitudes, drift = self.courses[frame].astype(np.float32), self.drift[frame].astype(np.float32)
        for top in range(0, shape[0], height):
            part = slice(top, min(top + height, shape[0]))
            dy, dx = ((rows[part] * amplitudes[:, axis]) @ columns + drift[axis] for axis in (0, 1))
            yield part, dy, dx

    def _profile(self, positions: Array, axis: int) -> Image:
        offset = (positions[:, None] - self.centres[:, axis]) / self.widths
        return np.exp(-(offset**2) / 2).astype(np.float32)

    def largest(self, shape: tuple[int, int]) -> float:
        """Return the largest displacement in pixels, along one axis, anywhere in a field of `shape`."""
        grid = np.stack(np.meshgrid(np.linspace(0, shape[0], 9), np.linspace(0, shape[1], 9), indexing="ij"), axis=-1)
        return float(np.abs(self.at(grid)).max())

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: np.round(getattr(self, name), 6).tolist() for name in ("drift", "centres", "widths", "courses")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Displacement:
        """Make a displacement from its JSON form."""
        drift, frames = np.array(data["drift"], dtype=np.float64), len(data["drift"])
        bumps = len(data["widths"])
        return cls(
            drift.reshape(frames, 2),
            np.array(data["centres"], dtype=np.float64).reshape(bumps, 2),
            np.array(data["widths"], dtype=np.float64).reshape(bumps),
            np.array(data["courses"], dtype=np.float64).reshape(frames, bumps, 2),
        )


def random_displacement(
    frames: int, shape: tuple[int, int], drift: float, local: float, jitter: float, rng: np.random.Generator
) -> Displacement:
    """Draw a displacement; all lengths in pixels.

    Parameters
    ----------
    drift : typical length of the drift over the exposure, most of it in the first frames
    local : root mean square over the field of the local displacement that has built up by the last frame
    jitter : standard deviation of each frame's own shift along each axis
    """
    time = np.arange(frames, dtype=np.float64)
    course = drift * rng.uniform(0.7, 1.3) * _unit(rng) * (1 - np.exp(-time / rng.uniform(2.5, 6)))[:, None]
    course += drift * rng.uniform(0.1, 0.3) * _unit(rng) * (time / max(frames - 1, 1))[:, None]
    course += rng.normal(0, jitter, (frames, 2))
    bumps = 7
    centres = rng.uniform(-0.1, 1.1, (bumps, 2)) * np.array(shape)
    widths = rng.uniform(0.18, 0.42, bumps) * min(shape)
    amplitudes = rng.normal(0, 1, (bumps, 2))
    rises = 1 - np.exp(-time[:, None] / rng.uniform(2, 18, bumps))
    result = Displacement(course - course[0], centres, widths, rises[:, :, None] * amplitudes)
    return _scaled(result, shape, local * rng.uniform(0.8, 1.2))


def _unit(rng: np.random.Generator) -> Array:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.sin(angle), np.cos(angle)])


def _scaled(displacement: Displacement, shape: tuple[int, int], local: float) -> Displacement:
    """Scale the bumps so that the last frame's displacement about its mean over the field has root mean square length `local`."""
    grid = np.stack(np.meshgrid(np.linspace(0, shape[0], 9), np.linspace(0, shape[1], 9), indexing="ij"), axis=-1)
    last = displacement.at(grid)[-1] - displacement.drift[-1]
    size = float(np.sqrt(((last - last.mean(axis=0)) ** 2).sum(axis=1).mean()))
    factor = local / size if size > 0 else 0.0
    return Displacement(displacement.drift, displacement.centres, displacement.widths, displacement.courses * factor)
