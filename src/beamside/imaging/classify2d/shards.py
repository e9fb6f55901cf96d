"""An iteration in parts that several workers share.

The particles are divided into shards of a fixed size. `survey`, `seed_sums` and `expectation` are functions of one shard and of a request that is
the same for all; what they return are sums, which are added in the order of the shards, and results of single particles. So a classification does
not depend on how many workers there are, or on which of them did what; and no worker needs more than one shard of particles in memory.

Everything here can be pickled: any ``concurrent.futures.Executor`` will do, of threads, of processes, or of other machines that see the same files.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from beamside.imaging.classify2d.expectation import make_batch
from beamside.imaging.classify2d.geometry import geometry_of
from beamside.imaging.classify2d.model import ClassifySettings
from beamside.imaging.classify2d.own_noise import OwnNoise
from beamside.imaging.classify2d.particles import Particles
from beamside.imaging.classify2d.plan import Plan
from beamside.imaging.classify2d.polar import PolarGrid
from beamside.imaging.classify2d.search import Search, compare, together
from beamside.imaging.classify2d.stack import ImageStack
from beamside.imaging.classify2d.variation import vary

SHARD_PARTICLES = 1000
"""Particles in a shard: enough that turning sums back into averages, once for each shard, is little beside comparing."""
_CACHE_BYTES = 800_000_000
"""Rings of particles are kept in a process until they take this much; those of further shards are made again for each iteration."""
_TOGETHER = 128
"""Particles that are looked at together for how classes vary."""
_COMMON_PARTICLES = 10
"""Particles with the common shape of spectrum that each group has besides its own: a few tell little of the inner rings."""

Outcome = TypeVar("Outcome")
Request = TypeVar("Request")


@dataclass(frozen=True)
class Shard:
    """Some of the particles.

    Attributes
    ----------
    key : names the whole stack, for as long as it is classified
    first : number of the first of the particles
    images, ctf, groups : see `classify`
    """

    key: str
    first: int
    images: ImageStack
    ctf: npt.NDArray[np.floating] | None
    groups: npt.NDArray[np.integer]

    def here(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return which of the particles `numbers`, rising, are in this shard."""
        return numbers[np.searchsorted(numbers, self.first) : np.searchsorted(numbers, self.first + self.images.count)]


def make_shards(
    key: str,
    images: ImageStack,
    ctf: npt.NDArray[np.floating] | None,
    groups: npt.NDArray[np.integer],
    size: int = SHARD_PARTICLES,
) -> list[Shard]:
    """Divide particles into shards of at most `size`."""
    shards = []
    for first in range(0, images.count, size):
        last = min(first + size, images.count)
        part = None if ctf is None else ctf[first:last]
        shards.append(Shard(key, first, images.part(first, last), part, groups[first:last]))
    return shards


def run(
    executor: Executor | None, function: Callable[[Shard, Request], Outcome], shards: list[Shard], request: Request
) -> Iterator[Outcome]:
    """Return the outcomes of `function` for all shards, in their order; without an executor, each is made when it is asked for."""
    if executor is None:
        return (function(shard, request) for shard in shards)
    return executor.map(function, shards, repeat(request))


@contextmanager
def local_workers(threads: int) -> Iterator[Executor | None]:
    """Give workers for `threads` threads of this process, each torch operation on one; None for one thread.

    Torch releases Python's lock while it calculates. Its own threads would wait for each other after every one of the many small operations.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads > 1:
            with ThreadPoolExecutor(threads, thread_name_prefix="class2d") as pool:
                yield pool
        else:
            yield None
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class SurveyRequest:
    """Asks for the power of `groups` groups of particles."""

    settings: ClassifySettings
    device: str
    groups: int


@dataclass(frozen=True)
class Survey:
    """Sum of the power spectra of each group's particles, float64 ``(groups, R)``, and how many they are ``(groups,)``."""

    power: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


def survey(shard: Shard, request: SurveyRequest) -> Survey:
    """Return the power of the shard's particles.

    Raises
    ------
    InputError
        when a particle has values that are not numbers.
    """
    particles = _particles(shard, request.settings, request.device)
    particles.check(shard.first)
    power, counts = particles.group_power(request.groups)
    return Survey(power.cpu().numpy(), counts.cpu().numpy())


def group_power(surveys: Iterable[Survey]) -> npt.NDArray[np.float64]:
    """Return the mean power spectrum ``(groups, R)`` of each group's particles, with some of the mean of all at the group's level."""
    every = list(surveys)
    counts = np.sum([each.counts for each in every], axis=0)[:, None]
    sums: npt.NDArray[np.float64] = np.sum([each.power for each in every], axis=0)
    common = sums.sum(axis=0) / counts.sum()
    level = (sums / np.maximum(counts, 1) / np.maximum(common, 1e-30)).mean(axis=1, keepdims=True)
    power: npt.NDArray[np.float64] = (sums + _COMMON_PARTICLES * level * common) / (counts + _COMMON_PARTICLES)
    return power


