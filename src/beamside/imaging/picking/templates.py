"""Finding particles with references: a matched filter for every reference and rotation, under the micrograph's own CTF and noise.

The best linear detector of a known pattern ``a`` in noise of power ``S`` is the correlation with ``a / S``; under a CTF the pattern is ``C a``.
So the micrograph is filtered by ``C / S`` once, and correlated with the references as they are. Divided by its own deviation in noise, which
follows from ``|a|² C² / S``, the correlation is in deviations of chance, the same for all references, rotations and micrographs.

All rotations of all references are combinations of a few patterns (the principal components of the rotated references: a disc at limited
resolution has few degrees of freedom), so only those are correlated, by Fourier transforms, and the rest is one matrix product. Cheaper than one
transform for each rotation by a factor of five to ten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from beamside.errors import InputError
from beamside.imaging.boxes import good_size
from beamside.imaging.ctf.model import ctf_2d
from beamside.imaging.fourier import radial_frequency
from beamside.imaging.masks import smooth
from beamside.imaging.picking.blobs import BlobSettings, make_detector
from beamside.imaging.picking.candidates import Candidates, OpenArea
from beamside.imaging.picking.image import full_coordinates, inside_border, separate_peaks, working_image

KEPT_ENERGY = 0.995
"""Part of the rotated references' energy that the patterns hold; the rest would change scores by less than the noise of one pixel."""
FALSE_SHARE = 0.04
"""Part of the picks that may be chance: the automatic threshold is the lowest that keeps it."""
CHANCE = (0.005, 4.0, 2.7)
"""Chance in empty ice: so many matches per pattern and square of the particles' diameter are above a score (the second number), and e times fewer
with each step of one over the third. Measured on simulated empty ice, three specimens; on the safe side above 5.5."""
OCCUPIED = 1.5
"""Squares of the particles' diameter that are no longer free for chance where there is a particle."""
CERTAIN = 6.5
"""Score that is taken when no threshold keeps the share: chance hardly ever reaches it."""
FLOOR = 3.5
"""Lowest score that is kept."""
SOFT_EDGE = 0.08
"""Width of the references' soft mask, in diameters."""
_PIXELS_AT_ONCE = 4096
_COARSEST = 2.5
"""Coarsest detail that is matched, in diameters: what is larger is thickness."""
_QUIET = 0.25
"""Quantile of the local power that counts as that of ice."""


@dataclass(frozen=True)
class Ctf:
    """The CTF of a micrograph: defocus U and V in Å, angle and phase shift in degrees, kV, mm, fraction."""

    defocus_u: float
    defocus_v: float
    angle: float
    phase_shift: float
    voltage: float
    spherical_aberration: float
    amplitude_contrast: float


