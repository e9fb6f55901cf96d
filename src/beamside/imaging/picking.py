"""Finding particles from a range of diameters alone.

Two things tell a particle from ice, and both are used (each as a multiple of what ice itself gives by chance):

- *density*: more of it in a disc than around the disc (a difference of discs, close to the Laplacian of a Gaussian);
- *texture*: more power between about a fifth of the particle's size and 20 Å in the disc than around it. Phase contrast makes little of a
  particle's mean density but much of its domains, the more the higher the defocus, so this is the stronger of the two away from focus. What ice
  gives by chance follows from its own power, found where there is least, and the number of independent pixels in the disc.

All of it happens on a micrograph reduced to about 10 Å per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from beamside.errors import InputError
from beamside.imaging.fourier import crop_image, radial_frequency
from beamside.imaging.masks import CONTAMINATION_SPREAD, CONTAMINATION_STRENGTH, carbon_mask, contamination_mask, smooth
from beamside.imaging.particles import good_size

RING = 1.6
"""Outer diameter of the ring that a disc is compared with, in diameters of the disc."""
TEXTURE_RING, DENSITY_RING = 0.3, 0.8
"""How much of the ring's average is subtracted. Less than all of it, because in crowded micrographs the ring is full of neighbours."""
DENSITY_CORE = 0.8
"""Diameter of the disc for density, in diameters of the particle: few are round, and a smaller disc finds the middle better."""
DENSITY_WEIGHT = 2.0
SCALES = 4
NOISE_SCORE = 10.5
"""Score that chance rarely reaches in empty ice: the lowest automatic threshold."""
MEDIAN_SHARE = 0.5
"""Automatic threshold as a share of the median score of what is above the noise."""
QUANTILES = torch.tensor([0.16, 0.5, 0.84])
"""One standard deviation below, the middle, and one above, whatever a few wild pixels do."""
EDGE_SOFTNESS = 0.06
"""Standard deviation of the discs' soft edge, in diameters."""


@dataclass(frozen=True)
class BlobSettings:
    """What to look for.

    Attributes
    ----------
    pixel_size : Å
    min_diameter, max_diameter : of the particles, Å
    threshold : lowest score of a pick; None finds one for each micrograph
    max_resolution : detail finer than this is not looked at, Å
    min_distance : between two picks, as a fraction of the mean diameter
    border : distance in Å that picks keep from the edges of the micrograph; None is half of `min_diameter`
    mask : leave out carbon and contamination
    """

    pixel_size: float
    min_diameter: float
    max_diameter: float
    threshold: float | None = None
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


@dataclass(frozen=True)
class Picks:
    """Particles found in one micrograph, best first.

    Attributes
    ----------
    coordinates : ``(n, 2)`` y, x of their centres, whole pixels of the micrograph (RELION cuts fractions off)
    scores : ``(n,)``: deviations of chance, of texture (logarithmic above 4) plus twice those of density; about 10 is what ice reaches
    diameters : ``(n,)`` Å, the best of a few diameters in the range
    threshold : the score from which on blobs were accepted
    excluded : fraction of the micrograph that was masked as carbon or contamination
    """

    coordinates: Tensor
    scores: Tensor
    diameters: Tensor
    threshold: float
    excluded: float


