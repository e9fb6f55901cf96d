"""Whether movies need a gain reference, told from what different movies share.

A camera's pixels differ in sensitivity. Where nothing was done about that, the means of different movies show the same pattern, pixel by pixel,
whatever their specimens are; counting noise and specimens of different movies have nothing to do with each other. Each movie's mean is divided by its
local mean, and the covariance of different movies

    C(shift) = mean of  (a / local mean of a - 1)(x)  ×  (b / local mean of b - 1)(x + shift)

is taken over frequencies above `COARSEST` only. A pattern of pixels gives a peak at shift 0 that is no wider than a pixel, and its height is the
pattern's variance. What else movies can share is ruled out by its looks: illumination, the beam's edge, ice and carbon are smooth; a specimen that
was exposed twice lies a little elsewhere, and its peak with it; dead and hot pixels, columns and rows of corrected frames stand far out and are left
out, and so is what is dark or near a sharp edge. The spread of C at other shifts, where nothing is shared, is the error.

Only NumPy and SciPy, so that no worker has to load torch for this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

from beamside.imaging.gain.orientation import NEIGHBOURHOOD, Image, relative_to_surroundings

COARSEST = 1 / 8
"""Frequencies below this, in cycles per pixel, belong to specimen and illumination and are not compared."""

NEEDED = 0.03
"""Pixels that differ by this much or more (one standard deviation) need a gain reference. What a reference leaves that was made from few counts is
1 to 2 %; uncorrected pixels of counting cameras differ by 4 to 10 %."""

SIGMAS = 8.0
"""Height of the peak, in units of its error, that a pattern needs."""

RIVAL = 0.5
"""Largest height elsewhere, as a part of the peak: more of it, and the movies share something else."""

OWN_REACH = 3
"""Shifts up to this are the peak's own: pixels of a super-resolution movie that lie in one pixel of the camera have one gain."""

OUTSTANDING = 6.0
"""Pixels whose mean over all movies lies farther out than this, in standard deviations, are defects."""

DARK = 0.4
"""Surroundings darker than this part of the usual ones lie outside the beam or behind a grid bar, and are left out."""

EDGE, EDGE_BOX = 0.1, 9
"""A small box whose mean differs by more than this from the mean of its surroundings lies at an edge, and is left out with its surroundings."""

DEFECTIVE = 0.4
"""Columns and rows whose mean differs by more than this from their surroundings are defects."""

Kind = Literal["needed", "clean", "unsure"]


@dataclass(frozen=True)
class Pattern:
    """What different movies share.

    Attributes
    ----------
    kind : "needed": they share a pattern of pixels as of uncorrected frames; "clean": they share none that matters; "unsure": more movies are needed
    strength : standard deviation of the pattern, as a fraction
    sigmas : height of the peak in units of its error
    rival : largest covariance elsewhere, as a part of the peak
    limit : a pattern stronger than this would have been seen, as a fraction
    near : ``(33, 33)`` covariances of shifts up to 16 pixels, shift 0 in the middle
    """

    kind: Kind
    strength: float
    sigmas: float
    rival: float
    limit: float
    near: Image


