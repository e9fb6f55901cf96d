"""Local motion: one smooth model of the whole field, fitted to all tiles and frames at once.

Single tiles of single frames are too noisy for peaks to be found in their correlations. So no peak is looked for: the likelihood of the
model's coefficients is maximised directly (scoring, with the expected information of each tile), with a Gaussian prior that makes the
motion smooth in time and over the field. How smooth is learned from the movie itself (expectation maximisation over the prior's
variances), as is the spectrum of signal and noise that weights the frequencies. The idea of a Gaussian prior on motion is that of
J. Zivanov, T. Nakane and S. Scheres, IUCrJ 6 (2019) 5-17, there for particles against a reference, here for tiles against their own sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.motion_model import spatial_basis
from beamside.imaging.motion_prior import Evidence, MotionPrior
from beamside.imaging.motion_tiles import Tiling, cut, fade

_COARSE_TO_FINE = (1000.0, 500.0, 200.0)  # extra B-factors in Å² of the first rounds
_ROUNDS = 14
_SETTLED = 0.03  # Å, root mean square change of the tiles' shifts
_OUTLIER = 2.5


@dataclass(frozen=True)
class TileSpectra:
    """Spectra of all tiles in all frames.

    Attributes
    ----------
    values : ``(p, n, ky, kx)`` complex64, with noise of variance one
    origin : ``(p, n, 2)`` shift (y, x) in binned pixels at which the tile was cut from each frame
    ky, kx : cycles per binned pixel
    redundancy : weight of each ``kx`` (one half where both halves of the plane are stored)
    ring : ring number of each frequency
    information : number of independent coefficients per stored one
    """

    values: Tensor
    origin: Tensor
    ky: Tensor
    kx: Tensor
    redundancy: Tensor
    ring: Tensor
    information: float


def tile_spectra(frames: Tensor, shifts: Tensor, tiling: Tiling, pixel_size: float, finest: float) -> TileSpectra:
    """Cut the tiles out of `frames` ``(n, h, w)`` at whole-pixel `shifts` ``(n, 2)`` and transform them, up to the resolution `finest` (Å)."""
    count, size = frames.shape[0], tiling.size
    device = frames.device
    highest = max(4, min(size // 2 - 1, math.floor(size * pixel_size / finest)))
    window = torch.sqrt(fade(size, tiling.ramp)).to(device)
    window2d = (window[:, None] * window).to(torch.float32)
    rows = torch.cat([torch.arange(0, highest + 1), torch.arange(size - highest, size)]).to(device)
    whole = torch.round(shifts).to(torch.int64)
    values = torch.empty(len(tiling.corners), count, len(rows), highest + 1, dtype=torch.complex64, device=device)
    for index in range(count):
        dy, dx = (int(value) for value in whole[index])
        tiles = torch.stack([cut(frames[index], y - dy, x - dx, size) for y, x in tiling.corners]).to(torch.float32)
        tiles -= tiles.mean(dim=(1, 2), keepdim=True)
        values[:, index] = torch.fft.rfft2(tiles * window2d)[:, rows, : highest + 1]
    ky = torch.fft.fftfreq(size, device=device)[rows]
    kx = torch.arange(highest + 1, device=device) / size
    redundancy = torch.ones_like(kx)
    redundancy[0] = 0.5
    ring = torch.round(torch.sqrt(ky[:, None] ** 2 + kx**2) * size).to(torch.int64)
    power = window2d.double() ** 2
    information = float(power.sum() ** 2 / (power**2).sum()) / size**2
    origin = whole.to(torch.float64).expand(len(tiling.corners), count, 2)
    spectra = TileSpectra(values, origin, ky, kx, redundancy, ring, information)
    _whiten(spectra, highest)
    return spectra


def _whiten(spectra: TileSpectra, highest: int) -> None:
    """Divide by the root of the noise power, ring by ring; most of what a single frame shows is noise, so its power serves."""
    rings = int(spectra.ring.max()) + 1
    power = torch.zeros(spectra.values.shape[-2:], device=spectra.values.device)
    for tile in spectra.values:
        power += (tile.real**2 + tile.imag**2).mean(dim=0)
    profile = ring_mean(power / len(spectra.values), spectra, rings)
    factor = torch.rsqrt(profile.clamp(min=1e-12 * float(profile.max()) + 1e-30))[spectra.ring]
    factor = torch.where((spectra.ring >= 2) & (spectra.ring <= highest), factor, torch.zeros_like(factor))
    for index in range(len(spectra.values)):
        spectra.values[index] *= factor


def ring_mean(values: Tensor, spectra: TileSpectra, rings: int) -> Tensor:
    """Average ``(ky, kx)`` values over rings, each independent frequency counted once."""
    weight = spectra.redundancy.expand_as(values).reshape(-1)
    ring = spectra.ring.reshape(-1)
    total = torch.zeros(rings, device=values.device).index_add_(0, ring, values.reshape(-1) * weight)
    return total / torch.zeros(rings, device=values.device).index_add_(0, ring, weight).clamp(min=1e-6)


def gather_evidence(spectra: TileSpectra, shifts: Tensor, signal: Tensor, damping: Tensor) -> tuple[Evidence, Tensor]:
    """Compare every frame of every tile with the tile's own sum.

    Parameters
    ----------
    spectra : the tiles
    shifts : ``(p, n, 2)`` present model, binned pixels
    signal : ``(rings,)`` signal-to-noise power of a single frame
    damping : ``(ky, kx)`` extra weight

    Returns
    -------
    the evidence, and the signal-to-noise of each tile, ``(p, rings)``, seen in its sum
    """
    tiles, count = spectra.values.shape[:2]
    rings = len(signal)
    wiener = (signal / (signal + 1.0 / count))[spectra.ring] * damping * spectra.redundancy
    along = 2 * math.pi * torch.cartesian_prod(spectra.ky, spectra.kx)
    weight = (2 * spectra.information) * wiener.reshape(-1, 1) * along
    rest = shifts - spectra.origin
    gradient = torch.empty(tiles, count, 2, dtype=torch.float64, device=shifts.device)
    seen = torch.empty(tiles, rings, device=shifts.device)
    for index in range(tiles):
        y = torch.exp(-2j * math.pi * rest[index, :, 0, None] * spectra.ky).to(torch.complex64)
        x = torch.exp(-2j * math.pi * rest[index, :, 1, None] * spectra.kx).to(torch.complex64)
        aligned = (spectra.values[index] * y[:, :, None]).mul_(x[:, None, :]).reshape(count, -1)
        total = aligned.sum(dim=0)
        reference = total / count
        # Im(conj(reference) aligned) summed with the weights, for all frames in one product.
        factors = torch.stack([-reference.imag[:, None] * weight, reference.real[:, None] * weight], dim=1).reshape(
            -1, 2
        )
        gradient[index] = torch.view_as_real(aligned).reshape(count, -1) @ factors
        power = torch.view_as_real(aligned).square_().sum(dim=(0, 2))
        cross = (total.real**2 + total.imag**2 - power) / (count * (count - 1))
        seen[index] = ring_mean(cross.reshape(spectra.ring.shape), spectra, rings)
    curvature = _ring_curvature(spectra, damping, rings) * signal / (signal + 1.0 / count)
    strength = (seen * curvature).sum(dim=1).clamp(min=0)
    return Evidence(gradient, strength.double()), seen


def _ring_curvature(spectra: TileSpectra, damping: Tensor, rings: int) -> Tensor:
    """Return the information per unit of signal in each ring (mean of y and x)."""
    square = (2 * math.pi) ** 2 * (spectra.ky[:, None] ** 2 + spectra.kx**2) / 2
    terms = 2 * spectra.information * square * damping * spectra.redundancy
    return torch.zeros(rings, device=terms.device).index_add_(0, spectra.ring.reshape(-1), terms.reshape(-1))


def fit_local(
    spectra: TileSpectra, positions: Tensor, start: Tensor, pixel_size: float, dose_per_frame: float
) -> tuple[Tensor, Tensor]:
    """Fit the smooth model to the tiles.

    Parameters
    ----------
    spectra : the tiles
    positions : ``(p, 2)`` normalised centres of the tiles
    start : ``(n, 2)`` global shifts, binned pixels
    pixel_size : of the binned frames, Å
    dose_per_frame : e/Å²

    Returns
    -------
    tracks ``(n, modes, 2)`` of the spatial modes (binned pixels, the global motion in the first), and the trust ``(p,)`` in each tile
    """
    count, device = start.shape[0], start.device
    basis = spatial_basis(positions).to(device)
    prior = MotionPrior(count, dose_per_frame, basis.shape[1], pixel_size, device)
    tracks = torch.zeros(count, basis.shape[1], 2, dtype=torch.float64, device=device)
    tracks[:, 0] = start
    rings = int(spectra.ring.max()) + 1
    square = (spectra.ky[:, None] ** 2 + spectra.kx**2) / pixel_size**2
    signal = torch.full((rings,), 0.02, device=device)
    trust = torch.ones(len(positions), dtype=torch.float64, device=device)
    for round_ in range(_ROUNDS):
        extra = _COARSE_TO_FINE[round_] if round_ < len(_COARSE_TO_FINE) else 0.0
        damping = torch.exp(-0.5 * extra * square)
        shifts = torch.einsum("pm,nmc->pnc", basis, tracks)
        if round_ == 0:
            _, seen = gather_evidence(spectra, shifts, signal, damping)
            signal = _smooth_signal(seen)
        evidence, seen = gather_evidence(spectra, shifts, signal, damping)
        signal = _smooth_signal(seen)
        trust = _trust(evidence)
        tracks = prior.step(basis, evidence, trust, tracks, start)
        change = (torch.einsum("pm,nmc->pnc", basis, tracks) - shifts).square().mean().sqrt() * pixel_size
        if extra == 0 and float(change) < _SETTLED:
            break
    return tracks, trust


def _smooth_signal(seen: Tensor) -> Tensor:
    """Return the signal-to-noise of the movie, ``(rings,)``: the tiles' mean, smoothed over three rings, never negative."""
    mean = seen.mean(dim=0)
    padded = torch.cat([mean[:1], mean, mean[-1:]])
    return (0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]).clamp(min=0)


def _trust(evidence: Evidence) -> Tensor:
    """Return a weight ``(p,)`` below one for tiles whose gradients are larger than their information explains."""
    expected = evidence.information.clamp(min=1e-9)
    second = evidence.gradient - torch.roll(evidence.gradient, 1, dims=1)
    excess = (second**2).mean(dim=(1, 2)) / (2 * expected)
    return (_OUTLIER / excess.clamp(min=1e-9)).clamp(max=1.0)
