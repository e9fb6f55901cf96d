"""Which hypotheses particles are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from beamside.imaging.classify2d.expectation import (
    Batch,
    Best,
    Sums,
    add_particles,
    log_likelihood_ratio,
    log_prior,
    make_batch,
    make_templates,
)
from beamside.imaging.classify2d.own_noise import OwnNoise
from beamside.imaging.classify2d.polar import PolarGrid
from beamside.imaging.classify2d.pruning import add_likely, likely_classes, pieces

_BATCH_VALUES = 1_000_000
"""Hypotheses that are compared at a time."""
_BATCH_BYTES = 64_000_000
"""Memory of the particles that are compared at a time, when most hypotheses are ruled out first."""


@dataclass(frozen=True)
class Search:
    """References and hypotheses.

    Attributes
    ----------
    references : complex ``(K, R', N / 2)`` on the compared rings, the first of `grid`
    grid : rings that particles are summed on
    shifts : ``(U, 2)`` trial shifts in pixels
    turn : first rotation in radians
    shift_sd : pixels
    first : rings on which unlikely classes are ruled out first; None to compare with all
    first_shifts : ``(V, 2)`` trial shifts in pixels for that
    """

    references: Tensor
    grid: PolarGrid
    shifts: Tensor
    turn: float
    shift_sd: float
    first: PolarGrid | None
    first_shifts: Tensor


def compare(
    search: Search,
    fetch: Callable[[Tensor], tuple[Tensor, Tensor]],
    indices: Tensor,
    noise: Tensor,
    centres: Tensor,
    psi: Tensor | None,
    own: OwnNoise,
) -> tuple[tuple[Tensor, Tensor, Tensor], Best]:
    """Compare particles with all references under all trial shifts and rotations.

    Parameters
    ----------
    fetch : gives the rings and CTFs of the particles of some numbers
    indices : ``(m,)`` numbers of the particles
    noise : ``(m, R)`` power of each particle's noise
    centres : ``(m, 2)`` pixels, around which shifts are tried
    psi : ``(m,)`` radians, one of the rotations tried; None for the same ones for all particles
    own : of the particles, in the references

    Returns
    -------
    Σ p Y ``(K, R, N / 2)``, Σ p B, and Σ p ``(K,)``, and the best hypothesis of each particle.
    """
    grid = search.grid
    compared = grid.coarser(search.references.shape[1], grid.angles)
    templates = make_templates(search.references, compared, search.shifts, search.turn)
    sums = Sums(templates, grid.rings)
    step = 2 * math.pi / grid.angles
    twists = None if psi is None else torch.remainder(psi - search.turn + step / 2, step) - step / 2

    def batch_of(part: Tensor) -> Batch:
        turns = None if twists is None else twists[part]
        return make_batch(*fetch(indices[part]), noise[part], centres[part], grid, turns)

    found = [_nothing(indices.device)]
    everyone = torch.arange(len(indices), device=indices.device)
    if search.first is None:
        hypotheses = templates.classes * len(search.shifts) * grid.angles
        for part in torch.split(everyone, max(4, _BATCH_VALUES // hypotheses)):
            batch = batch_of(part)
            joint = log_likelihood_ratio(templates, batch)
            joint += log_prior(templates, batch, search.shift_sd)[:, None]
            joint -= own.of(part).gain(compared.rings)[:, :, None, None]
            found.append(add_particles(joint, templates, batch, sums))
    else:
        inner = grid.cut(search.references, search.first)
        first = make_templates(inner, search.first, search.first_shifts, search.turn)
        for part in torch.split(everyone, max(4, _BATCH_BYTES // (4 * grid.rings * grid.angles))):
            batch = batch_of(part)
            mine = own.of(part)
            likely, gain = likely_classes(first, batch, mine.gain(first.grid.rings)), mine.gain(compared.rings)
            for piece in pieces(likely, templates):
                found.append(add_likely(templates, batch.of(piece), likely[piece], gain[piece], search.shift_sd, sums))
    return (*sums.finish(templates), sums.counts), together(found)


def _nothing(device: torch.device) -> Best:
    none = torch.zeros(0, device=device)
    return Best(none.long(), none, none.view(0, 2), none, none, none)


def together(parts: list[Best]) -> Best:
    """Return the results of all parts, one after the other."""
    return Best(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Best)))