def shared_pattern(movies: Sequence[NDArray[Any]]) -> Pattern:
    """Return what the sums of frames of different `movies`, each ``(h, w)``, share. Two are the fewest that can tell; the same one twice is one."""
    movies = _different(movies)
    shape = movies[0].shape
    nothing = Pattern("unsure", 0.0, 0.0, 0.0, float("inf"), np.zeros((33, 33), np.float32))
    if len(movies) < 2 or not all(movie.any() for movie in movies):
        return nothing
    good = _without_defects(movies)
    if not good.any():
        return nothing
    total: NDArray[np.complex64] | None = None
    power = np.zeros((shape[0], shape[1] // 2 + 1), np.float32)
    for movie in movies:
        residual = _residual(np.asarray(movie, np.float32), good)
        transform = scipy.fft.rfft2(residual)
        power += transform.real**2 + transform.imag**2
        total = transform if total is None else total + transform
    assert total is not None
    band = _band((shape[0], shape[1]))
    shared = np.where(band, total.real**2 + total.imag**2 - power, 0).astype(np.complex64)
    number = len(movies)
    scale = number * (number - 1) * float(good.sum()) * _share(band, shape[1])
    covariance = np.asarray(scipy.fft.irfft2(shared, s=shape), np.float32) / np.float32(scale)
    return _judge(covariance)


def _different(movies: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the movies without those that are copies of others: these share everything."""
    found: list[NDArray[Any]] = []
    for movie in movies:
        if not any(np.array_equal(movie, other) for other in found):
            found.append(movie)
    return found


def _judge(covariance: Image) -> Pattern:
    peak = float(covariance[0, 0])
    elsewhere = covariance.copy()
    reach = OWN_REACH
    for rows in (
        slice(None, reach + 1),
        slice(-reach, None),
    ):  # patterns of columns and rows have ridges along the axes
        elsewhere[rows] = 0
        elsewhere[:, rows] = 0
    error = float(elsewhere.std())
    rival = float(np.abs(elsewhere).max())
    sigmas = peak / error if error else 0.0
    limit = sqrt(max(peak, 0.0) + 4 * error)
    # of many shifts one lies five errors out by chance
    clear = sigmas >= SIGMAS and rival - 5 * error <= RIVAL * peak
    strength = sqrt(max(peak, 0.0))
    kind: Kind = "unsure"
    if clear and strength >= NEEDED:
        kind = "needed"
    elif limit < NEEDED or (sigmas >= SIGMAS and not clear):
        kind = "clean"
    at = np.arange(-16, 17)
    near = covariance[np.ix_(at % covariance.shape[0], at % covariance.shape[1])]
    return Pattern(kind, strength, sigmas, rival / peak if peak > 0 else 0.0, limit, near)


def _residual(movie: Image, good: NDArray[np.bool_]) -> Image:
    """Return how far the good pixels lie from their surroundings, as a fraction; others are 0, and the mean is 0."""
    residual = relative_to_surroundings(movie, good)
    residual -= residual[good].mean(dtype=np.float64)
    return np.where(good, residual, 0).astype(np.float32)


def _without_defects(movies: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """Return which pixels, columns and rows do not stand far out of the mean of all movies."""
    mean = np.zeros(movies[0].shape, np.float32)
    for movie in movies:
        values = np.asarray(movie, np.float32)
        mean += values / max(float(values.mean(dtype=np.float64)), 1e-9)
    good = np.isfinite(mean)
    for _ in range(2):  # far outliers spoil the local mean of their surroundings the first time
        deviation = relative_to_surroundings(mean, good)
        for axis in (0, 1):
            number = good.sum(axis=axis)
            line = np.where(good, deviation, 0).sum(axis=axis) / np.maximum(number, 1)
            good &= np.expand_dims(np.abs(line) < DEFECTIVE, axis)
        sample = deviation[good][:: max(1, deviation.size // 200_000)]
        if not len(sample):
            break
        spread = max(float(np.clip(sample, *np.quantile(sample, [0.002, 0.998])).std()), 1e-6)
        skew = (
            (OUTSTANDING**2 - 1) / 6 * spread**2
        )  # few counts reach farther up than a normal distribution (Cornish & Fisher)
        good &= (deviation > -OUTSTANDING * spread) & (deviation < OUTSTANDING * spread + skew)
    return good & _evenly_lit(mean, good)


def _evenly_lit(mean: Image, good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pixels lie neither in the dark nor near a sharp edge that all movies have at the same place: the beam's, a grid bar's."""
    values, weight = np.where(good, mean, 0).astype(np.float32), good.astype(np.float32)
    sides = [min(side, *mean.shape) for side in (EDGE_BOX, NEIGHBOURHOOD)]
    near, wide = (
        uniform_filter(values, side, mode="reflect") / np.maximum(uniform_filter(weight, side, mode="reflect"), 1e-3)
        for side in sides
    )
    step = near / np.maximum(wide, 1e-6) - 1
    usual = float(np.quantile(np.abs(step[:: max(1, len(step) // 500)]), 0.68))
    uneven = (wide < DARK * float(np.median(wide))) | (np.abs(step) > max(EDGE, 6 * usual))
    return np.asarray(~maximum_filter(uneven, NEIGHBOURHOOD // 2, mode="nearest"))


def _band(shape: tuple[int, int]) -> NDArray[np.bool_]:
    y = scipy.fft.fftfreq(shape[0])[:, None]
    x = scipy.fft.rfftfreq(shape[1])[None, :]
    return np.asarray(y * y + x * x >= COARSEST**2)


def _share(band: NDArray[np.bool_], width: int) -> float:
    """Return the part of all coefficients that is compared; rfft2 has half of most."""
    weights = np.full(band.shape[1], 2.0)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return float((band * weights).sum() / (weights.sum() * band.shape[0]))
