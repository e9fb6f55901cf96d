"""Classes that show the same view become one, and averages are brought to the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.classify2d.expectation import (
    Batch,
    batch_of,
    best_poses,
    log_likelihood_ratio,
    make_templates,
    turned,
    turning,
)
from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.maximisation import signal_power
from beamside.imaging.classify2d.polar import PolarGrid, disc_of_shifts, from_modes, shift_rings, to_modes

RECENTRED = 2.0
"""Averages are moved when their centre of mass is at least this many pixels off."""
_REACH = 4.0
"""Pixels by which two averages of one view may be off each other."""
_CANDIDATES = 4
"""Classes most like it that each class is compared with in full."""
_COST = 1.0
"""Evidence that the estimate of a ring's power of the difference must be worth."""
_TINY = 1e-6
_LEAST = 0.5
"""Particles in a class that holds any."""


@dataclass(frozen=True)
class Merge:
    """Class `source` went into class `target`: shifting it by `shift` ``(2,)`` pixels and then turning it by `psi` radians brought it there."""

    source: int
    target: int
    psi: float
    shift: Tensor


@dataclass(frozen=True)
class _Pose:
    gain: float
    psi: float
    shift: Tensor


class Duplicates:
    """Classes, from the sums over their particles, and which of them are the same.

    One class instead of two is the better account of their particles when the logarithm of the evidence is higher. It loses that of the averages'
    difference, and gains that of the choice that each particle no longer has. (The evidence is that of a linear Gaussian model; Ueda et al., Neural
    Computation 12, 2000, have splitting and merging of this kind.)

    The difference d of the averages D₁ / W₁ and D₂ / W₂, with D = Σ p C X / S and W = Σ p C² / S, has the variance v = 1 / W₁ + 1 / W₂ where the
    classes show one view. Where they do not, its power is that of the views' difference on top. That is small for views near each other, and much
    smaller than the signal's, so it is estimated from d itself, on each ring: with ρ = <|d|² / v>, the evidence for a ring of n points to differ is
    n (ρ - 1 - log ρ), at ρ above 1. The particles' mask leaves a part f of the noise's power and of the points' freedom: v and n are f times that.

    Attributes
    ----------
    data : complex ``(2, K, R, N / 2)`` and `weights`, of both halves of the particles
    counts : ``(K,)`` particles
    """

    def __init__(
        self, geometry: Geometry, grid: PolarGrid, compared: int, data: Tensor, weights: Tensor, counts: Tensor
    ) -> None:
        self.grid, self.data, self.weights, self.counts = grid, data.clone(), weights.clone(), counts.clone()
        self.merges: list[Merge] = []
        self._compared = grid.coarser(compared, grid.angles)
        self._fraction = geometry.mask_fraction
        self._signal = signal_power(data.sum(0), weights.sum(0), self._fraction)[:compared, None]
        self._area = self._compared.area(data.device)[:, None]
        self._coarse, self._fine = (disc_of_shifts(*disc).to(data.device) for disc in ((_REACH, 1.0), (0.75, 0.25)))
        self._poses: dict[tuple[int, int], _Pose] = {}
        for target in self._full():
            self._compare(target)

    def _full(self) -> list[int]:
        return [int(label) for label in (self.counts > _LEAST).nonzero()[:, 0]]

    def merge(self) -> None:
        """Merge the two classes that gain most by it, again and again until none does."""
        while self._poses:
            (source, target), pose = max(self._poses.items(), key=lambda item: item[1].gain)
            if pose.gain <= 0:
                return
            self._join(source, target, pose)

    def _join(self, source: int, target: int, pose: _Pose) -> None:
        data, weights = self._moved(self.data[:, source], self.weights[:, source], pose)
        self.data[:, target] += data
        self.weights[:, target] += weights
        self.counts[target] += self.counts[source]
        self.data[:, source] = 0
        self.weights[:, source] = 0
        self.counts[source] = 0
        self.merges.append(Merge(source, target, pose.psi, pose.shift))
        self._poses = {pair: each for pair, each in self._poses.items() if not {source, target} & set(pair)}
        self._compare(target)

    def _compare(self, target: int) -> None:
        """Note what merging those classes into `target` would gain that are most like it."""
        sources = [label for label in self._full() if label != target]
        if not sources:
            return
        reference = self._average(target)[None]
        templates = make_templates(reference, self._compared, self._coarse, 0.0)
        middle = torch.zeros((len(sources), 2), device=reference.device)
        batch = self._batch(sources, middle)
        joint = log_likelihood_ratio(templates, batch)
        first = best_poses(joint, templates, batch)
        # the likelihood of a class's particles given the target's average, relative to that given their own
        own = torch.tensor([self._evidence(*self._inside(source)) for source in sources], device=reference.device)
        order = torch.argsort(first.top - own, descending=True, stable=True)[:_CANDIDATES]
        near = self._batch([sources[place] for place in order.tolist()], first.shift[order])
        fine = make_templates(reference, self._compared, self._fine, 0.0)
        poses = best_poses(log_likelihood_ratio(fine, near), fine, near)
        for number, place in enumerate(order.tolist()):
            pose = _Pose(0.0, float(poses.psi[number]), poses.shift[number])
            gain = self._gain(sources[place], target, pose)
            self._poses[sources[place], target] = _Pose(gain, pose.psi, pose.shift)

    def _batch(self, labels: list[int], centres: Tensor) -> Batch:
        """Return the sums of some classes as if they were particles."""
        rings = self._compared.rings
        data, weights = self.data[:, labels, :rings].sum(0), self.weights[:, labels, :rings].sum(0)
        return batch_of(to_modes(data * shift_rings(self._compared, centres)), torch.fft.rfft(weights), centres)

    def _inside(self, label: int) -> tuple[Tensor, Tensor]:
        rings = self._compared.rings
        return self.data[:, label, :rings].sum(0), self.weights[:, label, :rings].sum(0)

    def _average(self, label: int) -> Tensor:
        data, weights = self._inside(label)
        return data / (weights + self._fraction / self._signal)

    def _gain(self, source: int, target: int, pose: _Pose) -> float:
        """Return by how much the logarithm of the evidence grows when `source` goes into `target`."""
        first, second = self._inside(source), self._inside(target)
        moved = self._moved(*first, pose, self._compared)
        one, other = float(self.counts[source]), float(self.counts[target])
        choice = one * math.log((one + other) / one) + other * math.log((one + other) / other)
        return choice - self._difference(moved, second)

    def _difference(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
        """Return the logarithm of the evidence that two averages differ, against that they do not."""
        weight = 1 / (1 / first[1].clamp(min=_TINY) + 1 / second[1].clamp(min=_TINY))
        difference = first[0] / first[1].clamp(min=_TINY) - second[0] / second[1].clamp(min=_TINY)
        ratio = (difference.abs().square() * weight).mean(-1) / self._fraction
        freedom = self._fraction * self._area[:, 0] * (self._compared.angles // 2)
        each = freedom * (ratio - 1 - torch.log(ratio.clamp(min=_TINY))) - _COST
        return float(torch.where(ratio > 1, each, 0).clamp(min=0).double().sum())

    def _evidence(self, data: Tensor, weights: Tensor) -> float:
        # a mask leaves a fraction of the degrees of freedom, each with more signal
        prior = self._fraction / self._signal
        each = data.abs().square() / (weights + prior) - self._fraction * torch.log1p(weights / prior)
        return float((each * self._area).double().sum())

    def _moved(
        self, data: Tensor, weights: Tensor, pose: _Pose, grid: PolarGrid | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return sums ``(..., R, N / 2)`` shifted and turned."""
        grid = grid or self.grid
        half, device = grid.angles // 2, data.device
        shifted = to_modes(data * shift_rings(grid, pose.shift))
        modes = shifted * turning(half + 1, 1, -pose.psi, device)
        power = torch.fft.rfft(weights)
        power = power * turning(power.shape[-1], 2, -pose.psi, device)
        return from_modes(modes), torch.fft.irfft(power, n=half).clamp(min=0)


def follow(merges: list[Merge], label: Tensor, psi: Tensor, shift: Tensor) -> None:
    """Take the particles of merged classes along: change their `label` ``(n,)``, `psi` (radians) and `shift` ``(n, 2)`` (pixels)."""
    for merge in merges:
        members = label == merge.source
        shift[members] += turned(merge.shift[None], psi[members])
        turn = psi[members] + merge.psi
        psi[members] = torch.remainder(turn + math.pi, 2 * math.pi) - math.pi
        label[members] = merge.target


def recentre(geometry: Geometry, images: Tensor, label: Tensor, psi: Tensor, shift: Tensor) -> Tensor:
    """Bring what is bright in the averages to the middle, and the particles' `shift` ``(n, 2)`` (pixels) along with it."""
    centres = centre_of_mass(images, geometry.reference_mask).round()
    centres[centres.norm(dim=1) < RECENTRED] = 0
    if not bool(centres.any()):
        return images
    moved = torch.stack(
        [
            torch.roll(image, (-int(y), -int(x)), dims=(0, 1))
            for image, (y, x) in zip(images, centres.tolist(), strict=True)
        ]
    )
    known = label >= 0
    # the reference moves by -v, so a particle turned by ψ moves by -M(ψ) v in its own frame
    shift[known] -= turned(centres[label[known]], psi[known])
    return moved


def centre_of_mass(images: Tensor, mask: Tensor) -> Tensor:
    """Return the centre ``(K, 2)`` of what is bright inside `mask`, y and x in pixels from the middle."""
    bright = images.clamp(min=0) * mask
    axis = torch.arange(images.shape[-1], device=images.device) - images.shape[-1] // 2
    total = bright.sum(dim=(1, 2)).clamp(min=1e-6)
    return torch.stack([(bright.sum(2) * axis).sum(1), (bright.sum(1) * axis).sum(1)], dim=1) / total[:, None]