def pick_blobs(micrograph: Tensor, settings: BlobSettings) -> Picks:
    """Find particles in a micrograph.

    Parameters
    ----------
    micrograph : ``(h, w)``, protein dark

    Raises
    ------
    InputError
        The micrograph is smaller than four particles, or has values that are not finite.
    """
    image, pixels = _working_image(micrograph, settings)
    detector = Detector(image.shape, settings, settings.pixel_size * float(pixels.mean()))
    valid = detector.find_sample(image) if settings.mask else torch.ones(image.shape, dtype=torch.bool)
    score, diameter = detector.score_map(detector.above_background(image, valid), valid)
    allowed = valid & _inside_border(image.shape, pixels, micrograph.shape, settings)
    peaks = detector.peaks(score, allowed)
    values = score[peaks[:, 0], peaks[:, 1]]
    threshold = automatic_threshold(values) if settings.threshold is None else settings.threshold
    peaks = peaks[values >= threshold]
    places = (_refined(score, peaks) * pixels + (pixels - 1) / 2).round()
    limit = torch.tensor(micrograph.shape) - 1
    return Picks(
        coordinates=torch.minimum(places.clamp(min=0), limit),
        scores=score[peaks[:, 0], peaks[:, 1]],
        diameters=diameter[peaks[:, 0], peaks[:, 1]],
        threshold=threshold,
        excluded=1 - float(valid.float().mean()),
    )


