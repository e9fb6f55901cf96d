"""Fourier transforms on rings: where an in-plane rotation is a change of index, and all rotations are tried by one FFT.

The transform of a real image is sampled on rings, ``values[j, l] = F(r_j, φ_l)`` with r_j = (j + 1/2) Δ in Fourier pixels (cycles per box) and
φ_l = 2π l / N for the upper half circle, l < N / 2; the other half is its complex conjugate. φ runs from the x axis (columns) towards y (growing
rows). The transform is scaled by 1 / box, so that white noise of variance 1 has power 1.

An object of radius a needs rings no further apart than box / (2 a), and on the ring r about 2π r a / box angular orders: that is exact for an
image inside a disc. (Rotational alignment by the FFT of rings: Cong, Kovacs & Wriggers, J. Struct. Biol. 144,
2003; Fourier–Bessel coefficients: Zhao & Singer, J. Struct. Biol. 186, 2014.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.classify2d.gridding import GriddedTransform

_ANGLE_COUNTS = (48, 64, 96, 128, 192, 288, 384, 576, 768, 1152, 1536, 2304)
"""Numbers of angles around a full circle: fast to transform and to go through, and with divisors for the coarse levels."""


@dataclass(frozen=True)
class PolarGrid:
    """Rings in the Fourier space of a square image.

    Attributes
    ----------
    box : image width in pixels
    spacing : distance of the rings in Fourier pixels
    rings : number of rings, R
    angles : points on a full circle, N; half of them are stored
    """

    box: int
    spacing: float
    rings: int
    angles: int

    def radii(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the rings' radii ``(R,)`` in Fourier pixels."""
        return (torch.arange(self.rings, device=device) + 0.5) * self.spacing

    def points(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return ky and kx ``(R, N / 2)`` in Fourier pixels, float64."""
        radii = (torch.arange(self.rings, dtype=torch.float64, device=device)[:, None] + 0.5) * self.spacing
        phi = torch.arange(self.angles // 2, dtype=torch.float64, device=device) * (2 * torch.pi / self.angles)
        return radii * torch.sin(phi), radii * torch.cos(phi)

    def area(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the area ``(R,)`` in Fourier pixels that one point of a ring stands for.

        The first ring has 11/12 of its own: the error of the midpoint rule for ∫ f(r) r dr at r = 0 (Euler-Maclaurin), without which zero
        frequency counts for too much.
        """
        area = self.radii(device) * (self.spacing * 2 * math.pi / self.angles)
        area[0] *= 11 / 12
        return area

    def coarser(self, rings: int, angles: int) -> PolarGrid:
        """Return the part with the first `rings` rings and every ``N / angles``-th angle."""
        return PolarGrid(self.box, self.spacing, rings, angles)

    def cut(self, values: Tensor, coarse: PolarGrid) -> Tensor:
        """Return the points ``(..., R', N' / 2)`` of `coarse` out of `values` ``(..., R, N / 2)``."""
        return values[..., : coarse.rings, :: self.angles // coarse.angles]

    def ring_of(self, radius: float) -> int:
        """Return how many rings lie inside `radius` Fourier pixels, at least 1."""
        return max(1, min(self.rings, round(radius / self.spacing)))


def make_grid(box: int, object_radius: float, largest_radius: float) -> PolarGrid:
    """Return the grid for images that are zero outside of `object_radius` pixels, up to `largest_radius` Fourier pixels."""
    spacing = max(1.0, box / (2 * object_radius + 4))
    rings = max(2, math.floor(largest_radius / spacing))
    return PolarGrid(box, spacing, rings, angles_needed(box, object_radius, rings * spacing))


def angles_needed(box: int, object_radius: float, radius: float) -> int:
    """Return the points on a circle of `radius` Fourier pixels for an object of `object_radius` pixels."""
    orders = 2 * (2 * math.pi * radius * object_radius / box + 3)
    return next((count for count in _ANGLE_COUNTS if count >= orders), _ANGLE_COUNTS[-1])


def coarse_angles(grid: PolarGrid, object_radius: float, rings: int, fewest: int) -> int:
    """Return the smallest divisor of the grid's angles that `rings` rings need and that is at least `fewest`."""
    needed = 2 * (2 * math.pi * rings * grid.spacing * object_radius / grid.box + 3)
    wanted = min(grid.angles, max(needed, fewest))
    fitting = [count for count in range(16, grid.angles + 1, 16) if grid.angles % count == 0 and count >= wanted]
    return fitting[0]


def to_modes(values: Tensor) -> Tensor:
    """Return the angular orders 0 ... N / 2 of complex rings: ``(..., R, N / 2)`` to ``(..., R, N / 2 + 1)``."""
    half = values.shape[-1]
    modes: Tensor = torch.fft.fft(torch.cat([values, values.conj()], dim=-1))
    return modes[..., : half + 1]


def from_modes(modes: Tensor) -> Tensor:
    """Return the rings ``(..., R, N / 2)`` of angular orders 0 ... N / 2: undoes `to_modes`."""
    half = modes.shape[-1] - 1
    signs = torch.ones(half - 1, device=modes.device)
    signs[::2] = -1
    negative = (modes[..., 1:half].conj() * signs).flip(-1)
    rings: Tensor = torch.fft.ifft(torch.cat([modes, negative], dim=-1))
    return rings[..., :half]


class PolarTransform:
    """The transform between images that are zero outside a disc, and rings.

    Parameters
    ----------
    grid : the rings
    radius : of the disc, pixels
    """

    def __init__(self, grid: PolarGrid, radius: float, device: torch.device | str = "cpu") -> None:
        self.grid = grid
        axis = torch.arange(grid.box, device=device) - grid.box // 2
        self._inside = axis[:, None].square() + axis[None, :].square() < radius**2
        ky, kx = grid.points(device)
        self._gridded = GriddedTransform(grid.box, ky.reshape(-1), kx.reshape(-1))
        # twice: the other half of the circle is the conjugate
        self._areas = 2 * grid.area(device)[:, None] / grid.box

    def forward(self, images: Tensor) -> Tensor:
        """Return the rings ``(n, R, N / 2)`` of `images` ``(n, box, box)``; what is outside the disc is left out."""
        values = self._gridded.forward(images * self._inside) / self.grid.box
        return values.reshape(len(images), self.grid.rings, self.grid.angles // 2)

    def backward(self, rings: Tensor) -> Tensor:
        """Return the images ``(n, box, box)`` of `rings` ``(n, R, N / 2)``; zero outside the disc."""
        return self._gridded.adjoint((rings * self._areas).reshape(len(rings), -1)) * self._inside


def soft_disc(box: int, radius: float, edge: float, device: torch.device | str = "cpu") -> Tensor:
    """Return a disc ``(box, box)`` around pixel ``box // 2`` that falls from 1 at `radius` to 0 at ``radius + edge`` pixels along a cosine."""
    axis = torch.arange(box, device=device) - box // 2
    distance = torch.sqrt((axis[:, None] ** 2 + axis[None, :] ** 2).float())
    return 0.5 + 0.5 * torch.cos(torch.pi * ((distance - radius) / edge).clamp(0, 1))


def shift_rings(grid: PolarGrid, shifts: Tensor) -> Tensor:
    """Return the factors ``(..., R, N / 2)`` that move images by `shifts` ``(..., 2)`` pixels, y and x: f(r) becomes f(r - shift)."""
    ky, kx = (value.float() for value in grid.points(shifts.device))
    angle = (shifts[..., 0, None, None] * ky + shifts[..., 1, None, None] * kx) * (-2 * torch.pi / grid.box)
    return torch.polar(torch.ones_like(angle), angle)


def disc_of_shifts(reach: float, step: float) -> Tensor:
    """Return the points ``(U, 2)`` of a square grid around zero that lie within `reach`."""
    count = int(reach / step + 1e-6)
    axis = torch.arange(-count, count + 1, dtype=torch.float32) * step
    points = torch.cartesian_prod(axis, axis)
    return points[points.square().sum(1) <= reach**2 + 1e-4]
