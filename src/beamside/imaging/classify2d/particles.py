"""The particles as the classification sees them: masked, on rings, with their CTFs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from beamside.errors import InputError
from beamside.imaging.classify2d.model import ClassifySettings
from beamside.imaging.classify2d.polar import PolarGrid, PolarTransform, as_float32, make_grid, soft_disc
from beamside.imaging.ctf_model import aberration_phase, directional_defocus

_CACHE_BYTES = 800_000_000
"""Rings of all particles are kept when they take no more than this; otherwise they are made again for each iteration."""
_CHUNK = 256
_USABLE = 0.95
"""Part of the Nyquist frequency up to which images are compared."""
MASK_EDGE = 5.0
"""Width in pixels of the soft edge of masks, as in RELION (``--maskedge``)."""


class Particles:
    """A stack on rings.

    Parameters
    ----------
    stack : ``(n, b, b)``, background of mean 0 and standard deviation 1, protein bright; an array or a memory map
    ctf : ``(n, 4)`` defocus U and V in Å, angle and phase shift in degrees; or None for images without CTF
    groups : ``(n,)`` number of the group whose noise spectrum each particle shares, from 0
    """

    def __init__(
        self,
        stack: npt.NDArray[np.floating],
        ctf: npt.ArrayLike | None,
        groups: npt.ArrayLike | None,
        settings: ClassifySettings,
        device: torch.device,
    ) -> None:
        _check_stack(stack)
        self.count, self.box = len(stack), stack.shape[-1]
        self.settings, self.device = settings, device
        self._stack = stack
        self._ctf = (
            None if ctf is None else torch.as_tensor(_checked(ctf, (self.count, 4), "CTF"), device=device).float()
        )
        numbers = np.zeros(self.count, dtype=np.int64) if groups is None else _checked(groups, (self.count,), "groups")
        self.groups = torch.as_tensor(numbers, device=device).long()
        pixel = settings.pixel_size
        widest = self.box / 2 - 1
        wanted = settings.particle_diameter / 2 / pixel + MASK_EDGE
        self.object_radius = min(wanted, widest)
        data_radius = min(wanted + settings.max_shift / pixel, widest)
        largest = self.box / 2 * _USABLE
        if settings.finest_resolution > 0:
            largest = min(largest, self.box * pixel / settings.finest_resolution)
        self.data_radius = data_radius
        self.grid = make_grid(self.box, data_radius, largest)
        self._transform = self._level = PolarTransform(self.grid, data_radius, device)
        edge = min(MASK_EDGE, data_radius / 2)
        self._mask = soft_disc(self.box, data_radius - edge, edge, device)
        self.mask_fraction = float(self._mask.square().mean())
        edge = min(MASK_EDGE, self.object_radius / 2)
        self.reference_mask = soft_disc(self.box, self.object_radius - edge, edge, device)
        self.power = torch.zeros((self.count, self.grid.rings), device=device)
        size = 8 * self.count * self.grid.rings * self.grid.angles // 2
        self._cache = self._fill(keep=size <= _CACHE_BYTES)

    def _fill(self, keep: bool) -> Tensor | None:
        """Go once over the stack: note each particle's power spectrum, and keep the rings when asked."""
        shape = (self.count, self.grid.rings, self.grid.angles // 2)
        cache = torch.empty(shape, dtype=torch.complex64, device=self.device) if keep else None
        for start in range(0, self.count, _CHUNK):
            rings = self._rings(np.arange(start, min(start + _CHUNK, self.count)))
            self.power[start : start + len(rings)] = (rings.real**2 + rings.imag**2).mean(-1)
            if cache is not None:
                cache[start : start + len(rings)] = rings
        if not torch.isfinite(self.power).all():
            bad = int((~torch.isfinite(self.power).all(1)).nonzero()[0, 0])
            raise InputError(f"Particle {bad + 1} of the stack holds values that are not numbers; extract it again.")
        return cache

    def _rings(self, indices: npt.NDArray[np.int64]) -> Tensor:
        return self._transform.forward(as_float32(self._stack[indices]).to(self.device) * self._mask)

    def level(self, grid: PolarGrid) -> PolarTransform:
        """Return the transform to the rings of `grid`; the last one is kept."""
        if self._level.grid != grid:
            self._level = PolarTransform(grid, self.data_radius, self.device)
        return self._level

    def rings(self, indices: Tensor, grid: PolarGrid) -> Tensor:
        """Return the spectra ``(m, R, N / 2)`` of some particles on the rings of `grid`, a coarser part of the whole."""
        if self._cache is not None:
            return self.grid.cut(self._cache, grid)[indices]
        parts = [self.grid.cut(self._rings(part.cpu().numpy()), grid) for part in torch.split(indices, _CHUNK)]
        return torch.cat(parts)

    def transfer(self, indices: Tensor, grid: PolarGrid) -> Tensor:
        """Return the CTFs ``(m, R, N / 2)`` of some particles on the rings of `grid`."""
        if self._ctf is None:
            return torch.ones((len(indices), grid.rings, grid.angles // 2), device=self.device)
        settings = self.settings
        u, v, angle, phase = self._ctf[indices].T[..., None, None]
        k2 = (grid.radii(self.device) / (self.box * settings.pixel_size)).square()[:, None]
        direction = torch.arange(grid.angles // 2, device=self.device) * (2 * torch.pi / grid.angles)
        return torch.sin(
            aberration_phase(
                k2,
                directional_defocus(u, v, angle, direction),
                voltage=settings.voltage,
                spherical_aberration=settings.spherical_aberration,
                amplitude_contrast=settings.amplitude_contrast,
                phase_shift_deg=phase,
            )
        )

    def group_power(self) -> Tensor:
        """Return the mean power spectrum ``(groups, R)`` of each group's particles."""
        count = int(self.groups.max()) + 1
        sums = torch.zeros((count, self.grid.rings), device=self.device).index_add_(0, self.groups, self.power)
        return sums / torch.bincount(self.groups, minlength=count).clamp(min=1)[:, None]


def _check_stack(stack: npt.NDArray[np.floating]) -> None:
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2]:
        raise InputError(f"2D classification needs a stack of square images, but this one has the shape {stack.shape}.")
    if len(stack) == 0:
        raise InputError("2D classification needs particles, but the stack is empty; look at the picking.")
    if stack.shape[1] % 2 or stack.shape[1] < 16:
        raise InputError(
            f"2D classification needs images of an even width of at least 16 pixels, but these have {stack.shape[1]}; "
            "extract with another box."
        )


def _checked(values: npt.ArrayLike, shape: tuple[int, ...], name: str) -> npt.NDArray[np.generic]:
    array = np.asarray(values)
    if array.shape != shape:
        raise InputError(f"2D classification: {name} has the shape {array.shape}, but the stack needs {shape}.")
    return array
