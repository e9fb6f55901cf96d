"""Real Fourier transforms: frequencies, cropping, shifting, radial averages.

Images are float32 tensors ``(..., h, w)``; spectra are those of ``torch.fft.rfft2`` with ``norm="backward"``, ``(..., h, w // 2 + 1)``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(shape: tuple[int, int], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the frequencies ``fy (h, 1)`` and ``fx (1, w // 2 + 1)`` of an rfft2 of `shape`, in cycles per pixel."""
    height, width = shape
    fy = torch.fft.fftfreq(height, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, device=device)[None, :]
    return fy, fx


def radial_frequency(shape: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Return the radial frequency ``(h, w // 2 + 1)`` of an rfft2 of `shape`, in cycles per pixel."""
    fy, fx = frequencies(shape, device)
    return torch.sqrt(fy**2 + fx**2)


def crop_spectrum(spectrum: Tensor, shape: tuple[int, int], new_shape: tuple[int, int]) -> Tensor:
    """Cut the spectrum ``(..., h, w // 2 + 1)`` of images of `shape` down to that of images of `new_shape` (even sizes).

    Values are scaled so that ``irfft2`` gives an image with the same mean grey value. The new Nyquist rows and columns are set to zero,
    because only one of their two halves is there.
    """
    (height, width), (new_height, new_width) = shape, new_shape
    if (new_height, new_width) == (height, width):
        return spectrum
    half, columns = new_height // 2, new_width // 2 + 1
    cropped = torch.cat([spectrum[..., :half, :columns], spectrum[..., height - half :, :columns]], dim=-2)
    cropped = cropped * ((new_height * new_width) / (height * width))
    if new_height < height:
        cropped[..., half, :] = 0
    if new_width < width:
        cropped[..., :, columns - 1] = 0
    return cropped


def crop_image(image: Tensor, new_shape: tuple[int, int]) -> Tensor:
    """Resample images ``(..., h, w)`` to a smaller `new_shape` by Fourier cropping; the mean grey value stays."""
    shape = (image.shape[-2], image.shape[-1])
    if shape == new_shape:
        return image
    resampled: Tensor = torch.fft.irfft2(crop_spectrum(torch.fft.rfft2(image), shape, new_shape), s=new_shape)
    return resampled


def shift_phases(shifts: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the factors ``(..., h, w // 2 + 1)`` that move images by `shifts` ``(..., 2)`` pixels (y, x): f(r) becomes f(r - shift)."""
    fy, fx = frequencies(shape, shifts.device)
    angle = -2 * torch.pi * (shifts[..., 0, None, None] * fy + shifts[..., 1, None, None] * fx)
    return torch.polar(torch.ones_like(angle), angle)


def radial_average(values: Tensor, bins: Tensor, count: int) -> Tensor:
    """Average `values` ``(..., h, w)`` over the pixels of each of `count` bins, given by integer `bins` ``(h, w)``; returns ``(..., count)``.

    Pixels whose bin is outside ``0 .. count - 1`` are left out; an empty bin gives 0.
    """
    flat = bins.reshape(-1)
    inside = (flat >= 0) & (flat < count)
    chosen = flat[inside]
    numbers = torch.bincount(chosen, minlength=count).clamp(min=1)
    source = values.reshape(*values.shape[:-2], -1)[..., inside]
    sums = torch.zeros(*values.shape[:-2], count, dtype=values.dtype, device=values.device)
    sums.index_add_(-1, chosen, source)
    return sums / numbers
