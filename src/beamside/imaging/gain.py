"""Detector correction: gain reference, defective, hot and dead pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from beamside.errors import GainError, InputError

_SIGMAS = 7.0
_BACKGROUND_BLOCKS = 5
_DONORS = 8


@dataclass(frozen=True)
class DetectorCorrection:
    """What is done to every raw frame of a movie.

    Attributes
    ----------
    gain : ``(h, w)`` float32 that multiplies the counts, or None
    defects : flat indices ``(k,)`` of pixels to be replaced
    donors : flat indices ``(k, d)`` of good pixels near each of them; the frames take turns among the d donors, so that the
        replaced pixels keep the noise of their surroundings and show no pattern that repeats from frame to frame
    """

    gain: Tensor | None
    defects: Tensor
    donors: Tensor

    def apply(self, frame: NDArray[np.generic] | Tensor, index: int) -> Tensor:
        """Return frame number `index` corrected, float32 ``(h, w)``, on the device of `defects`."""
        values = to_tensor(frame, self.defects.device).to(torch.float32)
        values = values.clone() if self.gain is None else values * self.gain
        if len(self.defects):
            flat = values.view(-1)
            columns = (index + torch.arange(len(self.defects), device=flat.device)) % self.donors.shape[1]
            flat[self.defects] = flat[self.donors.gather(1, columns[:, None])[:, 0]]
        return values


def to_tensor(frame: NDArray[np.generic] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return `frame` as a tensor of a type that torch calculates with; big-endian and 16/32-bit unsigned arrays are converted."""
    if isinstance(frame, Tensor):
        return frame.to(device)
    array = np.asarray(frame)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int32 if array.dtype.itemsize == 2 else np.int64)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    elif not array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array)
    return torch.from_numpy(array).to(device)


def check_gain(gain: NDArray[np.generic] | Tensor, shape: tuple[int, int]) -> None:
    """Raise GainError when `gain` does not have the frames' `shape` (h, w), is not finite, is negative or is zero everywhere."""
    if tuple(gain.shape) != tuple(shape):
        found = " × ".join(str(side) for side in reversed(gain.shape))
        raise GainError(
            f"the gain reference is {found} pixels but the movie is {shape[1]} × {shape[0]}; "
            "give the gain reference of this camera mode, or turn it by 90 degrees"
        )
    values = to_tensor(gain)
    if not bool(torch.isfinite(values).all()):
        raise GainError(
            "the gain reference has pixels that are not numbers (NaN or infinite); use another gain reference"
        )
    if bool((values < 0).any()) or not bool((values > 0).any()):
        raise GainError("the gain reference has negative pixels or only zeros; use another gain reference")


def detector_correction(
    total: Tensor,
    gain: NDArray[np.generic] | Tensor | None,
    defects: NDArray[np.generic] | Tensor | None = None,
) -> tuple[DetectorCorrection, Tensor]:
    """Prepare the correction of a movie from the plain sum of its raw frames.

    Parameters
    ----------
    total : ``(h, w)`` sum of the raw frames
    gain : ``(h, w)`` that multiplies the frames; zero marks a defect. None when the frames are corrected already
    defects : ``(h, w)`` mask, true or non-zero where the camera is known to be defective, or None

    Returns
    -------
    the correction, and the hot and dead pixels found in `total` (``(k, 2)``, y and x), known defects left out

    Raises
    ------
    GainError, InputError
        when shapes do not fit or all pixels are defective
    """
    shape = (total.shape[0], total.shape[1])
    known = torch.zeros(shape, dtype=torch.bool, device=total.device)
    multiplier = None
    if gain is not None:
        check_gain(gain, shape)
        multiplier = to_tensor(gain, total.device).to(torch.float32)
        known |= multiplier == 0
    if defects is not None:
        if tuple(defects.shape) != shape:
            raise InputError(
                f"the defect map is {tuple(defects.shape)} (rows, columns) but the movie is {shape}; give the map of this camera mode"
            )
        known |= to_tensor(defects, total.device) != 0
    if bool(known.all()):
        raise InputError("the gain reference and defect map mark every pixel as defective; check both files")
    outliers = find_outliers(total, multiplier, known)
    bad = outliers | known
    flat = bad.reshape(-1).nonzero()[:, 0]
    return DetectorCorrection(multiplier, flat, _find_donors(bad, flat)), outliers.nonzero()


