"""What is in the field of view: particles, ice, contamination, carbon; and the contrast that they give.

The field is drawn once per movie, in its first frame's coordinates, with a margin that motion can bring into view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.fft

from beamside.simulate.optics import Beam, Defocus, Tilt, damage, frequency_grid, transfer
from beamside.simulate.specimen import Specimen, atom_filter, oriented_eulers, rotation_from_euler, splat

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Spectrum = npt.NDArray[np.complex64]
Number = TypeVar("Number", np.float32, np.complex64)

OVERSAMPLING = 2
ICE_MOLECULES = 0.0314
"""Water molecules per Å³ of vitreous ice."""
WATER_POTENTIAL = 146.0
"""Integrated potential of a water molecule, V Å³: ice's mean inner potential of 4.6 V divided by its molecules per Å³."""
ICE_POTENTIAL = 4.6
ABSORPTION_LENGTH = 2800.0
"""Thickness of ice in Å that removes 1 - 1/e of the electrons from the image."""
DEFOCUS_SLICE = 150.0
"""Å; a tilted field is drawn at defoci this far apart and interpolated in between (0.75 radians of phase apart at 3.5 Å and 300 kV)."""


@dataclass(frozen=True)
class Contents:
    """What lies where in the field, in pixels of the first frame.

    Attributes
    ----------
    particles : ``(n, 5)`` y, x, rot, tilt, psi
    contaminants : ``(m, 3)`` y, x, radius of ice crystals
    hole : y, x, radius of the hole in the carbon when its edge is in view
    """

    particles: Array
    contaminants: Array
    hole: tuple[float, float, float] | None


@dataclass(frozen=True)
class Sample:
    """The sample's properties in Å; see `MovieSettings` for what they mean."""

    particle_spacing: float
    preferred_orientation: float
    ice_thickness: float
    contamination: float
    carbon: float


def arrange(
    sample: Sample, specimen: Specimen, size: tuple[int, int], pixel_size: float, rng: np.random.Generator
) -> Contents:
    """Draw what lies where. Particles overlap neither each other nor contamination nor carbon, and are wholly inside the field."""
    hole = _hole(sample.carbon, size, rng) if sample.carbon > 0 else None
    extent = np.array(size) * pixel_size
    contaminants = _contaminants(rng.poisson(sample.contamination * extent.prod() * 1e-6), size, pixel_size, rng)
    number = int(extent.prod() / sample.particle_spacing**2) if sample.particle_spacing > 0 else 0
    reach = specimen.diameter / 2 / pixel_size
    found: list[Array] = []
    for _ in range(30 * number):
        place = rng.uniform(0, 1, 2) * (np.array(size) - 1)
        if len(found) < number and _is_free(place, found, contaminants, hole, size, reach):
            found.append(place)
    places = np.array(found).reshape(-1, 2)
    eulers = oriented_eulers(specimen, len(places), sample.preferred_orientation, rng)
    return Contents(np.hstack([places, eulers]), contaminants, hole)


def _is_free(
    place: Array,
    others: list[Array],
    contaminants: Array,
    hole: tuple[float, float, float] | None,
    size: tuple[int, int],
    reach: float,
) -> bool:
    if (place < 1.1 * reach).any() or (place > np.array(size) - 1 - 1.1 * reach).any():
        return False
    if others and (((np.array(others) - place) ** 2).sum(axis=1) < (1.9 * reach) ** 2).any():
        return False
    if len(contaminants) and (np.hypot(*(contaminants[:, :2] - place).T) < contaminants[:, 2] + 1.2 * reach).any():
        return False
    return hole is None or float(np.hypot(place[0] - hole[0], place[1] - hole[1])) < hole[2] - 1.2 * reach


def _hole(share: float, size: tuple[int, int], rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a hole of twice the field's size, whose edge leaves about `share` of the field to the carbon."""
    radius = 2.0 * max(size)
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.sin(angle), np.cos(angle)])
    across = np.abs(direction) @ np.array(size)
    centre = np.array(size) / 2 + direction * (across * (0.5 - share) - radius)
    return float(centre[0]), float(centre[1]), radius


def _contaminants(count: int, size: tuple[int, int], pixel_size: float, rng: np.random.Generator) -> Array:
    places = rng.uniform(0, 1, (count, 2)) * np.array(size)
    radii = np.clip(rng.lognormal(np.log(140), 0.4, count), 80, 350) / pixel_size
    return np.column_stack([places, radii])


