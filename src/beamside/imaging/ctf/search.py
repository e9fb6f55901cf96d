"""Finding the defocus that explains a power spectrum.

The logarithm of an averaged amplitude spectrum has noise of the same size everywhere. It is taken as ::

    log amplitude (k, α) = smooth background - envelope(k) cos 2χ(k, α) + noise

because CTF² = (1 - cos 2χ) / 2, whose constant part is smooth. The background is a linear model, so it is projected out of data and
model alike and cannot pull the fit. What remains is summed in cells of a polar grid; the match of every sector with every
defocus is then one matrix product, and an astigmatic candidate is a sum over sectors of entries of that table. The best
candidate is refined on the pixels themselves by following the gradient of the same correlation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamside.imaging.ctf.model import aberration_phase, electron_wavelength

SECTORS = 36
ASTIGMATISM_STEP = 150.0
ANGLES = 18
RADIAL_WAVES = 6
ENVELOPES = (0.0, 30.0, 80.0, 200.0)
"""Å²; in the search the contrast of the rings falls as exp(-envelope k²)."""
CONTRAST_WINDOW = 0.025
"""Width of the window in which the rings' contrast is measured, as a fraction of the spectrum's edge."""
OUTLIER = 5.0
USUAL_ASTIGMATISM = 300.0
"""Å; microscopes are usually stigmated better than this."""
PENALTY = 4.0
"""What ten times more astigmatism costs, in units of 2 ln 10 of log-likelihood: as a prior that falls as the fourth power of it does."""
LEAST_GAIN = 0.01
"""Steps end when the squared height of the match, in units of the noise, grows by less."""
SAMPLING = 3.0
"""Radians between neighbouring pixels at which the window and the sampling have taken the rings' contrast down to 1/e."""
LEAST_RINGS = 0.8
"""Fraction of a model's power that should remain without its projection on the background."""


@dataclass(frozen=True)
class Optics:
    """What the microscope was: kV, mm, fraction."""

    voltage: float
    spherical_aberration: float
    amplitude_contrast: float

    def phase(self, k2: Tensor, defocus: Tensor | float, phase_shift_deg: Tensor | float = 0.0) -> Tensor:
        """Return χ in radians; see `model.aberration_phase`."""
        return aberration_phase(
            k2,
            defocus,
            voltage=self.voltage,
            spherical_aberration=self.spherical_aberration,
            amplitude_contrast=self.amplitude_contrast,
            phase_shift_deg=phase_shift_deg,
        )


@dataclass(frozen=True)
class Pixels:
    """The pixels of half a spectrum that take part in a fit: all of shape (n,).

    Attributes
    ----------
    row, column : indices in the centred spectrum
    frequency : 1/Å
    direction : radians from x towards y
    values : log amplitude, with the background removed once `remove_background` has been applied
    edge : size of the spectrum
    pixel_size : Å
    """

    row: Tensor
    column: Tensor
    frequency: Tensor
    direction: Tensor
    values: Tensor
    edge: int
    pixel_size: float

    @property
    def ring(self) -> Tensor:
        """Distance from the centre, rounded to whole pixels."""
        return torch.round(self.frequency * (self.edge * self.pixel_size)).to(torch.long)


@dataclass(frozen=True)
class Candidate:
    """A CTF: Å, the two components of astigmatism (Å) along cos 2α and sin 2α, degrees; and how well it matches."""

    defocus: float
    along: float
    across: float
    phase_shift: float
    envelope: float
    correlation: float = 0.0

    def towards(self, direction: Tensor) -> Tensor:
        """Return the defocus in Å in `direction` (radians)."""
        return self.defocus + self.along * torch.cos(2 * direction) + self.across * torch.sin(2 * direction)

    def axes(self) -> tuple[float, float, float]:
        """Return defocus U, V (U >= V, Å) and the angle of U in degrees, -90 < angle <= 90."""
        half = math.hypot(self.along, self.across)
        angle = math.degrees(0.5 * math.atan2(self.across, self.along))
        return self.defocus + half, self.defocus - half, angle


