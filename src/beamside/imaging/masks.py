"""Finding what is not sample: carbon film, and contamination such as ice crystals.

Masks are boolean, True where particles may be; they are made on a micrograph that has been reduced to several Å per pixel, with protein bright.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

CARBON_SEPARATION = 4.0
"""Distance between the two classes of grey values, in their standard deviations, from which there may be two surfaces. Otsu's split of a
normal distribution gives 2.6, of a uniform one (a thickness gradient) 3.5."""
CARBON_STEEPNESS = 0.75
"""Steepness of the border between the classes from which it is an edge: 1 is a step, smoothed like the image; a gradient of ice has 0.2 to 0.6."""
CARBON_AREA = 0.04
"""Smallest carbon, as a fraction of the field."""
HIDDEN = 0.2
"""A border is hidden, by contamination that lies on it, when less than this part of it can be judged."""
FILMS = 3
"""Most films, and crystals as large, that are looked for one after the other."""
CONTAMINATION_STRENGTH = 2.8
"""How many times as dense as particles contamination is at least."""
CONTAMINATION_SPREAD = 8.0
"""How much denser it is at least, in median deviations of the particles' densities."""

Mask = NDArray[np.bool_]


def smooth(image: Tensor, sigma: float, mask: Tensor | None = None) -> Tensor:
    """Return a Gaussian average ``(h, w)`` of the pixels that `mask` allows (all by default); `sigma` in pixels. Edges are reflected."""
    if mask is None:
        return _gaussian(image[None], sigma)[0]
    weights = mask.to(image.dtype)
    total, weight = _gaussian(torch.stack([image * weights, weights]), sigma).unbind()
    return total / weight.clamp(min=0.02)


def _gaussian(images: Tensor, sigma: float) -> Tensor:
    """Return smoothed images ``(n, h, w)``. Wide averages are taken of averaged pixels and interpolated, which changes them by 1 % at most."""
    height, width = images.shape[-2:]
    pixels = min(int(sigma / 3), height // 8, width // 8)
    if pixels < 2:
        return _convolved(images, sigma)
    fill = (-height % pixels, -width % pixels)
    whole = functional.pad(images[None], (0, fill[1], 0, fill[0]), mode="reflect")
    pooled = functional.avg_pool2d(whole, pixels)[0]
    # Averaging and interpolating smooth too: their variances are those of a box and a triangle.
    narrow = _convolved(pooled, (sigma**2 / pixels**2 - 1 / 12 - 1 / 6) ** 0.5)
    wide = functional.interpolate(narrow[None], size=whole.shape[-2:], mode="bilinear", align_corners=False)[0]
    return wide[:, :height, :width]


def _convolved(images: Tensor, sigma: float) -> Tensor:
    """Return images ``(n, h, w)`` convolved with a Gaussian along both axes."""
    for axis in (-1, -2):
        reach = min(max(1, int(3 * sigma + 0.5)), images.shape[axis] - 1)
        steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        kernel = torch.exp(-0.5 * (steps / max(sigma, 1e-6)) ** 2)
        lines = images.movedim(axis, -1)
        flat = functional.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="reflect")
        images = functional.conv1d(flat, (kernel / kernel.sum())[None, None]).reshape(lines.shape).movedim(-1, axis)
    return images


def carbon_mask(image: Tensor, particle: float, counted: Tensor | None = None) -> Tensor:
    """Return a mask ``(h, w)`` without the carbon film, if one is in view.

    Carbon absorbs evenly, so grey values smoothed over a part of a particle fall into two groups, and the border between them is an edge and not
    a gradient. The split is Otsu's (IEEE Trans. Syst. Man Cybern. 9, 1979). A crystal as large as a film is found in the same way, and is denser;
    so what remains is looked at again.

    Parameters
    ----------
    image : ``(h, w)``, dense bright
    particle : diameter of the largest particles in pixels
    counted : ``(h, w)`` bool, False where there is contamination, whose grey values say nothing about the film; all by default
    """
    open_area = np.ones(image.shape, dtype=bool)
    for _ in range(FILMS):
        film = _film(image, particle, open_area if counted is None else open_area & counted.cpu().numpy())
        if not film.any():
            break
        open_area &= ~film
    return torch.from_numpy(open_area)


