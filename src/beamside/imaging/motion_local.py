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
from beamside.imaging.motion_workers import ALONE, Workers

_COARSE_TO_FINE = (1000.0, 500.0, 200.0)  # extra B-factors in Å² of the first rounds
_ROUNDS = 14
_SETTLED = 0.03  # Å, root mean square change of the tiles' shifts
_OUTLIER = 2.5
_SIGNIFICANT = 3.0  # standard deviations


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
    averaging : ``(rings, ky * kx)`` averages over each ring, each independent frequency counted once
    power : ``(p, ky * kx)`` power of each tile's frames, summed
    information : number of independent coefficients per stored one
    """

    values: Tensor
    origin: Tensor
    ky: Tensor
    kx: Tensor
    redundancy: Tensor
    ring: Tensor
    averaging: Tensor
    power: Tensor
    information: float

    def coefficients(self) -> Tensor:
        """Return the number of independent coefficients ``(rings,)`` of a tile in each ring."""
        weight = self.redundancy.expand(self.ring.shape).reshape(-1)
        return self.information * ((self.averaging > 0) * weight).sum(dim=1)


def tile_spectra(
    frames: Tensor, shifts: Tensor, tiling: Tiling, pixel_size: float, finest: float, workers: Workers = ALONE
) -> TileSpectra:
    """Cut the tiles out of `frames` ``(n, h, w)`` at whole-pixel `shifts` ``(n, 2)`` and transform them, up to the resolution `finest` (Å)."""
    count, size = frames.shape[0], tiling.size
    device = frames.device
    highest = max(4, min(size // 2 - 1, math.floor(size * pixel_size / finest)))
    window = torch.sqrt(fade(size, tiling.ramp)).to(device)
    window2d = (window[:, None] * window).to(torch.float32)
    rows = torch.cat([torch.arange(0, highest + 1), torch.arange(size - highest, size)]).to(device)
    whole = torch.round(shifts).to(torch.int64)
    values = torch.empty(len(tiling.corners), count, len(rows), highest + 1, dtype=torch.complex64, device=device)

    def transform(index: int) -> None:
        dy, dx = (int(value) for value in whole[index])
        tiles = torch.stack([cut(frames[index], y - dy, x - dx, size) for y, x in tiling.corners]).to(torch.float32)
        tiles -= tiles.mean(dim=(1, 2), keepdim=True)
        values[:, index] = torch.fft.rfft2(tiles * window2d)[:, rows, : highest + 1]

    workers.map(transform, range(count))
    ky = torch.fft.fftfreq(size, device=device)[rows]
    kx = torch.arange(highest + 1, device=device) / size
    redundancy = torch.ones_like(kx)
    redundancy[0] = 0.5
    ring = torch.round(torch.sqrt(ky[:, None] ** 2 + kx**2) * size).to(torch.int64)
    power = window2d.double() ** 2
    information = float(power.sum() ** 2 / (power**2).sum()) / size**2
    origin = whole.to(torch.float64).expand(len(tiling.corners), count, 2)
    averaging = _ring_averaging(ring, redundancy)
    power = _whiten(values, ring, averaging, highest)
    return TileSpectra(values, origin, ky, kx, redundancy, ring, averaging, power, information)


def _ring_averaging(ring: Tensor, redundancy: Tensor) -> Tensor:
    """Return the matrix ``(rings, ky * kx)`` that averages over rings."""
    flat = ring.reshape(-1)
    matrix = torch.zeros(int(flat.max()) + 1, len(flat), device=ring.device)
    matrix[flat, torch.arange(len(flat), device=ring.device)] = redundancy.expand(ring.shape).reshape(-1)
    return matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _whiten(values: Tensor, ring: Tensor, averaging: Tensor, highest: int) -> Tensor:
    """Divide by the root of the noise power, ring by ring; most of what a single frame shows is noise, so its power serves.

    Returns the power ``(p, ky * kx)`` of each tile, summed over the frames.
    """
    tiles, count = values.shape[:2]
    power = torch.stack([torch.view_as_real(tile).square().sum(dim=(0, -1)).reshape(-1) for tile in values])
    profile = averaging @ power.sum(dim=0) / (tiles * count)
    factor = torch.rsqrt(profile.clamp(min=1e-12 * float(profile.max()) + 1e-30))
    rings = torch.arange(len(factor), device=factor.device)
    factor = torch.where((rings >= 2) & (rings <= highest), factor, torch.zeros_like(factor))[ring]
    for index in range(tiles):
        values[index] *= factor
    return power * factor.reshape(-1) ** 2


def gather_evidence(
    spectra: TileSpectra, shifts: Tensor, signal: Tensor, damping: Tensor, workers: Workers = ALONE
) -> tuple[Evidence, Tensor]:
    """Compare every frame of every tile with the tile's own sum.

    Parameters
    ----------
    spectra : the tiles
    shifts : ``(p, n, 2)`` present model, binned pixels
    signal : ``(rings,)`` signal-to-noise power of a single frame, mean of the tiles
    damping : ``(ky, kx)`` extra weight

    Returns
    -------
    the evidence, and the signal-to-noise ``(rings,)`` seen in the tiles' sums, where it is significant
    """
    tiles, count = spectra.values.shape[:2]
    along = (4 * math.pi * spectra.information) * torch.cartesian_prod(spectra.ky, spectra.kx)
    along *= (damping * spectra.redundancy).reshape(-1, 1)
    curvature = _ring_curvature(spectra, damping)
    coefficients = spectra.coefficients()
    gradient = torch.zeros(tiles, count, 2, dtype=torch.float64, device=shifts.device)
    strength = torch.zeros(tiles, dtype=torch.float64, device=shifts.device)
    profiles = torch.zeros(tiles, len(signal), device=shifts.device)

    def look(index: int) -> None:
        aligned = _aligned(spectra, index, shifts[index])
        total = aligned.sum(dim=0)
        cross = (torch.view_as_real(total).square().sum(dim=-1) - spectra.power[index]) / (count * (count - 1))
        profiles[index] = spectra.averaging @ cross
        share = _share(profiles[index], signal, coefficients, count)
        if share == 0:
            return
        wiener = share * signal / (share * signal + 1.0 / count)
        strength[index] = share * float((curvature * signal * wiener).sum())
        # Im(conj(reference) aligned) summed with the weights, for all frames in one product.
        reference = total * (wiener / count)[spectra.ring].reshape(-1)
        factors = torch.stack([-reference.imag[:, None] * along, reference.real[:, None] * along], dim=1)
        gradient[index] = torch.view_as_real(aligned).reshape(count, -1) @ factors.reshape(-1, 2)

    workers.map(look, range(tiles))
    return Evidence(gradient, strength), _significant(profiles.mean(dim=0), coefficients * tiles, count)


def _aligned(spectra: TileSpectra, index: int, shifts: Tensor) -> Tensor:
    """Return the spectra ``(n, ky * kx)`` of a tile's frames moved by `shifts` ``(n, 2)``."""
    rest = (-2j * math.pi) * (shifts - spectra.origin[index])
    y = torch.exp(rest[:, 0, None] * spectra.ky).to(torch.complex64)
    x = torch.exp(rest[:, 1, None] * spectra.kx).to(torch.complex64)
    return (spectra.values[index] * y[:, :, None]).mul_(x[:, None, :]).reshape(len(shifts), -1)


