"""Finding particles from a range of diameters alone.

Two things tell a particle from ice, and both are used (each as a multiple of what ice itself gives by chance):

- *density*: more of it in a disc than around the disc (a difference of discs, close to the Laplacian of a Gaussian);
- *texture*: more power between about a fifth of the particle's size and 20 Å in the disc than around it. Phase contrast makes little of a
  particle's mean density but much of its domains, the more the higher the defocus, so this is the stronger of the two away from focus. What ice
  gives by chance follows from its own power, found where there is least, and the number of independent pixels in the disc.

All of it happens on a micrograph reduced to about 10 Å per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from beamside.errors import InputError
from beamside.imaging.boxes import good_size
from beamside.imaging.fourier import radial_frequency
from beamside.imaging.masks import CONTAMINATION_SPREAD, CONTAMINATION_STRENGTH, carbon_mask, contamination_mask, smooth
from beamside.imaging.picking.candidates import Candidates, OpenArea
from beamside.imaging.picking.image import QUANTILES, full_coordinates, inside_border, separate_peaks, working_image

RING = 1.6
"""Outer diameter of the ring that a disc is compared with, in diameters of the disc."""
TEXTURE_RING, DENSITY_RING = 0.3, 0.8
"""How much of the ring's average is subtracted. Less than all of it, because in crowded micrographs the ring is full of neighbours."""
DENSITY_CORE = 0.8
"""Diameter of the disc for density, in diameters of the particle: few are round, and a smaller disc finds the middle better."""
DENSITY_WEIGHT = 2.0
SCALES = 4
MASKING_ROUNDS = 4
UNCHANGED = 0.998
"""Part of the micrograph that is the same when masks have settled."""
LOW_QUANTILES = (0.1, 0.25)
"""Quantiles of densities that tell what particles are like, although most of what is picked at first may be contamination, which is denser."""
NOISE_SCORE = 10.5
"""Score that chance rarely reaches in empty ice: the lowest automatic threshold."""
MEDIAN_SHARE = 0.5
"""Automatic threshold as a share of the median score of what is above the noise."""
FLOOR = NOISE_SCORE - 5
"""Lowest score that is kept, well within chance: a threshold may be moved down to here without picking again."""
WIDEST = 0.6
"""Largest standard deviation of particles' densities, as a share of the low quantile's density."""
WIDE, OVERSIZE, DOUBT = 1.8, 0.55, 0.1
"""What is as dense over a disc of `WIDE` largest diameters as over a particle's core, but for the factor `OVERSIZE`, is larger than a particle, and
counts only so much when an ordinary particle's density is found."""
_SAMPLE = 8000
EDGE_SOFTNESS = 0.06
"""Standard deviation of the discs' soft edge, in diameters."""


@dataclass(frozen=True)
class BlobSettings:
    """What to look for.

    Attributes
    ----------
    pixel_size : Å
    min_diameter, max_diameter : of the particles, Å
    max_resolution : detail finer than this is not looked at, Å
    min_distance : between two picks, as a fraction of the mean diameter
    border : distance in Å that picks keep from the edges of the micrograph; None is half of `min_diameter`
    mask : leave out carbon and contamination
    """

    pixel_size: float
    min_diameter: float
    max_diameter: float
    max_resolution: float = 20.0
    min_distance: float = 0.75
    border: float | None = None
    mask: bool = True

    def __post_init__(self) -> None:
        if self.pixel_size <= 0:
            raise InputError(f"The pixel size is {self.pixel_size:g} Å: give a positive one.")
        if not 0 < self.min_diameter <= self.max_diameter:
            raise InputError(
                f"The particle diameter range is {self.min_diameter:g} to {self.max_diameter:g} Å: give the smaller number first, both positive."
            )
        if self.min_diameter < 6 * self.pixel_size:
            raise InputError(
                f"Particles of {self.min_diameter:g} Å are less than 6 pixels of {self.pixel_size:g} Å wide: that is too small to be picked."
            )

    @property
    def working_pixel_size(self) -> float:
        """Å, of the reduced micrograph."""
        return min(self.max_resolution / 2, self.min_diameter / 12)

    @property
    def reach(self) -> float:
        """Distance in pixels that picks keep from the edges."""
        return (self.min_diameter / 2 if self.border is None else self.border) / self.pixel_size


