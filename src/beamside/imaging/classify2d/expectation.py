"""Expectation and maximisation: how well every class, rotation and shift explains every particle, and what the particles add to the classes.

The model of particle i on the rings (`polar`), with CTF C, noise power S of its group, and reference A of class c ::

    X_i(r, φ) exp(-2πi k·s) = C_i(r, φ) A_c(r, φ + ψ) + noise

so that shifting by s and then rotating by ψ brings the particle onto the reference, as RELION has it (Scheres, J. Mol. Biol. 415,
2012). Particles are shifted beforehand by where they were found to be last, s₀; the rest u is tried in the reference's frame:
s = s₀ - M(ψ) u. Then, with Y = C X / S and B = C² / S, the logarithm of the likelihood ratio against pure noise is the correlation of Y
with the shifted reference minus half that of B with |A|², over all rotations: in angular orders this is one matrix product over the rings
for each order, and one FFT. The maximisation is its adjoint: with the Fourier transform of the posterior over ψ, the sums of rotated and
shifted particles are matrix products too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from beamside.imaging.classify2d.polar import PolarGrid, from_modes, shift_rings, to_modes
from beamside.imaging.summing import add_at

NEGLIGIBLE = 10.0
"""Hypotheses whose probability is below exp(-10) of the best one's may be left out of the sums."""
SPARSE_FRACTION = 0.15
"""Single rows are added when fewer than this fraction of them matter; otherwise the whole batch, as matrix products."""
_ROWS = 256


@dataclass(frozen=True)
class Templates:
    """References prepared for comparison.

    Attributes
    ----------
    grid : R rings of N angles, on which particles are compared; particles may have more rings
    modes : complex ``(M, R, K * U)``, angular orders of each class under each trial shift, times the area of a point; M = N / 2 + 1
    power : complex ``(M', R, K)``, even angular orders of |A|², times the area of a point; M' = N / 4 + 1
    shifts : ``(U, 2)`` trial shifts in the reference's frame in pixels, y and x
    turn : radians; rotation number j stands for ψ = 2π j / N + turn
    """

    grid: PolarGrid
    modes: Tensor
    power: Tensor
    shifts: Tensor
    turn: float

    @property
    def classes(self) -> int:
        """Number of classes, K."""
        return self.power.shape[-1]

    def of(self, label: int) -> Templates:
        """Return those of one class."""
        trials = len(self.shifts)
        modes = self.modes[..., label * trials : (label + 1) * trials]
        return Templates(self.grid, modes, self.power[..., label : label + 1], self.shifts, self.turn)


@dataclass(frozen=True)
class Batch:
    """Particles prepared for comparison, recentred at `centres` and turned by `twists`.

    Attributes
    ----------
    modes : complex ``(M, B, R)``, angular orders of Y = C X / S
    weights : complex ``(M', B, R)``, even angular orders of B = C² / S
    centres : ``(B, 2)``, s₀ in pixels, y and x
    twists : ``(B,)`` radians, by which each particle's trial rotations differ from those of the templates
    """

    modes: Tensor
    weights: Tensor
    centres: Tensor
    twists: Tensor

    def of(self, particles: Tensor | slice) -> Batch:
        """Return those of some particles."""
        return Batch(
            self.modes[:, particles], self.weights[:, particles], self.centres[particles], self.twists[particles]
        )

    def coarser(self, grid: PolarGrid) -> Batch:
        """Return what is on `grid`, a coarser part of the particles' grid."""
        orders, even = grid.angles // 2 + 1, grid.angles // 4 + 1
        modes, weights = self.modes[:orders, :, : grid.rings], self.weights[:even, :, : grid.rings]
        return Batch(modes, weights, self.centres, self.twists)


@dataclass(frozen=True)
class Best:
    """The best hypothesis of each particle of a batch.

    Attributes
    ----------
    label : ``(B,)`` class
    psi : ``(B,)`` radians
    shift : ``(B, 2)`` pixels, y and x
    pmax : ``(B,)`` posterior probability of the hypothesis
    share : ``(B,)`` posterior probability of the class
    evidence : ``(B,)`` logarithm of the likelihood ratio against pure noise, over all hypotheses
    """

    label: Tensor
    psi: Tensor
    shift: Tensor
    pmax: Tensor
    share: Tensor
    evidence: Tensor


@dataclass(frozen=True)
class Poses:
    """Most probable hypotheses.

    Attributes
    ----------
    label, psi, shift : as in `Best`
    top : ``(B,)`` logarithm of likelihood ratio times prior
    rows : ``(B, K * U)`` the highest one of all rotations
    """

    label: Tensor
    psi: Tensor
    shift: Tensor
    top: Tensor
    rows: Tensor


