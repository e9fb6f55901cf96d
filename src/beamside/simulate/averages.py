"""How much class averages look like the true projections: Fourier ring correlation after alignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from beamside.simulate.specimen import Specimen, project, rotation_from_euler

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]

THRESHOLD = 0.5
"""Correlation with the truth at which an average holds as much signal as noise."""
_MASK_EDGE = 3.0
_COARSE_STEP = 4.0
_COARSE_RESOLUTION = 20.0
_FINE_STEPS = (2.0, 1.0, 0.5, 0.25)


@dataclass(frozen=True)
class AverageScore:
    """Class averages beside the truth, each class weighted by its particles.

    Attributes
    ----------
    frc : ``(r,)`` mean correlation on each ring
    resolution : Å, where `frc` falls below 0.5
    mean : mean of `frc` over the rings up to the Nyquist frequency
    spread : degrees, root mean square angle between the views of particles and the mean view of their class
    """

    frc: Array
    resolution: float
    mean: float
    spread: float


def score_averages(
    averages: Image,
    labels: npt.NDArray[np.int64],
    directions: Array,
    specimen: Specimen,
    pixel_size: float,
    diameter: float,
) -> AverageScore:
    """Compare class averages with CTF-free projections.

    Parameters
    ----------
    averages : ``(k, b, b)``
    labels : ``(n,)`` class of each particle
    directions : ``(n, 2)`` true rot and tilt of each particle in degrees. Each average is compared with the projection along the commonest
        direction of its particles; where all directions differ, along their mean
    specimen : what was projected
    diameter : of the soft mask in which they are compared, Å

    Notes
    -----
    Averages are turned and shifted to where they are most like the projection, which is drawn at that angle, not interpolated.
    """
    counts = np.bincount(labels, minlength=len(averages))
    vectors = _vectors(directions)
    total, squares = np.zeros(averages.shape[-1] // 2), 0.0
    for label in np.flatnonzero(counts):
        members = labels == label
        direction = _main_direction(directions[members])
        mean = _vectors(direction[None])[0]
        angles = np.rad2deg(np.arccos(np.clip(vectors[members] @ mean, -1, 1)))
        squares += float((angles**2).sum())
        total += counts[label] * aligned_frc(averages[label], direction, specimen, pixel_size, diameter)
    frc = total / counts.sum()
    return AverageScore(
        frc,
        reached(frc, averages.shape[-1] * pixel_size),
        float(frc[1:].mean()),
        float(np.sqrt(squares / counts.sum())),
    )


def reached(frc: Array, extent: float, threshold: float = THRESHOLD) -> float:
    """Return the resolution in Å at which `frc` ``(r,)`` first falls below `threshold`; `extent` is the box in Å."""
    below = np.flatnonzero(frc[1:] < threshold)
    if not len(below):
        return extent / (len(frc) - 1)
    ring = int(below[0]) + 1
    before, after = frc[ring - 1], frc[ring]
    return float(extent / max(ring - 1 + (before - threshold) / max(before - after, 1e-9), 0.5))


def aligned_frc(average: Image, direction: Array, specimen: Specimen, pixel_size: float, diameter: float) -> Array:
    """Return the correlation ``(b // 2,)`` on each ring of an average with the projection along `direction` that it is most like."""
    box = average.shape[-1]
    compare = _Comparison(average, pixel_size, diameter)

    def projection(psi: float) -> Image:
        image: Image = project(specimen, rotation_from_euler(direction[0], direction[1], psi)[None], pixel_size, box)[0]
        return image

    upright = projection(0.0)
    coarse = np.arange(0, 360, _COARSE_STEP)
    # turning the picture of an upright projection by psi draws that of Euler angle psi, because rows grow downwards
    turned = [scipy.ndimage.rotate(upright, psi, reshape=False, order=1) for psi in coarse]
    likeness = [compare.best(image, box * pixel_size / _COARSE_RESOLUTION)[0] for image in turned]
    psi = float(coarse[int(np.argmax(likeness))])
    best = compare.best(projection(psi), box / 2)
    for step in _FINE_STEPS:
        for candidate in (psi - step, psi + step):
            found = compare.best(projection(candidate), box / 2)
            if found[0] > best[0]:
                best, psi = found, candidate
    return best[1]


class _Comparison:
    """An average to be compared with projections."""

    def __init__(self, average: Image, pixel_size: float, diameter: float) -> None:
        box = average.shape[-1]
        row, column = np.mgrid[:box, :box] - box // 2
        outside = (np.hypot(row, column) - diameter / 2 / pixel_size) / _MASK_EDGE
        self.mask = 0.5 + 0.5 * np.cos(np.pi * np.clip(outside, 0, 1))
        fy, fx = scipy.fft.fftfreq(box)[:, None] * box, scipy.fft.rfftfreq(box)[None] * box
        self.radius = np.hypot(fy, fx)
        self.shells = self.radius.round().astype(np.int64)
        self.fy, self.fx = fy, fx
        self.average = average.astype(np.float64)
        self.box = box
        # columns 0 and b/2 stand for themselves, all others also for their complex conjugates
        self.twice = np.where((np.arange(box // 2 + 1) == 0) | (np.arange(box // 2 + 1) == box // 2), 1.0, 2.0)[None]
        self.spectrum = self._whitened(scipy.fft.rfft2(self.average * self.mask))

    def _ring_mean(self, values: Array) -> Array:
        weights = np.broadcast_to(self.twice, self.shells.shape)
        sums = np.bincount(self.shells.ravel(), (values * weights).ravel())
        return np.asarray(sums / np.bincount(self.shells.ravel(), weights.ravel()))

    def _whitened(self, spectrum: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
        power = self._ring_mean(np.abs(spectrum) ** 2)
        return np.asarray(spectrum / np.sqrt(np.maximum(power, 1e-20))[self.shells])

    def best(self, projection: Image, largest: float) -> tuple[float, Array]:
        """Return how like the average is to `projection` at the best shift, rings up to `largest`, and the correlation on each ring there."""
        truth = self._whitened(scipy.fft.rfft2(projection * self.mask))
        band = (self.radius <= largest) & (self.radius > 0)
        product = self.spectrum * truth.conj() * band
        map_ = scipy.fft.irfft2(product, s=(self.box, self.box))
        place = np.array(np.unravel_index(int(map_.argmax()), map_.shape), dtype=np.float64)
        for step in (0.5, 0.25, 0.125):
            place = self._climb(product, place, step)
        phase = np.exp(2j * np.pi / self.box * (self.fy * place[0] + self.fx * place[1]))
        # the mask is applied again after the average has been moved, so that both are seen through the same window
        moved = scipy.fft.irfft2(scipy.fft.rfft2(self.average) * phase, s=(self.box, self.box))
        spectrum = self._whitened(scipy.fft.rfft2(moved * self.mask))
        frc = self._ring_mean((spectrum * truth.conj()).real)
        inside = np.arange(len(frc)) <= largest
        inside[0] = False
        rings = np.arange(len(frc))
        return float((frc * rings)[inside].sum()), frc[: self.box // 2]

    def _climb(self, product: npt.NDArray[np.complex128], place: Array, step: float) -> Array:
        def value(point: Array) -> float:
            phase = np.exp(2j * np.pi / self.box * (self.fy * point[0] + self.fx * point[1]))
            return float(((product * phase).real * self.twice).sum())

        moves = np.array([[0, 0], [0, 1], [0, -1], [1, 0], [-1, 0]]) * step
        best: Array = max((place + move for move in moves), key=value)
        return best


def _vectors(directions: Array) -> Array:
    rot, tilt = np.deg2rad(directions).T
    return np.stack([np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)], axis=1)


def _main_direction(directions: Array) -> Array:
    """Return the commonest of ``(m, 2)`` directions, or the mean when none occurs twice."""
    values, counts = np.unique(directions, axis=0, return_counts=True)
    if counts.max() > 1 or len(directions) == 1:
        return np.asarray(values[counts.argmax()], dtype=np.float64)
    mean = _vectors(directions).mean(axis=0)
    mean /= np.linalg.norm(mean)
    angles: Array = np.rad2deg([np.arctan2(mean[1], mean[0]), np.arccos(np.clip(mean[2], -1, 1))])
    return angles