class References:
    """References prepared for picking, in all rotations; prepare once, use for all micrographs of a session.

    Parameters
    ----------
    images : ``(k, b, b)``, protein bright, centre at pixel ``b // 2``
    pixel_size : Å
    diameter : of the mask around each reference, Å
    angular_step : degrees
    max_resolution : Å

    Raises
    ------
    InputError
        when the images are empty, not square, or not finite.
    """

    def __init__(
        self,
        images: Tensor,
        pixel_size: float,
        diameter: float,
        angular_step: float = 5.0,
        max_resolution: float = 20.0,
    ) -> None:
        if images.ndim != 3 or not len(images) or images.shape[-1] != images.shape[-2]:
            raise InputError(
                f"Picking references must be square images, not {tuple(images.shape)}: give a stack of class averages."
            )
        if not bool(torch.isfinite(images).all()):
            raise InputError("The picking references have values that are not finite: give other class averages.")
        kept = images.flatten(1).std(dim=1) > 0
        if not bool(kept.any()):
            raise InputError("All picking references are empty: give class averages that show particles.")
        self.numbers = kept.nonzero()[:, 0] + 1
        self.images = images[kept].float()
        self.pixel_size = pixel_size
        self.diameter = diameter
        self.rotations = max(1, round(360.0 / angular_step))
        self.max_resolution = max_resolution
        self.patterns = lru_cache(maxsize=4)(self._patterns)

    def _patterns(self, pixel_size: float) -> tuple[Tensor, Tensor]:
        """Return orthonormal patterns ``(m, t, t)`` on pixels of `pixel_size` Å, and the weights ``(k * rotations, m)`` that make the references."""
        turned = self._turned(pixel_size)
        size = turned.shape[-1]
        rows = turned.flatten(1).double()
        values, vectors = torch.linalg.eigh(rows.T @ rows)
        energy = values.flip(0).clamp(min=0).cumsum(0) / values.sum()
        count = min(int((energy < KEPT_ENERGY).sum()) + 1, len(values))
        basis = vectors.flip(1)[:, :count]
        return basis.T.reshape(count, size, size).float().contiguous(), (rows @ basis).float()

    def _turned(self, pixel_size: float) -> Tensor:
        """Return all references in all rotations ``(k * rotations, t, t)``, masked, on pixels of `pixel_size` Å, t odd.

        RELION's angle ψ: the particle at ψ shows at (x, y) what the reference has at (x cos ψ - y sin ψ, x sin ψ + y cos ψ).
        """
        count, box, _ = self.images.shape
        frequency = radial_frequency((box, box)) / self.pixel_size
        smooth = torch.fft.irfft2(
            torch.fft.rfft2(self.images) * _soft_step(frequency * self.max_resolution, 0.1), s=(box, box)
        )
        half = math.ceil(self.diameter * (0.5 + SOFT_EDGE) / pixel_size)
        steps = torch.arange(-half, half + 1, dtype=torch.float32) * (pixel_size / self.pixel_size)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        psi = torch.arange(self.rotations) * (2 * math.pi / self.rotations)
        cos, sin = torch.cos(psi)[:, None, None], torch.sin(psi)[:, None, None]
        places = torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1) + box // 2
        grid = (places + 0.5) * (2 / box) - 1
        radius = torch.sqrt(x**2 + y**2) * (self.pixel_size / self.diameter)
        mask = _soft_step(radius * 2, 2 * SOFT_EDGE)
        turned = [
            functional.grid_sample(
                image.expand(self.rotations, 1, box, box), grid, mode="bicubic", align_corners=False
            )[:, 0]
            for image in smooth
        ]
        masked = torch.stack(turned) * mask
        # What is even over the whole disc is told from its surroundings by nothing but the background, which is not certain.
        masked = masked - mask * (masked.sum((-2, -1), keepdim=True) / mask.sum())
        masked = masked / masked.square().sum((-2, -1), keepdim=True).clamp(min=1e-12).sqrt()
        return masked.reshape(count * self.rotations, *masked.shape[-2:])


