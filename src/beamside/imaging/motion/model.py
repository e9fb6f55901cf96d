"""How a specimen moves during a movie: the smooth local model that Beamside fits, and RELION's polynomial.

Positions are given as ``x = X / width - 0.5`` and ``y = Y / height - 0.5``, time as the 0-based frame number, shifts in unbinned pixels
with RELION's sign: the shift is applied to the frame, ``aligned(r) = frame(r - shift)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPATIAL_DEGREE = 5
_SPATIAL, _TEMPORAL = 6, 3


@dataclass(frozen=True)
class LocalMotion:
    """Local motion as Legendre polynomials over the field whose coefficients move in time.

    Attributes
    ----------
    shape : height and width of the movie in pixels
    tracks : ``(n, modes, 2)`` float64, pixels (y, x), in the order of `spatial_degrees`
    """

    shape: tuple[int, int]
    tracks: Tensor

    def shifts(self, points: Tensor) -> Tensor:
        """Return the shifts ``(n, m, 2)`` in pixels (y, x) at `points` ``(m, 2)`` in pixels (y, x)."""
        basis = spatial_basis(normalised(points, self.shape))
        return torch.einsum("pm,nmc->npc", basis, self.tracks)


def normalised(points: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return `points` ``(m, 2)`` in pixels (y, x) as float64 positions in the field, -0.5 to 0.5, y first."""
    size = torch.tensor(shape, dtype=torch.float64, device=points.device)
    return points.to(torch.float64) / size - 0.5


def spatial_degrees(degree: int = SPATIAL_DEGREE) -> list[tuple[int, int]]:
    """Return the degrees in y and x of each spatial mode, by total degree; the first mode is constant."""
    return [(total - x, x) for total in range(degree + 1) for x in range(total + 1)]


def spatial_basis(positions: Tensor, degree: int = SPATIAL_DEGREE) -> Tensor:
    """Return the spatial modes ``(m, modes)`` at normalised `positions` ``(m, 2)``: products of Legendre polynomials of mean square 1."""
    legendre = [torch.ones_like(positions), 2 * positions]
    for order in range(1, degree):
        legendre.append(((2 * order + 1) * 2 * positions * legendre[-1] - order * legendre[-2]) / (order + 1))
    scaled = [values * (2 * order + 1) ** 0.5 for order, values in enumerate(legendre)]
    return torch.stack([scaled[y][:, 0] * scaled[x][:, 1] for y, x in spatial_degrees(degree)], dim=1)


def relion_basis(positions: Tensor, frames: int) -> Tensor:
    """Return RELION's basis ``(frames, m, 18)``: (1, x, x², y, y², xy) times (z, z², z³), the power of z running fastest."""
    y, x = positions[:, 0], positions[:, 1]
    space = torch.stack([torch.ones_like(x), x, x**2, y, y**2, x * y], dim=1)
    z = torch.arange(frames, dtype=torch.float64, device=positions.device)
    time = torch.stack([z, z**2, z**3], dim=1)
    return torch.einsum("ms,nt->nmst", space, time).reshape(frames, len(positions), _SPATIAL * _TEMPORAL)


def relion_shifts(coefficients: Tensor, points: Tensor, shape: tuple[int, int], frames: int) -> Tensor:
    """Evaluate RELION's local motion model (version 1) at `points` ``(m, 2)`` in pixels (y, x); returns ``(frames, m, 2)`` pixels (y, x).

    `coefficients` ``(36,)`` are in RELION's order: 18 for dx, then 18 for dy.
    """
    basis = relion_basis(normalised(points, shape), frames)
    dx, dy = coefficients.to(basis).reshape(2, _SPATIAL * _TEMPORAL)
    return torch.stack([basis @ dy, basis @ dx], dim=-1)


def fit_relion(shifts: Tensor, points: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the ``(36,)`` coefficients of RELION's model that follow local `shifts` ``(n, m, 2)`` at `points` ``(m, 2)`` best.

    The mean over the frames is left out of the comparison at each point: it moves the whole sum and blurs nothing, while RELION's model,
    which starts at zero in the first frame, would spend its freedom on it.
    """
    frames = shifts.shape[0]
    scale = float(max(frames - 1, 1))
    basis = relion_basis(normalised(points, shape), frames)
    powers = torch.tensor([scale, scale**2, scale**3], dtype=torch.float64, device=points.device).repeat(_SPATIAL)
    basis = basis / powers
    basis = (basis - basis.mean(dim=0)).reshape(-1, _SPATIAL * _TEMPORAL)
    wanted = (shifts - shifts.mean(dim=0)).to(basis).reshape(-1, 2)
    # A little damping keeps movies of 2 or 3 frames, which cannot tell z from z² and z³, solvable.
    normal = basis.T @ basis
    damping = 1e-9 * normal.diagonal().mean().clamp(min=1e-12)
    solution = (
        torch.linalg.solve(normal + damping * torch.eye(len(normal)).to(normal), basis.T @ wanted) / powers[:, None]
    )
    return torch.cat([solution[:, 1], solution[:, 0]])


def grid_points(shape: tuple[int, int], rows: int, columns: int) -> Tensor:
    """Return the centres ``(rows * columns, 2)`` in pixels (y, x) of an even grid over an image of `shape`, float64."""
    y = (torch.arange(rows, dtype=torch.float64) + 0.5) * shape[0] / rows
    x = (torch.arange(columns, dtype=torch.float64) + 0.5) * shape[1] / columns
    return torch.cartesian_prod(y, x)
