"""CTF estimation: defocus, astigmatism and phase shift of a micrograph from its power spectrum.

See `imaging.spectrum` for the power spectrum, `search` for how the fit is found and `curves` for what is shown of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from beamside.errors import ProcessingError
from beamside.imaging.ctf.curves import Curves, curves, fit_resolution, half_and_half, ice_ring
from beamside.imaging.ctf.limits import DEFOCUS_STEP, enough_rings, finest_resolution
from beamside.imaging.ctf.search import (
    Candidate,
    Optics,
    Pixels,
    astigmatism_penalty,
    background_basis,
    first_contrast,
    half_plane,
    match_tables,
    measured_contrast,
    refine,
    remove_background,
    search_table,
)
from beamside.imaging.spectrum import micrograph_spectrum

__all__ = [
    "CtfFit",
    "CtfSettings",
    "Curves",
    "candidate_of",
    "estimate_ctf",
    "fitted_frequencies",
    "micrograph_spectrum",
]

LEAST_SIGNIFICANCE = 5.2
"""Height of the best match over the noise, below which it is taken for chance. Of noise alone it is 2 to 4."""
WORST_RESOLUTION = 20.0
"""Å; rings that fit only up to here do not determine a defocus."""
ROUNDS = 2
"""How often the contrast of the rings is measured and the fit refined with it."""
PICTURE_RESOLUTION = 3.5
"""Å; the half-and-half picture ends there."""


@dataclass(frozen=True)
class CtfSettings:
    """What is known of the microscope, and where to look.

    Attributes
    ----------
    voltage : kV
    spherical_aberration : mm
    amplitude_contrast : fraction
    min_resolution, max_resolution : Å; the rings between them are fitted
    min_defocus, max_defocus : Å, of the mean defocus
    max_astigmatism : Å, largest U - V
    phase_shift : also fit the phase shift of a phase plate
    min_phase_shift, max_phase_shift, phase_shift_step : degrees
    """

    voltage: float
    spherical_aberration: float
    amplitude_contrast: float
    min_resolution: float = 30.0
    max_resolution: float = 4.0
    min_defocus: float = 3000.0
    max_defocus: float = 50000.0
    max_astigmatism: float = 2000.0
    phase_shift: bool = False
    min_phase_shift: float = 0.0
    max_phase_shift: float = 170.0
    phase_shift_step: float = 10.0

    @property
    def optics(self) -> Optics:
        """The optics alone."""
        return Optics(self.voltage, self.spherical_aberration, self.amplitude_contrast)


@dataclass(frozen=True)
class CtfFit:
    """A fitted CTF.

    Attributes
    ----------
    defocus_u, defocus_v : Å, U >= V
    angle : degrees from x towards y in array order, direction of U, -90 < angle <= 90
    phase_shift : degrees
    figure_of_merit : correlation of the spectrum without background with the fitted rings, over the fitted resolutions
    significance : height of the best match in units of the noise, less for an unlikely astigmatism
    resolution : Å, how far the fit holds; infinite where it holds nowhere
    ice_ring : excess amplitude at 3.5 to 3.95 Å as a fraction; nan where the pixels are too coarse
    failed : why the fit cannot be trusted, empty for a good one
    curves : for plots
    picture : uint8 (s, s), measured rings in the left half and fitted ones in the right
    """

    defocus_u: float
    defocus_v: float
    angle: float
    phase_shift: float
    figure_of_merit: float
    significance: float
    resolution: float
    ice_ring: float
    failed: str
    curves: Curves
    picture: Tensor

    @property
    def defocus(self) -> float:
        """Mean defocus in Å."""
        return (self.defocus_u + self.defocus_v) / 2

    @property
    def astigmatism(self) -> float:
        """U - V in Å."""
        return self.defocus_u - self.defocus_v


def estimate_ctf(spectrum: Tensor, pixel_size: float, settings: CtfSettings) -> CtfFit:
    """Fit the CTF to a centred amplitude spectrum.

    Parameters
    ----------
    spectrum : (s, s), amplitudes, zero frequency at (s // 2, s // 2); the fit is made on the CPU, being small
    pixel_size : Å, effective pixel size of the spectrum
    settings : optics and limits

    Raises
    ------
    ProcessingError
        The spectrum is not square or finite, is zero, or ends before the resolutions to be fitted.
    """
    spectrum = spectrum.detach().to("cpu", torch.float32)
    _check(spectrum)
    lowest, highest = fitted_frequencies(pixel_size, settings)
    optics = settings.optics
    pixels = half_plane(spectrum, pixel_size, lowest, highest)
    basis = background_basis(pixels, lowest, highest)
    pixels = replace(pixels, values=remove_background(pixels.values, basis))
    shifts = _phase_shifts(settings)
    tables = match_tables(pixels, optics, _defoci(settings, spectrum.device), shifts, lowest, highest)
    starts = [search_table(table, settings.max_astigmatism) for table in tables]
    fit = max(starts, key=lambda start: start.correlation)
    contrast = first_contrast(pixels, optics, fit)
    noise = float(pixels.values.std()) * noise_inflation(pixels)
    for _ in range(ROUNDS):
        fit = refine(pixels, basis, optics, fit, contrast, noise=noise, fit_phase_shift=settings.phase_shift)
        contrast = measured_contrast(pixels, optics, fit)
    fit = refine(pixels, basis, optics, fit, contrast, noise=noise, fit_phase_shift=settings.phase_shift)
    return _describe(spectrum, pixels, settings, fit, noise)


def candidate_of(fit: CtfFit) -> Candidate:
    """Return a fit in the form that `search` works with."""
    double = math.radians(2 * fit.angle)
    half = fit.astigmatism / 2
    return Candidate(fit.defocus, half * math.cos(double), half * math.sin(double), fit.phase_shift, 0.0)


def _check(spectrum: Tensor) -> None:
    edge = spectrum.shape[-1]
    if spectrum.ndim != 2 or spectrum.shape[0] != edge:
        raise ProcessingError(f"The power spectrum has the shape {tuple(spectrum.shape)}; a square one is needed.")
    if not torch.isfinite(spectrum).all() or not (spectrum > 0).any():
        raise ProcessingError("The power spectrum is zero or has values that are not finite; check the micrograph.")


def fitted_frequencies(pixel_size: float, settings: CtfSettings) -> tuple[float, float]:
    """Return the lowest and highest frequency (1/Å) that are fitted in a spectrum of this pixel size (Å).

    Raises ProcessingError when the spectrum ends before the resolutions to be fitted.
    """
    finest = finest_resolution(settings.max_resolution, pixel_size)
    if not enough_rings(settings.min_resolution, finest):
        raise ProcessingError(
            f"With {pixel_size:.3g} Å per pixel the spectrum ends at {2 * pixel_size:.3g} Å, which leaves too few rings below "
            f"the lowest resolution fitted, {settings.min_resolution:g} Å; use finer pixels or change the resolutions."
        )
    return 1 / settings.min_resolution, 1 / finest


def _defoci(settings: CtfSettings, device: torch.device) -> Tensor:
    if settings.max_defocus < settings.min_defocus + DEFOCUS_STEP:
        raise ProcessingError(
            f"The defocus is searched from {settings.min_defocus:g} to {settings.max_defocus:g} Å; "
            f"make the range at least {DEFOCUS_STEP:g} Å wide."
        )
    return torch.arange(settings.min_defocus, settings.max_defocus + DEFOCUS_STEP, DEFOCUS_STEP, device=device)


def _phase_shifts(settings: CtfSettings) -> list[float]:
    if not settings.phase_shift:
        return [0.0]
    count = round((settings.max_phase_shift - settings.min_phase_shift) / settings.phase_shift_step)
    return [settings.min_phase_shift + i * settings.phase_shift_step for i in range(max(count, 0) + 1)]


def _describe(spectrum: Tensor, pixels: Pixels, settings: CtfSettings, fit: Candidate, noise: float) -> CtfFit:
    """Return the fit with its curves, picture and verdict."""
    optics = settings.optics
    wide = half_plane(spectrum, pixels.pixel_size, 1 / settings.min_resolution, 0.5 / pixels.pixel_size)
    rings = _ring_means(wide)
    basis = background_basis(wide, 1 / settings.min_resolution, 0.5 / pixels.pixel_size)
    wide = replace(wide, values=remove_background(wide.values, basis))
    lines = curves(wide, optics, fit)
    resolution = fit_resolution(lines)
    seen = _below(wide, max(1 / PICTURE_RESOLUTION, float(pixels.frequency.max())))
    defocus_u, defocus_v, angle = fit.axes()
    height = fit.correlation * float(pixels.values.norm()) / noise
    significance = math.sqrt(max(height**2 - astigmatism_penalty(defocus_u - defocus_v), 0.0))
    return CtfFit(
        defocus_u,
        defocus_v,
        angle,
        fit.phase_shift % 180 if settings.phase_shift else 0.0,
        fit.correlation,
        significance,
        resolution,
        ice_ring(*rings),
        _verdict(fit, significance, resolution, settings),
        lines,
        half_and_half(seen, optics, fit, resolution),
    )


def _ring_means(pixels: Pixels) -> tuple[Tensor, Tensor]:
    """Return the ring means of the values, and the rings' frequencies."""
    ring = pixels.ring
    numbers = torch.bincount(ring)
    used = numbers > 0
    sums = torch.zeros(len(numbers), dtype=pixels.values.dtype, device=ring.device).index_add_(0, ring, pixels.values)
    frequency = torch.arange(len(numbers), device=ring.device) / (pixels.edge * pixels.pixel_size)
    return (sums / numbers.clamp(min=1))[used], frequency[used]


def _below(pixels: Pixels, frequency: float) -> Pixels:
    """Return the pixels up to `frequency` (1/Å)."""
    kept = pixels.frequency <= frequency
    return replace(
        pixels,
        row=pixels.row[kept],
        column=pixels.column[kept],
        frequency=pixels.frequency[kept],
        direction=pixels.direction[kept],
        values=pixels.values[kept],
    )


def noise_inflation(pixels: Pixels) -> float:
    """Return by how much neighbouring pixels, being correlated, make a correlation noisier than independent ones would."""
    image = torch.zeros(pixels.edge, pixels.edge, device=pixels.values.device)
    image[pixels.row, pixels.column] = pixels.values
    there = torch.zeros_like(image)
    there[pixels.row, pixels.column] = 1
    total = float((pixels.values**2).mean())
    # half of the neighbours: those opposite correlate alike
    for dy, dx in [(dy, dx) for dy in range(3) for dx in range(-2, 3) if dy > 0 or dx > 0]:
        pairs = torch.roll(there, (dy, dx), (0, 1)).flatten() @ there.flatten()
        product = torch.roll(image, (dy, dx), (0, 1)).flatten() @ image.flatten()
        total += 2 * float(product / pairs.clamp(min=1))
    variance = float(pixels.values.var())
    return math.sqrt(max(total / variance, 1.0))


def _verdict(fit: Candidate, significance: float, resolution: float, settings: CtfSettings) -> str:
    """Return why the fit cannot be trusted, or nothing."""
    defocus_u, defocus_v, _ = fit.axes()
    if significance < LEAST_SIGNIFICANCE:
        return f"no Thon rings stand out of the noise (best match {significance:.1f} times the noise)"
    if not resolution < WORST_RESOLUTION:
        return "the fitted rings do not follow the measured ones"
    if not settings.min_defocus < fit.defocus < settings.max_defocus:
        return f"the fit ran to the limit of the defocus search, {fit.defocus:.0f} Å; widen the range"
    if defocus_u - defocus_v > 1.2 * settings.max_astigmatism:
        return f"the astigmatism of {defocus_u - defocus_v:.0f} Å exceeds the limit of {settings.max_astigmatism:.0f} Å"
    return ""
