"""What a particle's own noise in its class's average adds to its likelihood there.

A class's average A = D / (W + P), with D = Σ Y and W = Σ B over its particles and P the prior, holds each particle's own noise. Compared with it,
a particle finds itself again, as in no other class. That keeps particles where they are, the more so the fewer they are with: classes of ten
particles of all views, held together by their noise, would never dissolve, and two classes of one view would stay apart. Without the particle,
the average differs by (Y - B A) / (W - B + P), which makes a difference to the logarithm of its likelihood of ::

    Σ |Y - B A|² / (W - B + P)   on the average   Σ B / (W - B + P) · f

with f the part of the noise's power that the mask of the averages leaves. So this is taken off, by the probability that the particle was of that
class. (Hartigan's rule for moving a point from one cluster to another has the same correction, n / (n - 1): Clustering Algorithms, 1975, chapter 4.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.polar import PolarGrid


@dataclass(frozen=True)
class OwnNoise:
    """What some particles would find of themselves in the averages.

    Attributes
    ----------
    label : ``(m,)`` class whose average each particle is part of; of no class where it is below zero
    share : ``(m,)`` probability with which it is
    leverage : ``(K, R)``, see `leverage`
    """

    label: Tensor
    share: Tensor
    leverage: Tensor

    def of(self, particles: Tensor) -> OwnNoise:
        """Return that of some particles."""
        return OwnNoise(self.label[particles], self.share[particles], self.leverage)

    def gain(self, rings: int) -> Tensor:
        """Return what it adds to the logarithm of each particle's likelihood in each class ``(m, K)``, on the first `rings` rings."""
        classes = torch.arange(len(self.leverage), device=self.leverage.device)
        member = (self.label[:, None] == classes) * self.share[:, None]
        return member * self.leverage[:, :rings].sum(1)


def leverage(geometry: Geometry, grid: PolarGrid, signal: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """Return what a particle's own noise adds to the logarithm of its likelihood in its class, on each ring.

    Parameters
    ----------
    grid : R rings of N angles
    signal : ``(R,)`` power, which the averages are filtered by (see `maximisation.average`)
    weights : ``(K, R, N / 2)``, W
    counts : ``(K,)`` particles

    Returns
    -------
    ``(K, R)``, of a particle as the others of its class are on the average.
    """
    prior = 1 / (geometry.settings.tau2_fudge * signal[:, None])
    each = weights / counts.clamp(min=1)[:, None, None]
    used = (each / (weights - each + prior)).sum(-1)
    # twice: the other half of the circle
    return 2 * float(geometry.reference_mask.mean()) * grid.area(weights.device) * used
