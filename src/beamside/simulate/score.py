"""How far results are from the truth of a simulation: motion, defocus, picks and classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from beamside.simulate.movie import MovieTruth

Array = npt.NDArray[np.float64]

GRID = 9
"""Points along each axis at which motion is compared."""


def grid_points(size: tuple[int, int], count: int = GRID) -> Array:
    """Return ``(count², 2)`` points y, x in pixels: the centres of a `count` × `count` division of a field of `size`."""
    rows, columns = ((np.arange(count) + 0.5) / count * length for length in size)
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def motion_error(truth: MovieTruth, shifts: Callable[[Array], npt.ArrayLike] | None = None) -> float:
    """Return the root mean square length in Å by which modelled shifts miss the true motion.

    Shifts are evaluated at the centres of a 9 × 9 division of the field in all frames, and the true displacement is added (a perfect shift is
    minus the displacement). What is left at each point is taken about its mean over the frames, because a constant offset does not blur the sum;
    the result is the square root of the mean, over frames and points, of the squared length of these two-dimensional vectors.

    Parameters
    ----------
    shifts : function from points ``(m, 2)`` (y, x) in pixels to shifts ``(frames, m, 2)`` (y, x) in pixels with RELION's sign; None for a movie
        that was not corrected
    """
    points = grid_points(truth.settings.size)
    left = truth.displacement(points)
    if shifts is not None:
        modelled = np.asarray(shifts(points), dtype=np.float64)
        if modelled.shape != left.shape:
            raise ValueError(f"shifts of shape {modelled.shape} cannot be compared with a truth of shape {left.shape}")
        left = left + modelled
    left = left - left.mean(axis=0)
    return float(np.sqrt((left**2).sum(axis=2).mean()) * truth.settings.pixel_size)


@dataclass(frozen=True)
class DefocusError:
    """Measured minus true: `mean` defocus and `astigmatism` (u - v) in Å; `angle` in degrees, within ±90; `vector` in Å.

    An angle means nothing where there is little astigmatism; `vector` tells how far astigmatism is off in size and direction together.
    """

    mean: float
    astigmatism: float
    angle: float
    vector: float


def defocus_error(truth: MovieTruth, u: float, v: float, angle: float) -> DefocusError:
    """Compare a measured defocus (Å, degrees; `u` may be the smaller) with the truth."""
    true = truth.defocus
    if u < v:
        u, v, angle = v, u, angle + 90
    turn = (angle - true.angle + 90) % 180 - 90
    difference = (u - v) * np.exp(2j * np.deg2rad(angle)) - (true.u - true.v) * np.exp(2j * np.deg2rad(true.angle))
    return DefocusError((u + v - true.u - true.v) / 2, (u - v) - (true.u - true.v), float(turn), float(abs(difference)))


@dataclass(frozen=True)
class Picks:
    """Picks compared with the truth: `matched` of `true` particles were found by `picked` picks."""

    matched: int
    true: int
    picked: int

    @property
    def recall(self) -> float:
        """Share of the true particles that were found."""
        return self.matched / self.true if self.true else 1.0

    @property
    def precision(self) -> float:
        """Share of the picks that are particles."""
        return self.matched / self.picked if self.picked else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision."""
        total = self.true + self.picked
        return 2 * self.matched / total if total else 1.0

    def __add__(self, other: Picks) -> Picks:
        """Return the counts of both together."""
        return Picks(self.matched + other.matched, self.true + other.true, self.picked + other.picked)


def match_picks(true: npt.ArrayLike, picked: npt.ArrayLike, radius: float) -> Picks:
    """Match picks with true particles one to one, nearest pairs first, within `radius`.

    Parameters
    ----------
    true, picked : ``(n, 2)`` and ``(m, 2)``, the same order of axes and the same unit as `radius`
    """
    places, picks = (np.asarray(values, dtype=np.float64).reshape(-1, 2) for values in (true, picked))
    if not len(places) or not len(picks):
        return Picks(0, len(places), len(picks))
    near = cKDTree(places).sparse_distance_matrix(cKDTree(picks), radius, output_type="ndarray")
    near = near[np.lexsort((near["j"], near["i"], near["v"]))]
    free_place, free_pick = np.ones(len(places), dtype=bool), np.ones(len(picks), dtype=bool)
    for place, pick in zip(near["i"], near["j"], strict=True):
        if free_place[place] and free_pick[pick]:
            free_place[place] = free_pick[pick] = False
    return Picks(int((~free_place).sum()), len(places), len(picks))


def contingency(labels: npt.ArrayLike, views: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the table ``(classes, views)`` of how many particles of each view are in each class that occurs."""
    _, rows = np.unique(np.asarray(labels), return_inverse=True)
    _, columns = np.unique(np.asarray(views), return_inverse=True)
    if rows.shape != columns.shape:
        raise ValueError(f"{rows.size} labels cannot be compared with {columns.size} views")
    shape = (int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1)
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)


def purity(labels: npt.ArrayLike, views: npt.ArrayLike) -> float:
    """Return the share of particles whose view is the most frequent one of their class."""
    table = contingency(labels, views)
    return float(table.max(axis=1).sum() / table.sum()) if table.size else 1.0


def adjusted_rand_index(labels: npt.ArrayLike, views: npt.ArrayLike) -> float:
    """Return the adjusted Rand index (Hubert & Arabie, J. Classification 2, 1985): 1 for equal partitions, 0 on average for random ones."""
    table = contingency(labels, views).astype(np.float64)

    def pairs(counts: Array) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, rows, columns = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    total = table.sum() * (table.sum() - 1) / 2
    chance = rows * columns / total if total else 0.0
    highest = (rows + columns) / 2
    return (both - chance) / (highest - chance) if highest != chance else 1.0
