"""Whole-frame alignment: each frame against the sum of the others, again and again, until nothing moves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from beamside.imaging.fourier import frequencies

_ROUNDS = 10
_SETTLED = 0.02  # pixels of the binned frames
_PIXELS_AT_ONCE = 2_000_000


def align_frames(frames: Tensor, pixel_size: float, b_factor: float, finest: float, coarsest: float = 400.0) -> Tensor:
    """Return the shift of each frame, ``(n, 2)`` float64 pixels (y, x), the first one zero.

    Parameters
    ----------
    frames : ``(n, h, w)``, of any floating type
    pixel_size : of `frames`, Å
    b_factor : Å²; the correlation is weighted with ``exp(-b_factor f² / 2)``
    finest, coarsest : Å; only frequencies between are used
    """
    count, height, width = frames.shape
    if count == 1:
        return torch.zeros(1, 2, dtype=torch.float64, device=frames.device)
    shape = _cropped_shape((height, width), pixel_size, finest)
    weight = _weights(shape, (height, width), pixel_size, b_factor, finest, coarsest).to(frames.device)
    spectra = torch.stack([_crop(torch.fft.rfft2(frame.to(torch.float32)), (height, width), shape) for frame in frames])
    spectra *= torch.sqrt(weight)
    scale = torch.tensor([height / shape[0], width / shape[1]], dtype=torch.float64, device=frames.device)
    shifts = torch.zeros(count, 2, dtype=torch.float64, device=frames.device)
    for round_ in range(_ROUNDS):
        # The first looks see only what survives the blur of a sum that is not aligned yet.
        extra = (
            _weights(shape, (height, width), pixel_size, (20 * b_factor, 4 * b_factor)[round_], finest, coarsest).to(
                frames.device
            )
            if round_ < 2
            else None
        )
        moved = _round(spectra, shifts / scale, shape, extra) * scale
        moved = moved - moved[0].clone()
        change = float((moved - shifts).abs().max())
        shifts = moved
        if round_ >= 2 and change < _SETTLED:
            break
    return shifts


def _round(spectra: Tensor, shifts: Tensor, shape: tuple[int, int], weight: Tensor | None) -> Tensor:
    """Align each frame to the sum of the others, all moved by `shifts`; returns the new shifts (pixels of `shape`)."""
    fy, fx = frequencies(shape, spectra.device)
    fy, fx = fy.double() * (-2 * math.pi), fx.double() * (-2 * math.pi)
    along_y = torch.exp(1j * shifts[:, 0, None] * fy[:, 0]).to(torch.complex64)
    along_x = torch.exp(1j * shifts[:, 1, None] * fx[0]).to(torch.complex64)
    total = torch.zeros_like(spectra[0])
    for spectrum, y, x in zip(spectra, along_y, along_x, strict=True):
        total += spectrum * y[:, None] * x
    moved = torch.empty_like(shifts)
    for index, (spectrum, y, x) in enumerate(zip(spectra, along_y, along_x, strict=True)):
        aligned = spectrum * y[:, None] * x
        product = (total - aligned) * aligned.conj()
        if weight is not None:
            product *= weight
        moved[index] = shifts[index] + correlation_peak(torch.fft.irfft2(product, s=shape))
    return moved


def correlation_peak(correlation: Tensor) -> Tensor:
    """Return the position ``(2,)`` of the highest point of a circular `correlation` ``(h, w)``, in pixels (y, x) from its origin.

    Between the pixels the peak is that of parabolas through the highest pixel and its neighbours.
    """
    height, width = correlation.shape
    best = int(correlation.argmax())
    y, x = best // width, best % width
    centre = correlation[y, x]
    offset_y = _parabola(correlation[(y - 1) % height, x], centre, correlation[(y + 1) % height, x])
    offset_x = _parabola(correlation[y, (x - 1) % width], centre, correlation[y, (x + 1) % width])
    whole = torch.tensor(
        [(y + height // 2) % height - height // 2, (x + width // 2) % width - width // 2], dtype=torch.float64
    )
    return whole.to(correlation.device) + torch.stack([offset_y, offset_x])


def _parabola(before: Tensor, centre: Tensor, after: Tensor) -> Tensor:
    curvature = (before - 2 * centre + after).double()
    if float(curvature) >= 0:
        return torch.zeros((), dtype=torch.float64, device=centre.device)
    return (0.5 * (before - after).double() / curvature).clamp(-0.5, 0.5)


def _cropped_shape(shape: tuple[int, int], pixel_size: float, finest: float) -> tuple[int, int]:
    """Return even sizes that keep frequencies up to `finest` (Å), of a length that is quick to transform, never larger than `shape`."""
    wanted = (2 * math.ceil(side * pixel_size / finest) + 2 for side in shape)
    height, width = (min(_quick_length(length), side // 2 * 2) for length, side in zip(wanted, shape, strict=True))
    return height, width


def _quick_length(length: int) -> int:
    """Return the next even length with no prime factor above 5."""
    length += length % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


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
