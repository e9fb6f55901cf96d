"""Particles that are there twice: classification moves picks, and may move two of them onto one particle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.floating]


def duplicates(centres: Array, micrographs: Sequence[object], worth: Array, distance: float) -> NDArray[np.bool_]:
    """Return which particles ``(n,)`` to leave out so that no two are closer than `distance` in one micrograph.

    The worthiest particle stays, and whatever is close to it goes; then the worthiest of the others stays, and so on. Of two that are worth the
    same, the first stays.

    Parameters
    ----------
    centres : ``(n, 2)`` y and x, in the unit of `distance`
    micrographs : ``(n,)`` names
    worth : ``(n,)``
    """
    left_out = np.zeros(len(centres), dtype=bool)
    if distance <= 0 or not len(centres):
        return left_out
    _, number = np.unique(np.asarray(micrographs, dtype=str), return_inverse=True)
    order = np.argsort(number, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        near: dict[int, list[int]] = {}
        for one, other in cKDTree(centres[mine]).query_pairs(np.nextafter(distance, 0)):
            near.setdefault(one, []).append(other)
            near.setdefault(other, []).append(one)
        for one in sorted(near, key=lambda place: (-worth[mine[place]], place)):
            if not left_out[mine[one]]:
                left_out[mine[near[one]]] = True
    return left_out
