"""What the particles of a class differ in most: along that, a class of two views is divided.

The particles of a class, brought onto its average A, are taken as ``C (A + a V) + noise`` with one direction V for the class, and a number a of
mean 0 and variance 1 for each particle: probabilistic principal components with a single component, whose own expectation-maximisation finds V
(Tipping & Bishop, J. R. Stat. Soc. B 61, 1999). In a class of two views V is half of their difference, and A + V and A - V are where to begin with
two classes. Halves of the particles at random hold as much of either view; two classes that begin with those take many iterations to come apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamside.imaging.classify2d.expectation import Batch
from beamside.imaging.classify2d.polar import PolarGrid, from_modes

STEPS = 8
"""Steps of expectation-maximisation for a direction."""


def vary(batch: Batch, grid: PolarGrid, average: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ a (Y - B A) and Σ a² B ``(R, N / 2)`` over the particles of a class, with the a that are probable for this `direction`.

    Parameters
    ----------
    batch : the particles, recentred by their shifts and turned by their rotations
    average, direction : complex ``(R, N / 2)``, A and V
    """
    data = from_modes(batch.modes.permute(1, 2, 0))
    weights = torch.fft.irfft(batch.weights.permute(1, 2, 0), n=grid.angles // 2).clamp(min=0)
    left = data - weights * average
    area = 2 * grid.area(data.device)[:, None]  # twice: the other half of the circle is the conjugate
    along = ((left * direction.conj()).real * area).sum(dim=(1, 2))
    spread = 1 / (1 + (weights * direction.abs().square() * area).sum(dim=(1, 2)))
    amount = along * spread
    square = amount.square() + spread
    return (left * amount[:, None, None]).sum(0), (weights * square[:, None, None]).sum(0)
