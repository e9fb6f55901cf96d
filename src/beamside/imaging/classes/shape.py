"""The shape of what class averages show: where its centre is, how long and how wide it is.

An average's density is what rises above its background by a part of its own height, in one piece, holes filled; what the noise of the background
reaches by chance never counts. Neighbours are told by reaching to the end of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft, ndimage

from beamside.errors import InputError
from beamside.imaging.fourier import shift_phases

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

OUTLINE = 0.25
"""Height of the outline, as a part of the density's height; measured on simulated particles of known size."""
HEIGHT_QUANTILE = 0.9
"""The density's height is this quantile of the pixels inside the mask: a few dense spots do not set it."""
CHANCE = 3.0
"""Standard deviations of the background that count as chance."""
FINENESS = 2
"""Averages are drawn on pixels so many times finer to follow their outline."""
GAP = 0.04
"""Gaps up to so many diameters of the mask do not part a particle: between domains there is little density."""
EDGE = 3.0
"""Pixels from the end of the image, where the density of neighbours is cut off."""
ANGLES = 36
"""Directions, over half a turn, in which widths are measured."""


@dataclass(frozen=True)
class Shape:
    """What an average shows.

    Attributes
    ----------
    centre : y, x in pixels from pixel ``b // 2``: the density's centre of mass
    long, short : Å, its widths in the directions in which it is widest and narrowest; 0 when nothing rises above the background
    """

    centre: tuple[float, float]
    long: float
    short: float


def radius_grid(box: int) -> Array:
    """Return the distance ``(b, b)`` of each pixel from pixel ``b // 2``."""
    axis = np.arange(box) - box // 2
    return np.asarray(np.hypot(axis[:, None], axis[None]), dtype=np.float64)


def background_ring(box: int, pixel_size: float, mask_diameter: float) -> Mask:
    """Return the pixels ``(b, b)`` outside the mask, inside the circle that fits into the box; three pixels of it where the mask leaves none."""
    radius = radius_grid(box)
    outer = box / 2 - 1
    inner = min(mask_diameter / 2 / pixel_size, outer - 3)
    return np.asarray((radius > inner) & (radius <= outer))


def background(average: Array, ring: Mask) -> tuple[float, float]:
    """Return the level and the standard deviation of the background, neither moved by a few neighbours."""
    values = average[ring]
    level = float(np.median(values))
    return level, float(1.4826 * np.median(np.abs(values - level)))


def class_shapes(averages: Array, pixel_size: float, mask_diameter: float) -> list[Shape]:
    """Measure class averages ``(k, b, b)``, protein bright.

    Raises
    ------
    InputError
        when the averages are not square images.
    """
    if averages.ndim != 3 or averages.shape[1] != averages.shape[2]:
        raise InputError(f"Class averages must be a stack of square images, not an array of shape {averages.shape}.")
    box = averages.shape[-1]
    inside = radius_grid(box) <= min(mask_diameter / 2 / pixel_size, box / 2 - 1)
    ring = background_ring(box, pixel_size, mask_diameter)
    return [_shape(np.asarray(average, dtype=np.float64), inside, ring, pixel_size) for average in averages]


def _shape(average: Array, inside: Mask, ring: Mask, pixel_size: float) -> Shape:
    level, deviation = background(average, ring)
    height = float(np.quantile(average[inside], HEIGHT_QUANTILE)) - level
    outline = max(OUTLINE * height, CHANCE * deviation)
    fine = _finer(average - level)
    reach = math.sqrt(float(inside.sum()) / math.pi)
    dense = fine > outline if height > 0 else np.zeros(fine.shape, dtype=bool)
    radius = radius_grid(len(fine)) / FINENESS
    own = _largest_piece(dense & (radius <= reach), GAP * 2 * reach * FINENESS)
    if not own.any():
        return Shape((0.0, 0.0), 0.0, 0.0)
    weights = np.maximum(fine[own], 0)
    centre = weights @ _places(own, average.shape[-1]) / weights.sum()
    whole = _largest_piece(dense, GAP * 2 * reach * FINENESS)
    # What is in one piece with the end of the image is a neighbour, not a long particle.
    alone = float(radius[whole].max()) < average.shape[-1] / 2 - EDGE and bool((whole & own).any())
    long, short = _widths(_places(whole if alone else own, average.shape[-1]))
    return Shape((float(centre[0]), float(centre[1])), long * pixel_size, short * pixel_size)


