"""The corrected sums: every frame moved by the motion model, weighted by exposure, added up.

The image is covered with small overlapping tiles within which the shift is nearly constant. A tile is cut at a whole-pixel shift and moved by the
rest in Fourier space, so the interpolation is exact and costs one small transform a frame; the tiles' spectra are added up over the frames, and
only the sums are transformed back and faded into each other. Where neighbouring tiles' shifts differ, the fade makes the change gradual. Tiles
are as large as the local motion allows, because larger ones overlap less. Binning crops the tiles' spectra, so that super-resolution movies
cost little more than their own transforms.

Work goes along: all frames of a row of tiles are added up before the next row of tiles is begun, so what is worked on stays in the cache.

The power spectrum for the CTF is that of the dose-weighted sum, not the sum of spectra of groups of frames: with the motion corrected, the signal
adds up over all frames before it is squared, and defoci are found about three times more exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from beamside.imaging.dose import dose_weights, weight_norm
from beamside.imaging.gain.detector import DetectorCorrection
from beamside.imaging.motion.frames import Frame, Frames
from beamside.imaging.motion.tiles import Tiling, fade, make_tiling, mirrored
from beamside.imaging.motion.workers import ALONE, Workers
from beamside.imaging.spectrum import SpectrumSum

_TILES = (256, 192, 160, 128)
_RAMP = 32
_BEND = 0.1  # Å, root mean square, that the motion within a tile may differ from that of its centre
_BATCH_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 26}
_LARGEST_BOX = 640


@dataclass(frozen=True)
class SumKinds:
    """Which sums to make: dose-weighted; plain; and plain ones of the even and of the odd frames, counted from 0 as RELION does."""

    weighted: bool = True
    plain: bool = False
    halves: bool = False


@dataclass(frozen=True)
class Sums:
    """Results of `sum_frames`: see `MotionResult`."""

    binning: float
    dose_weighted: Tensor | None
    plain: Tensor | None
    even: Tensor | None
    odd: Tensor | None
    power_spectrum: Tensor
    power_spectrum_pixel_size: float


@dataclass(frozen=True)
class _Plan:
    """How the sums are made.

    Attributes
    ----------
    tiling : tiles of the binned image
    box : side in pixels of a frame of what a tile covers
    ratio : pixels of a frame along the side of a binned one
    factors : ``(n, size, columns, 2)`` dose weight of each coefficient of a tile, for the real and the imaginary part
    norm : ``(size, columns)`` that the weighted sum is divided by
    """

    tiling: Tiling
    box: int
    ratio: float
    kinds: SumKinds
    factors: Tensor
    norm: Tensor

    @property
    def names(self) -> list[str]:
        """Names of the sums."""
        wanted = {"weighted": self.kinds.weighted, "plain": self.kinds.plain}
        return [name for name, is_wanted in wanted.items() if is_wanted] + ["even", "odd"] * self.kinds.halves


def sum_frames(
    frames: Frames,
    correction: DetectorCorrection,
    shifts_at: Callable[[Tensor], Tensor],
    exposure: Tensor,
    pixel_size: float,
    voltage: float,
    *,
    kinds: SumKinds,
    binning: float = 1.0,
    workers: Workers = ALONE,
) -> Sums:
    """Add up the corrected frames moved by the model.

    Parameters
    ----------
    correction : of the raw frames
    shifts_at : gives the shifts ``(n, m, 2)`` in pixels (y, x) at points ``(m, 2)``
    exposure : ``(n,)`` e/Å² at the end of each frame
    pixel_size : of the frames, Å
    voltage : kV
    kinds : which sums to make
    binning : of the sums; the nearest that tiles of whole pixels allow is taken, within 1 part in 10,000, and returned
    """
    device = correction.defects.device
    plan = _plan(frames, shifts_at, exposure.to(device), pixel_size, voltage, kinds, binning)
    tiling = plan.tiling
    across = len(tiling.columns)
    moves = shifts_at(tiling.centres.to(device) * plan.ratio).transpose(0, 1)
    unfinished: dict[int, Tensor] = {}

    def add(start: int, group: Sequence[Frame], row: int) -> list[Tensor]:
        shifts = moves[row * across : (row + 1) * across, start : start + len(group)]
        sums = unfinished.pop(row) if row in unfinished else _zeros(plan, device)
        _add(sums, plan, correction, group, start, row, shifts)
        if start + len(group) == frames.count:
            return _strips(sums, plan)
        unfinished[row] = sums
        return []

    made: list[list[Tensor]] = []
    for start, group in frames.groups(workers):
        made = workers.map(partial(add, start, group), range(len(tiling.rows)))
    images = [_image([strips[number] for strips in made], tiling) for number in range(len(plan.names))]
    named = dict(zip(plan.names, images, strict=True))
    spectrum = SpectrumSum(tiling.shape, pixel_size * plan.ratio)
    corrected = images[0]
    if bool(corrected.std() > 0):
        spectrum.add(corrected)
    return Sums(
        plan.ratio,
        named.get("weighted"),
        named.get("plain"),
        named.get("even"),
        named.get("odd"),
        spectrum.amplitude(),
        spectrum.pixel_size,
    )


def _plan(
    frames: Frames,
    shifts_at: Callable[[Tensor], Tensor],
    exposure: Tensor,
    pixel_size: float,
    voltage: float,
    kinds: SumKinds,
    binning: float,
) -> _Plan:
    device = exposure.device
    box, size = _sides(frames.shape, shifts_at, pixel_size, binning, device)
    ratio = box / size
    height, width = (2 * round(side / ratio / 2) if box != size else side for side in frames.shape)
    tiling = make_tiling((height, width), size, math.ceil(_RAMP / ratio))
    fy = torch.fft.fftfreq(size, dtype=torch.float64, device=device)
    fx = torch.fft.rfftfreq(size, dtype=torch.float64, device=device)
    frequency = torch.sqrt(fy[:, None] ** 2 + fx**2).to(torch.float32) / (pixel_size * ratio)
    weights = dose_weights(frequency, exposure, voltage)
    if box != size:  # of the highest frequencies only one half is there
        weights[:, size // 2] = 0
        weights[:, :, -1] = 0
    factors = weights[..., None].expand(-1, -1, -1, 2).contiguous() if kinds.weighted else weights[:0, ..., None]
    return _Plan(tiling, box, ratio, kinds, factors, weight_norm(weights))


def _sides(
    shape: tuple[int, int],
    shifts_at: Callable[[Tensor], Tensor],
    pixel_size: float,
    binning: float,
    device: torch.device,
) -> tuple[int, int]:
    """Return the side of a tile in pixels of the frames, and binned."""
    least = min(side // 2 * 2 for side in shape)
    bend = _bend(shape, shifts_at, device) * pixel_size
    wanted = next((side for side in _TILES if side <= least and bend * (side - _RAMP) <= _BEND), _TILES[-1])
    if binning == 1:
        return min(wanted, least), min(wanted, least)
    # Of a few sizes near the wanted one, the pair whose ratio is nearest to the binning; quick sizes among equals.
    limit = min(least, max(_LARGEST_BOX, round(32 * binning)))
    wanted = min(limit, max(wanted, round(64 * binning)))
    pairs = [
        (abs(box / size - binning), _slowness(box) + _slowness(size), abs(box - wanted), box, size)
        for size in range(2, limit + 1, 2)
        for box in (2 * round(size * binning / 2),)
        if wanted / 2 <= box <= min(limit, wanted * 2) and size <= box
    ]
    if not pairs:
        size = max(2, 2 * round(least / binning / 2))
        return least, size
    nearest = min(pairs)[0]
    *_, box, size = min(pair[1:] for pair in pairs if pair[0] <= max(nearest, 1e-6 * binning))
    return box, size


def _bend(shape: tuple[int, int], shifts_at: Callable[[Tensor], Tensor], device: torch.device) -> float:
    """Return how much the motion changes over the field: deviation within a square from its centre, in pixels per pixel of its side.

    The mean over the frames at each place is left out, which blurs nothing.
    """
    count = 8
    y = (torch.arange(count, dtype=torch.float64) + 0.5) * shape[0] / count
    x = (torch.arange(count, dtype=torch.float64) + 0.5) * shape[1] / count
    shifts = shifts_at(torch.cartesian_prod(y, x).to(device))
    shifts = (shifts - shifts.mean(dim=0)).reshape(-1, count, count, 2)
    down = (shifts[:, 1:] - shifts[:, :-1]) * (count / shape[0])
    across = (shifts[:, :, 1:] - shifts[:, :, :-1]) * (count / shape[1])
    slope = down.square().sum(dim=-1).mean() + across.square().sum(dim=-1).mean()
    return float((slope / 12).sqrt())


def _slowness(length: int) -> int:
    """Return the sum of the prime factors above 2 of a transform's length."""
    while length % 2 == 0:
        length //= 2
    slowness, prime = 0, 3
    while length > 1:
        while length % prime == 0:
            slowness, length = slowness + prime, length // prime
        prime += 2
    return slowness


