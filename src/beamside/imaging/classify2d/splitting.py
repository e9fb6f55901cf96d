"""Empty classes take a part of a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.maximisation import empty_classes, signal_power
from beamside.imaging.classify2d.plan import Plan
from beamside.imaging.classify2d.shards import ClassSums, VariationRequest
from beamside.imaging.classify2d.variation import STEPS

Vary = Callable[[VariationRequest], Iterable[ClassSums]]


def split_classes(
    images: Tensor,
    data: Tensor,
    weights: Tensor,
    counts: Tensor,
    geometry: Geometry,
    plan: Plan,
    request: VariationRequest,
    vary: Vary,
) -> tuple[Tensor, list[int]]:
    """Return `images` ``(K, b, b)`` with each empty class at one side of a large class's particles, and that class at the other; and all of these.

    If the large class holds different views, these are the two sides; if it does not, it merely fills two classes, and these are merged later.

    Parameters
    ----------
    data : complex ``(2, K, R, N / 2)`` and `weights`, the sums that the images were made of
    counts : ``(K,)`` particles
    request : with everything but the classes that are asked about
    vary : asks all shards
    """
    targets, sources = classes_to_split(counts)
    if not targets:
        return images, []
    grid = request.grid
    data, weights = (plan.grid.cut(values[:, sources], grid) for values in (data, weights))
    prior = 1 / signal_power(data.sum(0), weights.sum(0), geometry.mask_fraction)[:, None]
    # halves of the particles at random are where the search for the sides begins
    halves = data / (weights + prior / 2)
    request = replace(
        request,
        labels=np.array(sources),
        averages=(data.sum(0) / (weights.sum(0) + prior)).cpu().numpy(),
        directions=((halves[0] - halves[1]) / 2).cpu().numpy(),
    )
    for _ in range(STEPS):
        upper, lower = np.zeros(1, np.complex64), prior.cpu().numpy()
        for sums in vary(request):
            upper, lower = upper + sums.data, lower + sums.weights
        request = replace(request, directions=upper / lower)
    sides = geometry.level(grid).backward(torch.as_tensor(request.directions, device=images.device))
    images = images.clone()
    middle = images[sources]
    images[targets], images[sources] = middle + sides, middle - sides
    return images, targets + sources


def classes_to_split(counts: Tensor) -> tuple[list[int], list[int]]:
    """Return empty classes, and as many that have more than an equal share of the particles, the largest first."""
    empty = empty_classes(counts).nonzero()[:, 0].tolist()
    large = torch.argsort(counts, descending=True, stable=True)
    sources = large[counts[large] > counts.sum() / len(counts)].tolist()
    number = min(len(empty), len(sources))
    return empty[:number], sources[:number]