@dataclass(frozen=True)
class SeedRequest:
    """Asks for the sums over the particles `members` ``(m,)``, rising, that are to start the classes `labels` ``(m,)``.

    `noise` is ``(groups, R)``.
    """

    settings: ClassifySettings
    device: str
    grid: PolarGrid
    noise: npt.NDArray[np.float32]
    classes: int
    members: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassSums:
    """Sums of each class: Σ p C X / S, complex ``(..., K, R, N / 2)``, and Σ p C² / S, the same real."""

    data: npt.NDArray[np.complex64]
    weights: npt.NDArray[np.float32]


def seed_sums(shard: Shard, request: SeedRequest) -> ClassSums:
    """Return the sums over those of the asked particles that the shard has, as they are."""
    grid = request.grid
    shape = (request.classes, grid.rings, grid.angles // 2)
    data, weights = torch.zeros(shape, dtype=torch.complex64), torch.zeros(shape)
    members = shard.here(request.members)
    if len(members):
        particles = _particles(shard, request.settings, request.device)
        local = torch.as_tensor(members - shard.first, device=particles.groups.device)
        labels = torch.as_tensor(request.labels[np.isin(request.members, members)])
        transfer = particles.transfer(local, grid)
        noise = torch.as_tensor(request.noise, device=local.device)[particles.groups[local], : grid.rings, None]
        data.index_add_(0, labels, (particles.rings(local, grid) * transfer / noise).cpu())
        weights.index_add_(0, labels, (transfer.square() / noise).cpu())
    return ClassSums(data.numpy(), weights.numpy())


@dataclass(frozen=True)
class ExpectationRequest:
    """Asks to compare particles with references.

    Attributes
    ----------
    plan : what to compare
    references : complex ``(K, compared, N / 2)`` on the compared rings; a class that is zero takes no part
    noise : ``(groups, R)``
    shift_sd : pixels
    centres : ``(n, 2)`` where all particles of the stack were found before, pixels
    psi : ``(n,)`` how they were turned, radians
    label, share, leverage : which averages hold which particle, see `own_noise.OwnNoise`; ``(n,)``, ``(n,)`` and ``(K, R)``
    """

    settings: ClassifySettings
    device: str
    plan: Plan
    references: npt.NDArray[np.complex64]
    noise: npt.NDArray[np.float32]
    shift_sd: float
    centres: npt.NDArray[np.float32]
    psi: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    share: npt.NDArray[np.float32]
    leverage: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Partial:
    """What a shard adds to an iteration.

    Attributes
    ----------
    sums : of both halves of the particles, ``(2, K, R, N / 2)``
    counts : Σ p ``(2, K)``
    numbers : ``(m,)`` of the particles, for the rest
    label, psi, shift, pmax, share, evidence : what `expectation.Best` has of each
    """

    sums: ClassSums
    counts: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    psi: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]
    pmax: npt.NDArray[np.float32]
    share: npt.NDArray[np.float32]
    evidence: npt.NDArray[np.float32]


