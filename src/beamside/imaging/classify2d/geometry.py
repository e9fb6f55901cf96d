"""What all particles of a classification have in common: masks, rings, and the transforms to them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from beamside.imaging.classify2d.model import ClassifySettings
from beamside.imaging.classify2d.polar import PolarGrid, PolarTransform, make_grid, soft_disc
from beamside.imaging.ctf.model import aberration_phase, directional_defocus

USABLE = 0.95
"""Part of the Nyquist frequency up to which images are compared."""
MASK_EDGE = 5.0
"""Width in pixels of the soft edge of masks, as in RELION (``--maskedge``)."""


class Geometry:
    """Masks and rings for images of `box` pixels.

    Attributes
    ----------
    grid : all rings that can be compared
    object_radius, data_radius : pixels; of the masks of references, and of particles, which may lie off the middle
    mask, reference_mask : ``(b, b)``
    mask_fraction : mean square of the particles' mask: part of the noise's power that it leaves
    """

    def __init__(self, box: int, settings: ClassifySettings, device: torch.device) -> None:
        self.box, self.settings, self.device = box, settings, device
        pixel = settings.pixel_size
        widest = box / 2 - 1
        wanted = settings.particle_diameter / 2 / pixel + MASK_EDGE
        self.object_radius = min(wanted, widest)
        self.data_radius = min(wanted + settings.max_shift / pixel, widest)
        largest = box / 2 * USABLE
        if settings.finest_resolution > 0:
            largest = min(largest, box * pixel / settings.finest_resolution)
        self.grid = make_grid(box, self.data_radius, largest)
        edge = min(MASK_EDGE, self.data_radius / 2)
        self.mask = soft_disc(box, self.data_radius - edge, edge, device)
        self.mask_fraction = float(self.mask.square().mean())
        edge = min(MASK_EDGE, self.object_radius / 2)
        self.reference_mask = soft_disc(box, self.object_radius - edge, edge, device)
        self._whole: PolarTransform | None = None
        self._level: PolarTransform | None = None

    def whole(self) -> PolarTransform:
        """Return the transform to all rings."""
        if self._whole is None:
            self._whole = PolarTransform(self.grid, self.data_radius, self.device)
        return self._whole

    def level(self, grid: PolarGrid) -> PolarTransform:
        """Return the transform to the rings of `grid`; the last one is kept."""
        if grid == self.grid:
            return self.whole()
        level = self._level
        if level is None or level.grid != grid:
            level = self._level = PolarTransform(grid, self.data_radius, self.device)
        return level

    def radius_of(self, resolution: float) -> float:
        """Return the Fourier radius in pixels of a `resolution` in Å, at most that of the outermost ring."""
        return float(min(self.box * self.settings.pixel_size / resolution, self.grid.rings * self.grid.spacing))

    def resolution_of(self, radius: float) -> float:
        """Return the resolution in Å of a Fourier radius in pixels."""
        return float(self.box * self.settings.pixel_size / radius)

    def transfer(self, ctf: Tensor | None, count: int, grid: PolarGrid) -> Tensor:
        """Return the CTFs ``(count, R, N / 2)`` on the rings of `grid`, for `ctf` as `classify` takes it."""
        if ctf is None:
            return torch.ones((count, grid.rings, grid.angles // 2), device=self.device)
        settings = self.settings
        u, v, angle, phase, *microscope = ctf.T[..., None, None]
        voltage, cs, contrast = microscope or (
            settings.voltage,
            settings.spherical_aberration,
            settings.amplitude_contrast,
        )
        k2 = (grid.radii(self.device) / (self.box * settings.pixel_size)).square()[:, None]
        direction = torch.arange(grid.angles // 2, device=self.device) * (2 * torch.pi / grid.angles)
        return torch.sin(
            aberration_phase(
                k2,
                directional_defocus(u, v, angle, direction),
                voltage=voltage,
                spherical_aberration=cs,
                amplitude_contrast=contrast,
                phase_shift_deg=phase,
            )
        )


@lru_cache(maxsize=2)
def geometry_of(box: int, settings: ClassifySettings, device: str) -> Geometry:
    """Return the geometry for images of `box` pixels; the last ones are kept."""
    return Geometry(box, settings, torch.device(device))
