"""The iterations of 2D classification."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from beamside.errors import InputError
from beamside.imaging.classify2d.expectation import (
    Best,
    Sums,
    Templates,
    add_log_prior,
    add_particles,
    log_likelihood_ratio,
    make_batch,
    make_templates,
    turned,
)
from beamside.imaging.classify2d.maximisation import (
    Averages,
    active_classes,
    average,
    centre_of_mass,
    empty_classes,
    split_classes,
)
from beamside.imaging.classify2d.model import ClassifySettings, State
from beamside.imaging.classify2d.particles import Particles
from beamside.imaging.classify2d.polar import PolarGrid, coarse_angles

WIDE_STAGES = 7
"""Iterations after each annealing that look for the particles anywhere within `max_shift`; later ones look around where they were."""
BLURRED_STAGES = 4
"""Iterations after each annealing that stay at the first resolution: what they call correlation of halves is their common start."""
SPLIT_STAGES = (8, 11, 14)
"""Iterations after which empty classes are given half of a large one."""
LAST_STAGE = 18
"""No iteration before this one can be the last (unless the caller says so)."""
GROWTH = 1.15
"""Most that the radius of comparison grows in one iteration."""
SEEDS = 2
"""Particles that each first reference is made of."""
MARGIN = 4
"""Rings beyond those compared, on which averages are made as well."""
_LEAK = 2
"""The first of them are not looked at: masks smear what is on one ring over its neighbours."""
GROWS_ABOVE, SHRINKS_BELOW = 0.2, 0.05
"""Mean correlation of half averages on those rings above or below which comparison reaches further or less far."""
GROWS_FOR_ONE = 0.6
"""The same of a single class: no class of noise comes by such a correlation."""
SETTLED = 0.005
"""Classification has converged when a smaller fraction of the particles changes class."""
RECENTRED = 2.0
"""Averages are moved when their centre of mass is at least this many pixels off."""
_FEWEST_ANGLES = 64
_BATCH_VALUES = 1_000_000
_SMALLEST_SHIFT_SD = 1.0
_FIRST_BATCH = 60
"""Particles per class in the first iterations, when there are many particles."""


@dataclass(frozen=True)
class Plan:
    """How one iteration compares.

    Attributes
    ----------
    grid : rings of the averages
    compared : number of rings that particles and references are compared on; the others show, without bias, whether there is more to compare
    shifts : ``(U, 2)`` trial shifts in pixels
    turn : first rotation in radians
    chosen : numbers of the particles
    wide : look for particles around the middle of their box; otherwise around where they were found before
    """

    grid: PolarGrid
    compared: int
    shifts: Tensor
    turn: float
    chosen: Tensor
    wide: bool


@dataclass
class Found:
    """What is known of each particle: class, ψ in radians, shift in pixels, probability, evidence."""

    label: Tensor
    psi: Tensor
    shift: Tensor
    pmax: Tensor
    evidence: Tensor

    def note(self, indices: Tensor, best: Best) -> None:
        """Take over the results of a batch."""
        for name in ("label", "psi", "shift", "pmax", "evidence"):
            getattr(self, name)[indices] = getattr(best, name)


def classify(
    stack: npt.NDArray[np.floating],
    ctf: npt.ArrayLike | None,
    groups: npt.ArrayLike | None,
    settings: ClassifySettings,
    state: State | None = None,
    iterations: int | None = None,
    on_iteration: Callable[[State], None] | None = None,
    device: str = "cpu",
) -> State:
    """Classify particles into 2D averages, from the start or from where `state` left off.

    Parameters
    ----------
    stack : ``(n, b, b)``, background of mean 0 and standard deviation 1, protein bright; an array or a memory map
    ctf : ``(n, 4)``: defocus U and V in Å, angle and phase shift in degrees; None for images without CTF
    groups : ``(n,)`` number of the group (micrograph or optics group) whose noise spectrum each particle shares, from 0; None for one group
    settings : see `ClassifySettings`
    state : an earlier result on the first particles of the same stack; more may have come. When they have doubled since the last annealing,
        classes are annealed again: everything starts from low resolution, with the classes found so far
    iterations : how many to do; None does as many as it takes to converge, at most ``settings.max_iterations``
    on_iteration : called with the state after every iteration; to keep a checkpoint, for example
    device : "cpu" or "cuda"

    Returns
    -------
    The state after the last iteration. The same input, seed and number of threads give the same result, also when continued from a saved state.

    Raises
    ------
    InputError
        when stack, CTF, groups and state do not fit each other.
    """
    particles = Particles(stack, ctf, groups, settings, torch.device(device))
    state = start(particles, settings) if state is None else resume(particles, settings, state)
    most = settings.max_iterations if iterations is None else iterations
    for _ in range(most):
        before = state
        state = iterate(particles, settings, state)
        if on_iteration is not None:
            on_iteration(state)
        if iterations is None and converged(before, state):
            break
    return state


def start(particles: Particles, settings: ClassifySettings) -> State:
    """Return the state before the first iteration: each reference is the filtered average of a few random particles, as they are.

    Averages of more particles are all alike: round, with next to nothing on the rings where views differ, and expectation-maximisation leaves that
    saddle slowly or never. What these have there is mostly noise, but it is different for each class and strong enough to start from.
    """
    count, device = particles.count, particles.device
    classes = active_classes(settings, count)
    rng = np.random.default_rng([settings.seed, 0])
    noise = particles.group_power() / particles.mask_fraction
    full = particles.grid
    rings = full.ring_of(_radius_of(settings.start_resolution, particles))
    grid = full.coarser(rings, coarse_angles(full, particles.data_radius, rings, 0))
    members = torch.as_tensor(np.resize(rng.permutation(count), classes * SEEDS), device=device)
    transfer = particles.transfer(members, grid)
    weights = transfer / noise[particles.groups[members], :rings, None]
    shape = (classes, SEEDS, rings, grid.angles // 2)
    data = (particles.rings(members, grid) * weights).view(shape).sum(1)
    total = (transfer * weights).view(shape).sum(1) + 1 / noise[:, :rings].mean(0)[:, None]
    zeros = np.zeros(count, np.float32)
    return State(
        iteration=0,
        references=particles.level(grid).backward(data / total).cpu().numpy(),
        class_weights=np.full(classes, 1 / classes, np.float32),
        resolution=np.full(classes, settings.start_resolution, np.float32),
        quality=np.zeros(classes, np.float32),
        signal=np.zeros(full.rings, np.float32),
        noise=noise.cpu().numpy(),
        label=np.full(count, -1, np.int64),
        psi=zeros,
        shift=np.zeros((count, 2), np.float32),
        pmax=zeros,
        evidence=zeros,
        shift_sd=max(settings.max_shift / 2, _SMALLEST_SHIFT_SD * settings.pixel_size),
        current_resolution=settings.start_resolution,
        stage=0,
        annealed_at=count,
    )


def resume(particles: Particles, settings: ClassifySettings, state: State) -> State:
    """Return `state` made to fit `particles`, of which more may have come."""
    known, box = state.references.shape[:2]
    if box != particles.box or known > settings.classes:
        raise InputError(
            f"The saved classification has {known} classes of {box} pixels, but at most {settings.classes} of {particles.box} are asked "
            "for; start a new one."
        )
    seen, count = len(state.label), particles.count
    if count < seen:
        raise InputError(
            f"The saved classification knows {seen} particles, but there are only {count}; give it the stack it was made from "
            "(more may follow), or start a new one."
        )
    return state if count == seen else _with_more(particles, settings, state)


def _with_more(particles: Particles, settings: ClassifySettings, state: State) -> State:
    """Return `state` with room for the particles that have come, and for the classes that they allow: empty ones, filled by splitting others."""
    count, more = particles.count, particles.count - len(state.label)
    classes = max(active_classes(settings, count), len(state.references)) - len(state.references)
    power = (particles.group_power() / particles.mask_fraction).cpu().numpy()
    again = count >= 2 * state.annealed_at
    resolution = settings.start_resolution if again else max(state.current_resolution, settings.start_resolution * 0.75)
    return replace(
        state,
        references=_extended(state.references, classes, 0),
        class_weights=_extended(state.class_weights, classes, 0),
        resolution=_extended(state.resolution, classes, settings.start_resolution),
        quality=_extended(state.quality, classes, 0),
        noise=np.concatenate([state.noise, power[len(state.noise) :]]),
        label=_extended(state.label, more, -1),
        psi=_extended(state.psi, more, 0),
        shift=_extended(state.shift, more, 0),
        pmax=_extended(state.pmax, more, 0),
        evidence=_extended(state.evidence, more, 0),
        current_resolution=resolution,
        stage=0 if again else WIDE_STAGES - 3,
        annealed_at=count if again else state.annealed_at,
    )


def _extended(values: npt.NDArray[Any], more: int, value: float) -> npt.NDArray[Any]:
    """Return `values` with `more` rows of one value added."""
    return np.concatenate([values, np.full((more, *values.shape[1:]), value, values.dtype)])


def converged(before: State, after: State) -> bool:
    """Tell whether another iteration would change next to nothing."""
    if after.stage < LAST_STAGE or (after.label < 0).any():
        return False
    changed = float(np.mean(before.label != after.label))
    return changed < SETTLED and after.current_resolution > 0.97 * before.current_resolution


def iterate(particles: Particles, settings: ClassifySettings, state: State) -> State:
    """Do one iteration over all particles (early on, over a part of them)."""
    plan = make_plan(particles, settings, state)
    device, pixel = particles.device, settings.pixel_size
    found = _found(state, pixel, device)
    noise = torch.as_tensor(state.noise, device=device)
    masked = torch.as_tensor(state.references, device=device) * particles.reference_mask
    references = particles.level(plan.grid).forward(masked)
    references[:, plan.compared :] = 0
    compared = plan.grid.coarser(plan.compared, plan.grid.angles)
    templates = make_templates(references[:, : plan.compared], compared, plan.shifts, plan.turn)
    halves = [
        _sweep(particles, plan, templates, noise, state.shift_sd / pixel, found, plan.chosen[plan.chosen % 2 == half])
        for half in range(2)
    ]
    data = torch.stack([half[0] for half in halves])
    weights = torch.stack([half[1] for half in halves])
    counts = halves[0][2] + halves[1][2]
    averages = average(particles, settings, plan.grid, data, weights)
    noise = _new_noise(particles, plan, references, data.sum(0), weights.sum(0), noise)
    images = averages.images
    if state.stage in SPLIT_STAGES:
        images = split_classes(averages, counts, images)
    if state.stage < SPLIT_STAGES[-1]:
        images = _recentre(particles, images, found)
    shift_sd = _shift_sd(found, plan) * pixel if state.stage >= WIDE_STAGES else state.shift_sd
    return State(
        iteration=state.iteration + 1,
        references=images.cpu().numpy(),
        class_weights=(counts / counts.sum()).cpu().numpy(),
        resolution=averages.resolution.cpu().numpy(),
        quality=averages.quality.cpu().numpy(),
        signal=averages.signal.cpu().numpy(),
        noise=noise.cpu().numpy(),
        label=found.label.cpu().numpy(),
        psi=np.rad2deg(found.psi.cpu().numpy()),
        shift=found.shift.cpu().numpy() * np.float32(pixel),
        pmax=found.pmax.cpu().numpy(),
        evidence=found.evidence.cpu().numpy(),
        shift_sd=shift_sd,
        current_resolution=_next_resolution(particles, plan, state, averages, counts),
        stage=state.stage + 1,
        annealed_at=state.annealed_at,
    )


def _sweep(
    particles: Particles,
    plan: Plan,
    templates: Templates,
    noise: Tensor,
    shift_sd: float,
    found: Found,
    indices: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare some particles with all templates; returns Σ p Y and Σ p B of each class, and Σ p."""
    sums = Sums(templates, plan.grid.rings)
    hypotheses = templates.classes * len(plan.shifts) * plan.grid.angles
    for part in torch.split(indices, max(4, _BATCH_VALUES // hypotheses)):
        centres = torch.zeros((len(part), 2), device=particles.device) if plan.wide else found.shift[part]
        batch = make_batch(
            particles.rings(part, plan.grid),
            particles.transfer(part, plan.grid),
            noise[particles.groups[part], : plan.grid.rings],
            centres,
            plan.grid,
        )
        joint = log_likelihood_ratio(templates, batch)
        add_log_prior(joint, templates, batch, shift_sd)
        found.note(part, add_particles(joint, templates, batch, sums))
    return *sums.finish(templates), sums.counts


def make_plan(particles: Particles, settings: ClassifySettings, state: State) -> Plan:
    """Choose what one iteration compares. Rotations and shifts start at a random fraction of a step, so that no grid favours itself."""
    rng = np.random.default_rng([settings.seed, state.iteration + 1])
    full, device = particles.grid, particles.device
    radius = _radius_of(state.current_resolution, particles)
    compared = full.ring_of(radius)
    rings = min(compared + MARGIN, full.rings)
    grid = full.coarser(rings, coarse_angles(full, particles.data_radius, rings, _FEWEST_ANGLES))
    wide = state.stage < WIDE_STAGES
    detail = particles.box / radius  # pixels
    step = max(2.0 if wide else 0.75, detail / 4)
    reach = settings.max_shift / settings.pixel_size if wide else min(1.5, max(1.0, 3 / step)) * step
    jitter = torch.as_tensor(rng.uniform(-0.5, 0.5, 2) * step, dtype=torch.float32)
    shifts = _disc_of_shifts(reach, step) + jitter
    turn = float(rng.uniform(-0.5, 0.5)) * 2 * math.pi / grid.angles
    chosen = torch.arange(particles.count)
    if wide:
        first = max(_FIRST_BATCH * settings.classes, 1000) * 2 ** (state.stage / 3)
        if first < particles.count:
            chosen = torch.as_tensor(np.sort(rng.permutation(particles.count)[: int(first)]))
    return Plan(grid, compared, shifts.to(device), turn, chosen.to(device), wide)


def _disc_of_shifts(reach: float, step: float) -> Tensor:
    """Return the points ``(U, 2)`` of a square grid around zero that lie within `reach`."""
    count = int(reach / step + 1e-6)
    axis = torch.arange(-count, count + 1, dtype=torch.float32) * step
    points = torch.cartesian_prod(axis, axis)
    return points[points.square().sum(1) <= reach**2 + 1e-4]


def _radius_of(resolution: float, particles: Particles) -> float:
    """Return the Fourier radius in pixels of a `resolution` in Å, at most that of the outermost ring."""
    grid = particles.grid
    return float(min(particles.box * particles.settings.pixel_size / resolution, grid.rings * grid.spacing))


def _found(state: State, pixel_size: float, device: torch.device) -> Found:
    """Return the particles' results as tensors of their own."""
    return Found(
        label=torch.tensor(state.label, device=device),
        psi=torch.deg2rad(torch.tensor(state.psi, device=device)),
        shift=torch.tensor(state.shift, device=device) / pixel_size,
        pmax=torch.tensor(state.pmax, device=device),
        evidence=torch.tensor(state.evidence, device=device),
    )


def _new_noise(
    particles: Particles, plan: Plan, references: Tensor, data: Tensor, weights: Tensor, noise: Tensor
) -> Tensor:
    """Return the power spectrum of each group's noise: what the particles have, less what the references explain."""
    rings = plan.grid.rings
    explained = 2 * (data * references.conj()).real - weights * (references.real**2 + references.imag**2)
    fraction = (explained.mean(-1).sum(0) / len(plan.chosen)).clamp(0, 0.95)  # of the noise's power
    power = particles.group_power()
    power[:, :rings] -= noise[:, :rings] * fraction
    floor = 0.05 * particles.group_power()
    return torch.maximum(power, floor) / particles.mask_fraction


def _shift_sd(found: Found, plan: Plan) -> float:
    """Return the standard deviation of the shifts along one axis, in pixels."""
    return max(_SMALLEST_SHIFT_SD, math.sqrt(float(found.shift[plan.chosen].square().sum(1).mean()) / 2))


def _recentre(particles: Particles, images: Tensor, found: Found) -> Tensor:
    """Bring what is bright in the averages to the middle, and the particles' shifts along with it."""
    centres = centre_of_mass(images, particles.reference_mask).round()
    centres[centres.norm(dim=1) < RECENTRED] = 0
    if not bool(centres.any()):
        return images
    moved = torch.stack(
        [
            torch.roll(image, (-int(y), -int(x)), dims=(0, 1))
            for image, (y, x) in zip(images, centres.tolist(), strict=True)
        ]
    )
    known = found.label >= 0
    # the reference moves by -v, so a particle turned by ψ moves by -M(ψ) v in its own frame
    found.shift[known] -= turned(centres[found.label[known]], found.psi[known])
    return moved


def _next_resolution(particles: Particles, plan: Plan, state: State, averages: Averages, counts: Tensor) -> float:
    """Return up to where the next iteration compares, in Å.

    Particles that are aligned to a common reference agree with each other even where there is only noise, but not on the rings that were not
    compared. So comparison moves outwards only while half averages correlate on those, and moves inwards when they do not just inside.
    """
    if state.stage < BLURRED_STAGES:
        return state.current_resolution
    grid = particles.grid
    # classes that have formed have the say; they are told by the compared rings, so that choosing them favours nothing on the others
    formed = averages.shape_correlation[:, : plan.compared].mean(1).clamp(min=0).square()
    used = counts * ~empty_classes(counts) * formed
    correlation = (averages.shape_correlation * used[:, None]).sum(0) / used.sum().clamp(min=1e-6)
    outer = correlation[plan.compared + _LEAK :]
    if len(outer) == 0:
        return state.current_resolution
    common = float(outer.mean())
    single = averages.shape_correlation[~empty_classes(counts)][:, plan.compared + _LEAK :].mean(1)
    best = float(single.max()) if len(single) else 0.0
    radius = _radius_of(state.current_resolution, particles)
    if common > GROWS_ABOVE or best > GROWS_FOR_ONE:
        radius = min(radius * GROWTH, radius + MARGIN * grid.spacing)
    elif common < SHRINKS_BELOW:
        radius = max(radius / GROWTH, _radius_of(particles.settings.start_resolution, particles))
    return float(particles.box * particles.settings.pixel_size / radius)