def pick_blobs(micrograph: Tensor, settings: BlobSettings) -> Candidates:
    """Find what could be particles in a micrograph.

    Scores are deviations of chance, of texture (logarithmic above 4) plus twice those of density; about 10 is what ice reaches. Diameters are the
    best of a few in the range.

    Parameters
    ----------
    micrograph : ``(h, w)``, protein dark

    Raises
    ------
    InputError
        The micrograph is smaller than four particles, or has values that are not finite.
    """
    image, pixels = working_image(micrograph, settings.pixel_size, settings.max_diameter, settings.working_pixel_size)
    detector = make_detector((image.shape[0], image.shape[1]), settings, settings.pixel_size * float(pixels.mean()))
    valid = detector.find_sample(image) if settings.mask else torch.ones(image.shape, dtype=torch.bool)
    score, diameter = detector.score_map(detector.above_background(image, valid), valid)
    allowed = valid & inside_border(image.shape, pixels, micrograph.shape, settings.reach)
    peaks = separate_peaks(score, allowed, detector.distance)
    values = score[peaks[:, 0], peaks[:, 1]]
    threshold = automatic_threshold(values)
    peaks, values = peaks[values >= FLOOR], values[values >= FLOOR]
    return Candidates(
        coordinates=full_coordinates(score, peaks, pixels, micrograph.shape),
        scores=values,
        diameters=diameter[peaks[:, 0], peaks[:, 1]],
        references=torch.zeros(len(peaks), dtype=torch.int64),
        psi=torch.zeros(len(peaks)),
        threshold=threshold,
        floor=FLOOR,
        excluded=1 - float(valid.float().mean()),
        open=OpenArea.of_mask(allowed, micrograph.shape),
    )


def automatic_threshold(scores: Tensor) -> float:
    """Return the score that separates particles from chance: half the median of the scores above chance, and never within chance."""
    above = scores[scores > NOISE_SCORE]
    return max(NOISE_SCORE, MEDIAN_SHARE * float(above.median())) if len(above) else NOISE_SCORE


@lru_cache(maxsize=4)
def make_detector(shape: tuple[int, int], settings: BlobSettings, pixel_size: float) -> Detector:
    """Return the detector for reduced micrographs of this size; those of a session are alike, so its filters are made once."""
    return Detector(shape, settings, pixel_size)


