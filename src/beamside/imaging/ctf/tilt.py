"""The tilt of the specimen from how the defocus changes over a micrograph.

Every tile's power spectrum is compared with the rings of many defoci around the mean one, all in one matrix product, with the
contrast and the astigmatism of the fit to the whole micrograph. A tilted plane is then a path through that table: the plane
with the highest sum over tiles is found on a grid and refined. The tiles are stretched to the mean defocus, so that their
rings coincide, and the CTF is fitted again to their sum, which is sharper (Elferich et al., eLife 13, RP97227, 2024, do so in
CTFFIND5; the search by a table is ours). A single tile's power has exponential statistics; for rings that are weak against
the background, the likelihood is to first order this sum of products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from torch import Tensor

from beamside.errors import ProcessingError
from beamside.imaging.ctf.estimation import CtfFit, CtfSettings, candidate_of, estimate_ctf, fitted_frequencies
from beamside.imaging.ctf.model import electron_wavelength
from beamside.imaging.ctf.search import (
    Candidate,
    Optics,
    Pixels,
    background_basis,
    half_plane,
    measured_contrast,
    sampled,
)
from beamside.imaging.spectrum import TilePowers

LARGEST_TILT = 65.0
"""Degrees; specimens are not tilted further, and the defocus would change too much within a tile."""
OFFSET_STEP = 60.0
"""Å; 0.5 radians of 2χ at 4 Å and 300 kV, which a spline interpolates well."""
EDGE_STEP = 150.0
"""Å by which the defocus at the edge of the field changes from one slope of the grid to the next."""
MEAN_REACH = 1500.0
"""Å; how far the fit to the whole micrograph may be from the mean defocus, rings of a tilted specimen being blurred."""
BRIGHTEST = 8.0
"""Powers above this many times the mean (crystal spots) are pulled in; chance exceeds it once in 3,000 pixels."""
LARGEST_ERROR = 10.0
"""Degrees; a tilt that is less certain is not reported."""
NEIGHBOURS = 4.3
"""By how much the likelihood is overstated because windows correlate neighbouring pixels and tiles overlap by half: the
sum of the squared correlations of powers."""
ROUNDS = 2
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tilt:
    """The tilt of a specimen.

    Attributes
    ----------
    angle : degrees, 0 to 90
    axis : degrees from x towards y in array order, -180 < axis <= 180; the defocus grows in the direction 90 degrees further on
    error : standard error of the slope in degrees, from the curvature of the likelihood
    slope : by how many Å the defocus grows for each Å along y and along x
    failed : why the tilt cannot be trusted, empty for a good one
    """

    angle: float
    axis: float
    error: float
    slope: tuple[float, float]
    failed: str = ""


def estimate_tilt(tiles: TilePowers, settings: CtfSettings) -> tuple[CtfFit, Tilt]:
    """Fit the CTF, at the centre of the micrograph, together with the tilt of the specimen.

    Parameters
    ----------
    tiles : spectra of the tiles; see `beamside.imaging.spectrum.tile_powers`
    settings : optics and limits

    Raises
    ------
    ProcessingError
        There are fewer than four tiles, or as `estimate_ctf`.
    """
    if len(tiles.centres) < 4:
        raise ProcessingError(
            f"A micrograph with {len(tiles.centres)} tiles is too small to find its tilt; at least 4 are needed."
        )
    fit = estimate_ctf(tiles.amplitude(), tiles.pixel_size, settings)
    tilt = _measure(tiles, tiles.power.mean(dim=0), settings, fit)
    for _ in range(ROUNDS):
        power = _stretched(tiles, settings.optics, candidate_of(fit), tilt.slope)
        fit = estimate_ctf(torch.sqrt(power), tiles.pixel_size, settings)
        tilt = _measure(tiles, power, settings, fit)
    return fit, tilt


def _measure(tiles: TilePowers, power: Tensor, settings: CtfSettings, fit: CtfFit) -> Tilt:
    """Return the tilt, given the mean power (s, s) and the fit to it."""
    lowest, highest = fitted_frequencies(tiles.pixel_size, settings)
    pixels = half_plane(torch.sqrt(power), tiles.pixel_size, lowest, highest)
    basis = background_basis(pixels, lowest, highest)
    background = basis @ (basis.T @ pixels.values)
    pixels = replace(pixels, values=pixels.values - background)
    candidate, optics = candidate_of(fit), settings.optics
    # contrast of the power is twice that of the amplitude's logarithm
    contrast = 2 * measured_contrast(pixels, optics, candidate)
    values = tiles.power[:, pixels.row, pixels.column] * torch.exp(-2 * background)
    values = (values / values.mean(dim=1, keepdim=True)).clamp(max=BRIGHTEST)
    reach = tiles.centres.norm(dim=1).max().item()
    steepest = math.tan(math.radians(LARGEST_TILT))
    furthest = math.ceil((steepest * reach + MEAN_REACH) / OFFSET_STEP) * OFFSET_STEP
    offsets = torch.arange(-furthest, furthest + OFFSET_STEP / 2, OFFSET_STEP, device=power.device)
    table = _table(values - values.mean(dim=1, keepdim=True), pixels, basis, optics, candidate, contrast, offsets)
    centres = tiles.centres.cpu().numpy().astype(np.float64)
    start = _search(table, offsets, tiles.centres, steepest)
    return _refine(table.cpu().numpy().astype(np.float64), offsets.cpu().numpy().astype(np.float64), centres, start)


def _table(
    values: Tensor,
    pixels: Pixels,
    basis: Tensor,
    optics: Optics,
    candidate: Candidate,
    contrast: Tensor,
    offsets: Tensor,
) -> Tensor:
    """Return the log-likelihood (tiles, offsets) of each tile's values (tiles, n) at each offset (Å) of the defocus."""
    seen = sampled(pixels.frequency, candidate.defocus, optics, pixels).clamp(min=1e-3)
    k2, towards = pixels.frequency**2, candidate.towards(pixels.direction)
    columns = []
    for offset in torch.split(offsets, 16):
        local = towards[:, None] + offset[None, :]
        chi = optics.phase(k2[:, None], local, candidate.phase_shift)
        # rings of another defocus are blurred otherwise by the sampling
        fading = sampled(pixels.frequency[:, None], candidate.defocus + offset[None, :], optics, pixels) / seen[:, None]
        waves = -contrast[:, None] * fading.clamp(max=2.0) * torch.cos(2 * chi)
        waves = waves - basis @ (basis.T @ waves)
        # two pixels of a real image's spectrum that mirror each other hold the same: those of the half plane count once
        columns.append(values @ waves - 0.5 * (waves**2).sum(dim=0))
    return torch.cat(columns, dim=1)


