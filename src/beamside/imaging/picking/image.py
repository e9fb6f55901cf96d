"""What all pickers share: the reduced micrograph that they search, and the peaks of what they find there."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from beamside.errors import InputError
from beamside.imaging.boxes import good_size
from beamside.imaging.fourier import crop_image

QUANTILES = torch.tensor([0.16, 0.5, 0.84])
"""One standard deviation below, the middle, and one above, whatever a few wild pixels do."""


def working_image(
    micrograph: Tensor, pixel_size: float, max_diameter: float, wanted_pixel_size: float
) -> tuple[Tensor, Tensor]:
    """Reduce the micrograph ``(h, w)`` to about `wanted_pixel_size` Å; returns it, and the size ``(2,)`` (y, x) of its pixels in original ones.

    The reduced image has protein bright, mean 0 and deviation 1.

    Raises
    ------
    InputError
        The micrograph is smaller than four particles, or has values that are not finite.
    """
    shape = micrograph.shape
    if min(shape) * pixel_size < 4 * max_diameter:
        raise InputError(
            f"A micrograph of {shape[1]} x {shape[0]} pixels of {pixel_size:g} Å is too small for particles of "
            f"{max_diameter:g} Å: check pixel size and diameter."
        )
    values = micrograph.detach().cpu().float()
    low, mean, high = torch.quantile(values.reshape(-1)[:: max(1, values.numel() // 100_000)], QUANTILES).tolist()
    if not bool(torch.isfinite(values.sum())):
        raise InputError("The micrograph has values that are not finite: check the motion correction's output.")
    wanted = max(pixel_size, wanted_pixel_size)
    # Averaging whole pixels first makes the transform small. Hot pixels would ring in it.
    binning = max(1, int(wanted / pixel_size / 2))
    values = (mean - values).clamp_(-3 * (high - low), 3 * (high - low))
    values = functional.avg_pool2d(values[None, None], binning)[0, 0]
    height, width = (size // 2 * 2 for size in values.shape)
    reduction = wanted / (binning * pixel_size)
    target = (min(height, good_size(height / reduction)), min(width, good_size(width / reduction)))
    pixels = torch.tensor([binning * height / target[0], binning * width / target[1]])
    values = crop_image(values[:height, :width], target)
    return (values - values.mean()) / values.std().clamp(min=1e-12), pixels


def inside_border(shape: tuple[int, ...], pixels: Tensor, full: tuple[int, ...], reach: float) -> Tensor:
    """Tell which reduced pixels are at least `reach` pixels of the full micrograph away from its edges."""
    inside = []
    for axis in (0, 1):
        centre = torch.arange(shape[axis]) * pixels[axis] + (pixels[axis] - 1) / 2
        inside.append((centre >= reach) & (centre <= full[axis] - 1 - reach))
    return inside[0][:, None] & inside[1][None, :]


def separate_peaks(score: Tensor, allowed: Tensor, distance: float) -> Tensor:
    """Return the ``(n, 2)`` local maxima among the allowed pixels, best first, none closer to a better one than `distance` pixels."""
    masked = score.masked_fill(~allowed, -torch.inf)
    window = max(3, int(0.7 * distance) | 1)
    # along rows, then along columns: cheaper than over the square at once
    highest = functional.max_pool2d(masked[None, None], (1, window), 1, (0, window // 2))
    highest = functional.max_pool2d(highest, (window, 1), 1, (window // 2, 0))[0, 0]
    places = ((masked == highest) & allowed).nonzero()
    places = places[masked[places[:, 0], places[:, 1]].argsort(descending=True, stable=True)]
    near = cKDTree(places.numpy()).query_ball_point(places.numpy(), distance) if len(places) else []
    keep = np.ones(len(places), dtype=bool)
    for index, neighbours in enumerate(near):
        if keep[index]:
            keep[[other for other in neighbours if other > index]] = False
    return places[torch.from_numpy(keep)]


def full_coordinates(score: Tensor, peaks: Tensor, pixels: Tensor, full: tuple[int, ...]) -> Tensor:
    """Return the ``(n, 2)`` places of peaks in whole pixels of the full micrograph (RELION cuts fractions off)."""
    places = (_refined(score, peaks) * pixels + (pixels - 1) / 2).round()
    return torch.minimum(places.clamp(min=0), torch.tensor(full) - 1)


def _refined(score: Tensor, peaks: Tensor) -> Tensor:
    """Return peaks ``(n, 2)`` moved to the tops of parabolas through their neighbours."""
    height, width = score.shape
    y, x = peaks[:, 0].clamp(1, height - 2), peaks[:, 1].clamp(1, width - 2)
    middle = score[y, x]
    offsets = []
    for before, after in ((score[y - 1, x], score[y + 1, x]), (score[y, x - 1], score[y, x + 1])):
        curvature = before - 2 * middle + after
        offset = 0.5 * (before - after) / torch.where(curvature < 0, curvature, torch.full_like(curvature, -torch.inf))
        offsets.append(offset.clamp(-0.5, 0.5))
    # A peak next to the edge has no neighbours on both sides and stays where it is.
    whole = (peaks == torch.stack([y, x], dim=1)).all(dim=1)
    return peaks + torch.stack(offsets, dim=1) * whole[:, None]
