"""The corrected sum: every frame moved by the motion model, weighted by exposure, added up.

The image is covered with small overlapping tiles within which the shift is nearly constant. A tile is cut at a whole-pixel shift and moved by the
rest in Fourier space, so the interpolation is exact and costs one small transform a frame; the tiles' spectra are added up over the frames, and
only the sums are transformed back and faded into each other. Where neighbouring tiles' shifts differ, the fade makes the change gradual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.dose import dose_weights, weight_norm
from beamside.imaging.motion_tiles import Tiling, cut, fade, make_tiling
from beamside.imaging.motion_workers import ALONE, Workers

_TILE, _RAMP = 160, 32
_SPECTRUM_SIZE = 512
_SPECTRUM_PIXEL = 1.4
_SPECTRUM_EXPOSURE = 4.0


@dataclass(frozen=True)
class Sums:
    """Results of `sum_frames`: see `MotionResult`."""

    average: Tensor
    dose_weighted: Tensor | None
    power_spectrum: Tensor
    power_spectrum_pixel_size: float


def sum_frames(
    frame_at: Callable[[int], Tensor],
    shape: tuple[int, int],
    shifts_at: Callable[[Tensor], Tensor],
    exposure: Tensor,
    pixel_size: float,
    voltage: float,
    *,
    weighted: bool,
    device: torch.device | str = "cpu",
    workers: Workers = ALONE,
) -> Sums:
    """Add up the corrected frames moved by the model.

    Parameters
    ----------
    frame_at : gives a corrected frame by its number
    shape : of a frame
    shifts_at : gives the shifts ``(n, m, 2)`` in pixels (y, x) at points ``(m, 2)``
    exposure : ``(n,)`` e/Å² at the end of each frame
    pixel_size : Å
    voltage : kV
    weighted : whether the dose-weighted sum is made as well
    """
    tiling = make_tiling(shape, _TILE, _RAMP)
    shifts = shifts_at(tiling.centres.to(device))
    size = tiling.size
    fy = torch.fft.fftfreq(size, dtype=torch.float64, device=device)
    fx = torch.fft.rfftfreq(size, dtype=torch.float64, device=device)
    weights = dose_weights(
        torch.sqrt(fy[:, None] ** 2 + fx**2).to(torch.float32) / pixel_size, exposure.to(device), voltage
    )
    group_of = _groups(exposure)
    tiles = len(tiling.corners)
    buffer = torch.empty(tiles, size, size, device=device)
    zeros = (tiles, size, size // 2 + 1)
    group = torch.zeros(zeros, dtype=torch.complex64, device=device)
    total = torch.zeros_like(group) if weighted else None
    average = torch.zeros(shape, device=device)
    amplitude = torch.zeros(shape[0], shape[1] // 2 + 1, device=device)
    count = len(exposure)
    coming = workers.start(frame_at, 0)
    for index in range(count):
        frame = coming.result()
        add = _adder(frame, tiling, shifts[index], buffer, group, total, weights[index])
        workers.map(add, workers.shares(tiles))
        if index + 1 < count:
            coming = workers.start(frame_at, index + 1)
        if index + 1 == count or group_of[index + 1] != group_of[index]:
            image = _assemble(group, tiling, workers)
            average += image
            amplitude += torch.fft.rfft2(image - image.mean()).abs()
            group.zero_()
    if total is not None:
        total = torch.view_as_complex(torch.view_as_real(total) / weight_norm(weights)[..., None])
    spectrum, spectrum_pixel = _binned_spectrum(amplitude / (group_of[-1] + 1), shape, pixel_size)
    return Sums(average, None if total is None else _assemble(total, tiling, workers), spectrum, spectrum_pixel)


def _groups(exposure: Tensor) -> list[int]:
    """Return the number of the group of some 4 e/Å² that each frame belongs to."""
    count = len(exposure)
    per_frame = float(exposure[-1] - exposure[0]) / max(count - 1, 1)
    length = min(count, max(1, round(_SPECTRUM_EXPOSURE / per_frame))) if per_frame > 0 else min(count, 4)
    groups = max(1, count // length)
    return [min(index // length, groups - 1) for index in range(count)]


def _adder(
    frame: Tensor,
    tiling: Tiling,
    shifts: Tensor,
    buffer: Tensor,
    group: Tensor,
    total: Tensor | None,
    weight: Tensor,
) -> Callable[[slice], None]:
    """Return what adds a share of the tiles of `frame`, moved by `shifts` ``(p, 2)``, to the sums of spectra."""
    whole = torch.round(shifts)
    corners, steps = tiling.corners, whole.to(torch.int64).tolist()
    rest = (-2j * math.pi) * (shifts - whole)
    fy = torch.fft.fftfreq(tiling.size, dtype=torch.float64, device=shifts.device)
    fx = torch.fft.rfftfreq(tiling.size, dtype=torch.float64, device=shifts.device)
    along_y = torch.exp(rest[:, 0, None] * fy).to(torch.complex64)
    along_x = torch.exp(rest[:, 1, None] * fx).to(torch.complex64)

    def add(share: slice) -> None:
        for number in range(len(corners))[share]:
            (y, x), (dy, dx) = corners[number], steps[number]
            buffer[number] = cut(frame, y - dy, x - dx, tiling.size)
        spectra = torch.fft.rfft2(buffer[share])
        spectra *= along_y[share, :, None] * along_x[share, None, :]
        group[share] += spectra
        if total is not None:
            torch.view_as_real(total[share]).addcmul_(torch.view_as_real(spectra), weight[:, :, None])

    return add


def _assemble(spectra: Tensor, tiling: Tiling, workers: Workers) -> Tensor:
    """Return the image ``(h, w)`` of the tiles, which fade into each other."""
    size = (tiling.size, tiling.size)
    shares = workers.shares(len(spectra))
    tiles = torch.cat(workers.map(lambda share: torch.fft.irfft2(spectra[share], s=size), shares))
    window = fade(tiling.size, tiling.ramp).to(tiles)
    image = torch.zeros(tiling.shape, device=tiles.device)
    across = torch.zeros(tiling.shape[1], device=tiles.device)
    down = torch.zeros(tiling.shape[0], device=tiles.device)
    for x in tiling.columns:
        across[x : x + tiling.size] += window
    for y in tiling.rows:
        down[y : y + tiling.size] += window
    square = window[:, None] * window
    for tile, (y, x) in zip(tiles, tiling.corners, strict=True):
        image[y : y + tiling.size, x : x + tiling.size].addcmul_(tile, square)
    return image / down[:, None] / across


def _binned_spectrum(amplitude: Tensor, shape: tuple[int, int], pixel_size: float) -> tuple[Tensor, float]:
    """Average the amplitudes ``(h, w // 2 + 1)`` over cells of a square, centred spectrum; return it and the pixel size of its image."""
    height, width = shape
    pixel = max(pixel_size, _SPECTRUM_PIXEL)
    # No more cells than there are frequencies, or some would stay empty.
    size = min(_SPECTRUM_SIZE, int(min(height, width) * pixel_size / pixel) // 2 * 2)
    half = size // 2
    fy = torch.fft.fftfreq(height, dtype=torch.float64, device=amplitude.device) * (pixel / pixel_size * size)
    fx = torch.fft.rfftfreq(width, dtype=torch.float64, device=amplitude.device) * (pixel / pixel_size * size)
    rows, columns = torch.round(fy).to(torch.int64), torch.round(fx).to(torch.int64)
    inside_y, inside_x = (rows >= -half) & (rows <= half), columns <= half
    cells = (rows[inside_y, None] + half) * (half + 1) + columns[inside_x]
    chosen = amplitude[inside_y][:, inside_x]
    flat = cells.reshape(-1)
    number = (size + 1) * (half + 1)
    sums = torch.zeros(number, device=amplitude.device).index_add_(0, flat, chosen.reshape(-1))
    counts = torch.bincount(flat, minlength=number).clamp(min=1)
    sums, counts = sums.reshape(size + 1, half + 1), counts.reshape(size + 1, half + 1)
    # The other half is the point reflection of this one, also within the central column, whose cells hold frequencies of both.
    sums[:, 0] += sums[:, 0].flip(0)
    counts[:, 0] += counts[:, 0].flip(0)
    right = sums / counts
    whole = torch.cat([torch.flip(right[:, 1:], dims=(0, 1)), right], dim=1)
    return whole[:size, :size].contiguous(), pixel