def half_plane(spectrum: Tensor, pixel_size: float, lowest: float, highest: float) -> Pixels:
    """Return the pixels of one half of a centred amplitude spectrum between two frequencies (1/Å).

    The rows and columns next to the axes are left out: camera readout and tile edges leave a cross there. So are pixels
    that are zero, as the last rows of a cropped spectrum are.
    """
    edge = spectrum.shape[-1]
    offsets = torch.arange(edge, device=spectrum.device) - edge // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    frequency = torch.sqrt((x**2 + y**2).to(torch.float32)) / (edge * pixel_size)
    chosen = (x > 1) & (y.abs() > 1) & (frequency >= lowest) & (frequency <= highest) & (spectrum > 0)
    row, column = torch.nonzero(chosen, as_tuple=True)
    y, x = y[row, column].to(torch.float32), x[row, column].to(torch.float32)
    values = torch.log(spectrum[row, column].to(torch.float32))
    return Pixels(row, column, frequency[row, column], torch.atan2(y, x), values, edge, pixel_size)


def radial_basis(frequency: Tensor, lowest: float, highest: float) -> Tensor:
    """Return smooth functions of `frequency` (n,) between two limits (1/Å): (n, RADIAL_WAVES + 2)."""
    position = (frequency - lowest) / (highest - lowest)
    waves = [torch.cos(math.pi * wave * position) for wave in range(RADIAL_WAVES)]
    return torch.stack([*waves, torch.log(frequency), 1 / frequency], dim=-1)


def background_basis(pixels: Pixels, lowest: float, highest: float) -> Tensor:
    """Return smooth functions of radius, and of radius times the second angular harmonic: (n, m), orthonormal."""
    radial = radial_basis(pixels.frequency, lowest, highest)
    double = 2 * pixels.direction[:, None]
    columns = torch.cat([radial, radial[:, :4] * torch.cos(double), radial[:, :4] * torch.sin(double)], dim=-1)
    return orthonormal(columns)


