"""How likely the particles of a class are good ones, from what its average looks like and how well its particles fit.

Each class is measured by a few numbers with a physical meaning (`FEATURES`). A logistic model turns them into a score from 0 to 1: the part of the
class that is expected to be centred particles. Its weights were fitted to classes of simulated micrographs with contamination, carbon edges, empty
and off-centre boxes (``python -m benchmarks.class_quality``); real samples were only looked at. Several numbers compare a class with that of the
middle particle of its round: what is unlike the rest is suspect. Numbers that only say what a specimen looks like (long, round, large) are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from beamside.errors import InputError
from beamside.imaging.classes.shape import Shape, background, background_ring, class_shapes, radius_grid

Array = NDArray[np.floating]

LARGEST = 3.0
"""Features are cut off at so many deviations: outside the range of what was fitted, more of the same says nothing."""
SECTORS = 12
"""Parts of a ring, in which neighbours may be."""
_TINY = 1e-9


@dataclass(frozen=True)
class ClassStatistics:
    """What classification says of each class ``(k,)``.

    Attributes
    ----------
    counts : number of particles
    resolution : Å
    pmax : mean probability of the particles' best hypothesis
    evidence : mean logarithm of the particles' likelihood ratio against pure noise
    """

    counts: Array
    resolution: Array
    pmax: Array
    evidence: Array


@dataclass(frozen=True)
class Feature:
    """A measured number in the model: its name, what it means, its mean and spread among the classes that were fitted, and its weight."""

    name: str
    meaning: str
    mean: float
    spread: float
    weight: float


FEATURES: tuple[Feature, ...] = (
    Feature(
        "contrast",
        "logarithm of the density's deviation inside the mask over that of the quietest background",
        2.538,
        0.775,
        0.523,
    ),
    Feature(
        "edge",
        "logarithm of the density's deviation at the quietest of the mask's edge over that inside it",
        -2.028,
        0.893,
        -0.134,
    ),
    Feature("offset", "distance of the centre of mass from the middle, in radii of the mask", 0.083, 0.126, -0.479),
    Feature("slope", "part of the variance that a plane explains, as beside carbon or large ice", 0.014, 0.032, -0.646),
    Feature("share", "logarithm of the number of particles over the mean of classes", 0.022, 0.543, 0.259),
    Feature(
        "beside_pmax",
        "mean probability of the particles' best hypothesis less that of the middle particle's class",
        -0.045,
        0.146,
        0.689,
    ),
    Feature(
        "unlike_strength",
        "how far the logarithm of the density's deviation is from the middle one, either way",
        0.443,
        0.661,
        -0.900,
    ),
    Feature(
        "unlike_texture",
        "how far the logarithm of the part of fine detail in the power is from the middle one, either way",
        0.668,
        0.822,
        -0.594,
    ),
    Feature("beside_evidence", "logarithm of the evidence less the middle one", -0.413, 1.299, 0.445),
    Feature("unlike_evidence", "how far that is, either way", 0.782, 1.116, -0.345),
    Feature("beside_detail", "octaves of resolution more than the middle one", -0.134, 0.483, 0.148),
)
INTERCEPT = 0.158


def measure_classes(
    averages: Array, pixel_size: float, mask_diameter: float, statistics: ClassStatistics
) -> dict[str, Array]:
    """Return each feature of class averages ``(k, b, b)`` (protein bright) as an array ``(k,)``.

    Raises
    ------
    InputError
        when averages and statistics do not fit each other.
    """
    if any(len(values) != len(averages) for values in vars(statistics).values()):
        raise InputError(
            f"There are {len(averages)} class averages but other numbers of statistics; read both from one round."
        )
    shapes = class_shapes(averages, pixel_size, mask_diameter)
    resolution = np.asarray(statistics.resolution, dtype=np.float64)
    evidence = np.log(np.clip(np.asarray(statistics.evidence, dtype=np.float64), 1.0, None))
    counts = np.asarray(statistics.counts, dtype=np.float64)
    pictures = [
        _of_picture(np.asarray(average, dtype=np.float64), shape, pixel_size, mask_diameter, limit)
        for average, shape, limit in zip(averages, shapes, resolution, strict=True)
    ]
    names = ("strength", "contrast", "edge", "offset", "slope", "texture")
    found = {name: np.array([one[name] for one in pictures], dtype=np.float64) for name in names}
    return {
        "contrast": found["contrast"],
        "edge": found["edge"],
        "offset": found["offset"],
        "slope": found["slope"],
        "share": np.log(np.clip(counts / max(1.0, counts.sum()) * len(counts), 0.01, None)),
        "beside_pmax": _beside(np.asarray(statistics.pmax, dtype=np.float64), counts),
        "unlike_strength": np.abs(_beside(found["strength"], counts)),
        "unlike_texture": np.abs(_beside(found["texture"], counts)),
        "beside_evidence": _beside(evidence, counts),
        "unlike_evidence": np.abs(_beside(evidence, counts)),
        "beside_detail": -_beside(np.log2(resolution), counts),
    }


def class_scores(features: dict[str, Array]) -> Array:
    """Return the score ``(k,)`` of classes, from 0 to 1, by what `measure_classes` found."""
    total = np.full(len(next(iter(features.values()))), INTERCEPT)
    for feature in FEATURES:
        total += feature.weight * np.clip((features[feature.name] - feature.mean) / feature.spread, -LARGEST, LARGEST)
    return np.asarray(1 / (1 + np.exp(-total)))


def _of_picture(
    average: Array, shape: Shape, pixel_size: float, mask_diameter: float, resolution: float
) -> dict[str, float]:
    box, reach = average.shape[-1], mask_diameter / 2 / pixel_size
    radius = radius_grid(box)
    ring = background_ring(box, pixel_size, mask_diameter)
    level, _ = background(average, ring)
    image = average - level
    inside = radius <= min(reach, box / 2 - 1)
    strength = _rms(image[inside])
    masked = image * np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip((radius - reach) / 4 + 0.5, 0, 1)))
    return {
        "strength": math.log(strength + _TINY),
        "contrast": math.log((strength + _TINY) / (_quiet_rms(image, ring) + _TINY)),
        "edge": math.log((_quiet_rms(image, inside & (radius > 0.85 * reach)) + _TINY) / (strength + _TINY)),
        "offset": math.hypot(*shape.centre) / reach,
        "slope": _slope(image, radius <= box / 2 - 1),
        "texture": _texture(masked, mask_diameter / pixel_size, resolution / pixel_size),
    }


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _quiet_rms(image: Array, ring: NDArray[np.bool_]) -> float:
    """Return the root mean square in the quietest third of the sectors of a ring: neighbours, which good particles have too, are in the others."""
    y, x = np.nonzero(ring)
    middle = image.shape[-1] // 2
    sector = np.floor((np.arctan2(y - middle, x - middle) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
    power = np.bincount(sector, image[ring] ** 2, minlength=SECTORS)
    number = np.bincount(sector, minlength=SECTORS)
    quiet = np.sort(power[number > 0] / number[number > 0])[: SECTORS // 3]
    return float(np.sqrt(quiet.mean())) if len(quiet) else 0.0


def _slope(image: Array, inside: NDArray[np.bool_]) -> float:
    """Return the part of the variance that a plane explains."""
    y, x = np.nonzero(inside)
    values = image[inside] - image[inside].mean()
    axes = [(axis - axis.mean()) / np.linalg.norm(axis - axis.mean()) for axis in (y.astype(float), x.astype(float))]
    return float(sum((values @ axis) ** 2 for axis in axes) / (values @ values + _TINY))


def _texture(image: Array, diameter: float, resolution: float) -> float:
    """Return the logarithm of the part of the power that is finer than a fourth of `diameter`, down to `resolution`; both in pixels."""
    box = image.shape[-1]
    power = np.abs(np.asarray(fft.fft2(image))) ** 2
    frequency = np.asarray(np.fft.fftfreq(box))
    radius = np.hypot(frequency[:, None], frequency[None])
    fine = (radius > 4 / diameter) & (radius <= max(1 / resolution, 5 / diameter))
    return math.log(power[fine].sum() / (power[radius > 0.5 / diameter].sum() + _TINY) + 1e-4)


def _beside(values: Array, counts: Array) -> Array:
    """Return `values` ``(k,)`` less that of the middle particle's class."""
    if not len(values):
        return values
    order = np.argsort(values)
    total = np.cumsum(counts[order])
    middle = min(int(np.searchsorted(total, total[-1] / 2)), len(values) - 1)
    return np.asarray(values - values[order][middle])
