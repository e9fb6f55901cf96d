"""The schedule: what each iteration compares, with which particles, and when it is enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.maximisation import Averages, empty_classes
from beamside.imaging.classify2d.model import ClassifySettings, State
from beamside.imaging.classify2d.polar import PolarGrid, coarse_angles, disc_of_shifts

WIDE_STAGES = 7
"""Iterations after each annealing that look for the particles anywhere within `max_shift`; later ones look around where they were."""
BLURRED_STAGES = 4
"""Iterations after each annealing that stay at the first resolution: what they call correlation of halves is their common start."""
SPLIT_STAGES = (8, 11, 14, 17)
"""Iterations after which duplicates are merged, and empty classes are given a part of a large one."""
MERGE_STAGES = (20, 21, 22)
"""Iterations after which duplicates are merged for good."""
LAST_STAGE = 24
"""No iteration before this one can be the last (unless the caller says so)."""
CENTRED_STAGE = 20
"""Iteration from which on the trial shifts and rotations are not at random, but at those found last."""
JOINING = -1
"""Stage of the one iteration in which particles that join formed classes are looked for anywhere."""
JOINED = 16
"""Stage that follows it."""
GROWTH = 1.15
"""Most that the radius of comparison grows in one iteration."""
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
FIRST_RINGS = 0.6
"""Part of the compared rings by which unlikely classes are ruled out."""
_FEWEST_ANGLES = 64
_FIRST_BATCH = 60
"""Particles per class in the first iterations, when there are many particles."""


@dataclass(frozen=True)
class Plan:
    """How one iteration compares.

    Attributes
    ----------
    grid : rings of the averages
    compared : number of rings that particles and references are compared on; the others show, without bias, whether there is more to compare
    first : rings on which unlikely classes are ruled out first; None to compare with all
    shifts : ``(U, 2)`` trial shifts in pixels
    turn : first rotation in radians
    chosen : ``(m,)`` numbers of the particles, rising
    wide : look for particles around the middle of their box; otherwise around where they were found before
    centred : the trial shifts and rotations of each particle include exactly the last ones found
    """

    grid: PolarGrid
    compared: int
    first: PolarGrid | None
    shifts: npt.NDArray[np.float32]
    turn: float
    chosen: npt.NDArray[np.int64]
    wide: bool
    centred: bool


def make_plan(geometry: Geometry, settings: ClassifySettings, state: State) -> Plan:
    """Choose what one iteration compares.

    Rotations and shifts start at a random fraction of a step, so that no grid favours itself. In the last iterations each particle's are laid around
    the last ones found, which were interpolated: averages are then blurred by the width of the posterior, but not by that of the grid.
    """
    rng = np.random.default_rng([settings.seed, state.iteration + 1])
    full, count = geometry.grid, len(state.label)
    radius = geometry.radius_of(state.current_resolution)
    compared = full.ring_of(radius)
    rings = min(compared + MARGIN, full.rings)
    grid = full.coarser(rings, coarse_angles(full, geometry.data_radius, rings, _FEWEST_ANGLES))
    wide = state.stage < WIDE_STAGES
    detail = geometry.box / radius  # pixels
    step = max(2.0 if wide else 0.75, detail / 4)
    reach = settings.max_shift / settings.pixel_size if wide else min(1.5, max(1.0, 3 / step)) * step
    centred = state.stage >= CENTRED_STAGE
    jitter = 0.0 if centred else rng.uniform(-0.5, 0.5, 2) * step
    shifts = disc_of_shifts(reach, step).numpy() + np.float32(jitter)
    turn = 0.0 if centred else float(rng.uniform(-0.5, 0.5)) * 2 * math.pi / grid.angles
    chosen = np.arange(count)
    if wide and state.stage not in (JOINING, WIDE_STAGES - 1):  # these must find the place of every particle
        few = max(_FIRST_BATCH * settings.classes, 1000) * 2 ** (state.stage / 3)
        if few < count:
            chosen = np.sort(rng.permutation(count)[: int(few)])
    first = _first_rings(geometry, settings, grid, compared)
    return Plan(grid, compared, first, shifts, turn, chosen, wide, centred)


def _first_rings(geometry: Geometry, settings: ClassifySettings, grid: PolarGrid, compared: int) -> PolarGrid | None:
    """Return the inner rings, at least those of the first iterations; None when there are no others."""
    start = geometry.grid.ring_of(geometry.radius_of(settings.start_resolution))
    rings = max(start, math.ceil(FIRST_RINGS * compared))
    if rings >= compared:
        return None
    return grid.coarser(rings, coarse_angles(grid, geometry.data_radius, rings, 0))


def next_stage(stage: int) -> int:
    """Return the stage that follows `stage`."""
    return JOINED if stage == JOINING else stage + 1


def next_resolution(geometry: Geometry, plan: Plan, state: State, averages: Averages, counts: Tensor) -> float:
    """Return up to where the next iteration compares, in Å.

    Particles that are aligned to a common reference agree with each other even where there is only noise, but not on the rings that were not
    compared. So comparison moves outwards only while half averages correlate on those, and moves inwards when they do not just inside.
    """
    if 0 <= state.stage < BLURRED_STAGES:
        return state.current_resolution
    grid = plan.grid
    # classes that have formed have the say; they are told by the compared rings, so that choosing them favours nothing on the others
    formed = averages.shape_correlation[:, : plan.compared].mean(1).clamp(min=0).square()
    full = ~empty_classes(counts)
    used = counts * full * formed
    correlation = (averages.shape_correlation * used[:, None]).sum(0) / used.sum().clamp(min=1e-6)
    outer = correlation[plan.compared + _LEAK :]
    if len(outer) == 0:
        return state.current_resolution
    common = float(outer.mean())
    single = averages.shape_correlation[full][:, plan.compared + _LEAK :].mean(1)
    best = float(single.max()) if len(single) else 0.0
    radius = geometry.radius_of(state.current_resolution)
    if common > GROWS_ABOVE or best > GROWS_FOR_ONE:
        radius = min(radius * GROWTH, radius + MARGIN * grid.spacing)
    elif common < SHRINKS_BELOW:
        radius = max(radius / GROWTH, geometry.radius_of(geometry.settings.start_resolution))
    return geometry.resolution_of(radius)


def converged(before: State, after: State) -> bool:
    """Tell whether another iteration would change next to nothing."""
    if after.stage < LAST_STAGE or (after.label < 0).any():
        return False
    changed = float(np.mean(before.label != after.label))
    return changed < SETTLED and after.current_resolution > 0.97 * before.current_resolution
