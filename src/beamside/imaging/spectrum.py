"""The power spectrum of a micrograph, averaged over tiles, as CTF estimation wants it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.errors import ProcessingError
from beamside.imaging.fourier import crop_spectrum

SMALLEST_TILE = 64
"""Pixels; a smaller tile cannot show Thon rings."""
TAPER = 0.25
"""Part of a tile's width over which its window rises and falls."""
OUTLIER = 6.0
"""Pixels further than this many standard deviations from the mean (hot pixels, gold) are pulled back to it."""


def micrograph_spectrum(
    micrograph: Tensor, pixel_size: float, box: int = 512, *, finest_pixel_size: float = 1.4
) -> tuple[Tensor, float]:
    """Return the amplitude spectrum of a micrograph, averaged over tiles that overlap by half.

    Tiles are as large as `box` pixels of at least `finest_pixel_size`, so the spectrum ends near 2.8 Å however finely the
    camera sampled (CTFFIND does the same: Rohou & Grigorieff, J. Struct. Biol. 192, 216, 2015).

    Parameters
    ----------
    micrograph : (h, w), or (n, h, w): sums of groups of frames of the same movie (of about 4 e/Å²), whose power is added
    pixel_size : Å
    box : edge of the spectrum in pixels, even; smaller where the micrograph is smaller than a tile
    finest_pixel_size : Å

    Returns
    -------
    The amplitude spectrum (s, s) with zero frequency at (s // 2, s // 2), and its effective pixel size in Å: the spectrum
    is that of an image of s x s such pixels.

    Raises
    ------
    ProcessingError
        The micrograph is too small, or it is constant or has values that are not finite.
    """
    stack = micrograph.reshape(-1, *micrograph.shape[-2:]).to(torch.float32)
    spectrum = SpectrumSum((stack.shape[-2], stack.shape[-1]), pixel_size, box, finest_pixel_size=finest_pixel_size)
    for image in stack:
        spectrum.add(image)
    return spectrum.amplitude(), spectrum.pixel_size


@dataclass(frozen=True)
class TilePowers:
    """The power spectra of the tiles of one micrograph.

    Attributes
    ----------
    power : (n, s, s), zero frequency at (s // 2, s // 2); its root mean square over tiles is proportional to `micrograph_spectrum`
    centres : (n, 2), y and x of the tiles' centres from the micrograph's, Å
    pixel_size : Å, as of `micrograph_spectrum`
    """

    power: Tensor
    centres: Tensor
    pixel_size: float

    def amplitude(self) -> Tensor:
        """Return the amplitude spectrum (s, s) of the whole micrograph."""
        return torch.sqrt(self.power.mean(dim=0))


def tile_powers(micrograph: Tensor, pixel_size: float, box: int = 512, *, finest_pixel_size: float = 1.4) -> TilePowers:
    """Return the power spectra of all tiles of `micrograph` ``(h, w)``, for what differs from place to place.

    Parameters and errors are those of `micrograph_spectrum`. A micrograph of 4096 x 4096 pixels has 225 tiles of 512, 236 MB.
    """
    tile, size = _tile_size(min(micrograph.shape), pixel_size, box, finest_pixel_size)
    prepared = _without_outliers(micrograph.to(torch.float32))
    rows, columns = (_origins(length, tile) for length in micrograph.shape)
    window = _window(tile, micrograph.device)
    strips = [_centred(_tile_power(prepared, top, columns, window, size)) for top in rows]
    middle = [(length - tile) / 2 for length in micrograph.shape]
    centres = [[(top - middle[0]) * pixel_size, (left - middle[1]) * pixel_size] for top in rows for left in columns]
    return TilePowers(
        torch.cat(strips),
        torch.tensor(centres, dtype=torch.float32, device=micrograph.device),
        pixel_size * tile / size,
    )


def _tile_power(prepared: Tensor, top: int, columns: list[int], window: Tensor, size: int) -> Tensor:
    """Return the power (n, size, size // 2 + 1) of the tiles that start at row `top` and at these columns."""
    tile = window.shape[0]
    strip = torch.stack([prepared[top : top + tile, left : left + tile] for left in columns])
    strip = (strip - strip.mean(dim=(-2, -1), keepdim=True)) * window
    spectra = crop_spectrum(torch.fft.rfft2(strip), (tile, tile), (size, size))
    return spectra.real**2 + spectra.imag**2