def make_templates(references: Tensor, grid: PolarGrid, shifts: Tensor, turn: float) -> Templates:
    """Prepare references ``(K, R, N / 2)`` for trial `shifts` ``(U, 2)`` pixels and rotations that start at `turn` radians."""
    area = grid.area(references.device)
    factors = shift_rings(grid, shifts)
    shifted = references[:, None] * factors[None]
    modes = to_modes(shifted) * turning(grid.angles // 2 + 1, 1, turn, references.device)
    modes = (modes * area[:, None]).permute(3, 2, 0, 1)
    power = torch.fft.rfft(references.real**2 + references.imag**2)
    power = power * turning(power.shape[-1], 2, turn, references.device) * area[:, None]
    return Templates(
        grid,
        modes.reshape(modes.shape[0], grid.rings, -1).contiguous(),
        power.permute(2, 1, 0).contiguous(),
        shifts,
        turn,
    )


def make_batch(
    rings: Tensor, ctf: Tensor, noise: Tensor, centres: Tensor, grid: PolarGrid, twists: Tensor | None = None
) -> Batch:
    """Prepare particles.

    Parameters
    ----------
    rings : complex ``(B, R, N / 2)``, X
    ctf : ``(B, R, N / 2)``
    noise : ``(B, R)``, power S of the noise of each particle's group
    centres : ``(B, 2)`` pixels, y and x: the particles are shifted by this first
    twists : ``(B,)`` radians, added to all trial rotations of the particle; None for zero
    """
    weight = ctf / noise[..., None]
    modes = to_modes(rings * shift_rings(grid, centres) * weight)
    weights = torch.fft.rfft(weight * ctf)
    return batch_of(modes, weights, centres, twists)


def batch_of(modes: Tensor, weights: Tensor, centres: Tensor, twists: Tensor | None = None) -> Batch:
    """Return the batch of angular orders ``(B, R, M)`` of Y and even ones ``(B, R, M')`` of B, recentred before."""
    modes, weights = modes.permute(2, 0, 1).contiguous(), weights.permute(2, 0, 1).contiguous()
    if twists is None:
        return Batch(modes, weights, centres, torch.zeros(len(centres), device=centres.device))
    for values, step in ((modes, 1), (weights, 2)):
        phase = torch.arange(len(values), device=twists.device)[:, None] * (-step * twists)
        values.mul_(torch.polar(torch.ones_like(phase), phase)[..., None])
    return Batch(modes, weights, centres, twists)


def log_likelihood_ratio(templates: Templates, batch: Batch) -> Tensor:
    """Return the logarithm ``(B, K, U, N)`` of the likelihood ratio of every hypothesis against pure noise."""
    angles, classes, trials = templates.grid.angles, templates.classes, len(templates.shifts)
    rings = templates.grid.rings
    products = torch.bmm(batch.modes[..., :rings].conj(), templates.modes)
    # a transpose of two dimensions is copied block by block: several times faster than a permutation of three
    ratio: Tensor = torch.fft.irfft(products.view(len(products), -1).t().contiguous(), n=angles)
    ratio = ratio.view(-1, classes, trials, angles)
    products = torch.bmm(batch.weights[..., :rings].conj(), templates.power)
    half_norm = torch.fft.irfft(
        products.permute(1, 2, 0), n=angles // 2
    )  # over half a circle: half of the sum over all
    ratio.view(-1, classes, trials, 2, angles // 2).sub_(half_norm[:, :, None, None])
    return ratio


def log_prior(templates: Templates, batch: Batch, shift_sd: float) -> Tensor:
    """Return the logarithm ``(B, U, N)`` of the prior of every hypothesis of any class: classes and rotations alike, shifts Gaussian.

    Classes are equally probable whatever their size: with their sizes as prior, the large ones swallow the small ones early on.
    """
    hypotheses = templates.classes * len(templates.shifts) * templates.grid.angles
    squared = trial_shifts(templates, batch).square().sum(-1)
    return squared / (-2 * shift_sd**2) - math.log(hypotheses)


def rotations(templates: Templates) -> Tensor:
    """Return ψ ``(N,)`` in radians of the rotations tried."""
    steps = torch.arange(templates.grid.angles, device=templates.shifts.device)
    return steps * (2 * math.pi / templates.grid.angles) + templates.turn


def trial_shifts(templates: Templates, batch: Batch) -> Tensor:
    """Return s ``(B, U, N, 2)`` in pixels, y and x, of every trial shift and rotation of each particle."""
    psi = rotations(templates) + batch.twists[:, None]
    return batch.centres[:, None, None, :] - turned(templates.shifts[None, :, None, :], psi[:, None, :])


def turned(shift: Tensor, psi: Tensor) -> Tensor:
    """Return M(ψ) u for `shift` u ``(..., 2)``, y and x: x' = x cos ψ + y sin ψ, y' = -x sin ψ + y cos ψ."""
    y, x = shift[..., 0], shift[..., 1]
    cos, sin = torch.cos(psi), torch.sin(psi)
    return torch.stack([y * cos - x * sin, x * cos + y * sin], dim=-1)


def best_poses(joint: Tensor, templates: Templates, batch: Batch) -> Poses:
    """Return the most probable hypothesis of each particle; `joint` ``(B, K, U, N)`` is the logarithm of likelihood ratio times prior."""
    size, classes, trials, angles = joint.shape
    rows = joint.amax(dim=-1).view(size, -1)
    top, row = rows.max(dim=1)
    label, trial = row // trials, row % trials
    pair = torch.arange(size, device=joint.device) * classes + label
    psi, shift = poses_near(joint.view(-1, trials, angles), pair, trial, templates, batch)
    return Poses(label, psi, shift, top, rows)


def poses_near(joint: Tensor, pair: Tensor, trial: Tensor, templates: Templates, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return ψ ``(B,)`` and shift ``(B, 2)`` of the most probable rotation, between the points tried.

    `joint` ``(pairs, U, N)`` is of pairs of particle and class; `pair` and `trial` ``(B,)`` say which pair and trial shift is each particle's best.
    """
    angles = joint.shape[-1]
    turn = joint[pair, trial].argmax(dim=1)
    offset = _offsets(joint, templates, (pair, trial, turn))
    psi = rotations(templates)[turn] + batch.twists + offset[2] * (2 * math.pi / angles)
    shift = templates.shifts[trial] + torch.stack(offset[:2], dim=-1)
    return torch.remainder(psi + math.pi, 2 * math.pi) - math.pi, batch.centres - turned(shift, psi)


def add_particles(joint: Tensor, templates: Templates, batch: Batch, sums: Sums) -> Best:
    """Add a batch to `sums` by its posterior probabilities, and return the best hypotheses.

    `joint` ``(B, K, U, N)`` is the logarithm of likelihood ratio times prior; it is overwritten. Rows of rotations that together could hold
    next to nothing of a particle's probability are left out when there are many of them.
    """
    poses = best_poses(joint, templates, batch)
    rows = torch.exp(poses.rows - poses.top[:, None]).view(len(joint), templates.classes, -1).sum(-1)
    share = rows.gather(1, poses.label[:, None])[:, 0] / rows.sum(1)  # by the best rotations, which is near enough
    chosen = (poses.rows > poses.top[:, None] - NEGLIGIBLE).nonzero()
    few = len(chosen) < SPARSE_FRACTION * poses.rows.numel()
    total = sums.add_rows(joint, poses.top, chosen, batch) if few else sums.add_all(joint, poses.top, batch)
    evidence = poses.top + torch.log(total)
    return Best(poses.label, poses.psi, poses.shift, pmax=1 / total, share=share, evidence=evidence)


def _offsets(joint: Tensor, templates: Templates, best: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return how far the maximum lies from the best grid point: in y and x pixels, and in steps of rotation, from parabolas."""
    pair, trial, turn = best
    angles = joint.shape[-1]
    middle = joint[pair, trial, turn]
    before = joint[pair, trial, (turn - 1) % angles]
    after = joint[pair, trial, (turn + 1) % angles]
    offsets = []
    spacing = _grid_step(templates.shifts)
    for axis in range(2):
        step = torch.zeros(2, device=joint.device)
        step[axis] = spacing
        lower, has_lower = _trial_at(templates.shifts, -step)
        upper, has_upper = _trial_at(templates.shifts, step)
        vertex = _vertex(joint[pair, lower[trial], turn], middle, joint[pair, upper[trial], turn])
        offsets.append(torch.where(has_lower[trial] & has_upper[trial], vertex * spacing, torch.zeros_like(vertex)))
    return offsets[0], offsets[1], _vertex(before, middle, after)


def _vertex(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """Return where the parabola through three neighbours has its top, in steps from the middle one."""
    curvature = before + after - 2 * middle
    return torch.where(curvature < 0, 0.5 * (before - after) / curvature.clamp(max=-1e-12), 0.0).clamp(-0.5, 0.5)


def _grid_step(shifts: Tensor) -> float:
    """Return the spacing of a square grid of trial shifts; 0 when there is only one."""
    gaps = (shifts[1:] - shifts[:1]).abs().amax(dim=1)
    return float(gaps.min()) if len(gaps) else 0.0


def _trial_at(shifts: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each trial shift the number of the one that lies `step` further, and whether there is one."""
    distance = torch.cdist(shifts + step, shifts)
    nearest = distance.min(dim=1)
    return nearest.indices, nearest.values < 1e-3


class Sums:
    """What the particles add to the classes: Σ p Y turned and shifted back, Σ p B turned back, and Σ p.

    Attributes
    ----------
    modes : complex ``(M, K * U, R)``, Σ p Y in angular orders on all of the particles' rings, from whole batches;
        `rows` ``(K * U, M, R)`` from single rows
    weights : complex ``(M', K, R)``, Σ p B in even angular orders; `row_weights` ``(K, M', R)``
    counts : ``(K,)``, Σ p
    """

    def __init__(self, templates: Templates, rings: int) -> None:
        device = templates.shifts.device
        orders, _, columns = templates.modes.shape
        even, classes = templates.power.shape[0], templates.classes
        self.modes = torch.zeros((orders, columns, rings), dtype=torch.complex64, device=device)
        self.weights = torch.zeros((even, classes, rings), dtype=torch.complex64, device=device)
        self.rows = torch.zeros((columns, orders, rings), dtype=torch.complex64, device=device)
        self.row_weights = torch.zeros((classes, even, rings), dtype=torch.complex64, device=device)
        self.counts = torch.zeros(classes, device=device)

    def add_all(self, joint: Tensor, top: Tensor, batch: Batch) -> Tensor:
        """Add a batch whose posterior is exp(`joint` - `top`) but for a factor; returns the sum over all hypotheses ``(B,)``."""
        size = len(joint)
        joint.sub_(top[:, None, None, None]).exp_()
        orders = torch.fft.rfft(joint)
        scale: Tensor = orders[..., 0].real.sum(dim=(1, 2))
        by_order = orders.view(-1, orders.shape[-1]).t().contiguous().view(orders.shape[-1], size, -1)
        self.modes.baddbmm_(by_order.transpose(1, 2), batch.modes / scale[:, None])
        even = orders[..., ::2].sum(2).permute(2, 1, 0)
        self.weights.baddbmm_(even.contiguous(), batch.weights / scale[:, None])
        self.counts += (even[0].real / scale).sum(dim=1)
        return scale

    def add_class(self, label: int, posterior: Tensor, batch: Batch) -> None:
        """Add the particles of `batch` to one class by their `posterior` ``(B, U, N)``, all but their count."""
        trials = posterior.shape[1]
        orders = torch.fft.rfft(posterior).permute(2, 1, 0).contiguous()
        self.modes[:, label * trials : (label + 1) * trials].baddbmm_(orders, batch.modes)
        even = orders[::2].sum(1, keepdim=True)
        self.weights[:, label : label + 1].baddbmm_(even, batch.weights)

    def add_rows(self, joint: Tensor, top: Tensor, chosen: Tensor, batch: Batch) -> Tensor:
        """Add only the rows `chosen` ``(rows, 2)`` of a batch, given by particle and by class and trial shift; returns what `add_all` does."""
        size, _, trials, angles = joint.shape
        particle, column = chosen[:, 0], chosen[:, 1]
        values = torch.exp(joint.view(size, -1, angles)[particle, column] - top[particle, None])
        scale = add_at(torch.zeros_like(top), particle, values.sum(1))
        orders = torch.fft.rfft(values / scale[particle, None])
        label = column // trials
        data, weights = batch.modes.permute(1, 0, 2).contiguous(), batch.weights.permute(1, 0, 2).contiguous()
        for part in torch.split(torch.arange(len(chosen), device=joint.device), _ROWS):
            which = particle[part]
            add_at(self.rows, column[part], data[which] * orders[part, :, None])
            add_at(self.row_weights, label[part], weights[which] * orders[part, ::2, None])
        add_at(self.counts, label, orders[:, 0].real)
        return scale

    def finish(self, templates: Templates) -> tuple[Tensor, Tensor]:
        """Return Σ p Y, complex ``(K, R, N / 2)``, and Σ p B, ``(K, R, N / 2)``, on the references' rings."""
        device, rows = self.modes.device, self.modes.shape[-1]
        grid = templates.grid.coarser(rows, templates.grid.angles)
        modes = self.modes.permute(1, 2, 0) + self.rows.permute(0, 2, 1)
        rings = from_modes(modes * turning(grid.angles // 2 + 1, 1, -templates.turn, device))
        rings = rings.view(templates.classes, -1, grid.rings, grid.angles // 2)
        data = (rings * shift_rings(grid, -templates.shifts)).sum(1)
        weights = self.weights.permute(1, 2, 0) + self.row_weights.permute(0, 2, 1)
        weights = weights * turning(weights.shape[-1], 2, -templates.turn, device)
        return data, torch.fft.irfft(weights, n=grid.angles // 2).clamp(min=0)


def turning(count: int, step: int, angle: float, device: torch.device) -> Tensor:
    """Return exp(i m angle) for the angular orders m = 0, step, 2 step, ...: what turns f(φ) into f(φ + angle)."""
    phase = torch.arange(count, device=device) * (step * angle)
    return torch.polar(torch.ones_like(phase), phase)