def automatic_threshold(scores: Tensor) -> float:
    """Return the score that separates particles from chance: half the median of the scores above chance, and never within chance."""
    above = scores[scores > NOISE_SCORE]
    return max(NOISE_SCORE, MEDIAN_SHARE * float(above.median())) if len(above) else NOISE_SCORE


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

    def above_background(self, image: Tensor, valid: Tensor, counted: Tensor | None = None) -> Tensor:
        """Subtract the average of `counted` (`valid` by default) pixels over a wide neighbourhood; pixels that are not valid become 0."""
        background = smooth(image, 0.8 * self.largest, valid if counted is None else counted)
        return torch.where(valid, image - background, torch.zeros(()))

    def score_map(self, density: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return for each pixel the best score over the diameters, and that diameter in Å.

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

        Contamination is what is much denser than the blobs that are most likely particles. It is looked for twice, because at first it
        disturbs the background around it.
        """
        hole = carbon_mask(image, self.largest)
        found = hole
        for _ in range(2):
            score, _ = self.score_map(self.above_background(image, found), found)
            peaks = self.peaks(score, found)
            likely = peaks[score[peaks[:, 0], peaks[:, 1]] > NOISE_SCORE]
            if not len(likely):
                return found
            density = self.above_background(image, hole, counted=found)
            response = self._image(self._transform(density) * self._disc_core)
            # Where particles are crowded the average is well above the ice.
            ice = float(response[found].quantile(0.1))
            ordinary = response[likely[:, 0], likely[:, 1]] - ice
            typical = float(ordinary.median())
            spread = float((ordinary - typical).abs().median())
            strong = max(CONTAMINATION_STRENGTH * typical, typical + CONTAMINATION_SPREAD * spread)
            found = hole & contamination_mask(
                smooth(density, self.smallest / 8) - ice, response - ice, strong, self.smallest
            )
            if not found.any():
                return hole
        return found

    def peaks(self, score: Tensor, allowed: Tensor) -> Tensor:
        """Return the ``(n, 2)`` local maxima among the allowed pixels, best first, none closer to a better one than the minimum distance."""
        masked = score.masked_fill(~allowed, -torch.inf)
        window = max(3, int(0.7 * self.distance) | 1)
        highest = functional.max_pool2d(masked[None, None], window, 1, window // 2)[0, 0]
        places = ((masked == highest) & allowed).nonzero()
        places = places[masked[places[:, 0], places[:, 1]].argsort(descending=True, stable=True)]
        near = cKDTree(places.numpy()).query_ball_point(places.numpy(), self.distance) if len(places) else []
        keep = np.ones(len(places), dtype=bool)
        for index, neighbours in enumerate(near):
            if keep[index]:
                keep[[other for other in neighbours if other > index]] = False
        return places[torch.from_numpy(keep)]

    def _lowest_power(self, power: Tensor, valid: Tensor) -> float:
        """Return the power of ice: the average over a disc, where it is lowest."""
        weight = valid.float()
        covered = self._image(self._transform(weight) * self._disc_mean)
        average = self._image(self._transform(power * weight) * self._disc_mean)
        inside = valid & (covered > 0.7)
        if not inside.any():
            inside = valid
        return max(float((average / covered.clamp(min=0.05))[inside].quantile(0.05)), 1e-12)

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


def _working_image(micrograph: Tensor, settings: BlobSettings) -> tuple[Tensor, Tensor]:
    """Reduce the micrograph, with protein bright, mean 0 and deviation 1; returns it, and the size ``(2,)`` of its pixels in original ones."""
    shape = micrograph.shape
    if min(shape) * settings.pixel_size < 4 * settings.max_diameter:
        raise InputError(
            f"A micrograph of {shape[1]} x {shape[0]} pixels of {settings.pixel_size:g} Å is too small for particles of "
            f"{settings.max_diameter:g} Å: check pixel size and diameter."
        )
    values = micrograph.detach().cpu().float()
    low, mean, high = torch.quantile(values.reshape(-1)[:: max(1, values.numel() // 100_000)], QUANTILES).tolist()
    if not bool(torch.isfinite(values.sum())):
        raise InputError("The micrograph has values that are not finite: check the motion correction's output.")
    wanted = max(settings.pixel_size, min(settings.max_resolution / 2, settings.min_diameter / 12))
    # Averaging whole pixels first makes the transform small. Hot pixels would ring in it.
    binning = max(1, int(wanted / settings.pixel_size / 2))
    values = (mean - values).clamp_(-3 * (high - low), 3 * (high - low))
    values = functional.avg_pool2d(values[None, None], binning)[0, 0]
    height, width = (size // 2 * 2 for size in values.shape)
    reduction = wanted / (binning * settings.pixel_size)
    target = (min(height, good_size(height / reduction)), min(width, good_size(width / reduction)))
    pixels = torch.tensor([binning * height / target[0], binning * width / target[1]])
    values = crop_image(values[:height, :width], target)
    return (values - values.mean()) / values.std().clamp(min=1e-12), pixels


def _compressed(score: Tensor, knee: float) -> Tensor:
    """Return `score`, growing only logarithmically above `knee`."""
    return torch.where(score > knee, knee * (1 + torch.log(score.clamp(min=knee) / knee)), score)


def _chance_deviation(values: Tensor) -> float:
    """Return the standard deviation of what is below the median: particles are above it."""
    low, middle, _ = torch.quantile(values, QUANTILES).tolist()
    return max(float(middle - low), 1e-12)


def _inside_border(shape: tuple[int, ...], pixels: Tensor, full: tuple[int, ...], settings: BlobSettings) -> Tensor:
    """Tell which reduced pixels are at least the border away from the micrograph's edges."""
    border = settings.min_diameter / 2 if settings.border is None else settings.border
    inside = []
    for axis in (0, 1):
        centre = torch.arange(shape[axis]) * pixels[axis] + (pixels[axis] - 1) / 2
        reach = border / settings.pixel_size
        inside.append((centre >= reach) & (centre <= full[axis] - 1 - reach))
    return inside[0][:, None] & inside[1][None, :]


def _refined(score: Tensor, peaks: Tensor) -> Tensor:
    """Return peaks ``(n, 2)`` moved to the tops of parabolas through their neighbours."""
    height, width = score.shape
    y, x = peaks[:, 0].clamp(1, height - 2), peaks[:, 1].clamp(1, width - 2)
    middle = score[y, x]
    offsets = []
    for before, after in ((score[y - 1, x], score[y + 1, x]), (score[y, x - 1], score[y, x + 1])):
        curvature = before - 2 * middle + after
        offset = 0.5 * (before - after) / torch.where(curvature < 0, curvature, torch.full_like(curvature, -torch.inf))
        offsets.append(offset.clamp(-0.5, 0.5))
    # A peak next to the edge has no neighbours on both sides and stays where it is.
    whole = (peaks == torch.stack([y, x], dim=1)).all(dim=1)
    return peaks + torch.stack(offsets, dim=1) * whole[:, None]
