"""Which way round a gain reference lies, and whether it multiplies or divides, told from the movies' own counts.

A camera's pixels differ in sensitivity, and a gain reference describes how. In the mean of uncorrected frames each pixel therefore stands above
or below its surroundings by what the reference says, whatever the specimen is. Both images are divided by their local mean, so that specimen,
illumination and shading do not matter, and the counts are fitted by the logarithm of the reference in each of the eight orientations:

    counts / local mean - 1  =  slope × log(reference / local mean) + noise

The slope is -1 for the right orientation of a reference that multiplies, +1 for one that divides, about 0 for any wrong orientation, and about 0
for all of them when the frames were corrected already or the reference is of another camera. The fit is weighted by the noise's own
spectrum, and its error is that of the same images with their phases exchanged at random, so it holds for patterns and noise of any texture: slope
and error together say how sure the answer is. Fourier coefficients that stand far out of their ring (regular blocks and columns, which look alike in
several orientations) are left out.

Only NumPy and SciPy, so that no worker has to load torch for this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, inf
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from beamside.formats.orientation import Orientation, Shape, fitting_orientations, fitting_ratio

Image = NDArray[np.float32]
Mode = Literal["multiply", "divide"]

LARGEST_SIDE = 2048
"""Only so many pixels in the middle are compared: four million give hundreds of standard deviations from one movie."""

NEIGHBOURHOOD = 33
"""Side in pixels of the box that the local mean is taken over."""

COARSEST = 1 / 24
"""Frequencies below this, in cycles per pixel, belong to the specimen and are not compared."""

OUTSTANDING = 12.0
"""Coefficients with more than so many times the mean power of their ring are left out; of noise these are 6 in a million."""

CLIPPED = 5.0
"""Pixels count as no more than so many standard deviations: hot and dead pixels and cosmic rays say nothing about the others."""

CLEAR_SLOPE = 0.6
"""A reference that fits has a slope near 1; the noise of the reference itself takes some of it away.

Frames that were corrected with a noisy reference show its noise, with a slope of what is missing to 1. A reference for which these two could be
mixed up has more noise than pattern, and is asked about.
"""

CLEAR_SIGMAS = 8.0
"""Slope in units of its error that a decision needs: with 16 possible answers, chance gives this once in 10¹³ sessions."""

CLEAR_MARGIN_SIGMAS = 6.0
"""Distance to the second-best orientation, in units of its error, that a decision needs."""

CLEAR_MARGIN = 0.1
"""Distance of the slopes that a decision needs besides: a detector changes a little between reference and movies."""

SMALL_ERROR = 0.05
"""With an error of the slope below this, a pattern that is not seen is not there."""

FLAT = 0.002
"""A reference whose pixels differ by less than this from their surroundings changes nothing that matters."""


@dataclass(frozen=True)
class Match:
    """How the frames' mean follows the reference in one orientation: the slope and its standard error."""

    orientation: Orientation
    slope: float
    error: float

    @property
    def mode(self) -> Mode:
        """What the sign of the slope means."""
        return "multiply" if self.slope < 0 else "divide"

    @property
    def sigmas(self) -> float:
        """The slope in units of its error."""
        return abs(self.slope) / self.error if 0 < self.error < inf else 0.0


Kind = Literal["clear", "alike", "absent", "flat", "unsure"]


@dataclass(frozen=True)
class Verdict:
    """What the comparison says.

    Attributes
    ----------
    kind : "clear": one orientation fits and no other does; "alike": several fit equally well; "absent": none fits, although it would be seen;
        "flat": the reference has no pattern of pixels; "unsure": more movies are needed
    matches : the orientations that fit the frames' shape, the best first
    margin : distance of the best one to the second in units of its error (to a slope of 0 when it is the only one)
    pattern : standard deviation of the reference's pixels from their surroundings, as a fraction
    shading : standard deviation of the surroundings, as a fraction
    """

    kind: Kind
    matches: tuple[Match, ...]
    margin: float
    pattern: float
    shading: float

    @property
    def best(self) -> Match | None:
        """The orientation that fits best."""
        return self.matches[0] if self.matches else None

    @property
    def equals(self) -> tuple[Match, ...]:
        """The orientations that cannot be told from the best one, with it."""
        if not self.matches:
            return ()
        first = self.matches[0]
        return tuple(match for match in self.matches if match is first or not _apart(first, match))


