"""Frames as motion correction goes through them: in groups that fit into memory, and in these strip by strip.

A strip of some rows of one frame stays in the processor's cache while it is converted, gain-corrected and used, so that a whole frame of
floating-point numbers is never made. Movies that are in memory are one group; of others, such as electron events that are rendered as they
are asked for, or super-resolution movies, a few frames at a time are there, and they are made twice: for the alignment and for the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beamside.errors import InputError
from beamside.imaging.gain.detector import find_donors, to_tensor
from beamside.imaging.motion.workers import Workers

Frame: TypeAlias = NDArray[np.generic] | Tensor

_GROUP_BYTES = 1 << 28
_STRIP_PIXELS = {"cpu": 1 << 17, "cuda": 1 << 27}
_LEVEL_STRIPS = 64
_FURTHEST = 30.0  # standard deviations; also keeps float16 from overflowing, here and in spectra


class Frames:
    """The frames of a movie.

    Arrays, tensors, lists and iterators are in memory from now on; anything else with a length and an index is asked for its frames whenever
    they are needed.

    Attributes
    ----------
    count : number of frames
    shape : height and width

    Raises
    ------
    InputError
        when there are no frames, or they differ in shape, or are too small to be aligned
    """

    def __init__(self, frames: NDArray[np.generic] | Tensor | Iterable[Frame]) -> None:
        in_memory = isinstance(frames, np.ndarray | Tensor | list | tuple)
        self.held = in_memory or not (hasattr(frames, "__getitem__") and hasattr(frames, "__len__"))
        self._frames: Sequence[Frame] = list(frames) if self.held else frames  # type: ignore[assignment]
        self.count = len(self._frames)
        if not self.count:
            raise InputError("the movie has no frames; check that the file was written completely")
        first = self._frames[0]
        self.shape = (int(first.shape[0]), int(first.shape[-1]))
        self._bytes = int(first.nbytes)
        for index, frame in enumerate(self._frames if self.held else [first]):
            self._check(index, frame)
        if min(self.shape) < 64:
            raise InputError(
                f"the movie's frames are {self.shape[1]} × {self.shape[0]} pixels, too small to be aligned; 64 × 64 is the least"
            )

    def __getitem__(self, index: int) -> Frame:
        frame = self._frames[index]
        self._check(index, frame)
        return frame

    def groups(self, workers: Workers) -> Iterator[tuple[int, list[Frame]]]:
        """Yield the number of the first frame of each group, and the group."""
        size = self.count if self.held else max(workers.threads, _GROUP_BYTES // max(self._bytes, 1), 1)
        for start in range(0, self.count, size):
            yield start, workers.map(self.__getitem__, range(start, min(start + size, self.count)))

    def _check(self, index: int, frame: Frame) -> None:
        if tuple(frame.shape) != self.shape:
            raise InputError(
                f"frame {index + 1} of the movie has shape {tuple(frame.shape)} but the first has {self.shape}; the file is damaged"
            )


def strip_height(width: int, unit: int, device: torch.device) -> int:
    """Return the rows of a strip of frames that are `width` pixels wide, a multiple of `unit`."""
    return max(unit, _STRIP_PIXELS[device.type] // width // unit * unit)


def first_look(
    frames: Frames, gain: Tensor | None, factor: int, workers: Workers, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Go through the frames once, for what has to be known of all of them.

    Parameters
    ----------
    gain : ``(h, w)`` that multiplies the counts, or None
    factor : pixels along each side of a binned pixel

    Returns
    -------
    the sum of the raw frames, float32 ``(h, w)``, in which whole counts are exact up to 2²⁴, and the gain-corrected frames averaged over
    `factor` × `factor` pixels, float16 ``(n, h // factor, w // factor)``, in standard deviations of a typical frame from its mean

    Raises
    ------
    InputError
        when there are pixels that are not numbers
    """
    height, width = frames.shape
    total = torch.zeros(height, width, device=device)
    binned = torch.empty(frames.count, height // factor, width // factor, dtype=torch.float16, device=device)
    middle = to_tensor(frames[frames.count // 2], device)
    centre, scale = _level(middle, gain, factor)
    rows = strip_height(width, factor, device)
    for start, group in frames.groups(workers):

        def look(top: int, start: int = start, group: Sequence[Frame] = group) -> None:
            part = slice(top, min(top + rows, height))
            weight = None if gain is None else gain[part] * scale
            values = torch.empty(part.stop - top, width, device=device)
            place = slice(top // factor, part.stop // factor)
            for index, frame in enumerate(group, start):
                values.copy_(to_tensor(frame[part], device))
                total[part] += values
                values *= scale if weight is None else weight
                if place.stop > place.start:
                    binned[index, place] = (shrink(values, factor) - centre).clamp_(-_FURTHEST, _FURTHEST)

        workers.map(look, range(0, height, rows))
    if not bool(torch.isfinite(total.sum())):
        raise InputError(
            "the movie has pixels that are not numbers (NaN or infinite); write it again from the camera's data"
        )
    return total, binned


def _level(frame: Tensor, gain: Tensor | None, factor: int) -> tuple[float, float]:
    """Return the mean of a frame's binned pixels in units of their deviation, and what pixels are to be multiplied with for these units."""
    height = frame.shape[0] // factor
    chosen = []
    for row in range(0, height, max(1, height // _LEVEL_STRIPS)):
        part = slice(row * factor, (row + 1) * factor)
        values = frame[part].to(torch.float32)
        chosen.append(shrink(values if gain is None else values * gain[part], factor))
    # Hot pixels would make everything else look flat.
    sample = torch.cat(chosen).reshape(-1)
    ordered = sample[:: max(1, len(sample) // 100_000)].sort().values
    low, high = float(ordered[len(ordered) // 500]), float(ordered[-1 - len(ordered) // 500])
    deviation, mean = (float(value) for value in torch.std_mean(sample.clamp(low, high)))
    scale = 1 / max(deviation, 1e-12)
    return mean * scale, scale


def shrink(values: Tensor, factor: int) -> Tensor:
    """Return the sums of `values` ``(h, w)`` over `factor` × `factor` pixels; rows and columns that are left over are left out."""
    if factor == 1:
        return values
    height, width = (side // factor * factor for side in values.shape)
    down = values[0:height:factor] + values[1:height:factor]
    for offset in range(2, factor):
        down += values[offset:height:factor]
    across = down[:, 0:width:factor] + down[:, 1:width:factor]
    for offset in range(2, factor):
        across += down[:, offset:width:factor]
    return across


def mend(binned: Tensor, defects: Tensor, width: int, factor: int, workers: Workers) -> None:
    """Replace the binned pixels that hold some of the `defects` (flat indices in frames of `width`) by good ones near them, in place."""
    if not len(defects):
        return
    rows, columns = defects // width // factor, defects % width // factor
    inside = (rows < binned.shape[1]) & (columns < binned.shape[2])
    bad = torch.zeros(binned.shape[1:], dtype=torch.bool, device=binned.device)
    bad[rows[inside], columns[inside]] = True
    if not bool(bad.any()) or bool(bad.all()):
        return
    places = bad.reshape(-1).nonzero()[:, 0]
    donors = find_donors(bad, places)

    def fill(index: int) -> None:
        turns = (index + torch.arange(len(places), device=binned.device)) % donors.shape[1]
        flat = binned[index].view(-1)
        flat[places] = flat[donors.gather(1, turns[:, None])[:, 0]]

    workers.map(fill, range(len(binned)))
