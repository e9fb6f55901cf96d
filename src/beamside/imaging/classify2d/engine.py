"""The iterations of 2D classification."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from beamside.errors import InputError
from beamside.imaging.classify2d.classes import Duplicates, follow, recentre
from beamside.imaging.classify2d.geometry import Geometry, geometry_of
from beamside.imaging.classify2d.maximisation import average
from beamside.imaging.classify2d.model import ClassifySettings, State
from beamside.imaging.classify2d.own_noise import leverage
from beamside.imaging.classify2d.plan import (
    MERGE_STAGES,
    SPLIT_STAGES,
    WIDE_STAGES,
    Plan,
    converged,
    make_plan,
    next_resolution,
    next_stage,
)
from beamside.imaging.classify2d.shards import (
    SHARD_PARTICLES,
    ClassSums,
    ExpectationRequest,
    Partial,
    SurveyRequest,
    VariationRequest,
    expectation,
    forget,
    group_power,
    make_shards,
    run,
    survey,
    variation,
)
from beamside.imaging.classify2d.splitting import Vary, split_classes
from beamside.imaging.classify2d.stack import ImageStack, as_stack
from beamside.imaging.classify2d.start import SMALLEST_SHIFT_SD, resume, start


def classify(
    stack: npt.NDArray[np.floating] | ImageStack,
    ctf: npt.ArrayLike | None,
    groups: npt.ArrayLike | None,
    settings: ClassifySettings,
    state: State | None = None,
    iterations: int | None = None,
    on_iteration: Callable[[State], None] | None = None,
    device: str = "cpu",
    executor: Executor | None = None,
    shard_particles: int = SHARD_PARTICLES,
) -> State:
    """Classify particles into 2D averages, from the start or from where `state` left off.

    Parameters
    ----------
    stack : ``(n, b, b)``, background of mean 0 and standard deviation 1, protein bright; an array, a memory map or an `ImageStack` of files
    ctf : ``(n, 4)``: defocus U and V in Å, angle and phase shift in degrees; None for images without CTF. Where images are of several microscopes
        ``(n, 7)``, with voltage in kV, spherical aberration in mm and amplitude contrast of each, which go before those of `settings`
    groups : ``(n,)`` number of the group (micrograph or optics group) whose noise spectrum each particle shares, from 0; None for one group
    settings : see `ClassifySettings`
    state : an earlier result on the first particles of the same stack; more may have come. When they have doubled since the last annealing,
        classes are annealed again: everything starts from low resolution, with the classes found so far
    iterations : how many to do; None does as many as it takes to converge, at most ``settings.max_iterations``
    on_iteration : called with the state after every iteration; to keep a checkpoint, for example
    device : "cpu" or "cuda"
    executor : of the workers that share each iteration; without one, all is done by the caller
    shard_particles : particles that a worker takes at a time

    Returns
    -------
    The state after the last iteration. The same input, seed and size of shards give the same result, also when continued from a saved state, and
    however many workers there are. Other sizes of shards differ by float32 rounding.

    Raises
    ------
    InputError
        when stack, CTF, groups and state do not fit each other.
    """
    images = as_stack(stack)
    count = images.count
    transfer = None if ctf is None else _checked_ctf(ctf, count)
    numbers = np.zeros(count, np.int64) if groups is None else _checked(groups, (count,), "groups").astype(np.int64)
    geometry, key = geometry_of(images.box, settings, device), uuid.uuid4().hex
    shards = make_shards(key, images, transfer, numbers, shard_particles)

    def vary(request: VariationRequest) -> Iterable[ClassSums]:
        return run(executor, variation, shards, request)

    try:
        power = group_power(run(executor, survey, shards, SurveyRequest(settings, device, int(numbers.max()) + 1)))
        state = (
            start(shards, geometry, settings, power, executor)
            if state is None
            else resume(count, geometry, settings, power, state)
        )
        for _ in range(settings.max_iterations if iterations is None else iterations):
            before = state
            plan = make_plan(geometry, settings, state)
            partials = run(executor, expectation, shards, _request(geometry, settings, plan, state))
            state = maximisation(geometry, settings, plan, power, state, partials, vary)
            if on_iteration is not None:
                on_iteration(state)
            if iterations is None and converged(before, state):
                break
    finally:
        forget(key)
    return state


def _checked_ctf(ctf: npt.ArrayLike, count: int) -> npt.NDArray[np.float32]:
    columns = 7 if np.asarray(ctf).shape[1:] == (7,) else 4
    return _checked(ctf, (count, columns), "CTF").astype(np.float32)


def _checked(values: npt.ArrayLike, shape: tuple[int, ...], name: str) -> npt.NDArray[np.generic]:
    array = np.asarray(values)
    if array.shape != shape:
        raise InputError(f"2D classification: {name} has the shape {array.shape}, but the stack needs {shape}.")
    return array


def _request(geometry: Geometry, settings: ClassifySettings, plan: Plan, state: State) -> ExpectationRequest:
    """Return what the workers must know for one iteration."""
    return ExpectationRequest(
        settings,
        str(geometry.device),
        plan,
        references_on_rings(geometry, plan, state).cpu().numpy(),
        state.noise,
        state.shift_sd / settings.pixel_size,
        state.shift / np.float32(settings.pixel_size),
        np.deg2rad(state.psi),
        state.label,
        state.share,
        state.leverage,
    )


def references_on_rings(geometry: Geometry, plan: Plan, state: State) -> Tensor:
    """Return the masked references ``(K, compared, N / 2)`` on the rings that they are compared on."""
    images = torch.as_tensor(state.references, device=geometry.device) * geometry.reference_mask
    return geometry.level(plan.grid).forward(images)[:, : plan.compared]


@dataclass
class Found:
    """What is known of each particle: class, ψ in radians, shift in pixels, probability of the hypothesis and of the class, evidence."""

    label: Tensor
    psi: Tensor
    shift: Tensor
    pmax: Tensor
    share: Tensor
    evidence: Tensor

    def note(self, partial: Partial) -> None:
        """Take over the results of a shard."""
        for field in fields(self):
            getattr(self, field.name)[partial.numbers] = torch.as_tensor(getattr(partial, field.name))


def maximisation(
    geometry: Geometry,
    settings: ClassifySettings,
    plan: Plan,
    power: npt.NDArray[np.float64],
    state: State,
    partials: Iterable[Partial],
    vary: Vary,
) -> State:
    """Return the state after an iteration, from what the shards found in it, in the order of the shards.

    `vary` asks the shards how classes vary, and `power` is the mean power ``(groups, R)`` of each group's particles.
    """
    pixel, device = settings.pixel_size, geometry.device
    found = _found(state, pixel)
    data, weights, counts = _added(partials, found)
    data, weights, counts = data.to(device), weights.to(device), counts.to(device)
    noise = _new_noise(geometry, plan, references_on_rings(geometry, plan, state), data, weights, state.noise, power)
    if settings.merge_duplicates and state.stage in (*SPLIT_STAGES[1:], *MERGE_STAGES):
        duplicates = Duplicates(geometry, plan.grid, plan.compared, data, weights, counts)
        duplicates.merge()
        follow(duplicates.merges, found.label, found.psi, found.shift)
        data, weights, counts = duplicates.data, duplicates.weights, duplicates.counts
    averages = average(geometry, plan.grid, data, weights)
    images = averages.images
    own = leverage(geometry, plan.grid, averages.signal[: plan.grid.rings], weights.sum(0), counts)
    if len(plan.chosen) < len(found.label):
        own[:] = 0  # only some particles are in these averages
    if state.stage in SPLIT_STAGES:
        request = _variation(geometry, settings, plan, state, found)
        images, divided = split_classes(images, data, weights, counts, geometry, plan, request, vary)
        own[divided] = 0  # their particles are in both halves
    if state.stage < SPLIT_STAGES[-1]:
        images = recentre(geometry, images, found.label, found.psi, found.shift)
    wide = state.stage < WIDE_STAGES
    return State(
        iteration=state.iteration + 1,
        references=images.cpu().numpy(),
        class_weights=(counts / counts.sum()).cpu().numpy(),
        resolution=averages.resolution.cpu().numpy(),
        quality=averages.quality.cpu().numpy(),
        signal=averages.signal.cpu().numpy(),
        noise=noise,
        label=found.label.numpy(),
        psi=np.rad2deg(found.psi.numpy()),
        shift=found.shift.numpy() * np.float32(pixel),
        pmax=found.pmax.numpy(),
        share=found.share.numpy(),
        evidence=found.evidence.numpy(),
        leverage=_full_rings(own, geometry),
        shift_sd=state.shift_sd if wide else _shift_sd(found) * pixel,
        current_resolution=next_resolution(geometry, plan, state, averages, counts),
        stage=next_stage(state.stage),
        annealed_at=state.annealed_at,
    )


def _added(partials: Iterable[Partial], found: Found) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of all shards: data and weights of both halves ``(2, K, R, N / 2)``, and the classes' counts ``(K,)``; fills `found`."""
    data, weights, counts = np.zeros(1, np.complex128), np.zeros(1), np.zeros(1)
    for partial in partials:
        data, weights, counts = (
            total + new
            for total, new in zip(
                (data, weights, counts), (partial.sums.data, partial.sums.weights, partial.counts.sum(0)), strict=True
            )
        )
        found.note(partial)
    return (
        torch.from_numpy(data.astype(np.complex64)),
        torch.from_numpy(weights.astype(np.float32)),
        torch.from_numpy(counts.astype(np.float32)),
    )


