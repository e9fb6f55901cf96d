"""Particles as the classification sees them: masked, on rings, with their CTFs."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from beamside.errors import InputError
from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.polar import PolarGrid
from beamside.imaging.classify2d.stack import ImageStack
from beamside.imaging.summing import add_at

_CHUNK_PIXELS = 2_000_000
"""Pixels of the images that are transformed at a time."""


class Particles:
    """Some particles on rings.

    Parameters
    ----------
    images : the particles
    ctf : ``(n, 4)`` or ``(n, 7)`` as `classify` takes it; or None for images without CTF
    groups : ``(n,)`` number of the group whose noise spectrum each particle shares
    keep : keep the rings; otherwise those that are asked for are made again each time
    """

    def __init__(
        self,
        images: ImageStack,
        ctf: npt.NDArray[np.floating] | None,
        groups: npt.NDArray[np.integer],
        geometry: Geometry,
        keep: bool,
    ) -> None:
        self.geometry, self.count = geometry, images.count
        device = geometry.device
        self.groups = torch.as_tensor(groups, device=device).long()
        self._images = images
        self._ctf = None if ctf is None else torch.as_tensor(ctf, device=device).float()
        self._rings = self._all_rings() if keep else None

    def _all_rings(self) -> Tensor:
        grid = self.geometry.grid
        shape = (self.count, grid.rings, grid.angles // 2)
        rings = torch.empty(shape, dtype=torch.complex64, device=self.geometry.device)
        for start, stop in self._chunks():
            rings[start:stop] = self._transformed(start, stop)
        return rings

    @cached_property
    def power(self) -> Tensor:
        """Return the power ``(n, R)`` of each particle on each ring."""
        parts = []
        for start, stop in self._chunks():
            rings = self._transformed(start, stop) if self._rings is None else self._rings[start:stop]
            parts.append((rings.real**2 + rings.imag**2).mean(-1))
        return torch.cat(parts)

    @property
    def bytes(self) -> int:
        """Memory that the rings take."""
        return 0 if self._rings is None else 8 * self._rings.numel()

    def _chunks(self) -> list[tuple[int, int]]:
        step = max(1, min(256, _CHUNK_PIXELS // self.geometry.box**2))
        return [(start, min(start + step, self.count)) for start in range(0, self.count, step)]

    def _transformed(self, first: int, last: int, wanted: Tensor | None = None) -> Tensor:
        """Return the rings of the particles ``first ... last - 1``, or only of those of them that are `wanted`, counted from the first."""
        images = torch.from_numpy(self._images.read(first, last)).to(self.geometry.device)
        if wanted is not None:
            images = images[wanted]
        return self.geometry.whole().forward(images * self.geometry.mask)

    def check(self, first: int) -> None:
        """Raise InputError when a particle has values that are not numbers; `first` is the number of the first one in the whole stack."""
        good = torch.isfinite(self.power).all(1)
        if not bool(good.all()):
            bad = first + int((~good).nonzero()[0, 0])
            raise InputError(f"Particle {bad + 1} of the stack holds values that are not numbers; extract it again.")

    def rings(self, indices: Tensor, grid: PolarGrid) -> Tensor:
        """Return the spectra ``(m, R, N / 2)`` of some particles on the rings of `grid`, a coarser part of the whole."""
        whole = self.geometry.grid
        if self._rings is not None:
            return whole.cut(self._rings, grid)[indices]
        result = torch.empty((len(indices), grid.rings, grid.angles // 2), dtype=torch.complex64, device=indices.device)
        for start, stop in self._chunks():
            here = ((indices >= start) & (indices < stop)).nonzero()[:, 0]
            if len(here):
                wanted = indices[here]
                first, last = int(wanted.min()), int(wanted.max()) + 1
                result[here] = whole.cut(self._transformed(first, last, wanted - first), grid)
        return result

    def transfer(self, indices: Tensor, grid: PolarGrid) -> Tensor:
        """Return the CTFs ``(m, R, N / 2)`` of some particles on the rings of `grid`."""
        return self.geometry.transfer(None if self._ctf is None else self._ctf[indices], len(indices), grid)

    def group_power(self, groups: int) -> tuple[Tensor, Tensor]:
        """Return the sum ``(groups, R)`` of the power spectra of each group's particles, float64, and how many they are ``(groups,)``."""
        sums = torch.zeros((groups, self.geometry.grid.rings), dtype=torch.float64, device=self.power.device)
        add_at(sums, self.groups, self.power.double())
        return sums, torch.bincount(self.groups, minlength=groups)
