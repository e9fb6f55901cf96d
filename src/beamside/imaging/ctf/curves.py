"""What people look at after a CTF fit: equi-phase averages, how far the rings fit, the ice ring, the half-and-half picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.ctf.model import electron_wavelength
from beamside.imaging.ctf.search import Candidate, Optics, Pixels, sampled

FITTING = 0.5
"""Correlation of a Thon ring with its model below which the fit does not hold (as in CTFFIND)."""
SMALLEST_WINDOW = 4.0
"""Half width in rings of the windows in which curves are compared."""
ICE_RING = (3.95, 3.5)
"""Å; hexagonal and cubic ice have reflections at 3.9, 3.67 and 3.44 Å (Dowell & Rinfret, Nature 188, 1144, 1960)."""
ICE_FLANK = (5.0, 3.25)
PICTURE_SECTORS = 90
BRIDGE = 5
"""Rings that a dip of the quality may last."""


@dataclass(frozen=True)
class Curves:
    """One-dimensional curves of a fit, each (n,).

    Attributes
    ----------
    frequency : 1/Å
    experimental : equi-phase average without background, scaled so that rings run from about 0 to 1
    fitted : CTF² of the mean defocus
    quality : local correlation of the two
    """

    frequency: Tensor
    experimental: Tensor
    fitted: Tensor
    quality: Tensor


def equivalent_frequency(pixels: Pixels, optics: Optics, candidate: Candidate) -> Tensor:
    """Return for each pixel the frequency (1/Å) at which the mean defocus gives the phase that the pixel has.

    Averages over equal values of it keep the rings sharp however astigmatic they are (equi-phase averaging: Zhang,
    J. Struct. Biol. 193, 1, 2016). Beyond the turning point of the phase, where Cs outweighs defocus, there is no such
    frequency and the pixel's own is returned.
    """
    wavelength = electron_wavelength(optics.voltage)
    cs = optics.spherical_aberration * 1e7 * wavelength**2
    k2 = pixels.frequency**2
    local = candidate.towards(pixels.direction)
    phase = local * k2 - cs / 2 * k2**2
    inside = candidate.defocus**2 - 2 * cs * phase
    square = 2 * phase / (candidate.defocus + torch.sqrt(inside.clamp(min=0)))
    usable = (inside > 0) & (cs * k2 < local) & (cs * k2 < candidate.defocus)
    return torch.sqrt(torch.where(usable, square, k2).clamp(min=0))


def curves(pixels: Pixels, optics: Optics, candidate: Candidate) -> Curves:
    """Average the pixels' values over equal phases and compare them, ring by ring, with the model averaged likewise."""
    scale = pixels.edge * pixels.pixel_size
    bins = torch.round(equivalent_frequency(pixels, optics, candidate) * scale).to(torch.long)
    count = pixels.edge // 2
    first, last = int(pixels.ring.min()), min(int(pixels.ring.max()), count - 1)
    chi = optics.phase(pixels.frequency**2, candidate.towards(pixels.direction), candidate.phase_shift)
    seen = sampled(pixels.frequency, candidate.defocus, optics, pixels)
    numbers = torch.bincount(bins, minlength=count)[first : last + 1].clamp(min=1)
    data, rings = (
        torch.zeros(max(count, int(bins.max()) + 1)).index_add_(0, bins, values)[first : last + 1] / numbers
        for values in (pixels.values, -torch.cos(2 * chi) * seen)
    )
    frequency = torch.arange(first, last + 1) / scale
    quality, experimental = compare(data, rings, _windows(frequency, optics, candidate, scale))
    fitted = torch.sin(optics.phase(frequency**2, candidate.defocus, candidate.phase_shift)) ** 2
    return Curves(frequency, experimental, fitted, quality)