def compared_window(frame: Shape, ratio: float) -> tuple[slice, slice]:
    """Return the part in the middle of a frame that is compared with a reference of this `ratio`.

    It has an even distance to both edges in pixels of the coarser image, so that turning and mirroring bring it onto itself.
    """
    step = round(1 / ratio) if ratio < 1 else 1
    return tuple(_middle(side // step, step) for side in frame)  # type: ignore[return-value]


def _middle(side: int, step: int) -> slice:
    length = min(side, LARGEST_SIDE - (LARGEST_SIDE - side) % 2)
    start = (side - length) // 2
    return slice(start * step, (start + length) * step)


def compare(total: NDArray[Any], gain: NDArray[Any], frame: Shape) -> Verdict:
    """Compare counts with a gain reference in all orientations.

    Parameters
    ----------
    total : ``(h, w)`` sum (or mean) of uncorrected frames inside `compared_window`
    gain : ``(gh, gw)`` the reference as it lies in its file; values that are not above 0 are defects
    frame : shape of the whole frames

    Returns
    -------
    a verdict; its matches are empty when no orientation fits, or there are no counts
    """
    orientations = fitting_orientations((gain.shape[0], gain.shape[1]), frame)
    if not orientations:
        return Verdict("unsure", (), 0.0, 0.0, 0.0)
    turned = orientations[0].rotate % 180 == 90
    own_frame = (frame[1], frame[0]) if turned else frame
    ratio = fitting_ratio((gain.shape[0], gain.shape[1]), own_frame)
    assert ratio is not None
    template, pattern, shading = _template(gain, own_frame, ratio)
    if pattern < FLAT:
        return Verdict("flat", (), inf, pattern, shading)
    counts = _bin(np.asarray(total, np.float32), round(1 / ratio) if ratio < 1 else 1)
    if not counts.any():
        return Verdict("unsure", (), 0.0, pattern, shading)
    residual = _relative(counts, np.isfinite(counts))[0]
    matches = _fit(_clip(residual), template, orientations)
    return judge(matches, pattern, shading)


def slope_of(total: NDArray[Any], gain: NDArray[Any], frame: Shape, orientation: Orientation) -> Match:
    """Return how counts follow a gain reference in one orientation; as `compare`, which needs eight times as long."""
    own_frame = (frame[1], frame[0]) if orientation.rotate % 180 == 90 else frame
    ratio = fitting_ratio((gain.shape[0], gain.shape[1]), own_frame)
    if ratio is None:
        return Match(orientation, 0.0, inf)
    template, pattern, _ = _template(gain, own_frame, ratio)
    counts = _bin(np.asarray(total, np.float32), round(1 / ratio) if ratio < 1 else 1)
    if pattern < FLAT or not counts.any():
        return Match(orientation, 0.0, inf)
    return _fit(_clip(_relative(counts, np.isfinite(counts))[0]), template, [orientation])[0]


def judge(matches: Sequence[Match], pattern: float = 1.0, shading: float = 0.0) -> Verdict:
    """Say what the slopes of all orientations mean."""
    ranked = tuple(sorted(matches, key=lambda match: -abs(match.slope)))
    best = ranked[0]
    second = next((match for match in ranked[1:]), Match(best.orientation, 0.0, 0.0))
    gap = abs(best.slope) - abs(second.slope)
    margin = gap / max(hypot(best.error, second.error), 1e-9)
    kind: Kind = "unsure"
    if abs(best.slope) >= CLEAR_SLOPE and best.sigmas >= CLEAR_SIGMAS:
        if _apart(best, second) or len(ranked) == 1:
            kind = "clear"
        elif best.error <= SMALL_ERROR / 2:
            kind = "alike"
    elif abs(best.slope) + 2 * best.error < CLEAR_SLOPE and best.error <= SMALL_ERROR:
        kind = "absent"
    return Verdict(kind, ranked, margin, pattern, shading)


def _apart(first: Match, other: Match) -> bool:
    gap = abs(first.slope) - abs(other.slope)
    return gap >= CLEAR_MARGIN and gap >= CLEAR_MARGIN_SIGMAS * hypot(first.error, other.error)


def _template(gain: NDArray[Any], frame: Shape, ratio: float) -> tuple[Image, float, float]:
    """Return the pattern that is looked for, in the reference's own orientation, its strength, and that of the shading."""
    step = round(ratio) if ratio > 1 else 1
    values = np.asarray(gain, np.float32)[_window_of_reference(frame, ratio)]
    usable = np.isfinite(values) & (values > 0)
    values = _bin(np.where(usable, values, 0), step)
    usable = _bin(usable.astype(np.float32), step) == step * step
    if not usable.any():
        return np.zeros(values.shape, np.float32), 0.0, 0.0
    relative, background = _relative(values, usable)
    clipped = _clip(np.log(np.maximum(relative + 1, 0.05)), usable)
    shading = float(background[usable].std() / background[usable].mean())
    return clipped, float(clipped[usable].std()), shading


def _window_of_reference(frame: Shape, ratio: float) -> tuple[slice, ...]:
    """Return the part of a reference that belongs to `compared_window`."""
    return tuple(slice(round(part.start * ratio), round(part.stop * ratio)) for part in compared_window(frame, ratio))


def _bin(image: Image, step: int) -> Image:
    """Return sums over blocks of step × step pixels."""
    if step == 1:
        return image
    height, width = image.shape[0] // step, image.shape[1] // step
    blocks = image[: height * step, : width * step].reshape(height, step, width, step)
    return np.asarray(blocks.sum(axis=(1, 3)), np.float32)


def _relative(values: Image, usable: NDArray[np.bool_]) -> tuple[Image, Image]:
    """Return the values' deviation from their local mean as a fraction of it (0 where they are not usable), and that mean.

    The local mean is taken twice, the second time without what stood far out, so that a hot pixel makes no hole around itself.
    """
    values = np.where(usable, values, 0).astype(np.float32)
    middle = float(values[usable].mean(dtype=np.float64))
    limit = 4.0 * middle
    weight = _box(usable.astype(np.float32))
    background = np.asarray(_box(np.minimum(values, limit)) / np.maximum(weight, 1e-3), np.float32)
    np.maximum(background, np.float32(0.05 * middle), out=background)
    return np.where(usable, values / background - 1, 0).astype(np.float32), background


def _box(values: Image) -> Image:
    return np.asarray(uniform_filter(values, min(NEIGHBOURHOOD, *values.shape), mode="reflect"), np.float32)


def _clip(values: Image, usable: NDArray[np.bool_] | None = None) -> Image:
    """Limit values to some standard deviations, which are those of the bulk, and take their mean away; unusable ones are 0."""
    chosen = values.reshape(-1) if usable is None else values[usable]
    sample = chosen[:: max(1, len(chosen) // 200_000)]
    low, high = np.quantile(sample, [0.002, 0.998])
    deviation = float(np.clip(sample, low, high).std()) * CLIPPED
    clipped = np.clip(values, -deviation, deviation) - np.float32(np.clip(sample, -deviation, deviation).mean())
    return clipped if usable is None else np.where(usable, clipped, 0).astype(np.float32)


def _fit(residual: Image, template: Image, orientations: Sequence[Orientation]) -> list[Match]:
    """Fit the residual by the template in each orientation."""
    ring, compared = _rings((residual.shape[0], residual.shape[1]))
    data = scipy.fft.rfft2(residual)
    power, noise, kept = _spectrum(data, ring, compared)
    weighted = np.where(kept, 1 / np.maximum(noise[ring], 1e-12), 0).astype(np.float32)
    power *= weighted
    data = data * weighted
    matches = []
    for orientation in orientations:
        pattern = scipy.fft.rfft2(np.ascontiguousarray(orientation.apply(template)))
        strength, _, usable = _spectrum(pattern, ring, compared)
        np.multiply(strength, usable, out=strength)
        product = float(np.vdot(np.where(usable, pattern, 0), data).real)
        norm = float(np.vdot(strength, weighted))
        # phases that have nothing to do with each other give this variance of the product, whatever both spectra are
        variance = 0.5 * float(np.vdot(strength, power * weighted))
        matches.append(Match(orientation, product / norm, variance**0.5 / norm) if norm else Match(orientation, 0, inf))
    return matches


def _rings(shape: Shape) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return the number of the ring of each coefficient of rfft2, and which are compared: none on the axes, none that is coarse."""
    y = scipy.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    x = scipy.fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    radius = np.sqrt(y * y + x * x)
    compared = (radius >= COARSEST) & (y != 0) & (x != 0)
    compared &= (np.abs(y) < 0.5) & (x < 0.5)
    return (radius * 128).astype(np.int32), compared


def _spectrum(
    coefficients: NDArray[np.complex64], ring: NDArray[np.int32], compared: NDArray[np.bool_]
) -> tuple[Image, NDArray[np.float32], NDArray[np.bool_]]:
    """Return the power, its mean in each ring, and which coefficients do not stand out of theirs."""
    power = (coefficients.real**2 + coefficients.imag**2).astype(np.float32)
    flat, numbers = power.reshape(-1), ring.reshape(-1)
    kept = compared.copy()
    mean = np.zeros(int(numbers.max()) + 1)
    for _ in range(2):  # what stands out raises the mean of its ring
        chosen = kept.reshape(-1)
        count = np.bincount(numbers, chosen, len(mean))
        mean = np.bincount(numbers, flat * chosen, len(mean)) / np.maximum(count, 1)
        kept = compared & (power <= OUTSTANDING * mean.astype(np.float32)[ring])
    return power, mean.astype(np.float32), kept


def multiplier(gain: NDArray[Any], frame: Shape, orientation: Orientation, mode: Mode) -> Image:
    """Return what frames are multiplied by inside `compared_window`, 1 on average and 0 at defects.

    Parameters
    ----------
    gain : ``(gh, gw)`` the reference as it lies in its file
    frame : shape of the frames, which `orientation` must fit
    orientation, mode : how it is used
    """
    turned = orientation.apply(np.asarray(gain, np.float32))
    ratio = fitting_ratio((turned.shape[0], turned.shape[1]), frame)
    assert ratio is not None
    values = turned[_window_of_reference(frame, ratio)]
    usable = np.isfinite(values) & (values > 0)
    step = round(ratio) if ratio > 1 else 1
    values = _bin(np.where(usable, values, 0), step) / step**2
    usable = _bin(usable.astype(np.float32), step) == step * step
    values = np.where(usable, values if mode == "multiply" else 1 / np.where(usable, values, 1), 0)
    if usable.any():
        values = values / values[usable].mean(dtype=np.float64)
    spread = round(1 / ratio) if ratio < 1 else 1
    return np.asarray(values.repeat(spread, axis=0).repeat(spread, axis=1), np.float32)


def relative_to_surroundings(image: Image, usable: NDArray[np.bool_]) -> Image:
    """Return how far each usable pixel of an image lies above or below its surroundings, as a fraction; others are 0."""
    return _relative(image, usable)[0]


def deviations(image: NDArray[Any]) -> Image:
    """Return how far each pixel of an image lies above or below its surroundings, as a fraction; pixels that are 0 stay 0."""
    values = np.asarray(image, np.float32)
    return _relative(values, values > 0)[0]