def _places(piece: Mask, box: int) -> Array:
    """Return the pixels ``(n, 2)`` of a piece, y and x in pixels of the average from its middle."""
    return np.asarray(np.argwhere(piece) / FINENESS - box // 2)


def _finer(image: Array) -> Array:
    """Return the image on pixels `FINENESS` times finer, interpolated exactly; pixel ``b // 2`` becomes ``FINENESS * (b // 2)``."""
    box = image.shape[-1]
    spectrum = fft.rfft2(image)
    size = box * FINENESS
    padded = np.zeros((size, size // 2 + 1), dtype=spectrum.dtype)
    half = box // 2
    padded[:half, :half] = spectrum[:half, :half]
    padded[size - half + 1 :, :half] = spectrum[box - half + 1 :, :half]
    return np.asarray(fft.irfft2(padded, s=(size, size)) * FINENESS**2)


def _largest_piece(mask: Mask, gap: float) -> Mask:
    """Return the largest piece of `mask`, with its holes; pieces that are no more than `gap` pixels apart are one."""
    reach = max(1, round(gap / 2))
    axis = np.arange(-reach, reach + 1)
    labels, count = ndimage.label(ndimage.binary_dilation(mask, np.hypot(axis[:, None], axis[None]) <= reach))
    if not count:
        return mask
    largest = int(np.argmax(np.bincount(labels.ravel(), mask.ravel())[1:])) + 1
    return np.asarray(ndimage.binary_fill_holes(mask & (labels == largest)), dtype=bool)


def _widths(places: Array) -> tuple[float, float]:
    """Return the largest and smallest width of points ``(n, 2)`` over all directions, in the points' unit."""
    angle = np.arange(ANGLES) * math.pi / ANGLES
    along = places @ np.stack([np.sin(angle), np.cos(angle)])
    widths = np.ptp(along, axis=0) + 1 / FINENESS
    return float(widths.max()), float(widths.min())


def recentred(averages: Array, centres: Array) -> NDArray[np.float32]:
    """Move averages ``(k, b, b)`` so that their `centres` ``(k, 2)``, y and x in pixels from the middle, come to the middle, by Fourier phases."""
    images = torch.from_numpy(np.ascontiguousarray(averages, dtype=np.float32))
    shape = (images.shape[-2], images.shape[-1])
    phases = shift_phases(torch.as_tensor(-np.asarray(centres), dtype=torch.float32), shape)
    return np.asarray(torch.fft.irfft2(torch.fft.rfft2(images) * phases, s=shape).numpy())


def origins_after_recentring(shifts: Array, psi: Array, moved: Array) -> Array:
    """Return particles' origins ``(n, 2)``, y and x, after the average of each was moved by minus `moved`.

    An average that moves by -v wants particles, which are turned by ψ onto it after their shift, to move by -M(ψ) v in their own frame, where
    M(ψ) takes x to x cos ψ + y sin ψ and y to -x sin ψ + y cos ψ.

    Parameters
    ----------
    shifts, moved : ``(n, 2)`` y and x in the same unit
    psi : ``(n,)`` degrees, RELION's ``rlnAnglePsi``
    """
    angle = np.deg2rad(np.asarray(psi, dtype=np.float64))
    cos, sin = np.cos(angle), np.sin(angle)
    y, x = np.asarray(moved, dtype=np.float64).T
    return np.asarray(shifts - np.stack([cos * y - sin * x, cos * x + sin * y], axis=1))
