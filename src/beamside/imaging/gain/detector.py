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
_SKEW = 5.0
"""Counts by which few counts reach farther than a normal distribution of the same deviation: (z² - 1) / 6 at z = 5.5 (Cornish & Fisher)."""

_BLOCK, _BACKGROUND_BLOCKS = 8, 5
_SAMPLE = 200_000
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
        return self.apply_rows(frame, index, 0, int(frame.shape[0]))

    def apply_rows(self, frame: NDArray[np.generic] | Tensor, index: int, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop` of frame number `index` corrected, float32 ``(stop - start, w)``."""
        device, width = self.defects.device, int(frame.shape[1])
        values = torch.empty(stop - start, width, device=device)
        values.copy_(to_tensor(frame[start:stop], device))
        if self.gain is not None:
            values *= self.gain[start:stop]
        first, last = torch.searchsorted(self.defects, self.defects.new_tensor([start * width, stop * width])).tolist()
        if last > first:
            columns = (index + torch.arange(first, last, device=device)) % self.donors.shape[1]
            donors = self.donors[first:last].gather(1, columns[:, None])[:, 0]
            values.view(-1)[self.defects[first:last] - start * width] = self._pixels(frame, donors)
        return values

    def _pixels(self, frame: NDArray[np.generic] | Tensor, flat: Tensor) -> Tensor:
        """Return the gain-corrected pixels of `frame` at `flat` indices."""
        rows, columns = flat // frame.shape[1], flat % frame.shape[1]
        if isinstance(frame, Tensor):
            chosen = frame[rows.to(frame.device), columns.to(frame.device)]
        else:
            chosen = to_tensor(frame[rows.cpu().numpy(), columns.cpu().numpy()])
        values = chosen.to(device=flat.device, dtype=torch.float32)
        return values if self.gain is None else values * self.gain.reshape(-1)[flat]


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
    low, high = (float(end) for end in to_tensor(gain).aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise GainError(
            "the gain reference has pixels that are not numbers (NaN or infinite); use another gain reference"
        )
    if low < 0 or high <= 0:
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
    return DetectorCorrection(multiplier, flat, find_donors(bad, flat)), outliers.nonzero()


def find_outliers(total: Tensor, gain: Tensor | None = None, known: Tensor | None = None) -> Tensor:
    """Return the mask ``(h, w)`` of hot and dead pixels in the sum of raw frames `total`.

    Hot: more than 7 standard deviations and 5 counts above the surroundings after gain correction (few counts are distributed unevenly).
    Dead: no count at all where the surroundings make that less likely than one pixel in the whole image, or more than 7 standard deviations below.
    """
    height, width = total.shape
    device = total.device
    # The image is gone through in strips that stay in the processor's cache.
    rows = max(_BLOCK, _strip_pixels(device) // width // _BLOCK * _BLOCK)
    strips = [slice(top, min(top + rows, height)) for top in range(0, height, rows)]

    def corrected(part: slice) -> Tensor:
        values = total[part].to(torch.float32)
        return values if gain is None else values * gain[part]

    step = max(1, total.numel() // _SAMPLE)
    while math.gcd(step, width) > 1:  # a sample of few columns would show how those differ, and not the rest
        step += 1
    at = torch.arange(0, total.numel(), step, device=device)
    if known is not None:
        at = at[~known.reshape(-1)[at]]
    sample = total.reshape(-1)[at].to(torch.float32)
    if gain is not None:
        sample = sample * gain.reshape(-1)[at]
    # Where most pixels have no count (one frame, EER, super-resolution), the median says nothing.
    dense = bool((sample > 0).float().mean() > 0.75)
    middle = sample.median() if dense else sample.mean()
    spread = float(1.4826 * (sample - middle).abs().median() + 1e-3 * middle.abs())
    counted = sample[sample > 0]
    # One count: no more than the least value, nor than the variance over the mean where that can be seen.
    count = float(counted.min()) if len(counted) else 0.0
    skew = _SKEW * (min(count, spread**2 / float(middle)) if dense else count)
    low, high = float(middle) - 5 * spread - skew, float(middle) + 5 * spread + skew
    sums, numbers = [], []
    for part in strips:
        values = corrected(part)
        good = torch.ones_like(values) if known is None else (~known[part]).to(torch.float32)
        sums.append(_block_sums(values.clamp(low, high).mul_(good)))
        numbers.append(_block_sums(good))
    background = _box_sums(torch.cat(sums)) / _box_sums(torch.cat(numbers)).clamp(min=1e-6)
    # Clipped standard deviation: the median of deviations would mean little for a handful of counts.
    residual = sample - background[at // width // _BLOCK, at % width // _BLOCK]
    ends = torch.quantile(residual, torch.tensor([0.002, 0.998], device=device)).tolist()
    deviation = residual.clamp(*ends).std(correction=0).clamp(min=1e-6).expand(background.shape)
    if middle > 0:  # the noise grows with the square root of the local mean, as counts do
        deviation = deviation * torch.sqrt((background / middle.clamp(min=1e-6)).clamp(min=0.1, max=10.0))
    hot, dead = (
        background + _SIGMAS * deviation + skew,
        background - _SIGMAS * deviation,
    )
    outliers = torch.empty(total.shape, dtype=torch.bool, device=device)
    for part in strips:
        values = corrected(part)
        found = torch.gt(values, _spread(hot, part, width), out=outliers[part])
        found |= values < _spread(dead, part, width)
        if bool((total[part] == 0).any()):
            counts = _spread(background, part, width)
            counts = counts if gain is None else counts / gain[part].clamp(min=1e-6)
            found |= (total[part] == 0) & (counts > math.log(total.numel()) + 3)
    return outliers if known is None else outliers & ~known


def _strip_pixels(device: torch.device) -> int:
    return 1 << 17 if device.type == "cpu" else 1 << 26


def _block_sums(values: Tensor) -> Tensor:
    """Return the sums of `values` ``(h, w)`` over blocks of 8 × 8 pixels, the last ones smaller."""
    height, width = values.shape
    padded = F.pad(values, (0, -width % _BLOCK, 0, -height % _BLOCK))
    down = padded.reshape(-1, _BLOCK, padded.shape[1]).sum(dim=1)
    return down.reshape(len(down), -1, _BLOCK).sum(dim=2)


def _box_sums(blocks: Tensor) -> Tensor:
    """Return for each block the sum over the 5 × 5 blocks around it: a box of some 40 pixels."""
    side = max(1, (min(_BACKGROUND_BLOCKS, *blocks.shape) - 1) // 2 * 2 + 1)
    sums: Tensor = F.avg_pool2d(blocks[None], side, stride=1, padding=side // 2)[0] * (side * side)
    return sums


def _spread(blocks: Tensor, part: slice, width: int) -> Tensor:
    """Return the value of the block that each pixel of the rows `part` belongs to."""
    rows = torch.arange(part.start, part.stop, device=blocks.device) // _BLOCK
    wide = blocks[part.start // _BLOCK : int(rows[-1]) + 1].repeat_interleave(_BLOCK, dim=1)[:, :width]
    values: Tensor = wide[rows - int(rows[0])]
    return values


def find_donors(bad: Tensor, defects: Tensor) -> Tensor:
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
