"""The state before the first iteration, and before the first with more particles."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from beamside.errors import InputError
from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.maximisation import active_classes
from beamside.imaging.classify2d.model import ClassifySettings, State
from beamside.imaging.classify2d.plan import JOINING
from beamside.imaging.classify2d.polar import coarse_angles
from beamside.imaging.classify2d.shards import SeedRequest, Shard, run, seed_sums

SEEDS = 2
"""Particles that each first reference is made of."""
SMALLEST_SHIFT_SD = 1.0
"""Pixels."""
_STEPS_BACK = 0.75
"""Part of the first resolution at which comparison goes on, at the best, when particles join."""


def start(
    shards: list[Shard],
    geometry: Geometry,
    settings: ClassifySettings,
    power: npt.NDArray[np.float64],
    executor: Executor | None,
) -> State:
    """Return the state before the first iteration: each reference is the filtered average of a few random particles, as they are.

    Averages of more particles are all alike: round, with next to nothing on the rings where views differ, and expectation-maximisation leaves that
    saddle slowly or never. What these have there is mostly noise, but it is different for each class and strong enough to start from.
    `power` is the mean power ``(groups, R)`` of each group's particles.
    """
    count = shards[-1].first + shards[-1].images.count
    classes = active_classes(settings, count)
    rng = np.random.default_rng([settings.seed, 0])
    noise = (power / geometry.mask_fraction).astype(np.float32)
    full = geometry.grid
    rings = full.ring_of(geometry.radius_of(settings.start_resolution))
    grid = full.coarser(rings, coarse_angles(full, geometry.data_radius, rings, 0))
    members = np.resize(rng.permutation(count), classes * SEEDS)
    order = np.argsort(members, kind="stable")
    labels = np.repeat(np.arange(classes), SEEDS)[order]
    request = SeedRequest(settings, str(geometry.device), grid, noise, classes, members[order], labels)
    data = torch.zeros((classes, rings, grid.angles // 2), dtype=torch.complex64)
    total = torch.as_tensor(1 / noise[:, :rings]).mean(0)[:, None].repeat(classes, 1, 1)
    for sums in run(executor, seed_sums, shards, request):
        data = data + torch.as_tensor(sums.data)
        total = total + torch.as_tensor(sums.weights)
    zeros = np.zeros(count, np.float32)
    return State(
        iteration=0,
        references=geometry.level(grid).backward((data / total).to(geometry.device)).cpu().numpy(),
        class_weights=np.full(classes, 1 / classes, np.float32),
        resolution=np.full(classes, settings.start_resolution, np.float32),
        quality=np.zeros(classes, np.float32),
        signal=np.zeros(full.rings, np.float32),
        noise=noise,
        label=np.full(count, -1, np.int64),
        psi=zeros,
        shift=np.zeros((count, 2), np.float32),
        pmax=zeros,
        share=zeros,
        evidence=zeros,
        leverage=np.zeros((classes, full.rings), np.float32),
        shift_sd=max(settings.max_shift / 2, SMALLEST_SHIFT_SD * settings.pixel_size),
        current_resolution=settings.start_resolution,
        stage=0,
        annealed_at=count,
    )


def resume(
    count: int, geometry: Geometry, settings: ClassifySettings, power: npt.NDArray[np.float64], state: State
) -> State:
    """Return `state` made to fit `count` particles, of which more may have come.

    When they have doubled since the last annealing, classes are annealed again: everything starts from low resolution, with the classes found so
    far. Otherwise the new ones join the classes as they are, which are refined once more.

    Raises
    ------
    InputError
        when the state is of more classes, more particles or images of another size.
    """
    known, box = state.references.shape[:2]
    if box != geometry.box or known > settings.classes:
        raise InputError(
            f"The saved classification has {known} classes of {box} pixels, but at most {settings.classes} of {geometry.box} are asked "
            "for; start a new one."
        )
    seen = len(state.label)
    if count < seen:
        raise InputError(
            f"The saved classification knows {seen} particles, but there are only {count}; give it the stack it was made from "
            "(more may follow), or start a new one."
        )
    if count == seen:
        return state
    more, classes = count - seen, max(active_classes(settings, count), known) - known
    noise = (power / geometry.mask_fraction).astype(np.float32)
    again = count >= 2 * state.annealed_at
    start_resolution = settings.start_resolution
    return replace(
        state,
        references=_extended(state.references, classes, 0),
        class_weights=_extended(state.class_weights, classes, 0),
        resolution=_extended(state.resolution, classes, start_resolution),
        quality=_extended(state.quality, classes, 0),
        noise=np.concatenate([state.noise, noise[len(state.noise) :]]),
        label=_extended(state.label, more, -1),
        psi=_extended(state.psi, more, 0),
        shift=_extended(state.shift, more, 0),
        pmax=_extended(state.pmax, more, 0),
        share=_extended(state.share, more, 0),
        evidence=_extended(state.evidence, more, 0),
        leverage=_extended(state.leverage, classes, 0),
        current_resolution=start_resolution if again else max(state.current_resolution, start_resolution * _STEPS_BACK),
        stage=0 if again else JOINING,
        annealed_at=count if again else state.annealed_at,
    )


def _extended(values: npt.NDArray[Any], more: int, value: float) -> npt.NDArray[Any]:
    """Return `values` with `more` rows of one value added."""
    return np.concatenate([values, np.full((more, *values.shape[1:]), value, values.dtype)])
