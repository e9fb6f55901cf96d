"""Local motion: one smooth model of the whole field, fitted to all tiles and frames at once.

Single tiles of single frames are too noisy for peaks to be found in their correlations. So no peak is looked for: the likelihood of the
model's coefficients is maximised directly (scoring, with the expected information of each tile), with a Gaussian prior that makes the
motion smooth in time and over the field. How smooth is learned from the movie itself (expectation maximisation over the prior's
variances), as is the spectrum of signal and noise that weights the frequencies. The idea of a Gaussian prior on motion is that of
J. Zivanov, T. Nakane and S. Scheres, IUCrJ 6 (2019) 5-17, there for particles against a reference, here for tiles against their own sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamside.imaging.motion.model import spatial_basis
from beamside.imaging.motion.prior import Evidence, MotionPrior
from beamside.imaging.motion.tiles import Tiling, cut, fade
from beamside.imaging.motion.workers import ALONE, Workers
from beamside.imaging.summing import add_at

_COARSE_TO_FINE = (1000.0, 500.0, 200.0)  # extra B-factors in Å² of the first rounds
_ROUNDS = 14
_SETTLED = 0.03  # Å, root mean square change of the tiles' shifts
_DROWNED = 14.0  # twice the exponent at which a weight, about one in a thousand, no longer matters
_BANDS, _BAND_FREEDOM = 4, 0.5
_OUTLIER = 2.5
_SIGNIFICANT = 3.0  # standard deviations
_BATCH_PIXELS = {"cpu": 1 << 19, "cuda": 1 << 25}


@dataclass(frozen=True)
class TileSpectra:
    """Spectra of all tiles in all frames.

    Attributes
    ----------
    size : side of a tile in binned pixels
    values : ``(p, n, ky, kx, 2)`` float16, real and imaginary parts; rounding them adds less than a millionth to the noise's power
    origin : ``(p, n, 2)`` shift (y, x) in binned pixels at which the tile was cut from each frame
    ky, kx : cycles per binned pixel, from the lowest to the highest
    redundancy : weight of each ``kx`` (one half where both halves of the plane are stored)
    ring : ``(ky, kx)`` ring number of each frequency
    whitening : ``(rings,)`` one over the power of noise in a frame, zero for rings that are not used
    power : ``(p, rings)`` mean power of each tile's frames, summed over the frames, divided by that of the noise
    information : number of independent coefficients per stored one
    """

    size: int
    values: Tensor
    origin: Tensor
    ky: Tensor
    kx: Tensor
    redundancy: Tensor
    ring: Tensor
    whitening: Tensor
    power: Tensor
    information: float

    def coefficients(self) -> Tensor:
        """Return the number of independent coefficients ``(rings,)`` of a tile in each ring that is used."""
        weight = self.redundancy.expand(self.ring.shape)
        return self.information * _ring_sums(weight, self.ring, len(self.whitening)) * (self.whitening > 0)

    def up_to(self, ring: int) -> TileSpectra:
        """Return the spectra as far as `ring` (at least), sharing memory."""
        highest = len(self.kx) - 1
        if ring >= highest:
            return self
        rows, columns = slice(highest - ring, highest + ring + 1), slice(0, ring + 1)
        return replace(
            self,
            values=self.values[:, :, rows, columns],
            ky=self.ky[rows],
            kx=self.kx[columns],
            redundancy=self.redundancy[columns],
            ring=self.ring[rows, columns],
        )


def tile_spectra(
    frames: Tensor, shifts: Tensor, tiling: Tiling, pixel_size: float, finest: float, workers: Workers = ALONE
) -> TileSpectra:
    """Cut the tiles out of `frames` ``(n, h, w)`` at whole-pixel `shifts` ``(n, 2)`` and transform them, up to the resolution `finest` (Å)."""
    count, size, tiles = frames.shape[0], tiling.size, len(tiling.corners)
    device = frames.device
    highest = max(4, min(size // 2 - 1, math.floor(size * pixel_size / finest)))
    window = torch.sqrt(fade(size, tiling.ramp)).to(device)
    window2d = (window[:, None] * window).to(torch.float32)
    whole = torch.round(shifts).to(torch.int64)
    steps = whole.tolist()
    ky = torch.arange(-highest, highest + 1, device=device) / size
    kx = torch.arange(highest + 1, device=device) / size
    redundancy = torch.ones_like(kx)
    redundancy[0] = 0.5
    ring = torch.round(torch.sqrt(ky[:, None] ** 2 + kx**2) * size).to(torch.int64)
    rings = int(ring.max()) + 1
    weight = redundancy / _ring_sums(redundancy.expand(ring.shape), ring, rings).clamp(min=1e-6)[ring]
    values = torch.empty(tiles, count, len(ky), len(kx), 2, dtype=torch.float16, device=device)
    power = torch.zeros(tiles, rings, device=device)
    batch = max(1, _BATCH_PIXELS[device.type] // size**2)

    def transform(share: slice) -> None:
        buffer = torch.empty(min(batch, count), size, size, device=device)
        for number in range(tiles)[share]:
            y, x = tiling.corners[number]
            total = torch.zeros(ring.shape, device=device)
            for start in range(0, count, batch):
                part = buffer[: min(batch, count - start)]
                for index, tile in enumerate(part, start):
                    tile.copy_(cut(frames[index], y - steps[index][0], x - steps[index][1], size))
                part -= part.mean(dim=(1, 2), keepdim=True)
                spectra = torch.view_as_real(torch.fft.rfft2(part.mul_(window2d), norm="ortho"))
                kept = values[number, start : start + len(part)]
                for rows, of in (
                    (slice(0, highest), slice(size - highest, None)),
                    (slice(highest, None), slice(0, highest + 1)),
                ):
                    chosen = spectra[:, of, : highest + 1]
                    kept[:, rows] = chosen
                    total[rows] += chosen.square().sum(dim=0).sum(dim=-1)
            power[number] = _ring_sums(total * weight, ring, rings)

    workers.map(transform, workers.shares(tiles))
    squared = window2d.double() ** 2
    information = float(squared.sum() ** 2 / (squared**2).sum()) / size**2
    # Most of what a single frame shows is noise, so its power serves as that of the noise.
    noise = power.mean(dim=0) / count
    whitening = 1 / noise.clamp(min=1e-12 * float(noise.max()) + 1e-30)
    numbers = torch.arange(rings, device=device)
    whitening = torch.where((numbers >= 2) & (numbers <= highest), whitening, torch.zeros_like(whitening))
    origin = whole.to(torch.float64).expand(tiles, count, 2)
    return TileSpectra(size, values, origin, ky, kx, redundancy, ring, whitening, power * whitening, information)


def _ring_sums(values: Tensor, ring: Tensor, rings: int) -> Tensor:
    """Return the sums ``(rings,)`` of `values` over the coefficients of each ring."""
    sums = torch.zeros(rings, dtype=values.dtype, device=values.device)
    return add_at(sums, ring.reshape(-1), values.reshape(-1))


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
    rings = len(spectra.whitening)
    weight = spectra.redundancy.expand(spectra.ring.shape)
    number = _ring_sums(weight, spectra.ring, rings)
    average = weight / number.clamp(min=1e-6)[spectra.ring]
    along = (4 * math.pi * spectra.information) * torch.cartesian_prod(spectra.ky, spectra.kx)
    along *= (damping * spectra.redundancy).reshape(-1, 1)
    curvature = _ring_curvature(spectra, damping)
    coefficients = spectra.coefficients()
    gradient = torch.zeros(tiles, count, 2, dtype=torch.float64, device=shifts.device)
    strength = torch.zeros(tiles, dtype=torch.float64, device=shifts.device)
    profiles = torch.zeros(tiles, rings, device=shifts.device)
    seen = number > 0

    def look(share: slice) -> None:
        aligned = torch.empty(count, *spectra.ring.shape, dtype=torch.complex64, device=shifts.device)
        for index in range(tiles)[share]:
            _align(spectra, index, shifts[index], aligned)
            total = aligned.sum(dim=0)
            square = _ring_sums(torch.view_as_real(total).square().sum(dim=-1) * average, spectra.ring, rings)
            cross = (square * spectra.whitening - spectra.power[index]) / (count * (count - 1))
            profiles[index] = torch.where(seen, cross, torch.zeros_like(cross))
            own = signal * _share(profiles[index], signal, coefficients, count)
            if not bool(own.any()):
                continue
            wiener = own / (own + 1.0 / count)
            strength[index] = float((curvature * own * wiener).sum())
            # Im(conj(reference) aligned) summed with the weights, for all frames in one product.
            reference = (total * (wiener * spectra.whitening / count)[spectra.ring]).reshape(-1)
            factors = torch.stack([-reference.imag[:, None] * along, reference.real[:, None] * along], dim=1)
            gradient[index] = torch.view_as_real(aligned).view(count, -1) @ factors.reshape(-1, 2)

    workers.map(look, workers.shares(tiles))
    return Evidence(gradient, strength), _significant(profiles.mean(dim=0), coefficients * tiles, count)


def _align(spectra: TileSpectra, index: int, shifts: Tensor, into: Tensor) -> None:
    """Write the spectra of a tile's frames moved by `shifts` ``(n, 2)`` to `into` ``(n, ky, kx)``."""
    rest = ((-2 * math.pi) * (shifts - spectra.origin[index])).to(torch.float32)
    y, x = rest[:, 0, None] * spectra.ky, rest[:, 1, None] * spectra.kx
    torch.view_as_real(into).copy_(spectra.values[index])
    into *= torch.polar(torch.ones_like(y), y)[:, :, None]
    into *= torch.polar(torch.ones_like(x), x)[:, None, :]


