"""Stacks of particle images with known truth, as extraction would give them: protein white, background of mean 0 and standard deviation 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from beamside.simulate.optics import Beam, Defocus, transfer
from beamside.simulate.specimen import Specimen, project, rotation_from_euler

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ParticleStack:
    """Simulated particles and the truth about them.

    Attributes
    ----------
    images : float32 ``(n, box, box)``
    clean : float32 ``(n, box, box)``, the same without noise, on the same scale (with CTF and shift)
    view : ``(n,)`` index into `views`
    views : ``(v, 2)`` rot and tilt in degrees
    psi : ``(n,)`` in degrees; (rot, tilt, psi) are RELION's Euler angles
    shift : ``(n, 2)`` where the particle's centre is, y, x in pixels from pixel ``box // 2`` (RELION's origin offsets are minus this)
    micrograph : ``(n,)`` index into `defocus`
    defocus : of each micrograph
    pixel_size : Å
    beam : the microscope
    """

    images: Image
    clean: Image
    view: npt.NDArray[np.int64]
    views: Array
    psi: Array
    shift: Array
    micrograph: npt.NDArray[np.int64]
    defocus: tuple[Defocus, ...]
    pixel_size: float
    beam: Beam

    @property
    def eulers(self) -> Array:
        """Orientations ``(n, 3)``: rot, tilt, psi in degrees."""
        return np.column_stack([self.views[self.view], self.psi])

    def ctf(self, index: int) -> Image:
        """Return the CTF ``(box, box // 2 + 1)`` that particle `index` was multiplied with; RELION's sign (positive at low frequencies)."""
        box = self.images.shape[-1]
        return particle_ctf((box, box), self.pixel_size, self.defocus[int(self.micrograph[index])], self.beam)


def particle_ctf(
    shape: tuple[int, int], pixel_size: float, defocus: Defocus, beam: Beam, b_factor: float = 0.0
) -> Image:
    """Return the CTF of particles with white protein: minus that of the micrograph."""
    return -transfer(shape, pixel_size, defocus, beam, b_factor)


def random_defocus(rng: np.random.Generator, low: float, high: float, astigmatism: float) -> Defocus:
    """Return a mean defocus between `low` and `high` Å, with ``u - v`` up to `astigmatism` Å along any direction."""
    mean, difference = rng.uniform(low, high), rng.uniform(0, astigmatism)
    return Defocus(float(mean + difference / 2), float(mean - difference / 2), float(rng.uniform(-90, 90)))


def simulate_stack(
    specimen: Specimen,
    views: Array | None,
    n: int,
    box: int,
    pixel_size: float,
    snr: float,
    seed: int,
    *,
    max_shift: float = 3.0,
    defocus_range: tuple[float, float] = (10000.0, 25000.0),
    astigmatism: float = 300.0,
    per_micrograph: int = 50,
    b_factor: float = 80.0,
    beam: Beam | None = None,
) -> ParticleStack:
    """Simulate `n` particles of `specimen`.

    Parameters
    ----------
    views : ``(v, 2)`` rot and tilt in degrees (see `view_directions`), used equally often; None for a direction of its own for each particle
    box : image width in pixels, even
    pixel_size : Å
    snr : variance of the signal (with CTF, inside the particle's disc) divided by that of the noise, over the whole stack; ``inf``: no noise
    max_shift : shifts are uniform in a square of ± this many pixels
    defocus_range, astigmatism : Å, drawn for each micrograph of `per_micrograph` particles
    b_factor : envelope in Å²

    Notes
    -----
    The noise is white; images are divided by its standard deviation, so that its level is 1. Without noise the signal's deviation is 1.
    """
    rng = np.random.default_rng(seed)
    beam = beam or Beam()
    if views is None:
        views = _random_views(n, rng)
    view = rng.permutation(np.arange(n) % len(views))
    psi = rng.uniform(-180, 180, n)
    shift = rng.uniform(-max_shift, max_shift, (n, 2))
    micrograph = np.arange(n) // per_micrograph
    defocus = tuple(
        random_defocus(rng, *defocus_range, astigmatism) for _ in range(int(micrograph[-1]) + 1 if n else 0)
    )
    clean = project(specimen, rotation_from_euler(views[view, 0], views[view, 1], psi), pixel_size, box, shift)
    for number, values in enumerate(defocus):
        part = slice(number * per_micrograph, (number + 1) * per_micrograph)
        factor = particle_ctf((box, box), pixel_size, values, beam, b_factor)
        clean[part] = scipy.fft.irfft2(scipy.fft.rfft2(clean[part]) * factor, s=(box, box))
    signal = signal_deviation(clean, min(specimen.diameter / pixel_size, box - 1))
    noise = signal / np.sqrt(snr) if np.isfinite(snr) else signal
    clean /= np.float32(noise)
    images = clean + rng.standard_normal(clean.shape, dtype=np.float32) if np.isfinite(snr) else clean.copy()
    return ParticleStack(images, clean, view, views, psi, shift, micrograph, defocus, pixel_size, beam)


def _random_views(count: int, rng: np.random.Generator) -> Array:
    return np.column_stack([rng.uniform(-180, 180, count), np.rad2deg(np.arccos(rng.uniform(-1, 1, count)))])


def signal_deviation(images: Image, diameter: float) -> float:
    """Return the standard deviation of `images` ``(n, box, box)`` inside a central disc of `diameter` pixels, each image about its own mean there."""
    box = images.shape[-1]
    row, column = np.mgrid[:box, :box] - box // 2
    inside = images[:, row**2 + column**2 <= (diameter / 2) ** 2]
    return float(np.sqrt(inside.var(axis=1, dtype=np.float64).mean()))