class Detector:
    """Scores every pixel of a reduced micrograph; holds the filters, which depend on its size and on what is looked for.

    Images are padded by zeros for filtering, so that opposite edges do not meet.
    """

    def __init__(self, shape: tuple[int, ...], settings: BlobSettings, pixel_size: float) -> None:
        self.shape = (shape[0], shape[1])
        self.smallest = settings.min_diameter / pixel_size
        self.largest = settings.max_diameter / pixel_size
        self.mean_diameter = (settings.min_diameter * settings.max_diameter) ** 0.5
        self.distance = settings.min_distance * self.mean_diameter / pixel_size
        padding = RING * self.largest
        self._padded = (good_size(shape[0] + padding), good_size(shape[1] + padding))
        self._frequency = radial_frequency(self._padded) / pixel_size
        self._band = self._gaussian(settings.max_resolution / 5) - self._gaussian(0.12 * self.mean_diameter)
        self.diameters = np.unique(np.linspace(settings.min_diameter, settings.max_diameter, SCALES)).tolist()
        self._cores = [self._ring(DENSITY_CORE * diameter, DENSITY_RING) for diameter in self.diameters]
        self._rings = [self._ring(diameter, TEXTURE_RING) for diameter in self.diameters]
        self._chances = [self._chance(ring) for ring in self._rings]
        self._disc_mean = self._disc(self.mean_diameter)
        self._disc_core = self._disc(settings.min_diameter)
        self._disc_wide = self._disc(WIDE * settings.max_diameter)

    def above_background(self, image: Tensor, valid: Tensor, counted: Tensor | None = None) -> Tensor:
        """Subtract the average of `counted` (`valid` by default) pixels over a wide neighbourhood; pixels that are not valid become 0."""
        background = smooth(image, 0.8 * self.largest, valid if counted is None else counted)
        return torch.where(valid, image - background, torch.zeros(()))

    def score_map(
        self, density: Tensor, valid: Tensor, diameters: Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return for each pixel the best score over the `diameters` (all by default), and that diameter in Å.

        Parameters
        ----------
        density : ``(h, w)`` above the background, protein bright, 0 where not valid
        valid : ``(h, w)`` bool
        """
        spectrum = self._transform(density)
        power = self._image(spectrum * self._band) ** 2
        ice = self._lowest_power(power, valid)
        texture = self._transform(torch.where(valid, power - ice, torch.zeros(())))
        best = torch.full(self.shape, -torch.inf)
        diameter = torch.full(self.shape, self.diameters[0])
        for size, core, ring, chance in zip(self.diameters, self._cores, self._rings, self._chances, strict=True):
            if diameters is not None and size not in diameters:
                continue
            more_texture = self._image(texture * ring) / (ice * chance)
            more_density = self._image(spectrum * core)
            more_density = _compressed(more_density / _chance_deviation(more_density[valid]), 6.0)
            # What is less dense than its surroundings is no particle, whatever its texture.
            score = DENSITY_WEIGHT * more_density + _compressed(more_texture, 4.0).masked_fill(more_density < 0, 0)
            better = score > best
            best, diameter = torch.where(better, score, best), diameter.masked_fill(better, size)
        return best, diameter

    def find_sample(self, image: Tensor) -> Tensor:
        """Return where there is neither carbon nor contamination.

        Contamination is what is much denser than the blobs that are most likely particles. It is looked for again and again until no more
        is found, because what is not masked yet disturbs the background, hides the edge of carbon, and is taken for particles.
        """
        found = hole = carbon_mask(image, self.largest)
        never_dense = torch.ones_like(found)
        for _ in range(MASKING_ROUNDS):
            score, _ = self.score_map(self.above_background(image, found), found, self.diameters[:1])
            peaks = separate_peaks(score, found, self.distance)
            values = score[peaks[:, 0], peaks[:, 1]]
            likely = peaks[values > NOISE_SCORE]
            if not len(likely):
                return found
            certainty = (values[values > NOISE_SCORE] - NOISE_SCORE) ** 0.75
            density = self.above_background(image, hole, counted=found)
            response = self._image(self._transform(density) * self._disc_core)
            # Where particles are crowded the average is well above the ice.
            ice = _quantile(response[found], 0.1)
            ordinary = response[likely[:, 0], likely[:, 1]] - ice
            wide = self._image(self._transform(density) * self._disc_wide)[likely[:, 0], likely[:, 1]] - ice
            certainty = torch.where(wide > OVERSIZE * ordinary, DOUBT * certainty, certainty)
            typical, spread = _typical(ordinary, certainty)
            strong = max(CONTAMINATION_STRENGTH * typical, typical + CONTAMINATION_SPREAD * spread)
            clean = contamination_mask(smooth(density, self.smallest / 8) - ice, response - ice, strong, self.smallest)
            # What was contamination in one round and is not in the next still says nothing about the film: seen again, it would hide it.
            never_dense &= clean
            before, hole = found, carbon_mask(image, self.largest, never_dense)
            found = hole & clean
            if not found.any():
                return before
            if bool((found == before).float().mean() > UNCHANGED):
                return found
        return found

    def _lowest_power(self, power: Tensor, valid: Tensor) -> float:
        """Return the power of ice: the average over a disc, where it is lowest."""
        weight = valid.float()
        covered = self._image(self._transform(weight) * self._disc_mean)
        average = self._image(self._transform(power * weight) * self._disc_mean)
        inside = valid & (covered > 0.7)
        if not inside.any():
            inside = valid
        return max(_quantile((average / covered.clamp(min=0.05))[inside], 0.05), 1e-12)

    def _disc(self, diameter: float) -> Tensor:
        """Return the transform of the average over a disc with a soft edge; `diameter` in Å."""
        x = (torch.pi * diameter * self._frequency).clamp(min=1e-6)
        bessel: Tensor = torch.special.bessel_j1(x)
        return 2 * bessel / x * self._gaussian(EDGE_SOFTNESS * diameter)

    def _ring(self, diameter: float, weight: float) -> Tensor:
        """Return the transform of the average over a disc minus `weight` times that over the ring around it."""
        inner = self._disc(diameter)
        return inner - weight * (self._disc(RING * diameter) * RING**2 - inner) / (RING**2 - 1)

    def _gaussian(self, sigma: float) -> Tensor:
        """Return the transform of a Gaussian; `sigma` in Å."""
        return torch.exp(-2 * (torch.pi * sigma * self._frequency) ** 2)

    def _chance(self, template: Tensor) -> float:
        """Return the deviation that `template` finds by chance in the power of band-passed noise, relative to the mean power.

        The square of Gaussian noise with correlation c(r), c(0) = 1, has the covariance 2 c(r)².
        """
        correlation = torch.fft.irfft2((self._band**2).to(torch.complex64), s=self._padded)
        spectrum = torch.fft.rfft2(2 * (correlation / correlation[0, 0]) ** 2).real
        variance = torch.fft.irfft2((template**2 * spectrum).to(torch.complex64), s=self._padded)[0, 0]
        return float(variance.clamp(min=1e-12).sqrt())

    def _transform(self, image: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft2(image, s=self._padded)
        return spectrum

    def _image(self, spectrum: Tensor) -> Tensor:
        image: Tensor = torch.fft.irfft2(spectrum, s=self._padded)
        return image[: self.shape[0], : self.shape[1]]


def _compressed(score: Tensor, knee: float) -> Tensor:
    """Return `score`, growing only logarithmically above `knee`."""
    return torch.where(score > knee, knee * (1 + torch.log(score.clamp(min=knee) / knee)), score)


def _chance_deviation(values: Tensor) -> float:
    """Return the standard deviation of what is below the median: particles are above it."""
    low, middle, _ = torch.quantile(values[:: max(1, len(values) // _SAMPLE)], QUANTILES).tolist()
    return max(float(middle - low), 1e-12)


def _typical(densities: Tensor, weights: Tensor) -> tuple[float, float]:
    """Return the density of an ordinary particle and the median deviation from it, from the least dense of what are likely particles.

    Their distribution is taken to be normal: its middle and width follow from two low quantiles, which contamination leaves alone.
    """
    low, high = (_weighted_quantile(densities, weights, share) for share in LOW_QUANTILES)
    first, second, quartile = torch.special.ndtri(torch.tensor([*LOW_QUANTILES, 0.75])).tolist()
    # Where already the second quantile is of contamination the two are far apart.
    deviation = min((high - low) / (second - first), WIDEST * abs(low))
    return low - first * deviation, quartile * deviation


def _weighted_quantile(values: Tensor, weights: Tensor, share: float) -> float:
    """Return the value below which that share of the weights is."""
    order = values.argsort()
    reached = weights[order].cumsum(0)
    index = int((reached < share * reached[-1]).sum())
    return float(values[order][min(index, len(values) - 1)])


def _quantile(values: Tensor, share: float) -> float:
    """Return a quantile of `values`, of an even sample where they are many."""
    return float(values[:: max(1, len(values) // _SAMPLE)].quantile(share))