def pick_templates(micrograph: Tensor, settings: BlobSettings, references: References, ctf: Ctf | None) -> Candidates:
    """Find what looks like the references in a micrograph.

    Parameters
    ----------
    micrograph : ``(h, w)``, protein dark
    settings : sizes, masks and borders, as for blobs
    references : see `References`
    ctf : of the micrograph; None for references that have the micrograph's contrast already

    Raises
    ------
    InputError
        The micrograph is smaller than four particles, or has values that are not finite.
    """
    wanted = settings.max_resolution / 2
    image, pixels = working_image(micrograph, settings.pixel_size, settings.max_diameter, wanted)
    pixel_size = settings.pixel_size * float(pixels.mean())
    detector = make_detector((image.shape[0], image.shape[1]), settings, pixel_size)
    valid = detector.find_sample(image) if settings.mask else torch.ones(image.shape, dtype=torch.bool)
    density = detector.above_background(image, valid)
    allowed = valid & inside_border(image.shape, pixels, micrograph.shape, settings.reach)
    matches = match(density, valid, allowed, references, ctf, pixel_size)
    score = matches.score
    peaks = separate_peaks(score, allowed, detector.distance)
    values = score[peaks[:, 0], peaks[:, 1]]
    places = float(valid.sum()) * (pixel_size / detector.mean_diameter) ** 2
    threshold = chance_threshold(values, places, len(matches.found))
    peaks, values = peaks[values >= FLOOR], values[values >= FLOOR]
    numbers = matches.numbers(peaks)
    return Candidates(
        coordinates=full_coordinates(score, peaks, pixels, micrograph.shape),
        scores=values,
        diameters=torch.full((len(peaks),), detector.mean_diameter),
        references=references.numbers[numbers // references.rotations],
        psi=(numbers % references.rotations).float() * (360.0 / references.rotations),
        threshold=threshold,
        floor=FLOOR,
        excluded=1 - float(valid.float().mean()),
        open=OpenArea.of_mask(allowed, micrograph.shape),
    )


def chance_threshold(scores: Tensor, places: float, patterns: int) -> float:
    """Return the lowest score above which at most `FALSE_SHARE` of the `scores` are expected to be chance (Benjamini and Hochberg's idea, 1995).

    Parameters
    ----------
    scores : ``(n,)`` of all local maxima
    places : area that was searched, in squares of the particles' diameter
    patterns : number of patterns that the references are made of: how many independent shapes were tried at a place
    """
    share, at, steepness = CHANCE
    ordered = scores[scores > at].sort(descending=True).values
    number = torch.arange(1, len(ordered) + 1)
    free = (places - OCCUPIED * number).clamp(min=0.1 * places)
    expected = patterns * free * share * torch.exp(-steepness * (ordered - at))
    kept = (expected <= FALSE_SHARE * number).nonzero()[:, 0]
    return min(float(ordered[kept[-1]]), CERTAIN) if len(kept) else CERTAIN


@dataclass(frozen=True)
class Matches:
    """How well the references match at each pixel.

    Attributes
    ----------
    score : ``(h, w)``, the highest over references and rotations; 0 where none was wanted
    found : ``(m, h, w)``, correlation with each pattern
    weights : ``(t, m)``, what makes the scores of all references and rotations of them
    """

    score: Tensor
    found: Tensor
    weights: Tensor

    def numbers(self, places: Tensor) -> Tensor:
        """Return which match is the best at `places` ``(n, 2)``: reference * rotations + rotation."""
        return (self.weights @ self.found[:, places[:, 0], places[:, 1]]).argmax(dim=0)


def match(
    density: Tensor, valid: Tensor, allowed: Tensor, references: References, ctf: Ctf | None, pixel_size: float
) -> Matches:
    """Match all references in all rotations.

    Parameters
    ----------
    density : ``(h, w)`` above the background, protein bright, 0 where not valid
    valid : ``(h, w)`` bool
    allowed : ``(h, w)`` bool, where scores are wanted
    pixel_size : Å
    """
    patterns, weights = references.patterns(round(pixel_size, 4))
    shape, size = (density.shape[0], density.shape[1]), patterns.shape[-1]
    padded = (good_size(shape[0] + size), good_size(shape[1] + size))
    frequency = radial_frequency(padded) / pixel_size
    spectrum = torch.fft.rfft2(density, s=padded)
    share = float(valid.float().mean()) * density.numel() / (padded[0] * padded[1])
    power = _ring_power(spectrum, frequency * pixel_size) / max(share, 1e-6)
    band = _soft_step(frequency * references.max_resolution, 0.1)
    band = band * (1 - _soft_step(frequency * (_COARSEST * references.diameter), 0.5))
    transfer = torch.ones(()) if ctf is None else _transfer(ctf, padded, pixel_size)
    corner = functional.pad(patterns, (0, padded[1] - size, 0, padded[0] - size))
    spectra = torch.fft.rfft2(corner.roll((-(size // 2), -(size // 2)), (-2, -1)))
    weights = weights / _deviations(spectra, weights, (transfer * band) ** 2 / power, padded)[:, None]
    found = torch.fft.irfft2(spectra.conj() * (spectrum * (transfer * band / power)), s=padded)
    found = found[:, : shape[0], : shape[1]]
    white = torch.fft.irfft2(spectrum * band / power.sqrt(), s=padded)[: shape[0], : shape[1]]
    if bool(valid.any()):
        white = white / white[valid].square().mean().clamp(min=1e-12).sqrt()
    loudness = _loudness(white, valid, references.diameter / pixel_size)
    return Matches(_highest(found, weights, allowed) / loudness, found, weights)


def _highest(found: Tensor, weights: Tensor, allowed: Tensor) -> Tensor:
    """Return the largest of the combinations `weights` ``(t, m)`` of `found` ``(m, h, w)`` at the allowed pixels, 0 elsewhere."""
    score = torch.zeros(allowed.shape)
    places = allowed.reshape(-1).nonzero()[:, 0]
    columns = found.flatten(1)
    for part in torch.split(places, _PIXELS_AT_ONCE):
        score.view(-1)[part] = (weights @ columns[:, part]).amax(dim=0)
    return score


def _deviations(spectra: Tensor, weights: Tensor, response: Tensor, padded: tuple[int, int]) -> Tensor:
    """Return the standard deviation ``(t,)`` of each combination's correlation in noise that has been filtered.

    `response` is the power that the filter leaves of noise, (C / S)² S, in the layout of ``rfft2``.
    """
    both = torch.full((spectra.shape[-1],), 2.0)
    both[0] = 1.0
    if padded[1] % 2 == 0:
        both[-1] = 1.0
    amplitude = torch.view_as_real(spectra * (response * both).sqrt()).flatten(1)
    gram = amplitude @ amplitude.T / (padded[0] * padded[1]) ** 2
    return torch.einsum("tm,mn,tn->t", weights, gram, weights).clamp(min=1e-20).sqrt()


def _ring_power(spectrum: Tensor, frequency: Tensor) -> Tensor:
    """Return the power of the image on each ring, in the layout of ``rfft2``; `frequency` in cycles per pixel."""
    power = spectrum.real**2 + spectrum.imag**2
    count = 96
    ring = (frequency * (2 * count)).round().long().clamp(max=count)
    flat = ring.reshape(-1)
    sums = torch.zeros(count + 1).index_add_(0, flat, power.reshape(-1))
    means = sums / torch.bincount(flat, minlength=count + 1).clamp(min=1)
    means[0] = means[1]
    return means.clamp(min=1e-6 * float(means.max()))[ring]


def _loudness(white: Tensor, valid: Tensor, diameter: float) -> Tensor:
    """Return how loud the whitened micrograph ``(h, w)``, of power 1 on average, is around each pixel, but no less than ice is.

    What rises all patterns is no match. Ice itself is below the average where there are many particles.
    """
    power = smooth(white**2, diameter / 3, valid)
    quiet = float(power[valid][::7].quantile(_QUIET)) if bool(valid.any()) else 1.0
    return power.clamp(min=max(quiet, 1e-6)).sqrt()


def _transfer(ctf: Ctf, shape: tuple[int, int], pixel_size: float) -> Tensor:
    return ctf_2d(
        shape,
        pixel_size,
        ctf.defocus_u,
        ctf.defocus_v,
        ctf.angle,
        voltage=ctf.voltage,
        spherical_aberration=ctf.spherical_aberration,
        amplitude_contrast=ctf.amplitude_contrast,
        phase_shift_deg=ctf.phase_shift,
    )


def _soft_step(values: Tensor, width: float) -> Tensor:
    """Return 1 well below 1, 0 well above, and a cosine of `width` in between."""
    return 0.5 + 0.5 * torch.cos(math.pi * ((values - 1 + width / 2) / width).clamp(0, 1))