def orthonormal(columns: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return columns (n, m) that span the same space and are orthonormal under `weights` (n,).

    In double precision: smooth functions are so alike that in single precision a part of the mean, which is many times larger than
    rings that can just be seen, would be left out of the space, and would look like rings.
    """
    exact = columns.to(torch.float64)
    products = exact.T @ (exact if weights is None else exact * weights.to(torch.float64)[:, None])
    scale = 1 / torch.sqrt(torch.diag(products))
    eigenvalues, vectors = torch.linalg.eigh(products * scale[:, None] * scale)
    kept = eigenvalues > 1e-11 * eigenvalues[-1]
    mixing: Tensor = scale[:, None] * vectors[:, kept] / torch.sqrt(eigenvalues[kept])
    orthonormalised: Tensor = (exact @ mixing).to(columns.dtype)
    return orthonormalised


def remove_background(values: Tensor, basis: Tensor) -> Tensor:
    """Return `values` (n,) without their projection on `basis`, outliers (crystal spots) pulled in to 5 sd."""
    residual = values - values.mean()
    residual = residual - basis @ (basis.T @ residual)
    limit = OUTLIER * residual.std()
    residual = residual.clamp(-limit, limit)
    return residual - basis @ (basis.T @ residual)


@dataclass(frozen=True)
class Table:
    """Matches of sectors and defoci: `scores` (phase shifts, sectors, defoci), and the envelope of the models."""

    scores: Tensor
    defoci: Tensor
    phase_shifts: tuple[float, ...]
    envelope: float


def ring_sums(pixels: Pixels, weights: Tensor, rings: int) -> tuple[Tensor, Tensor]:
    """Return the sums of `weights` over the cells of a polar grid (SECTORS, rings), and the pixels of each ring (rings,)."""
    sector = ((pixels.direction / math.pi + 0.5) * SECTORS).to(torch.long).clamp(0, SECTORS - 1)
    sums = torch.zeros(SECTORS * rings, dtype=torch.float32, device=weights.device)
    sums.index_add_(0, sector * rings + pixels.ring, weights)
    counts = torch.bincount(pixels.ring, minlength=rings).to(torch.float32)
    return sums.reshape(SECTORS, rings), counts


def match_tables(
    pixels: Pixels, optics: Optics, defoci: Tensor, phase_shifts: Sequence[float], lowest: float, highest: float
) -> list[Table]:
    """Match every sector with every defocus, for each envelope; scores are in units of the noise."""
    rings = int(pixels.ring.max()) + 1
    sums, counts = ring_sums(pixels, pixels.values, rings)
    used = counts > 0
    sums, counts = sums[:, used] / pixels.values.std(), counts[used]
    frequency = torch.arange(rings, device=sums.device)[used] / (pixels.edge * pixels.pixel_size)
    basis = orthonormal(radial_basis(frequency, lowest, highest), counts)
    chi = 2 * optics.phase(frequency[:, None] ** 2, defoci[None, :])
    visible = sampled(frequency[:, None], defoci[None, :], optics, pixels)
    waves = [-visible * torch.cos(chi + 2 * math.radians(shift)) for shift in phase_shifts]
    tables = []
    for envelope in ENVELOPES:
        fading = torch.exp(-envelope * frequency**2)[:, None]
        scores = torch.stack([normalised(sums, fading * wave, counts, basis) for wave in waves])
        tables.append(Table(scores, defoci, tuple(phase_shifts), envelope))
    return tables


def normalised(sums: Tensor, models: Tensor, counts: Tensor, basis: Tensor) -> Tensor:
    """Return the products of sectors (s, rings) and models (rings, f), each model without background and of norm 1.

    A model most of which is background (few, wide rings) is not blown up to norm 1: what is left of it would match what is
    left of the measured background better than true rings match theirs.
    """
    weighted = models * counts[:, None]
    whole = (weighted * models).sum(dim=0)
    squares = whole - ((basis.T @ weighted) ** 2).sum(dim=0)
    return (sums @ models) / torch.sqrt(torch.maximum(squares, LEAST_RINGS * whole).clamp(min=1e-6))


def sampled(frequency: Tensor, defocus: Tensor | float, optics: Optics, pixels: Pixels) -> Tensor:
    """Return how much of the rings' contrast the sampling leaves, 0 to 1: rings closer than the pixels cannot be seen."""
    wavelength = electron_wavelength(optics.voltage)
    cs = optics.spherical_aberration * 1e7
    slope = 4 * math.pi * wavelength * frequency * (defocus - cs * wavelength**2 * frequency**2)
    step = slope.abs() / (pixels.edge * pixels.pixel_size)
    return torch.exp(-((step / SAMPLING) ** 2))


def search_table(table: Table, largest_astigmatism: float) -> Candidate:
    """Return the candidate with the highest sum over sectors, over mean defocus, astigmatism, angle and phase shift.

    Its `correlation` is the squared sum, less what astigmatism costs, for comparison with other tables' only.
    """
    step = float(table.defoci[1] - table.defoci[0])
    device = table.scores.device
    directions = (torch.arange(SECTORS, device=device) + 0.5) / SECTORS * math.pi - math.pi / 2
    amounts = torch.arange(ASTIGMATISM_STEP / 2, largest_astigmatism / 2 + 1, ASTIGMATISM_STEP / 2, device=device)
    turns = torch.arange(ANGLES, device=device) * (math.pi / ANGLES)
    # the round candidate, then every amount in every direction
    half = torch.cat([amounts.new_zeros(1), amounts.repeat_interleave(ANGLES)])
    angle = torch.cat([turns.new_zeros(1), turns.repeat(len(amounts))])
    places = torch.round(half[:, None] * torch.cos(2 * (directions - angle[:, None])) / step).to(torch.long)
    costs = torch.tensor([astigmatism_penalty(2 * value) for value in half.tolist()], device=device)
    best = Candidate(float(table.defoci[0]), 0, 0, 0, table.envelope, -math.inf)
    for scores, shift in zip(table.scores, table.phase_shifts, strict=True):
        total = _shifted_sums(scores, places).clamp(min=0) ** 2 - costs[:, None]
        value, index = total.reshape(-1).max(dim=0)
        if float(value) > best.correlation:
            number, place = divmod(int(index), len(table.defoci))
            along, double = float(half[number]), 2 * float(angle[number])
            best = Candidate(
                float(table.defoci[place]),
                along * math.cos(double),
                along * math.sin(double),
                shift,
                table.envelope,
                float(value),
            )
    return best


def astigmatism_penalty(astigmatism: float) -> float:
    """Return by how much the squared height of a match of this astigmatism (Å) counts less.

    Noise can match many more astigmatic candidates than round ones, so its best match is mostly one of 1,000 to 2,000 Å.
    """
    return PENALTY * math.log1p((astigmatism / USUAL_ASTIGMATISM) ** 2)


def astigmatism_pull(astigmatism: float) -> float:
    """Return by what the sum of the squared components of the astigmatism (Å) is multiplied in a parabola that touches the penalty."""
    square = USUAL_ASTIGMATISM**2
    return 4 * PENALTY / (square + astigmatism**2)


def _shifted_sums(scores: Tensor, offsets: Tensor) -> Tensor:
    """Return sums over sectors of `scores` (s, f), sector j of candidate i read `offsets[i, j]` places further on: (c, f).

    Beyond its ends, the first and the last score of a sector hold.
    """
    reach = int(offsets.abs().max())
    places = torch.arange(-reach, scores.shape[1] + reach, device=scores.device).clamp(0, scores.shape[1] - 1)
    # all shifted copies of all sectors, one after the other, of which each candidate takes one for each sector
    copies = scores[:, places].unfold(1, scores.shape[1], 1).reshape(-1, scores.shape[1])
    first = torch.arange(scores.shape[0], device=scores.device) * (2 * reach + 1) + reach
    return torch.nn.functional.embedding_bag(offsets + first, copies, mode="sum")


def refine(
    pixels: Pixels,
    basis: Tensor,
    optics: Optics,
    start: Candidate,
    contrast: Tensor,
    *,
    noise: float,
    fit_phase_shift: bool,
    steps: int = 20,
) -> Candidate:
    """Climb from `start` to the best match of the pixels with rings of this `contrast` (n,), by Gauss-Newton.

    What becomes least is the sum of squares of ``values - amplitude * model`` in units of `noise`, the standard deviation that
    independent pixels would have, plus what the astigmatism costs. The best amplitude and background are solved for in every step
    (variable projection), which leaves 3 or 4 parameters.
    """
    k2 = pixels.frequency**2
    cosine, sine = torch.cos(2 * pixels.direction), torch.sin(2 * pixels.direction)
    slope = math.pi * electron_wavelength(optics.voltage) * k2
    directions = [slope, slope * cosine, slope * sine, torch.full_like(slope, math.pi / 180)]
    gradients = torch.stack(directions if fit_phase_shift else directions[:3], dim=-1)
    total = float(pixels.values @ pixels.values)
    current, damping = start, 1e-2
    model, chi = _model(pixels, optics, basis, contrast, current)
    correlation = _correlation(pixels.values, model)
    height = _height(total, correlation, noise, current)
    for _ in range(steps):
        amplitude = (model @ pixels.values) / (model @ model)
        jacobian = _without(basis, (2 * contrast * torch.sin(2 * chi))[:, None] * gradients * amplitude)
        normal = (jacobian.T @ jacobian).to(torch.float64)
        slopes = (jacobian.T @ (pixels.values - amplitude * model)).to(torch.float64)
        # the cost grows ever more slowly: a parabola that touches it here lies above it everywhere else
        pull = noise**2 * astigmatism_pull(2 * math.hypot(current.along, current.across))
        normal[1, 1] += pull
        normal[2, 2] += pull
        slopes[1] -= pull * current.along
        slopes[2] -= pull * current.across
        normal += damping * torch.diag(torch.diag(normal))
        trial = _moved(current, torch.linalg.solve(normal, slopes).tolist())
        trial_model, trial_chi = _model(pixels, optics, basis, contrast, trial)
        trial_correlation = _correlation(pixels.values, trial_model)
        trial_height = _height(total, trial_correlation, noise, trial)
        if trial_height <= height:
            if damping > 1e3:
                break
            damping *= 10
            continue
        gained = trial_height - height
        current, model, chi = trial, trial_model, trial_chi
        correlation, height = trial_correlation, trial_height
        damping = max(damping / 10, 1e-4)
        if gained < LEAST_GAIN:
            break
    return replace(current, correlation=correlation)


def _height(total: float, correlation: float, noise: float, candidate: Candidate) -> float:
    """Return the squared height of a match over the noise, less what its astigmatism costs; `total` is the sum of squared values."""
    squared = total / noise**2 * max(correlation, 0.0) ** 2
    return squared - astigmatism_penalty(2 * math.hypot(candidate.along, candidate.across))


def first_contrast(pixels: Pixels, optics: Optics, candidate: Candidate) -> Tensor:
    """Return the contrast of the rings (n,) that the search assumed for `candidate`."""
    fading = torch.exp(-candidate.envelope * pixels.frequency**2)
    return fading * sampled(pixels.frequency, candidate.defocus, optics, pixels)


def measured_contrast(pixels: Pixels, optics: Optics, candidate: Candidate) -> Tensor:
    """Return the contrast (n,) that the rings of `candidate` have in the data, averaged over neighbouring rings.

    Weighting rings by their contrast is what makes the fit as accurate as the noise allows: no simple formula describes how it
    falls over ice, particles and carbon together.
    """
    wave = -torch.cos(2 * optics.phase(pixels.frequency**2, candidate.towards(pixels.direction), candidate.phase_shift))
    count = int(pixels.ring.max()) + 1
    product, square = (
        torch.zeros(count, device=wave.device).index_add_(0, pixels.ring, values)
        for values in (wave * pixels.values, wave * wave)
    )
    ring = torch.arange(count, dtype=torch.float32, device=wave.device)
    window = torch.exp(-0.5 * ((ring[:, None] - ring[None, :]) / (CONTRAST_WINDOW * pixels.edge)) ** 2)
    contrast = (window @ product) / (window @ square).clamp(min=1e-9)
    return contrast.clamp(min=0)[pixels.ring]


def _model(
    pixels: Pixels, optics: Optics, basis: Tensor, contrast: Tensor, candidate: Candidate
) -> tuple[Tensor, Tensor]:
    """Return the rings of `candidate` without background, and their phase χ; both (n,)."""
    chi = optics.phase(pixels.frequency**2, candidate.towards(pixels.direction), candidate.phase_shift)
    return _without(basis, -contrast * torch.cos(2 * chi)), chi


def _without(basis: Tensor, values: Tensor) -> Tensor:
    """Return `values` (n,) or (n, m) without their projection on `basis`."""
    return values - basis @ (basis.T @ values)


def _correlation(values: Tensor, model: Tensor) -> float:
    return float((values @ model) / (values.norm() * model.norm()).clamp(min=1e-12))


def _moved(candidate: Candidate, step: list[float]) -> Candidate:
    shift = step[3] if len(step) > 3 else 0.0
    return Candidate(
        candidate.defocus + step[0],
        candidate.along + step[1],
        candidate.across + step[2],
        candidate.phase_shift + shift,
        candidate.envelope,
    )