def find_outliers(total: Tensor, gain: Tensor | None = None, known: Tensor | None = None) -> Tensor:
    """Return the mask ``(h, w)`` of hot and dead pixels in the sum of raw frames `total`.

    Hot: more than 7 standard deviations above the surroundings after gain correction. Dead: no count at all where the surroundings
    make that less likely than one pixel in the whole image, or more than 7 standard deviations below.
    """
    values = total.to(torch.float32)
    if gain is not None:
        values = values * gain
    good = torch.ones_like(values) if known is None else (~known).to(torch.float32)
    chosen = values[good > 0]
    sample = chosen[:: max(1, chosen.numel() // 200_000)]
    middle = sample.median()
    spread = 1.4826 * (sample - middle).abs().median() + 1e-3 * middle.abs()
    clipped = torch.clamp(values, float(middle - 5 * spread), float(middle + 5 * spread)) * good
    background = _box_mean(clipped) / _box_mean(good).clamp(min=1e-6)
    residual = values - background
    # Clipped standard deviation: the median of deviations would mean little for a handful of counts.
    sample = residual[good > 0][:: max(1, chosen.numel() // 200_000)]
    low, high = torch.quantile(sample, torch.tensor([0.002, 0.998], device=sample.device))
    deviation = sample.clamp(float(low), float(high)).std(correction=0).clamp(min=1e-6)
    # The noise grows with the square root of the local mean, as counts do.
    local = (
        deviation * torch.sqrt((background / middle.clamp(min=1e-6)).clamp(min=0.1, max=10.0))
        if middle > 0
        else deviation
    )
    step = values[values > 0].min() if bool((values > 0).any()) else values.new_tensor(0.0)
    outliers = (residual > _SIGMAS * local + step) | (residual < -_SIGMAS * local)
    counts = background / gain.clamp(min=1e-6) if gain is not None else background
    outliers |= (total == 0) & (counts > math.log(total.numel()) + 3)
    return outliers & (good > 0)


def _box_mean(values: Tensor) -> Tensor:
    """Mean over a box of some 33 pixels around each pixel, calculated in blocks of 8."""
    height, width = values.shape
    coarse = F.avg_pool2d(values[None, None], kernel_size=8, stride=8, ceil_mode=True)
    side = max(1, (min(_BACKGROUND_BLOCKS, *coarse.shape[-2:]) - 1) // 2 * 2 + 1)
    coarse = F.avg_pool2d(coarse, side, stride=1, padding=side // 2, count_include_pad=False)
    return F.interpolate(coarse, size=(height, width), mode="nearest")[0, 0]


def _find_donors(bad: Tensor, defects: Tensor) -> Tensor:
    """Return for each flat index in `defects` the flat indices ``(k, 8)`` of good pixels near it, taken at random from the smallest
    neighbourhood that has some."""
    height, width = bad.shape
    donors = torch.zeros(len(defects), _DONORS, dtype=torch.int64, device=bad.device)
    open_ = torch.arange(len(defects), device=bad.device)
    generator = torch.Generator().manual_seed(1)
    radius = 1
    while len(open_):
        if radius >= max(height, width):
            # Far from every good pixel: any of them will do.
            everywhere = (~bad).reshape(-1).nonzero()[:, 0]
            chosen = torch.randint(len(everywhere), (len(open_), _DONORS), generator=generator).to(bad.device)
            donors[open_] = everywhere[chosen]
            break
        offsets = torch.randint(-radius, radius + 1, (4 * _DONORS, 2), generator=generator).to(bad.device)
        y = (defects[open_, None] // width + offsets[:, 0]).clamp(0, height - 1)
        x = (defects[open_, None] % width + offsets[:, 1]).clamp(0, width - 1)
        good = ~bad[y, x]
        order = torch.argsort((~good).to(torch.int8), dim=1, stable=True)
        count = good.sum(dim=1)
        filled = count >= 2
        turn = torch.arange(_DONORS, device=bad.device)[None, :] % count.clamp(min=1)[:, None]
        chosen = (y * width + x).gather(1, order.gather(1, turn))
        donors[open_[filled]] = chosen[filled]
        open_ = open_[~filled]
        radius *= 2
    return donors