def _found(state: State, pixel_size: float) -> Found:
    """Return the particles' results as tensors of their own."""
    return Found(
        label=torch.tensor(state.label),
        psi=torch.deg2rad(torch.tensor(state.psi)),
        shift=torch.tensor(state.shift) / pixel_size,
        pmax=torch.tensor(state.pmax),
        share=torch.tensor(state.share),
        evidence=torch.tensor(state.evidence),
    )


def _variation(
    geometry: Geometry, settings: ClassifySettings, plan: Plan, state: State, found: Found
) -> VariationRequest:
    """Return the question what the particles of no class differ in; `split_classes` asks it of some."""
    grid = plan.first or plan.grid.coarser(plan.compared, plan.grid.angles)
    nothing = np.zeros((0, grid.rings, grid.angles // 2), np.complex64)
    where = (found.label.numpy(), found.psi.numpy(), found.shift.numpy())
    device, nobody = str(geometry.device), np.zeros(0, np.int64)
    return VariationRequest(settings, device, grid, nobody, nothing, nothing, state.noise, *where)


def _full_rings(values: Tensor, geometry: Geometry) -> npt.NDArray[np.float32]:
    """Return `values` ``(K, R')`` with zeros for the rings that are missing."""
    full = np.zeros((len(values), geometry.grid.rings), np.float32)
    full[:, : values.shape[1]] = values.cpu().numpy()
    return full


def _new_noise(
    geometry: Geometry,
    plan: Plan,
    references: Tensor,
    data: Tensor,
    weights: Tensor,
    noise: npt.NDArray[np.float32],
    power: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """Return the power spectrum of each group's noise: what the particles have, less what the references explain."""
    rings = plan.compared
    data, weights = data[:, :, :rings].sum(0), weights[:, :, :rings].sum(0)
    explained = 2 * (data * references.conj()).real - weights * (references.real**2 + references.imag**2)
    fraction = (explained.mean(-1).sum(0) / len(plan.chosen)).clamp(0, 0.95)  # of the noise's power
    left = power.copy()
    left[:, :rings] -= noise[:, :rings] * fraction.cpu().numpy()
    return (np.maximum(left, 0.05 * power) / geometry.mask_fraction).astype(np.float32)


def _shift_sd(found: Found) -> float:
    """Return the standard deviation of the shifts along one axis, in pixels."""
    known = found.shift[found.label >= 0]
    return max(SMALLEST_SHIFT_SD, math.sqrt(float(known.square().sum(1).mean()) / 2))
