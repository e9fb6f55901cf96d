"""Candidates: all that a picker could pick in a micrograph, and which of them are picked.

A picker scores every place once and keeps all local maxima down to well below its own threshold. Which of them are particles is decided afterwards,
from the scores alone, so that a threshold can be moved without looking at the micrograph again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

NEIGHBOURHOOD = 4
"""Radius, in typical distances between the wanted picks, within which a target of picks per area is kept."""
CELLS = 64
"""Cells along each side of the grid that tells where picks are allowed: a fiftieth of a field is less than such a neighbourhood."""
STEPS = 9
"""The allowed part of a cell is told in so many steps, one digit: candidates are the same whether they were found now or read."""


@dataclass(frozen=True)
class OpenArea:
    """Where picks are allowed: neither on carbon or contamination, nor close to the edge.

    Attributes
    ----------
    parts : ``(r, c)`` the allowed part of each cell, 0 to 1, of an even grid over the micrograph
    shape : (h, w) of the micrograph in pixels
    """

    parts: Tensor
    shape: tuple[int, int]

    @classmethod
    def of_mask(cls, allowed: Tensor, shape: tuple[int, ...]) -> OpenArea:
        """Return the open area of a reduced micrograph's mask ``(h', w')``, True where picks are allowed; `shape` is the micrograph's own."""
        cells = (min(CELLS, allowed.shape[0]), min(CELLS, allowed.shape[1]))
        parts = functional.adaptive_avg_pool2d(allowed.float()[None, None], cells)[0, 0]
        return cls((parts * STEPS).round() / STEPS, (shape[0], shape[1]))

    @property
    def pixels(self) -> float:
        """Its size in pixels of the micrograph."""
        return float(self.parts.mean()) * self.shape[0] * self.shape[1]

    def around(
        self, places: np.ndarray[tuple[int, int], np.dtype[np.float64]], radius: float
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return how many pixels are open in the disc of `radius` pixels around each of the `places` ``(n, 2)``, y and x in pixels."""
        parts = self.parts.double().numpy()
        cells = (places[:, None, :] + radius * _DISC) / np.array(self.shape) * np.array(parts.shape)
        inside = ((cells >= 0) & (cells < np.array(parts.shape))).all(axis=2)
        y, x = np.moveaxis(np.where(inside[..., None], cells, 0).astype(int), 2, 0)
        return np.asarray((parts[y, x] * inside).mean(axis=1) * math.pi * radius**2)


_ANGLES = 2 * np.pi * (np.arange(24) + 0.5) / 24
_RADII = np.sqrt((np.arange(6) + 0.5) / 6)
_DISC = np.stack([np.outer(_RADII, np.sin(_ANGLES)).ravel(), np.outer(_RADII, np.cos(_ANGLES)).ravel()], axis=1)
"""Points spread evenly over the unit disc."""


@dataclass(frozen=True)
class Candidates:
    """What a picker found in one micrograph, best first.

    Attributes
    ----------
    coordinates : ``(n, 2)`` y, x of their centres, whole pixels of the micrograph (RELION cuts fractions off)
    scores : ``(n,)`` in the picker's own units; higher is better
    diameters : ``(n,)`` Å
    references : ``(n,)`` number of the reference that fits best, from 1; 0 without references
    psi : ``(n,)`` degrees, RELION's in-plane angle of the reference; 0 without references
    threshold : score from which on the picker itself would take them
    floor : lowest score that was kept
    excluded : fraction of the micrograph that was masked as carbon or contamination
    open : where picks are allowed
    """

    coordinates: Tensor
    scores: Tensor
    diameters: Tensor
    references: Tensor
    psi: Tensor
    threshold: float
    floor: float
    excluded: float
    open: OpenArea

    def __len__(self) -> int:
        return len(self.scores)

    def chosen(self, which: Tensor) -> Candidates:
        """Return those of the mask or numbers `which`."""
        names = ("coordinates", "scores", "diameters", "references", "psi")
        return replace(self, **{name: getattr(self, name)[which] for name in names})


def accept(
    candidates: Candidates, threshold_shift: float = 0.0, per_area: float = 0.0, pixel_size: float = 1.0
) -> Candidates:
    """Return the candidates that are picked.

    Parameters
    ----------
    candidates : what the picker found
    threshold_shift : is added to the picker's threshold
    per_area : with a number above 0, about this many picks per µm² where picks are allowed are taken instead, the best ones of each neighbourhood:
        the threshold then follows thickness and defocus over the field. What is below the kept candidates' floor is never picked
    pixel_size : Å, of the micrograph
    """
    if per_area <= 0:
        return candidates.chosen(candidates.scores >= candidates.threshold + threshold_shift)
    if not len(candidates):
        return candidates
    return candidates.chosen(torch.from_numpy(_local_rank(candidates, per_area, pixel_size) < 1.0))


def _local_rank(
    candidates: Candidates, per_area: float, pixel_size: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return, for each candidate, how many better ones are around it, relative to how many are wanted there.

    Wanted are as many as there is open area in the neighbourhood: fewer beside carbon, contamination and the edge, at least one.
    """
    micrometre = 1e4 / pixel_size
    places = candidates.coordinates.double().numpy()
    radius = NEIGHBOURHOOD / math.sqrt(per_area) * micrometre
    wanted = np.maximum(candidates.open.around(places, radius) / micrometre**2 * per_area, 1.0)
    near = cKDTree(places).query_ball_point(places, radius)
    # Candidates are sorted by score, so better ones have smaller numbers.
    better = np.array([sum(1 for other in others if other < number) for number, others in enumerate(near)])
    return np.asarray(better / wanted)