def _share(profile: Tensor, signal: Tensor, coefficients: Tensor, count: int) -> Tensor:
    """Return how strong a tile's signal is in each ring ``(rings,)`` relative to the mean of the tiles; what may as well be noise counts less.

    It is measured in a few bands, because spectra differ: carbon or an ice crystal is strong where particles are not, and to expect their
    strength at all frequencies would be to take noise for signal.
    """
    used = signal.nonzero()[:, 0]
    share = torch.zeros_like(signal)
    pooled, variance = _strength(profile, signal, coefficients, used, count)
    pooled *= pooled**2 / (pooled**2 + variance)
    for band in used.tensor_split(_BANDS):
        found, variance = _strength(profile, signal, coefficients, band, count)
        # What little a band says for itself leaves it near what all of them say.
        freedom = (_BAND_FREEDOM * pooled) ** 2
        share[band] = pooled + (found - pooled) * freedom / max(freedom + variance, 1e-30)
    return share


def _strength(profile: Tensor, signal: Tensor, coefficients: Tensor, rings: Tensor, count: int) -> tuple[float, float]:
    """Return the strength of a tile's signal in some `rings` relative to the mean of the tiles, and the variance of this number."""
    expected = float((coefficients * signal * signal)[rings].sum())
    if expected <= 0:
        return 0.0, math.inf
    found = float((coefficients * signal * profile)[rings].sum()) / expected
    return max(0.0, found), 1 / (count * (count - 1) * expected)


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
    return _ring_sums(terms, spectra.ring, len(spectra.whitening))


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
    highest = len(spectra.kx) - 1
    resolved = highest
    trust = torch.ones(len(positions), dtype=torch.float64, device=device)
    signal = torch.zeros(len(spectra.whitening), device=device)
    for round_ in range(_ROUNDS):
        extra = _COARSE_TO_FINE[round_] if round_ < len(_COARSE_TO_FINE) else 0.0
        # What the B-factor or the noise drowns is left out; a margin lets the resolution grow as the alignment gets better.
        drowned = math.sqrt(_DROWNED / extra) * pixel_size * spectra.size if extra else highest
        part = spectra.up_to(min(highest, math.ceil(drowned), resolved + max(3, resolved // 8)))
        damping = torch.exp(-0.5 * extra * (part.ky[:, None] ** 2 + part.kx**2) / pixel_size**2)
        shifts = torch.einsum("pm,nmc->pnc", basis, tracks)
        if round_ == 0:
            _, signal = gather_evidence(part, shifts, signal, damping, workers)
        evidence, signal = gather_evidence(part, shifts, signal, damping, workers)
        if extra == 0:
            resolved = int(signal.nonzero().max()) if bool(signal.any()) else highest
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