def _film(image: Tensor, particle: float, usable: Mask) -> Mask:
    """Return where the densest film is, judged by the `usable` pixels; nowhere when there is none."""
    nowhere = np.zeros(usable.shape, dtype=bool)
    if not usable.any():
        return nowhere
    sigma = particle / 3
    values = smooth(image, sigma, None if usable.all() else torch.from_numpy(usable).to(image.device)).numpy()
    # The slope of the ice blurs the two groups; where it cannot be told from that of a film, taking it off does.
    values = max(values, _levelled(values, usable), key=lambda each: two_classes(each[usable])[1])
    split, separation = two_classes(values[usable])
    dense = values > split
    if separation < CARBON_SEPARATION or _steepness(values, dense, usable, sigma) < CARBON_STEEPNESS:
        return nowhere
    film = _large_parts(dense, max(CARBON_AREA * dense.size, 4 * particle**2))
    if film.mean() > 1 - CARBON_AREA:
        return nowhere
    return _grown(film, particle / 4)


def _levelled(values: NDArray[np.float32], usable: Mask) -> NDArray[np.float32]:
    """Return `values` without the slope of the ice: the median of the gradient, which the edges of films and crystals do not move."""
    slopes = (float(np.median(np.gradient(values, axis=axis)[usable])) for axis in (0, 1))
    down, right = (
        slope * (np.arange(length, dtype=np.float32) - length / 2)
        for slope, length in zip(slopes, values.shape, strict=True)
    )
    return np.asarray(values - down[:, None] - right, dtype=np.float32)


def contamination_mask(density: Tensor, response: Tensor, strong: float, particle: float) -> Tensor:
    """Return a mask ``(h, w)`` without what is much denser than particles are.

    Parameters
    ----------
    density : ``(h, w)``, density above the ice, smoothed to a small part of a particle
    response : ``(h, w)``, density averaged over the size of a particle
    strong : lowest `response` of contamination
    particle : diameter of the smallest particles in pixels
    """
    seeds = (response > strong).numpy()
    if strong <= 0 or not seeds.any():
        return torch.ones(density.shape, dtype=torch.bool)
    dense = (density > 0.6 * strong).numpy() | seeds
    labels, _ = ndimage.label(dense)
    chosen = np.unique(labels[seeds])
    return torch.from_numpy(~_grown(np.isin(labels, chosen[chosen > 0]), particle / 4))


def two_classes(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return Otsu's threshold, and the distance of the two classes' means in units of their pooled standard deviation."""
    counts, edges = np.histogram(values, bins=128)
    centres = (edges[:-1] + edges[1:]) / 2
    weight = np.cumsum(counts) / counts.sum()
    moment = np.cumsum(counts * centres) / counts.sum()
    below, above = weight[:-1], 1 - weight[:-1]
    usable = (below > 0) & (above > 0)
    if not usable.any():
        return float(centres[-1]), 0.0
    between = np.zeros(len(below))
    between[usable] = (moment[-1] * below[usable] - moment[:-1][usable]) ** 2 / (below[usable] * above[usable])
    index = int(between.argmax())
    split = float(edges[index + 1])
    low, high = values[values <= split], values[values > split]
    if not low.size or not high.size:
        return split, 0.0
    pooled = np.sqrt((low.var() * low.size + high.var() * high.size) / values.size)
    return split, float((high.mean() - low.mean()) / max(pooled, 1e-12))


def _steepness(values: NDArray[np.float32], dense: Mask, usable: Mask, sigma: float) -> float:
    """Return the gradient along the border of the `dense` class relative to that of a step smoothed by a Gaussian; hidden borders count as steps."""
    whole = ndimage.binary_dilation(dense) & ~dense
    border = whole & usable
    if not whole.any() or not (dense & usable).any() or not (~dense & usable).any():
        return 0.0
    if border.sum() < HIDDEN * whole.sum():
        return 1.0
    step = float(values[dense & usable].mean() - values[~dense & usable].mean())
    if step <= 0:
        return 0.0
    down, right = np.asarray(np.gradient(values, axis=0)), np.asarray(np.gradient(values, axis=1))
    gradient = float(np.median(np.hypot(down[border], right[border])))
    return gradient * sigma * float(np.sqrt(2 * np.pi)) / step


def _large_parts(mask: Mask, area: float) -> Mask:
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= area
    keep[0] = False
    return np.asarray(keep[labels], dtype=bool)


def _grown(mask: Mask, distance: float) -> Mask:
    """Return `mask` with everything closer to it than `distance` pixels."""
    return np.asarray(ndimage.distance_transform_edt(~mask) < distance, dtype=bool) if mask.any() else mask