def _windows(frequency: Tensor, optics: Optics, candidate: Candidate, scale: float) -> Tensor:
    """Return normalised weights (n, n): row i is a Gaussian window about ring i that spans a good period of the CTF²."""
    wavelength = electron_wavelength(optics.voltage)
    cs = optics.spherical_aberration * 1e7
    per_ring = 2 * wavelength * frequency * (candidate.defocus - cs * wavelength**2 * frequency**2) / scale
    period = 1 / per_ring.abs().clamp(min=1e-3)
    width = (0.5 * period).clamp(SMALLEST_WINDOW, 30.0)
    place = torch.arange(len(frequency), dtype=torch.float32)
    weights = torch.exp(-0.5 * ((place[None, :] - place[:, None]) / width[:, None]) ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


def compare(data: Tensor, rings: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the local correlation of `data` and `rings` (n,), and `data` scaled locally to the range of CTF², 0 to 1."""
    mean_data, mean_rings = windows @ data, windows @ rings
    covariance = windows @ (data * rings) - mean_data * mean_rings
    variance_data = (windows @ data**2 - mean_data**2).clamp(min=1e-12)
    variance_rings = (windows @ rings**2 - mean_rings**2).clamp(min=1e-12)
    quality = covariance / torch.sqrt(variance_data * variance_rings)
    slope = (covariance / variance_rings).clamp(min=0)
    floor = 0.1 * slope.max().clamp(min=1e-12)
    experimental = 0.5 + 0.5 * (mean_rings + (data - mean_data) / slope.clamp(min=float(floor)))
    return quality, experimental.clamp(-0.5, 1.5)


def fit_resolution(result: Curves) -> float:
    """Return the resolution in Å up to which the fit holds: where the quality falls below one half for good.

    A dip of a few rings (a ring of ice, contamination) is bridged when the rings after it fit well again. Infinite when the
    fit holds nowhere.
    """
    good = (result.quality >= FITTING).tolist()
    start = next((i for i in range(len(good)) if all(good[i : i + 3])), None)
    if start is None or start > len(good) // 4:
        return math.inf
    last = start
    for i in range(start, len(good)):
        if good[i]:
            last = i
        elif i - last > BRIDGE and sum(good[i : i + 2 * BRIDGE]) < 1.6 * BRIDGE:
            break
    return 1 / float(result.frequency[last])


def ice_ring(spectrum_rings: Tensor, frequency: Tensor) -> float:
    """Return how much the amplitude between 3.95 and 3.5 Å exceeds the line through its flanks, as a fraction.

    Parameters
    ----------
    spectrum_rings : (n,) ring means of the log amplitude
    frequency : (n,) 1/Å

    Returns
    -------
    The largest excess over three neighbouring rings, close to 0 for vitreous ice; nan where the spectrum ends before 3.25 Å.
    """
    if float(frequency.max()) < 1 / ICE_FLANK[1]:
        return math.nan
    ring = (frequency >= 1 / ICE_RING[0]) & (frequency <= 1 / ICE_RING[1])
    flank = (frequency >= 1 / ICE_FLANK[0]) & (frequency <= 1 / ICE_FLANK[1]) & ~ring
    design = torch.stack([torch.ones_like(frequency), frequency], dim=-1).to(torch.float64)
    line = torch.linalg.lstsq(design[flank], spectrum_rings[flank, None].to(torch.float64)).solution
    excess = (spectrum_rings - (design @ line)[:, 0])[ring]
    smooth = excess.unfold(0, 3, 1).mean(dim=-1) if len(excess) > 2 else excess
    return float(torch.expm1(smooth.max()))


def half_and_half(pixels: Pixels, optics: Optics, candidate: Candidate, resolution: float) -> Tensor:
    """Draw the measured rings (left half) beside the fitted ones (right half, faded beyond `resolution` Å).

    The measured half shows averages over equal phase within some 10 degrees, weak rings amplified, so that the eye sees
    rings that are weaker than the noise of a pixel. With a wrong astigmatism they blur.

    Returns
    -------
    uint8 (s, s), zero frequency at (s // 2, s // 2), as wide as the highest frequency of `pixels`.
    """
    edge, half = pixels.edge, int(pixels.ring.max())
    measured, model = torch.zeros(2, edge, edge)
    measured[pixels.row, pixels.column] = _sector_averages(pixels, optics, candidate)
    chi = optics.phase(pixels.frequency**2, candidate.towards(pixels.direction), candidate.phase_shift)
    faded = torch.where(pixels.frequency <= 1 / resolution, 1.0, 0.35)
    model[pixels.row, pixels.column] = -torch.cos(2 * chi) * faded
    middle, shift = edge // 2, 1 - edge % 2
    left = torch.roll(measured.flip(0, 1), (shift, shift), dims=(0, 1))
    picture = torch.cat([left[:, : middle + 1], model[:, middle + 1 :]], dim=1)
    grey = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    shown = slice(max(0, middle - half), middle + half)
    return grey[shown, shown].contiguous()


def _sector_averages(pixels: Pixels, optics: Optics, candidate: Candidate) -> Tensor:
    """Return for each pixel the average of its sector at equal phase, without slow trends, at a contrast of about 1."""
    rings = torch.round(equivalent_frequency(pixels, optics, candidate) * (pixels.edge * pixels.pixel_size))
    count = int(rings.max()) + 1
    sector = ((pixels.direction / math.pi + 0.5) * PICTURE_SECTORS).to(torch.long).clamp(0, PICTURE_SECTORS - 1)
    cell = sector * count + rings.to(torch.long)
    numbers = torch.bincount(cell, minlength=PICTURE_SECTORS * count).to(torch.float32)
    sums = torch.zeros(PICTURE_SECTORS * count).index_add_(0, cell, pixels.values)
    sums, numbers = (_around(cells.reshape(PICTURE_SECTORS, count)) for cells in (sums, numbers))
    trend = _running_mean(sums, 15.0) / _running_mean(numbers, 15.0).clamp(min=1e-3)
    level = torch.where(numbers > 0.05, sums / numbers.clamp(min=0.05) - trend, torch.zeros(()))
    power = _running_mean((level**2).mean(dim=0, keepdim=True), 10.0)
    contrast = 2.0 * torch.sqrt(power * power.max()) ** 0.5
    return (level / contrast.clamp(min=1e-6)).reshape(-1)[cell]


def _around(cells: Tensor) -> Tensor:
    """Return `cells` (sectors, rings) smoothed over neighbouring sectors, the last being the first one's neighbour."""
    reach = 6
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / 2.5) ** 2)[None, None]
    wrapped = torch.cat([cells[-reach:], cells, cells[:reach]]).T[:, None]
    return torch.nn.functional.conv1d(wrapped, kernel / kernel.sum())[:, 0].T.contiguous()


def _running_mean(rows: Tensor, width: float) -> Tensor:
    """Return `rows` (m, n) convolved with a Gaussian of `width`, taken as zero beyond their ends."""
    reach = math.ceil(3 * width)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width) ** 2)
    return torch.nn.functional.conv1d(rows[:, None], (kernel / kernel.sum())[None, None], padding=reach)[:, 0]
