"""The simulated microscope's optics: contrast transfer and radiation damage.

Written apart from `beamside.imaging` on purpose: what is measured there is compared with what was put in here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Beam:
    """A microscope.

    Attributes
    ----------
    voltage, spherical_aberration : kV, mm
    amplitude_contrast : fraction
    phase_shift : of its phase plate, degrees
    """

    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift: float = 0.0

    @property
    def wavelength(self) -> float:
        """De Broglie wavelength of the electrons, relativistic, in Å."""
        volts = self.voltage * 1e3
        return float(12.2642598 / np.sqrt(volts * (1 + volts * 0.97847538e-6)))

    @property
    def interaction(self) -> float:
        """Phase in radians that a projected potential of 1 V Å gives (Kirkland, Advanced Computing in Electron Microscopy, eq. 2.42)."""
        rest, energy = 510.998950, self.voltage
        return float(2 * np.pi / (self.wavelength * energy * 1e3) * (rest + energy) / (2 * rest + energy))


@dataclass(frozen=True)
class Defocus:
    """Defocus along two axes in Å (underfocus positive); `angle` in degrees from the x axis (columns) towards y (growing rows) to the axis of `u`."""

    u: float
    v: float
    angle: float = 0.0


@dataclass(frozen=True)
class Tilt:
    """A tilted specimen: `angle` in degrees about an axis at `axis` degrees from x (columns) towards y (growing rows).

    The defocus grows in the direction 90 degrees further on, by tan(angle) Å for each Å in the image, and is the mean one on the axis, which passes
    through the middle of the field.
    """

    angle: float = 0.0
    axis: float = 0.0

    def offset(self, y: Image, x: Image) -> Image:
        """Return by how much the defocus is above the mean one at `y`, `x` from the field's middle, all in Å; they broadcast."""
        slope, axis = np.tan(np.deg2rad(self.angle)), np.deg2rad(self.axis)
        return np.asarray(np.float32(slope * np.cos(axis)) * y - np.float32(slope * np.sin(axis)) * x, dtype=np.float32)


def frequency_grid(shape: tuple[int, int], pixel_size: float) -> tuple[Image, Image]:
    """Return fy ``(h, 1)`` and fx ``(1, w // 2 + 1)`` of an rfft2, in 1/Å."""
    fy = np.fft.fftfreq(shape[0], pixel_size).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(shape[1], pixel_size).astype(np.float32)[None, :]
    return fy, fx


def transfer(shape: tuple[int, int], pixel_size: float, defocus: Defocus, beam: Beam, b_factor: float = 0.0) -> Image:
    """Return the contrast transfer function ``(h, w // 2 + 1)`` of an rfft2.

    As CTFFIND defines it (Rohou & Grigorieff, J. Struct. Biol. 192, 2015, eq. 4): minus the sine, negative at low frequencies, so that protein,
    which has a positive potential, is dark. Particles with white protein have minus this (RELION's sign).
    `b_factor` in Å² damps amplitudes by exp(-B k²/4).
    """
    fy, fx = frequency_grid(shape, pixel_size)
    square = fy**2 + fx**2
    angle = np.deg2rad(defocus.angle)
    mean, half = (defocus.u + defocus.v) / 2, (defocus.u - defocus.v) / 2
    # cos 2(θ - angle) times k², without an arctangent
    astigmatic = (fx**2 - fy**2) * np.float32(np.cos(2 * angle)) + 2 * fx * fy * np.float32(np.sin(2 * angle))
    wavelength, aberration = beam.wavelength, beam.spherical_aberration * 1e7
    phase = np.float32(np.pi * wavelength) * (np.float32(mean) * square + np.float32(half) * astigmatic)
    phase -= np.float32(np.pi / 2 * aberration * wavelength**3) * square**2
    values = -np.sin(phase + np.float32(np.arcsin(beam.amplitude_contrast) + np.deg2rad(beam.phase_shift)))
    if b_factor:
        values *= np.exp(np.float32(-b_factor / 4) * square)
    return np.asarray(values, dtype=np.float32)


def critical_dose(frequency: npt.ArrayLike, voltage: float = 300.0) -> npt.NDArray[np.float32]:
    """Return the dose in e/Å² at which the specimen's signal power at `frequency` (1/Å) has fallen to 1/e.

    Measured at 300 kV by Grant & Grigorieff, eLife 4, 2015, eq. 3; scaled by 0.8 at 200 kV and below, as they did.
    """
    safe = np.maximum(np.asarray(frequency, dtype=np.float32), np.float32(1e-4))
    scale = np.float32(1.0 if voltage >= 250 else 0.8)
    return np.asarray(
        (np.float32(0.24499) * safe ** np.float32(-1.6649) + np.float32(2.8141)) * scale, dtype=np.float32
    )


def damage(shape: tuple[int, int], pixel_size: float, dose: float, voltage: float = 300.0) -> Image:
    """Return the factor ``(h, w // 2 + 1)`` on the specimen's amplitudes after `dose` e/Å²: exp(-dose / (2 × critical dose))."""
    fy, fx = frequency_grid(shape, pixel_size)
    return np.asarray(np.exp(np.float32(-dose / 2) / critical_dose(np.sqrt(fy**2 + fx**2), voltage)), dtype=np.float32)