def _search(table: Tensor, offsets: Tensor, centres: Tensor, steepest: float) -> Array:
    """Return the mean offset (Å) and the slopes along y and x of the plane with the highest sum, on a grid."""
    step = float(offsets[1] - offsets[0])
    spacing = EDGE_STEP / float(centres.norm(dim=1).max())
    count = math.floor(steepest / spacing)
    line = torch.arange(-count, count + 1, device=table.device) * spacing
    slopes = torch.cartesian_prod(line, line)
    slopes = slopes[slopes.norm(dim=1) <= steepest]
    means = torch.arange(-MEAN_REACH, MEAN_REACH + step, step, device=table.device)
    best, found = -math.inf, torch.zeros(3)
    for part in torch.split(slopes, 512):
        places = (part @ centres.T) / step  # (slopes, tiles), in steps
        for mean in means:
            index = torch.round(places + (mean - offsets[0]) / step).to(torch.long).clamp(0, len(offsets) - 1)
            total = table.gather(1, index.T).sum(dim=0)
            value, number = total.max(dim=0)
            if float(value) > best:
                best = float(value)
                found = torch.stack([mean, *part[int(number)]])
    return found.cpu().numpy().astype(np.float64)


def _refine(table: Array, offsets: Array, centres: Array, start: Array) -> Tilt:
    """Climb to the highest likelihood, and judge it by its curvature."""
    splines = CubicSpline(offsets, table, axis=1)
    rows = np.arange(len(table))
    design = np.column_stack([np.ones(len(centres)), centres])
    scale = np.array([100.0, 0.1, 0.1])

    def values(parameters: Array, order: int) -> Array:
        places = np.clip(design @ (parameters * scale), offsets[0], offsets[-1])
        return np.array([splines(place, order)[row] for row, place in zip(rows, places, strict=True)])

    def cost(parameters: Array) -> tuple[float, Array]:
        return -float(values(parameters, 0).sum()), -(values(parameters, 1) @ design) * scale

    best = minimize(cost, start / scale, jac=True, method="BFGS", options={"gtol": 1e-3, "maxiter": 40}).x
    curvature = -(design.T * values(best, 2)) @ design
    _, along_y, along_x = (float(value) for value in best * scale)
    slope = math.hypot(along_y, along_x)
    angle = math.degrees(math.atan(slope))
    axis = math.degrees(math.atan2(-along_x, along_y))
    error = _slope_error(curvature / NEIGHBOURS) * math.degrees(1) / (1 + slope**2)
    failed = "" if error <= LARGEST_ERROR else f"the tilt is uncertain by {error:.0f} degrees"
    return Tilt(angle, axis if axis > -180 else 180.0, error, (along_y, along_x), failed)


def _slope_error(curvature: Array) -> float:
    """Return the standard error of the slopes, infinite where the likelihood has no maximum."""
    if np.linalg.eigvalsh(curvature)[0] <= 0:
        return math.inf
    return float(np.sqrt(np.linalg.eigvalsh(np.linalg.inv(curvature)[1:, 1:])[-1]))


def _stretched(tiles: TilePowers, optics: Optics, candidate: Candidate, slope: tuple[float, float]) -> Tensor:
    """Return the mean power (s, s) of the tiles, each stretched so that its rings are where the mean defocus has them."""
    edge = tiles.power.shape[-1]
    axis = (torch.arange(edge, device=tiles.power.device) - edge // 2).to(torch.float32) / (edge * tiles.pixel_size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    k2 = y**2 + x**2
    mean = candidate.towards(torch.atan2(y, x))
    aberration = optics.spherical_aberration * 1e7 * electron_wavelength(optics.voltage) ** 2
    phase = mean * k2 - aberration / 2 * k2**2
    total = torch.zeros_like(k2)
    for power, centre in zip(tiles.power, tiles.centres.tolist(), strict=True):
        local = mean + (slope[0] * centre[0] + slope[1] * centre[1])
        inside = local**2 - 2 * aberration * phase
        square = 2 * phase / (local + torch.sqrt(inside.clamp(min=0))).clamp(min=1.0)
        usable = (local > 0) & (inside > 0) & (square > 0)
        ratio = torch.sqrt(torch.where(usable & (k2 > 0), square / k2.clamp(min=1e-12), torch.ones_like(k2)))
        grid = torch.stack([x * ratio, y * ratio], dim=-1) * (2 * tiles.pixel_size) + 1 / edge
        total += torch.nn.functional.grid_sample(
            power[None, None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )[0, 0]
    return total / len(tiles.power)
