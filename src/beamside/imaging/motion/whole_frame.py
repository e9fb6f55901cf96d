"""Whole-frame alignment: each frame against the sum of the others, again and again, until nothing moves."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from beamside.imaging.fourier import frequencies
from beamside.imaging.motion.frames import shrink
from beamside.imaging.motion.tiles import quick_length
from beamside.imaging.motion.workers import ALONE, Workers

_ROUNDS = 10
_FIRST_LOOKS = (20.0, 4.0)  # factors of the extra B-factor: the sum of frames not yet aligned is blurred
_REACH = 150.0  # Å, the furthest that a frame is looked for from where it was in the last round
_SIGNIFICANT = 5.0  # standard deviations: the highest of some 10⁶ values of noise stays below


def align_frames(
    frames: Tensor,
    pixel_size: float,
    b_factor: float,
    finest: float,
    coarsest: float = 400.0,
    settled: float = 0.04,
    workers: Workers = ALONE,
) -> Tensor:
    """Return the shift of each frame, ``(n, 2)`` float64 pixels (y, x), the first one zero.

    Parameters
    ----------
    frames : ``(n, h, w)``, of any floating type
    pixel_size : of `frames`, Å
    b_factor : Å²; the correlation is weighted with ``exp(-b_factor f² / 2)``
    finest, coarsest : Å; only frequencies between are used
    settled : Å; when no frame moves further than this, the alignment is at its end
    """
    if len(frames) == 1:
        return torch.zeros(1, 2, dtype=torch.float64, device=frames.device)
    factor = max(1, int(finest / (2.1 * pixel_size)))
    pixel_size *= factor
    count, height, width = frames.shape[0], frames.shape[1] // factor, frames.shape[2] // factor
    shape = _cropped_shape((height, width), pixel_size, finest)
    weight = _weights(shape, (height, width), pixel_size, b_factor, finest, coarsest).to(frames.device)
    root = torch.sqrt(weight)
    spectra = torch.empty(count, *root.shape, dtype=torch.complex64, device=frames.device)

    def transform(index: int) -> None:
        spectrum = torch.fft.rfft2(shrink(frames[index].to(torch.float32), factor))
        torch.mul(_crop(spectrum, (height, width), shape), root, out=spectra[index])

    workers.map(transform, range(count))
    scale = torch.tensor([height / shape[0], width / shape[1]], dtype=torch.float64, device=frames.device)
    shifts = torch.zeros(count, 2, dtype=torch.float64, device=frames.device)
    found = torch.zeros(count, dtype=torch.bool, device=frames.device)
    reach = math.ceil(_REACH / (pixel_size * float(scale.min())))
    for round_ in range(_ROUNDS):
        extra = None
        if round_ < len(_FIRST_LOOKS):
            blur = _FIRST_LOOKS[round_] * b_factor
            extra = _weights(shape, (height, width), pixel_size, blur, finest, coarsest).to(frames.device)
        moved, found = _round(spectra, shifts / scale, shape, reach, extra, workers)
        moved = _bridged(moved * scale, found)
        change = float((moved - shifts).abs().max())
        shifts = moved
        if round_ >= len(_FIRST_LOOKS) and change * pixel_size < settled:
            break
    return (shifts - shifts[0]) * factor


def _bridged(shifts: Tensor, found: Tensor) -> Tensor:
    """Interpolate the shifts of frames whose correlation shows nothing from those that it shows; zero when there is none."""
    if bool(found.all()):
        return shifts
    good = found.nonzero()[:, 0].cpu().numpy()
    if not len(good):
        return torch.zeros_like(shifts)
    frames, values = np.arange(len(shifts)), shifts.cpu().numpy()
    columns = [np.interp(frames, good, values[good, axis]) for axis in (0, 1)]
    return torch.from_numpy(np.stack(columns, axis=1)).to(shifts)


def _round(
    spectra: Tensor, shifts: Tensor, shape: tuple[int, int], reach: int, weight: Tensor | None, workers: Workers
) -> tuple[Tensor, Tensor]:
    """Align each frame to the sum of the others, all moved by `shifts`.

    Returns the new shifts ``(n, 2)`` in pixels of `shape`, and whether each stands out of the noise.
    """
    count = len(spectra)
    fy, fx = frequencies(shape, spectra.device)
    fy, fx = fy.double() * (-2 * math.pi), fx.double() * (-2 * math.pi)
    along_y = torch.exp(1j * shifts[:, 0, None] * fy[:, 0]).to(torch.complex64)
    along_x = torch.exp(1j * shifts[:, 1, None] * fx[0]).to(torch.complex64)

    def add(share: slice) -> Tensor:
        part = torch.zeros_like(spectra[0])
        for index in range(count)[share]:
            part += spectra[index] * along_y[index][:, None] * along_x[index]
        return part

    total = torch.stack(workers.map(add, workers.shares(count))).sum(dim=0)
    moved = torch.empty_like(shifts)
    found = torch.empty(count, dtype=torch.bool, device=shifts.device)

    def align(index: int) -> None:
        aligned = spectra[index] * along_y[index][:, None] * along_x[index]
        product = (total - aligned) * aligned.conj()
        if weight is not None:
            product *= weight
        position, height = correlation_peak(torch.fft.irfft2(product, s=shape), reach)
        moved[index] = shifts[index] + position
        found[index] = height > _SIGNIFICANT

    workers.map(align, range(count))
    return moved, found


def correlation_peak(correlation: Tensor, reach: int) -> tuple[Tensor, float]:
    """Find the highest point of a circular `correlation` ``(h, w)`` within `reach` pixels of its origin, along each axis.

    Returns its position ``(2,)`` in pixels (y, x) from the origin, and its height in standard deviations of the whole correlation.
    Between the pixels the peak is that of parabolas through the highest pixel and its neighbours.
    """
    height, width = correlation.shape
    rows, columns = (torch.arange(-r, r + 1) for r in (min(reach, (side - 1) // 2) for side in (height, width)))
    near = correlation[rows.to(correlation.device)[:, None], columns.to(correlation.device)]
    best = int(near.argmax())
    y, x = int(rows[best // len(columns)]), int(columns[best % len(columns)])
    centre = correlation[y, x]
    offset_y = _parabola(correlation[y - 1, x], centre, correlation[(y + 1) % height, x])
    offset_x = _parabola(correlation[y, x - 1], centre, correlation[y, (x + 1) % width])
    whole = torch.tensor([y, x], dtype=torch.float64, device=correlation.device)
    spread = float(correlation.std())
    significance = float(centre - correlation.mean()) / spread if spread > 0 else 0.0
    return whole + torch.stack([offset_y, offset_x]), significance


def _parabola(before: Tensor, centre: Tensor, after: Tensor) -> Tensor:
    curvature = (before - 2 * centre + after).double()
    if float(curvature) >= 0:
        return torch.zeros((), dtype=torch.float64, device=centre.device)
    return (0.5 * (before - after).double() / curvature).clamp(-0.5, 0.5)


def _cropped_shape(shape: tuple[int, int], pixel_size: float, finest: float) -> tuple[int, int]:
    """Return even sizes that keep frequencies up to `finest` (Å), of a length that is quick to transform, never larger than `shape`."""
    wanted = (2 * math.ceil(side * pixel_size / finest) + 2 for side in shape)
    height, width = (min(quick_length(length), side // 2 * 2) for length, side in zip(wanted, shape, strict=True))
    return height, width


def _crop(spectrum: Tensor, shape: tuple[int, int], new_shape: tuple[int, int]) -> Tensor:
    """Keep the low frequencies of an rfft2, without scaling."""
    half = new_shape[0] // 2
    columns = new_shape[1] // 2 + 1
    return torch.cat([spectrum[:half, :columns], spectrum[shape[0] - half :, :columns]])


def _weights(
    shape: tuple[int, int], full: tuple[int, int], pixel_size: float, b_factor: float, finest: float, coarsest: float
) -> Tensor:
    """Return what the correlation is multiplied with, ``(h, w // 2 + 1)``: a band pass and the B-factor."""
    fy, fx = frequencies(shape)
    square = (fy * (shape[0] / (full[0] * pixel_size))) ** 2 + (fx * (shape[1] / (full[1] * pixel_size))) ** 2
    weight = torch.exp(-b_factor * square / 2) * (square <= finest**-2) * (1 - torch.exp(-square * coarsest**2 / 2))
    weight[shape[0] // 2] = 0
    weight[:, -1] = 0
    return weight