def expectation(shard: Shard, request: ExpectationRequest) -> Partial:
    """Compare the chosen ones of the shard's particles with all references; particles of odd numbers are one half, the others the other."""
    plan = request.plan
    chosen = shard.here(plan.chosen)
    particles = _particles(shard, request.settings, request.device)
    device = particles.groups.device
    classes, grid = len(request.references), plan.grid
    active = np.flatnonzero(np.abs(request.references).reshape(classes, -1).max(axis=1) > 0)
    shifts = torch.as_tensor(plan.shifts, device=device)
    search = Search(
        torch.as_tensor(request.references[active], device=device),
        grid,
        shifts,
        plan.turn,
        request.shift_sd,
        plan.first,
        shifts if plan.wide else torch.zeros_like(shifts[:1]),
    )
    noise = torch.as_tensor(request.noise, device=device)[:, : grid.rings]
    shape = (2, classes, grid.rings, grid.angles // 2)
    sums = ClassSums(np.zeros(shape, np.complex64), np.zeros(shape, np.float32))
    counts = np.zeros((2, classes))
    numbers = [chosen[chosen % 2 == half] for half in range(2)]
    found = []
    # of each class among the active ones; the last is for particles of none, of label -1
    place = np.full(classes + 1, -1)
    place[active] = np.arange(len(active))
    leverage = torch.as_tensor(request.leverage[active], device=device)
    for half, mine in enumerate(numbers):
        local = torch.as_tensor(mine - shard.first, device=device)
        centres = np.zeros((len(mine), 2), np.float32) if plan.wide else request.centres[mine]
        result, best = compare(
            search,
            lambda part: (particles.rings(part, grid), particles.transfer(part, grid)),
            local,
            noise[particles.groups[local]],
            torch.as_tensor(centres, device=device),
            torch.as_tensor(request.psi[mine], device=device) if plan.centred else None,
            OwnNoise(
                torch.as_tensor(place[request.label[mine]], device=device),
                torch.as_tensor(request.share[mine], device=device),
                leverage,
            ),
        )
        sums.data[half, active], sums.weights[half, active], counts[half, active] = (
            value.cpu().numpy() for value in result
        )
        found.append(best)
    best = together(found)
    return Partial(
        sums,
        counts,
        np.concatenate(numbers),
        active[best.label.cpu().numpy()],
        best.psi.cpu().numpy(),
        best.shift.cpu().numpy(),
        best.pmax.cpu().numpy(),
        best.share.cpu().numpy(),
        best.evidence.cpu().numpy(),
    )


@dataclass(frozen=True)
class VariationRequest:
    """Asks how the particles of some classes vary along one direction each.

    Attributes
    ----------
    grid : rings that are looked at
    labels : ``(L,)`` the classes
    averages, directions : complex ``(L, R, N / 2)``; the particles of a class are its average plus a number of each times its direction, plus noise
    noise : ``(groups, R)``
    label : ``(n,)`` class of each particle of the stack
    psi : ``(n,)`` radians, and `shift` ``(n, 2)`` pixels, which bring it onto the average
    """

    settings: ClassifySettings
    device: str
    grid: PolarGrid
    labels: npt.NDArray[np.int64]
    averages: npt.NDArray[np.complex64]
    directions: npt.NDArray[np.complex64]
    noise: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]
    psi: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float32]


def variation(shard: Shard, request: VariationRequest) -> ClassSums:
    """Return the sums over the shard's particles that better directions are made of, see `variation`."""
    grid, last = request.grid, shard.first + shard.images.count
    sums = ClassSums(np.zeros(request.averages.shape, np.complex64), np.zeros(request.averages.shape, np.float32))
    members = shard.here(np.flatnonzero(np.isin(request.label[:last], request.labels)))
    if not len(members):
        return sums
    particles = _particles(shard, request.settings, request.device)
    device = particles.groups.device
    noise = torch.as_tensor(request.noise, device=device)[:, : grid.rings]
    averages, directions = (torch.as_tensor(each, device=device) for each in (request.averages, request.directions))
    for mine in np.array_split(members, math.ceil(len(members) / _TOGETHER)):
        local = torch.as_tensor(mine - shard.first, device=device)
        batch = make_batch(
            particles.rings(local, grid),
            particles.transfer(local, grid),
            noise[particles.groups[local]],
            torch.as_tensor(request.shift[mine], device=device),
            grid,
            torch.as_tensor(request.psi[mine], device=device),
        )
        label = torch.as_tensor(request.label[mine], device=device)
        for place, each in enumerate(request.labels.tolist()):
            here = (label == each).nonzero()[:, 0]
            if len(here):
                data, weights = vary(batch.of(here), grid, averages[place], directions[place])
                sums.data[place] += data.cpu().numpy()
                sums.weights[place] += weights.cpu().numpy()
    return sums


_kept: dict[tuple[str, int, str], Particles] = {}
_lock = threading.Lock()


def _particles(shard: Shard, settings: ClassifySettings, device: str) -> Particles:
    """Return the shard's particles on rings, which are kept as long as there is room."""
    name = (shard.key, shard.first, device)
    kept = _kept.get(name)
    if kept is not None and kept.count == shard.images.count:
        return kept
    geometry = geometry_of(shard.images.box, settings, device)
    with _lock:
        for other in [each for each in _kept if each[0] != shard.key]:
            del _kept[other]  # of a stack that is done with
        room = _CACHE_BYTES - sum(each.bytes for each in _kept.values())
    grid = geometry.grid
    keep = 4 * grid.rings * grid.angles * shard.images.count <= room
    particles = Particles(shard.images, shard.ctf, shard.groups, geometry, keep)
    if keep:
        with _lock:
            _kept[name] = particles
    return particles


def forget(key: str) -> None:
    """Let go of the particles of a stack."""
    with _lock:
        for name in [each for each in _kept if each[0] == key]:
            del _kept[name]
