"""The Gaussian prior on local motion: smooth in time, its strength learned from the movie for each spatial degree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from beamside.imaging.motion.model import spatial_degrees

_KNOTS = 16
_LEARNING_STEPS = 6
_OVERSTEP = 1.7  # expectation maximisation creeps; going further than its step is safe below 2
_EARLY_ACCELERATION, _EARLY_EXPOSURE = 6.0, 4.0
_LEAST = 1e-3  # Å per (e/Å²)², below which a variance does not fall


@dataclass(frozen=True)
class Evidence:
    """What the tiles say at the present shifts: gradient ``(p, n, 2)`` of the log-likelihood and information ``(p,)``, binned pixels."""

    gradient: Tensor
    information: Tensor


class MotionPrior:
    """Gaussian prior on the tracks of the spatial modes, with variances learned per spatial degree.

    A track's accelerations and velocities are penalised, the accelerations less at the start of the exposure, where ice moves most. The
    tracks live on a few knots in time; the constant mode has no prior and a free shift for each frame, as the stage may jump.

    Parameters
    ----------
    count : number of frames
    dose_per_frame : e/Å²
    modes : number of spatial modes, the constant one included
    pixel_size : Å, of the pixels in which the tracks are given
    """

    def __init__(self, count: int, dose_per_frame: float, modes: int, pixel_size: float, device: torch.device) -> None:
        self.count = count
        dose_per_frame = dose_per_frame or 1.0  # a dose that nobody knows is taken as a usual one
        self.time = _spline_basis(count, min(count, _KNOTS)).to(device)
        first = self.time[1:] - self.time[:-1]
        second = first[1:] - first[:-1] if count > 2 else first[:0]
        exposure = dose_per_frame * torch.arange(1, 1 + len(second), dtype=torch.float64, device=device)
        ease = 1 / (1 + _EARLY_ACCELERATION * torch.exp(-exposure / _EARLY_EXPOSURE))
        self.second = second * ease[:, None]
        self.first = first
        degrees = spatial_degrees()
        self.degree = torch.tensor([y + x for y, x in degrees[:modes]], device=device)
        self.unit = dose_per_frame / pixel_size
        self.acceleration = torch.full(
            (int(self.degree.max()) + 1,), (0.2 * dose_per_frame / pixel_size) ** 2, dtype=torch.float64
        )
        self.velocity = torch.full_like(self.acceleration, (0.5 * dose_per_frame / pixel_size) ** 2)
        self.level = (20.0 / pixel_size) ** 2

    def step(self, basis: Tensor, evidence: Evidence, trust: Tensor, tracks: Tensor, start: Tensor) -> Tensor:
        """Return better tracks ``(n, modes, 2)``; also learns the variances for the next step."""
        modes, knots = basis.shape[1], self.time.shape[1]
        weight = evidence.information * trust
        # Local modes live on the knots, the constant mode has a free shift for each frame.
        gram = torch.einsum("p,pm,pk->mk", weight, basis, basis)
        local = torch.einsum("mk,ab->makb", gram[1:, 1:], self.time.T @ self.time).reshape((modes - 1) * knots, -1)
        mixed = torch.einsum("k,ta->tka", gram[0, 1:], self.time).reshape(self.count, -1)
        loose = 1 / (1000.0 * self.level)
        free = torch.eye(self.count).to(local) * (gram[0, 0] + loose)
        data = torch.cat([torch.cat([free, mixed], dim=1), torch.cat([mixed.T, local], dim=1)])
        data = data + 1e-9 * data.diagonal().mean() * torch.eye(len(data)).to(data)
        knotted = torch.linalg.lstsq(self.time, tracks[:, 1:].reshape(self.count, -1)).solution.reshape(
            knots, modes - 1, 2
        )
        now = torch.cat([tracks[:, 0] - start, knotted.permute(1, 0, 2).reshape(-1, 2)])
        pull = torch.einsum("pm,pnc->nmc", basis, evidence.gradient * trust[:, None, None])
        local_pull = torch.einsum("ta,tmc->mac", self.time, pull[:, 1:]).reshape(-1, 2)
        target = data @ now + torch.cat([pull[:, 0] - loose * now[: self.count], local_pull])
        for _ in range(_LEARNING_STEPS):
            matrix = data.clone()
            for mode, degree in enumerate(self.degree[1:].tolist()):
                part = slice(self.count + mode * knots, self.count + (mode + 1) * knots)
                matrix[part, part] += self._precision(degree)
            factor = torch.linalg.cholesky(matrix)
            solved = torch.cholesky_solve(target, factor)
            covariance = torch.cholesky_inverse(factor)[self.count :, self.count :]
            knotted = solved[self.count :].reshape(modes - 1, knots, 2)
            self._learn(knotted, covariance.reshape(modes - 1, knots, modes - 1, knots))
        local_tracks = torch.einsum("ta,mac->tmc", self.time, knotted)
        return torch.cat([(start + solved[: self.count])[:, None], local_tracks], dim=1)

    def _precision(self, degree: int) -> Tensor:
        bend = self.second.T @ self.second / self.acceleration[degree]
        slope = self.first.T @ self.first / (len(self.first) * self.velocity[degree])
        return bend + slope + torch.eye(self.time.shape[1]).to(bend) / self.level

    def _learn(self, knotted: Tensor, covariance: Tensor) -> None:
        """Move each variance by the ratio of what the tracks show to what the present prior expects."""
        for degree in range(1, len(self.acceleration)):
            chosen = (self.degree[1:] == degree).nonzero()[:, 0]
            posterior = torch.stack([covariance[mode, :, mode, :] for mode in chosen]).mean(dim=0)
            posterior = posterior + torch.einsum("mac,mbc->ab", knotted[chosen], knotted[chosen]) / (2 * len(chosen))
            prior = torch.linalg.inv(self._precision(degree))
            for variance, rows in ((self.acceleration, self.second), (self.velocity, self.first)):
                if len(rows):
                    penalty = rows.T @ rows
                    ratio = (penalty * posterior).sum() / (penalty * prior).sum()
                    variance[degree] = (variance[degree] * ratio**_OVERSTEP).clamp(min=(_LEAST * self.unit) ** 2)


def _spline_basis(count: int, knots: int) -> Tensor:
    """Return ``(count, knots)``: cubic splines through knots that lie closer together early in the movie, where most happens."""
    if knots == count:
        return torch.eye(count, dtype=torch.float64)
    places = (np.arange(knots) / (knots - 1)) ** 1.5 * (count - 1)
    places = np.maximum(places, np.arange(knots))
    return torch.from_numpy(CubicSpline(places, np.eye(knots), bc_type="natural")(np.arange(count)))
