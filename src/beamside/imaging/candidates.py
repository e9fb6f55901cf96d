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

NEIGHBOURHOOD = 4
"""Radius, in typical distances between the wanted picks, within which a target of picks per area is kept."""


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
    area : of the micrograph without what was masked, µm²
    """

    coordinates: Tensor
    scores: Tensor
    diameters: Tensor
    references: Tensor
    psi: Tensor
    threshold: float
    floor: float
    excluded: float
    area: float

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
    per_area : with a number above 0, about this many picks per µm² are taken instead, the best ones of each neighbourhood: the threshold then
        follows thickness and defocus over the field. What is below the kept candidates' floor is never picked
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

    Close to the edge of the field the neighbourhood is smaller, and so is the number wanted there; its area is taken as the part of the disc that
    lies within the bounding box of all candidates.
    """
    places = candidates.coordinates.double().numpy() * (pixel_size * 1e-4)  # µm
    radius = NEIGHBOURHOOD / math.sqrt(per_area)
    low, high = places.min(axis=0), places.max(axis=0)
    ranks = np.empty(len(places))
    for number, near in enumerate(cKDTree(places).query_ball_point(places, radius)):
        better = sum(1 for other in near if other < number)  # candidates are sorted by score
        ranks[number] = better / max(per_area * _disc_inside(places[number], radius, low, high), 1.0)
    return ranks


_ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_RADII = np.sqrt((np.arange(6) + 0.5) / 6)
_DISC = np.stack([np.outer(_RADII, np.sin(_ANGLES)).ravel(), np.outer(_RADII, np.cos(_ANGLES)).ravel()], axis=1)
"""Points spread evenly over the unit disc."""


def _disc_inside(
    centre: np.ndarray[tuple[int], np.dtype[np.float64]],
    radius: float,
    low: np.ndarray[tuple[int], np.dtype[np.float64]],
    high: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """Return the area of the part of a disc that lies between `low` and `high`."""
    points = centre + radius * _DISC
    inside = ((points >= low) & (points <= high)).all(axis=1).mean()
    return float(inside) * math.pi * radius**2