def _zeros(plan: _Plan, device: torch.device) -> Tensor:
    size = plan.tiling.size
    shape = (len(plan.names), len(plan.tiling.columns), size, size // 2 + 1)
    return torch.zeros(shape, dtype=torch.complex64, device=device)


def _add(
    sums: Tensor,
    plan: _Plan,
    correction: DetectorCorrection,
    group: Sequence[Frame],
    start: int,
    row: int,
    shifts: Tensor,
) -> None:
    """Add the frames of `group`, the first of which is number `start`, to the sums of a row of tiles, in place.

    Parameters
    ----------
    sums : ``(kinds, tiles, size, columns)`` complex
    shifts : ``(tiles, frames of the group, 2)`` in pixels of the frames
    """
    tiling, box, device = plan.tiling, plan.box, sums.device
    origin = torch.tensor(
        [(tiling.rows[row] * plan.ratio, x * plan.ratio) for x in tiling.columns], dtype=torch.float64, device=device
    )
    corner = origin[:, None] - shifts
    whole = torch.round(corner)
    corners = whole.to(torch.int64).tolist()
    along_y, along_x = _phases(whole - corner, box, tiling.size)
    batch = max(1, _BATCH_PIXELS[device.type] // box**2)
    buffer = torch.empty(min(batch, len(origin)), box, box, device=device)
    parts = torch.view_as_real(sums)
    for number, frame in enumerate(group):
        places = [tile[number] for tile in corners]
        strip, top, left = _strip(frame, correction, start + number, places, box)
        index = start + number
        for first in range(0, len(places), batch):
            tiles = slice(first, min(first + batch, len(places)))
            tile_buffer = buffer[: tiles.stop - first]
            for tile, (y, x) in zip(tile_buffer, places[tiles], strict=True):
                tile.copy_(strip[y - top : y - top + box, x - left : x - left + box])
            spectra = _cropped(torch.fft.rfft2(tile_buffer), box, tiling.size)
            spectra *= along_x[tiles, number, None, :]
            spectra *= along_y[tiles, number, :, None]
            values = torch.view_as_real(spectra)
            for name, into in zip(plan.names, parts, strict=True):
                if name == "weighted":
                    into[tiles].addcmul_(values, plan.factors[index])
                elif name == "plain" or (name == "odd") == (index % 2 == 1):
                    into[tiles].add_(values)


def _phases(rest: Tensor, box: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the factors ``(..., size)`` and ``(..., size // 2 + 1)`` that move a tile by `rest` ``(..., 2)`` pixels along y and x."""
    fy = torch.fft.fftfreq(size, device=rest.device) * (size / box)
    fx = torch.fft.rfftfreq(size, device=rest.device) * (size / box)
    turns = (-2 * math.pi * rest).to(torch.float32)
    angle_y, angle_x = turns[..., 0, None] * fy, turns[..., 1, None] * fx
    return torch.polar(torch.ones_like(angle_y), angle_y), torch.polar(torch.ones_like(angle_x), angle_x)


def _strip(
    frame: Frame, correction: DetectorCorrection, index: int, places: list[list[int]], box: int
) -> tuple[Tensor, int, int]:
    """Return the corrected part of a frame that the tiles at `places` cover, and its first row and column; outside, the frame is mirrored."""
    height, width = (int(side) for side in frame.shape)
    top, bottom = min(y for y, _ in places), max(y for y, _ in places) + box
    left, right = min(0, *(x for _, x in places)), max(width, *(x + box for _, x in places))
    if top >= 0 and bottom <= height:
        strip = correction.apply_rows(frame, index, top, bottom)
    else:
        rows = mirrored(torch.arange(top, bottom), height)
        low = int(rows.min())
        strip = correction.apply_rows(frame, index, low, int(rows.max()) + 1)[
            (rows - low).to(correction.defects.device)
        ]
    if left == 0 and right == width:
        return strip, top, left
    before, after = (
        strip[:, mirrored(torch.arange(start, stop), width).to(strip.device)]
        for start, stop in ((left, 0), (width, right))
    )
    return torch.cat([before, strip, after], dim=1), top, left


def _cropped(spectra: Tensor, box: int, size: int) -> Tensor:
    """Return the lowest frequencies of the spectra of squares of side `box`, as of squares of side `size`, without scaling."""
    if box == size:
        return spectra
    half = size // 2
    return torch.cat([spectra[:, :half, : half + 1], spectra[:, box - half :, : half + 1]], dim=1)


def _strips(sums: Tensor, plan: _Plan) -> list[Tensor]:
    """Return the images ``(size, w)`` of a row of tiles, faded at the top and bottom, one for each sum."""
    tiling = plan.tiling
    window = fade(tiling.size, tiling.ramp).to(device=sums.device, dtype=torch.float32)
    square = window[:, None] * window
    strips = []
    for name, spectra in zip(plan.names, sums, strict=True):
        if name == "weighted":
            torch.view_as_real(spectra).div_(plan.norm[..., None])
        elif plan.box != tiling.size:
            spectra[:, tiling.size // 2] = 0
            spectra[:, :, -1] = 0
        strip = torch.zeros(tiling.size, tiling.shape[1], device=sums.device)
        for x, tile in zip(tiling.columns, torch.fft.irfft2(spectra, s=(tiling.size, tiling.size)), strict=True):
            strip[:, x : x + tiling.size].addcmul_(tile, square)
        strips.append(strip)
    return strips


def _image(strips: list[Tensor], tiling: Tiling) -> Tensor:
    """Return the image ``(h, w)`` of the rows of tiles."""
    window = fade(tiling.size, tiling.ramp).to(strips[0])
    image = torch.zeros(tiling.shape, device=window.device)
    across = torch.zeros(tiling.shape[1], device=window.device)
    down = torch.zeros(tiling.shape[0], device=window.device)
    for x in tiling.columns:
        across[x : x + tiling.size] += window
    for y, strip in zip(tiling.rows, strips, strict=True):
        down[y : y + tiling.size] += window
        image[y : y + tiling.size] += strip
    return image.div_(down[:, None]).div_(across)
