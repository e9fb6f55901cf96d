"""Class averages out of the sums over particles: regularised, with their resolution and quality."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.model import ClassifySettings
from beamside.imaging.classify2d.polar import PolarGrid

_INNER = 3.0
_TINY = 1e-6
EMPTY_SHARE = 0.15
"""A class with less than this part of its equal share of the particles counts as empty."""

PARTICLES_PER_CLASS = 30
"""Fewer particles than this cannot, on average, be told from noise: then there are fewer classes."""


@dataclass(frozen=True)
class Averages:
    """Class averages.

    Attributes
    ----------
    images : ``(K, b, b)`` regularised averages
    signal : ``(R,)`` signal power, all classes together; zero on rings that were not compared
    correlation : ``(K, R')`` Fourier ring correlation of the halves
    shape_correlation : ``(K, R')`` the same without what is round: averages over all rotations agree on that, but on nothing else
    radius : ``(K,)`` Fourier pixels, where the signal-to-noise ratio of the average falls below 1
    resolution : ``(K,)`` the same in Å
    quality : ``(K,)`` from 0 to 1
    """

    images: Tensor
    signal: Tensor
    correlation: Tensor
    shape_correlation: Tensor
    radius: Tensor
    resolution: Tensor
    quality: Tensor


def average(geometry: Geometry, grid: PolarGrid, data: Tensor, weights: Tensor) -> Averages:
    """Make averages.

    Parameters
    ----------
    grid : the rings compared
    data : complex ``(2, K, R', N' / 2)``, Σ p C X / S of both halves of the particles, on the references' rings
    weights : ``(2, K, R', N' / 2)``, Σ p C² / S

    Notes
    -----
    The average is the Wiener filter Σ p C X / S divided by (Σ p C² / S + 1 / (fudge τ²)), with τ² the power of the signal (Scheres,
    J. Mol. Biol. 415, 2012), taken here from all classes together: the mean power of the unregularised averages, less that of their noise,
    so that a class of few particles is filtered as strongly as it must be, and noise cannot build up from one iteration to the next. The
    signal-to-noise ratio of an average is 1 where its halves' correlation is 1/3 (Rosenthal & Henderson, J. Mol. Biol. 333, 2003).
    """
    signal = signal_power(data.sum(0), weights.sum(0), geometry.mask_fraction)
    prior = 1 / (geometry.settings.tau2_fudge * signal[:, None])
    images = geometry.level(grid).backward(data.sum(0) / (weights.sum(0) + prior))
    correlation, shape_correlation = _ring_correlations(geometry, grid, data, weights)
    radius = _reached(correlation, grid)
    full_signal = torch.zeros(geometry.grid.rings, device=signal.device)
    full_signal[: grid.rings] = signal
    return Averages(
        images=images,
        signal=full_signal,
        correlation=correlation,
        shape_correlation=shape_correlation,
        radius=radius,
        resolution=geometry.box * geometry.settings.pixel_size / radius,
        quality=_quality(correlation, radius, grid),
    )


def signal_power(data: Tensor, weights: Tensor, noise_fraction: float) -> Tensor:
    """Return the signal power ``(R,)`` of averages ``data / weights`` ``(K, R, N / 2)``, less their noise's `noise_fraction` / weights."""
    safe = weights.clamp(min=_TINY)
    noise = noise_fraction * (weights > _TINY)  # an empty class has none
    power = ((data.real**2 + data.imag**2) / safe - noise).mean(-1)  # times the weights
    total = weights.mean(-1).sum(0)
    signal = power.sum(0) / total.clamp(min=_TINY)
    floor = 1e-3 * noise_fraction / total.clamp(min=_TINY)
    return torch.maximum(signal, floor)


def _ring_correlations(geometry: Geometry, grid: PolarGrid, data: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Fourier ring correlation ``(K, R')`` of half averages inside the mask, with and without each ring's mean.

    The averages are not regularised here but brought to the same power on all rings: what the mask smears from the strong inner rings over the weak
    outer ones would correlate perfectly.
    """
    level = geometry.level(grid)
    floor = 0.1 * weights.mean(-1, keepdim=True).clamp(min=_TINY)
    halves = data / (weights + floor)
    halves = halves / halves.abs().square().mean(dim=(0, -1), keepdim=True).sqrt().clamp(min=_TINY)
    first, second = (level.forward(level.backward(half) * geometry.reference_mask) for half in halves)
    # the mean over the whole circle is real: the other half is the complex conjugate
    flat = [rings - rings.real.mean(-1, keepdim=True) for rings in (first, second)]
    return _correlation(first, second), _correlation(*flat)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation along the last dimension; zero where there is nothing."""
    product = (first * second.conj()).real.mean(-1)
    norm = torch.sqrt((first.abs() ** 2).mean(-1) * (second.abs() ** 2).mean(-1))
    return torch.where(norm > 1e-12, product / norm.clamp(min=1e-12), torch.zeros_like(norm))


def _reached(correlation: Tensor, grid: PolarGrid) -> Tensor:
    """Return the radius ``(K,)`` in Fourier pixels where the halves' correlation, smoothed over three rings, first falls below 1/3.

    The innermost rings do not count: they hold the slopes of the background and the neighbours, which differ from particle to particle.
    """
    padded = torch.nn.functional.pad(correlation[:, None], (1, 1), mode="replicate")
    smooth = torch.nn.functional.avg_pool1d(padded, 3, stride=1)[:, 0]
    low = smooth < 1 / 3
    low[:, : math.ceil(_INNER / grid.spacing)] = False
    first = torch.where(low.any(1), low.float().argmax(1), torch.full_like(low[:, 0], grid.rings, dtype=torch.long))
    return first.clamp(min=1) * grid.spacing


def _quality(correlation: Tensor, radius: Tensor, grid: PolarGrid) -> Tensor:
    """Return the mean correlation of each average with a noise-free one, over the rings that the best class has reached."""
    half = correlation.clamp(0, 1)
    full = torch.sqrt(2 * half / (1 + half))
    inside = grid.radii(correlation.device) <= radius.max()
    inside[0] = True
    return full[:, inside].mean(1)


def empty_classes(counts: Tensor) -> Tensor:
    """Tell which classes ``(K,)`` have next to no particles."""
    return counts < EMPTY_SHARE * counts.sum() / len(counts)


def active_classes(settings: ClassifySettings, count: int) -> int:
    """Return how many classes `count` particles are enough for."""
    return max(1, min(settings.classes, count // PARTICLES_PER_CLASS))