def _share(profile: Tensor, signal: Tensor, coefficients: Tensor, count: int) -> float:
    """Return how strong a tile's signal is relative to the mean of the tiles; what may as well be noise counts less."""
    expected = float((coefficients * signal * signal).sum())
    if expected <= 0:
        return 0.0
    share = float((coefficients * signal * profile).sum()) / expected
    variance = 1 / (count * (count - 1) * expected)
    return max(0.0, share) * share**2 / (share**2 + variance)


def _significant(seen: Tensor, coefficients: Tensor, count: int) -> Tensor:
    """Return the signal-to-noise ``(rings,)`` smoothed over three rings, zero where noise could have made it."""
    padded = torch.cat([seen[:1], seen, seen[-1:]])
    smooth = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    deviation = 0.61 / torch.sqrt(count * (count - 1) * coefficients.clamp(min=1e-6))
    return torch.where(smooth > _SIGNIFICANT * deviation, smooth, torch.zeros_like(smooth))


def _ring_curvature(spectra: TileSpectra, damping: Tensor) -> Tensor:
    """Return the information per unit of signal in each ring (mean of y and x)."""
    square = (2 * math.pi) ** 2 * (spectra.ky[:, None] ** 2 + spectra.kx**2) / 2
    terms = 2 * spectra.information * square * damping * spectra.redundancy
    curvature = torch.zeros(len(spectra.averaging), device=terms.device)
    return curvature.index_add_(0, spectra.ring.reshape(-1), terms.reshape(-1))


def fit_local(
    spectra: TileSpectra,
    positions: Tensor,
    start: Tensor,
    pixel_size: float,
    dose_per_frame: float,
    workers: Workers = ALONE,
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
    square = (spectra.ky[:, None] ** 2 + spectra.kx**2) / pixel_size**2
    trust = torch.ones(len(positions), dtype=torch.float64, device=device)
    signal = torch.zeros(len(spectra.averaging), device=device)
    for round_ in range(_ROUNDS):
        extra = _COARSE_TO_FINE[round_] if round_ < len(_COARSE_TO_FINE) else 0.0
        damping = torch.exp(-0.5 * extra * square)
        shifts = torch.einsum("pm,nmc->pnc", basis, tracks)
        if round_ == 0:
            _, signal = gather_evidence(spectra, shifts, signal, damping, workers)
        evidence, signal = gather_evidence(spectra, shifts, signal, damping, workers)
        trust = _trust(evidence)
        tracks = prior.step(basis, evidence, trust, tracks, start)
        change = (torch.einsum("pm,nmc->pnc", basis, tracks) - shifts).square().mean().sqrt() * pixel_size
        if extra == 0 and float(change) < _SETTLED:
            break
    return tracks, trust


def _trust(evidence: Evidence) -> Tensor:
    """Return a weight ``(p,)`` below one for tiles whose gradients are larger than their information explains."""
    expected = evidence.information.clamp(min=1e-9)
    second = evidence.gradient - torch.roll(evidence.gradient, 1, dims=1)
    excess = (second**2).mean(dim=(1, 2)) / (2 * expected)
    return (_OUTLIER / excess.clamp(min=1e-9)).clamp(max=1.0)