class SpectrumSum:
    """Adds up the power of images of one size, tile by tile: for `micrograph_spectrum`, without holding all images at once.

    Attributes
    ----------
    pixel_size : Å, of an image whose spectrum `amplitude` is
    """

    def __init__(
        self, shape: tuple[int, int], pixel_size: float, box: int = 512, *, finest_pixel_size: float = 1.4
    ) -> None:
        self.tile, self.size = _tile_size(min(shape), pixel_size, box, finest_pixel_size)
        self.pixel_size = pixel_size * self.tile / self.size
        self._power: Tensor | None = None

    def add(self, image: Tensor) -> None:
        """Add the power of `image` ``(h, w)``. Raises ProcessingError when it is constant or not finite."""
        tile, size = self.tile, self.size
        window = _window(tile, image.device)
        prepared = _without_outliers(image)
        rows, columns = (_origins(length, tile) for length in image.shape)
        if self._power is None:
            self._power = torch.zeros(size, size // 2 + 1, dtype=torch.float64, device=image.device)
        for top in rows:
            self._power += _tile_power(prepared, top, columns, window, size).sum(dim=0)

    def amplitude(self) -> Tensor:
        """Return the amplitude spectrum ``(s, s)``, zero frequency at ``(s // 2, s // 2)``; zeros when no image was added."""
        if self._power is None:
            return torch.zeros(self.size, self.size)
        return _centred(torch.sqrt(self._power).to(torch.float32))


def _tile_size(edge: int, pixel_size: float, box: int, finest_pixel_size: float) -> tuple[int, int]:
    """Return the tile's edge in micrograph pixels and the spectrum's edge."""
    ratio = max(1.0, finest_pixel_size / pixel_size)
    tile = min(_fast_size(box * ratio), edge - edge % 2)
    if tile < SMALLEST_TILE:
        raise ProcessingError(
            f"A micrograph whose shorter side has {edge} pixels is too small for CTF estimation; "
            f"at least {SMALLEST_TILE} are needed."
        )
    return tile, min(box, _even(tile / ratio))


def _fast_size(least: float) -> int:
    """Return the next even number from `least` on whose only prime factors are 2, 3 and 5: quick to transform."""
    size = 2 * math.ceil(least / 2)
    while (30**16) % size:
        size += 2
    return size


def _even(value: float) -> int:
    return 2 * round(value / 2)


def _origins(length: int, tile: int) -> list[int]:
    """Return where tiles start along one side: evenly spread, from edge to edge, overlapping by at least half."""
    steps = math.ceil((length - tile) / (tile // 2))
    return [round(i * (length - tile) / steps) for i in range(steps + 1)] if steps else [0]


def _window(tile: int, device: torch.device) -> Tensor:
    """Return a window (tile, tile) of unit mean square, flat but for cosine edges: these keep the edges of tiles from leaking over the spectrum.

    The wider a window's spectrum, the more it blurs close rings. A Hann window, whose spectrum is twice as wide, left astigmatism
    at 5 µm three times as uncertain and shifted the defocus by 15 Å.
    """
    place = (torch.arange(tile, device=device) + 0.5) / tile
    inside = torch.minimum(place, 1 - place) / (TAPER / 2)
    edge = torch.sin(math.pi / 2 * inside.clamp(max=1))
    window: Tensor = edge[:, None] * edge[None, :] / (edge**2).mean()
    return window


def _without_outliers(image: Tensor) -> Tensor:
    """Return the image with zero mean, unit variance and its outliers pulled in."""
    deviation, mean = torch.std_mean(image)
    if not (torch.isfinite(mean) and deviation > 0):
        raise ProcessingError(
            "The micrograph is constant or has values that are not finite, so it has no CTF to fit; check the image."
        )
    return ((image - mean) / deviation).clamp(-OUTLIER, OUTLIER)


def _centred(half: Tensor) -> Tensor:
    """Return the full spectra (..., s, s), zero frequency in the middle, from the halves (..., s, s // 2 + 1) of real images."""
    size = half.shape[-2]
    mirrored = torch.roll(half.flip(-2), 1, dims=-2)[..., 1 : size - size // 2].flip(-1)
    full: Tensor = torch.fft.fftshift(torch.cat([half, mirrored], dim=-1), dim=(-2, -1))
    return full
