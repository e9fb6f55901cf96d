"""The corrected sum: every frame moved by the motion model, weighted by exposure, added up.

The image is covered with small overlapping tiles within which the shift is nearly constant. A tile is cut at a whole-pixel shift and moved by the
rest in Fourier space, so the interpolation is exact and costs one small transform a frame; the tiles' spectra are added up over the frames, and
only the sums are transformed back and faded into each other. Where neighbouring tiles' shifts differ, the fade makes the change gradual.

The power spectrum for the CTF is that of the dose-weighted sum, not the sum of spectra of groups of frames: with the motion corrected, the signal
adds up over all frames before it is squared, and defoci are found about three times more exactly.
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
from beamside.imaging.spectrum import SpectrumSum

_TILE, _RAMP = 160, 32


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
    tiles = len(tiling.corners)
    buffer = torch.empty(tiles, size, size, device=device)
    zeros = (tiles, size, size // 2 + 1)
    plain = torch.zeros(zeros, dtype=torch.complex64, device=device)
    total = torch.zeros_like(plain) if weighted else None
    count = len(exposure)
    coming = workers.start(frame_at, 0)
    for index in range(count):
        frame = coming.result()
        add = _adder(frame, tiling, shifts[index], buffer, plain, total, weights[index])
        workers.map(add, workers.shares(tiles))
        if index + 1 < count:
            coming = workers.start(frame_at, index + 1)
    average = _assemble(plain, tiling, workers)
    dose_weighted = None
    if total is not None:
        total = torch.view_as_complex(torch.view_as_real(total) / weight_norm(weights)[..., None])
        dose_weighted = _assemble(total, tiling, workers)
    spectrum = SpectrumSum(shape, pixel_size)
    corrected = average if dose_weighted is None else dose_weighted
    if bool(corrected.std() > 0):
        spectrum.add(corrected)
    return Sums(average, dose_weighted, spectrum.amplitude(), spectrum.pixel_size)


def _adder(
    frame: Tensor,
    tiling: Tiling,
    shifts: Tensor,
    buffer: Tensor,
    plain: Tensor,
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
        plain[share] += spectra
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