class Scene:
    """The field's contrast at any dose.

    Parameters
    ----------
    margin : pixels around the field that are drawn too
    tilt : of the plane in which all lies; it changes the defocus only, not where things are
    """

    def __init__(
        self,
        contents: Contents,
        specimen: Specimen,
        sample: Sample,
        size: tuple[int, int],
        pixel_size: float,
        margin: int,
        defocus: Defocus,
        beam: Beam,
        b_factor: float,
        rng: np.random.Generator,
        tilt: Tilt | None = None,
    ) -> None:
        self.margin = margin
        self.pixel_size = pixel_size
        self.beam = beam
        self.shape = (_padded(size[0] + 2 * margin), _padded(size[1] + 2 * margin))
        self._defocus, self._b_factor = defocus, b_factor
        self._middle = (margin + size[0] / 2, margin + size[1] / 2)
        self._tilt = tilt if tilt and tilt.angle else None
        self._specimen = self._phases(contents.particles, specimen)
        self._rest = self._ice(contents, sample, rng)
        thickness, lost = self._obstacles(contents, sample, rng)
        self._rest += scipy.fft.rfft2(thickness * np.float32(ICE_POTENTIAL * beam.interaction / 2))
        self._lost = np.asarray(scipy.fft.rfft2(lost), dtype=np.complex64)
        if self._tilt is None:
            optics = self._optics(0.0)
            self._specimen *= optics
            self._rest *= optics
            self._rest -= self._lost

    def contrast(self, dose: float) -> Image:
        """Return the relative contrast after `dose` e/Å², on a grid twice as fine as the pixels, margin included."""
        spectrum = self._specimen * damage(self.shape, self.pixel_size, dose, self.beam.voltage)
        spectrum += self._rest
        return _refined(spectrum, self.shape) if self._tilt is None else self._tilted(spectrum, self._tilt)

    def _optics(self, offset: float) -> Image:
        """Return what the microscope makes of phases `offset` Å above the mean defocus."""
        local = Defocus(self._defocus.u + offset, self._defocus.v + offset, self._defocus.angle)
        optics = 2 * transfer(self.shape, self.pixel_size, local, self.beam, self._b_factor)
        optics[0, 0] = 0
        return optics

    def _tilted(self, phases: Spectrum, tilt: Tilt) -> Image:
        """Return the contrast of `phases` that lie in a tilted plane: images at several defoci, each where its defocus holds."""
        rows, columns = (
            ((np.arange(length * OVERSAMPLING) / OVERSAMPLING - middle) * self.pixel_size).astype(np.float32)
            for length, middle in zip(self.shape, self._middle, strict=True)
        )
        place = tilt.offset(rows[:, None], columns[None, :]) / np.float32(DEFOCUS_SLICE)
        image = -_refined(self._lost, self.shape)
        for number in range(int(np.floor(place.min())), int(np.ceil(place.max())) + 1):
            weight = np.maximum(1 - np.abs(place - np.float32(number)), 0)
            image += weight * _refined(phases * self._optics(number * DEFOCUS_SLICE), self.shape)
        return image

    def _phases(self, particles: Array, specimen: Specimen) -> Spectrum:
        """Return the spectrum of the phases that the particles give, drawn atom by atom on the fine grid."""
        height, width = self.shape
        spacing = self.pixel_size / OVERSAMPLING
        field = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), dtype=np.float32)
        reach = int(np.linalg.norm(specimen.positions, axis=1).max() / spacing) + 2
        for (y, x), rotation in zip(
            particles[:, :2], rotation_from_euler(particles[:, 2], particles[:, 3], particles[:, 4]), strict=True
        ):
            centre = (np.array([y, x]) + self.margin) * OVERSAMPLING
            corner = np.floor(centre).astype(int) - reach
            points = (specimen.positions @ rotation[:2].T)[:, ::-1] / spacing + centre - corner
            window = (slice(corner[0], corner[0] + 2 * reach + 2), slice(corner[1], corner[1] + 2 * reach + 2))
            field[window] += splat(points, specimen.weights, (2 * reach + 2, 2 * reach + 2))
        spectrum = _coarsened(field, self.shape)
        filtered = _cut(atom_filter((height * OVERSAMPLING, width * OVERSAMPLING), spacing), self.shape)
        spectrum *= filtered * np.float32(self.beam.interaction / self.pixel_size**2)
        return spectrum

    def _ice(self, contents: Contents, sample: Sample, rng: np.random.Generator) -> Spectrum:
        """Return the spectrum of the phases of the ice's molecules, and of the carbon's atoms where there is carbon."""
        fy, fx = frequency_grid(self.shape, self.pixel_size)
        frequency = np.sqrt(fy**2 + fx**2)
        # water scatters little at low angles (its compressibility) and most at 1/3.7 Å, where the molecules' own motion in the beam blurs it
        structure = 0.08 + 0.2 * np.exp(-(((frequency - 0.27) / 0.055) ** 2) / 2)
        molecules = ICE_MOLECULES * sample.ice_thickness
        size = self.beam.interaction * WATER_POTENTIAL * np.sqrt(molecules) / self.pixel_size
        noise = rng.standard_normal(self.shape, dtype=np.float32)
        spectrum = scipy.fft.rfft2(noise) * np.asarray(size * np.sqrt(structure), dtype=np.float32)
        if contents.hole is not None:
            grain = rng.standard_normal(self.shape, dtype=np.float32) * self._carbon(contents.hole)
            spectrum += scipy.fft.rfft2(grain) * np.float32(0.7 * size)
        return np.asarray(spectrum, dtype=np.complex64)

    def _carbon(self, hole: tuple[float, float, float]) -> Image:
        """Return 1 on the carbon and 0 in the hole, with an edge some pixels wide."""
        rows, columns = (np.arange(size, dtype=np.float32) - self.margin for size in self.shape)
        distance = np.hypot(rows[:, None] - np.float32(hole[0]), columns[None, :] - np.float32(hole[1]))
        return np.asarray(1 / (1 + np.exp(np.clip((hole[2] - distance) / 4, -30, 30))), dtype=np.float32)

    def _obstacles(self, contents: Contents, sample: Sample, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return the thickness in Å of ice crystals, and the share of electrons lost in them, in carbon and in uneven ice."""
        thickness = np.zeros(self.shape, dtype=np.float32)
        for y, x, radius in contents.contaminants:
            self._add_crystal(thickness, y + self.margin, x + self.margin, radius, rng)
        lost = 1 - np.exp(-thickness / np.float32(ABSORPTION_LENGTH))
        if contents.hole is not None:
            lost += np.float32(0.12) * self._carbon(contents.hole)
        slope = rng.normal(0, 0.12 * sample.ice_thickness / ABSORPTION_LENGTH, 3).astype(np.float32)
        rows, columns = (np.cos(np.linspace(0, np.pi, size, dtype=np.float32)) for size in self.shape)
        lost += slope[0] * rows[:, None] + slope[1] * columns + slope[2] * rows[:, None] * columns
        return thickness, lost

    def _add_crystal(self, thickness: Image, y: float, x: float, radius: float, rng: np.random.Generator) -> None:
        """Add a lumpy ice crystal: a ball whose outline waves, with facets."""
        reach = int(1.4 * radius) + 2
        top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
        window = thickness[top : int(y) + reach, left : int(x) + reach]
        row = np.arange(top, top + window.shape[0], dtype=np.float32)[:, None] - np.float32(y)
        column = np.arange(left, left + window.shape[1], dtype=np.float32)[None, :] - np.float32(x)
        angle = np.arctan2(row, column)
        outline = np.ones_like(angle)
        for order in (2, 3, 5):
            outline += np.float32(rng.uniform(0, 0.12)) * np.cos(order * angle + np.float32(rng.uniform(0, 6.3)))
        inside = np.maximum(1 - (row**2 + column**2) / (outline * np.float32(radius)) ** 2, 0)
        window += np.float32(1.6 * radius * self.pixel_size) * np.sqrt(inside)


def _padded(size: int) -> int:
    """Return an even size at least `size` that transforms fast."""
    return int(2 * scipy.fft.next_fast_len(-(-size // 2), real=True))


def _cut(spectrum: npt.NDArray[Number], shape: tuple[int, int]) -> npt.NDArray[Number]:
    """Return the part of an rfft2-shaped array that belongs to an image of the smaller `shape`."""
    half = shape[0] // 2
    columns = spectrum[:, : shape[1] // 2 + 1]
    return np.concatenate([columns[:half], columns[-half:]])


def _coarsened(field: Image, shape: tuple[int, int]) -> Spectrum:
    """Return the spectrum of `field` on the coarser grid of `shape`; sums over fine pixels, not means."""
    rows = scipy.fft.rfft(field, axis=1)[:, : shape[1] // 2 + 1]
    spectrum = np.asarray(_cut(scipy.fft.fft(rows, axis=0).astype(np.complex64), shape), dtype=np.complex64)
    spectrum[shape[0] // 2] = 0
    spectrum[:, -1] = 0
    return spectrum


def _refined(spectrum: Spectrum, shape: tuple[int, int]) -> Image:
    """Return the image of `spectrum` on the finer grid; only the filled columns are transformed."""
    half, fine = shape[0] // 2, (shape[0] * OVERSAMPLING, shape[1] * OVERSAMPLING)
    tall = np.zeros((fine[0], spectrum.shape[1]), dtype=np.complex64)
    tall[:half], tall[-half:] = spectrum[:half], spectrum[half:]
    tall = scipy.fft.ifft(tall, axis=0, overwrite_x=True)
    image = scipy.fft.irfft(tall, n=fine[1], axis=1)
    image *= np.float32(OVERSAMPLING**2)
    return np.asarray(image, dtype=np.float32)
