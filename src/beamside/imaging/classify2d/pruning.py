"""Comparison with the likely classes only.

Most classes can be ruled out for most particles by the inner rings and the place where a particle was found last: under the model, what is improbable
given a part of the data is the truth as seldom as its probability says. Only the others are compared on all rings and with all trial shifts. That is
done class by class, with all particles for which it is likely, so that it stays matrix products. (Coarse to fine, with what is left out told by the
probability: as RELION's adaptive expectation, Scheres, J. Struct. Biol. 180, 2012.)
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from beamside.imaging.classify2d.expectation import (
    NEGLIGIBLE,
    Batch,
    Best,
    Sums,
    Templates,
    log_likelihood_ratio,
    log_prior,
    poses_near,
)

_VALUES = 1_000_000
"""Hypotheses that are looked at together."""
_PAIR_VALUES = 8_000_000
"""The same of those that are left."""


def likely_classes(first: Templates, batch: Batch, own: Tensor) -> Tensor:
    """Tell ``(B, K)`` which classes each particle may be of, by templates `first` on few rings, less its `own` noise's part ``(B, K)`` on these."""
    near = batch.coarser(first.grid)
    size = max(1, _VALUES // (first.classes * len(first.shifts) * first.grid.angles))
    parts = [
        log_likelihood_ratio(first, near.of(slice(start, start + size))).amax(dim=(2, 3))
        for start in range(0, len(batch.centres), size)
    ]
    best = torch.cat(parts) - own
    return best > best.amax(dim=1, keepdim=True) - NEGLIGIBLE


def pieces(likely: Tensor, templates: Templates) -> Iterator[slice]:
    """Divide particles so that those hypotheses of a piece that are left fit into memory."""
    each = len(templates.shifts) * templates.grid.angles
    counts, start, total = likely.sum(dim=1).tolist(), 0, 0
    for number, count in enumerate(counts):
        if total and (total + count) * each > _PAIR_VALUES:
            yield slice(start, number)
            start, total = number, 0
        total += count
    yield slice(start, len(counts))


def add_likely(templates: Templates, batch: Batch, likely: Tensor, own: Tensor, shift_sd: float, sums: Sums) -> Best:
    """Compare a batch with its `likely` ``(B, K)`` classes, add it to `sums` by its posterior, and return the best hypotheses.

    `own` ``(B, K)`` is what the particles' own noise adds to the logarithm of their likelihood, which is taken off.
    """
    classes = likely.any(dim=0).nonzero()[:, 0].tolist()
    members = [likely[:, label].nonzero()[:, 0] for label in classes]
    particle = torch.cat(members)
    joint = torch.cat(
        [
            log_likelihood_ratio(templates.of(label), batch.of(each))[:, 0]
            for label, each in zip(classes, members, strict=True)
        ]
    )
    joint += log_prior(templates, batch, shift_sd)[particle]
    label = torch.repeat_interleave(
        torch.tensor(classes, device=joint.device), torch.tensor([len(each) for each in members], device=joint.device)
    )
    joint -= own[particle, label, None, None]
    rows = joint.amax(dim=-1)
    pair_of = torch.zeros(likely.shape, dtype=torch.long, device=joint.device)
    pair_of[particle, label] = torch.arange(len(particle), device=joint.device)
    tops = torch.full(likely.shape, -torch.inf, device=joint.device)
    tops[particle, label] = rows.amax(dim=1)
    top, best = tops.max(dim=1)
    pair = pair_of.gather(1, best[:, None])[:, 0]
    psi, shift = poses_near(joint, pair, rows[pair].argmax(dim=1), templates, batch)
    joint.sub_(top[particle, None, None]).exp_()
    portions = torch.zeros(likely.shape, device=joint.device)
    portions[particle, label] = joint.sum(dim=(1, 2))
    total = portions.sum(dim=1)
    sums.counts += (portions / total[:, None]).sum(dim=0)
    scaled = Batch(batch.modes / total[:, None], batch.weights / total[:, None], batch.centres, batch.twists)
    share = portions.gather(1, best[:, None])[:, 0] / total
    start = 0
    for each, here in zip(classes, members, strict=True):
        sums.add_class(each, joint[start : start + len(here)], scaled.of(here))
        start += len(here)
    return Best(best, psi, shift, pmax=1 / total, share=share, evidence=top + torch.log(total))
