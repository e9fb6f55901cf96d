"""Comparison with likely classes only: finds what comparison with all finds, and rules out what is improbable."""

from functools import cache

import pytest
import torch

from beamside.imaging.classify2d.expectation import (
    Batch,
    Sums,
    Templates,
    add_particles,
    log_likelihood_ratio,
    log_prior,
    make_batch,
    make_templates,
)
from beamside.imaging.classify2d.polar import PolarTransform, coarse_angles, disc_of_shifts, make_grid
from beamside.imaging.classify2d.pruning import add_likely, likely_classes, pieces

BOX, RADIUS, PARTICLES = 32, 15.0, 12


def drawn(turn: float, heights: tuple[float, ...]) -> torch.Tensor:
    """Return an image of blobs on a spiral, turned by some radians."""
    axis = torch.arange(BOX) - BOX // 2
    image = torch.zeros(BOX, BOX)
    for number, height in enumerate(heights):
        radius, angle = torch.tensor(3.0 + number), torch.tensor(2.1 * number - turn)
        y, x = radius * torch.sin(angle), radius * torch.cos(angle)
        image += height * torch.exp(-((axis[:, None] - y) ** 2 + (axis[None] - x) ** 2) / 6)
    return image


KINDS = ((1.0, 1.0, 1.0), (1.0, -1.0, 0.5), (-0.5, 0.5, 1.0, 1.0))


@cache
def prepared() -> tuple[PolarTransform, Templates, Batch]:
    """Return templates of three classes, and particles of each in turn with noise."""
    transform = PolarTransform(make_grid(BOX, RADIUS, 15.0), RADIUS)
    grid = transform.grid
    generator = torch.Generator().manual_seed(1)
    images = torch.stack([drawn(0.7 * number, KINDS[number % 3]) for number in range(PARTICLES)])
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    references = transform.forward(torch.stack([drawn(0.0, kind) for kind in KINDS]))
    templates = make_templates(references, grid, disc_of_shifts(1.0, 1.0), 0.01)
    transfer = 0.7 + 0.3 * torch.rand((PARTICLES, grid.rings, grid.angles // 2), generator=generator)
    noise = torch.full((PARTICLES, grid.rings), 0.1)
    twists = 0.02 * torch.rand(PARTICLES, generator=generator)
    return (
        transform,
        templates,
        make_batch(transform.forward(images), transfer, noise, torch.zeros(PARTICLES, 2), grid, twists),
    )


def first_templates() -> Templates:
    transform, _, _ = prepared()
    grid = transform.grid
    inner = grid.coarser(6, coarse_angles(grid, RADIUS, 6, 0))
    references = transform.forward(torch.stack([drawn(0.0, kind) for kind in KINDS]))
    return make_templates(grid.cut(references, inner), inner, torch.zeros(1, 2), 0.01)


def test_with_all_classes_likely_it_is_the_comparison_with_all() -> None:
    transform, templates, batch = prepared()
    joint = log_likelihood_ratio(templates, batch) + log_prior(templates, batch, 1.5)[:, None]
    own = 4 * torch.rand((PARTICLES, 3), generator=torch.Generator().manual_seed(3))
    joint -= own[:, :, None, None]
    expected, found = Sums(templates, transform.grid.rings), Sums(templates, transform.grid.rings)
    all_best = add_particles(joint, templates, batch, expected)
    best = add_likely(templates, batch, torch.ones(PARTICLES, 3, dtype=torch.bool), own, 1.5, found)
    assert torch.equal(best.label, all_best.label)
    for name in ("psi", "shift", "pmax", "evidence"):
        assert torch.allclose(getattr(best, name), getattr(all_best, name), rtol=1e-4, atol=1e-4), name
    assert torch.allclose(best.share, all_best.share, atol=0.02)
    assert torch.allclose(found.counts, expected.counts, atol=1e-4)
    for one, other in zip(found.finish(templates), expected.finish(templates), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_the_class_that_a_particle_is_of_is_never_ruled_out_and_most_others_are() -> None:
    likely = likely_classes(first_templates(), prepared()[2], torch.zeros(PARTICLES, 3))
    right = torch.arange(PARTICLES) % 3
    assert likely[torch.arange(PARTICLES), right].all()
    assert int(likely.sum()) < 2 * PARTICLES


def test_a_class_that_a_particle_likes_only_for_its_own_noise_is_ruled_out() -> None:
    right = torch.arange(PARTICLES) % 3
    own = torch.zeros(PARTICLES, 3)
    own[torch.arange(PARTICLES), right] = 1000
    likely = likely_classes(first_templates(), prepared()[2], own)
    assert not likely[torch.arange(PARTICLES), right].any()
    assert likely.any(dim=1).all()


def test_particles_are_looked_at_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = likely_classes(first_templates(), prepared()[2], torch.zeros(PARTICLES, 3))
    monkeypatch.setattr("beamside.imaging.classify2d.pruning._VALUES", 1000)
    assert torch.equal(likely_classes(first_templates(), prepared()[2], torch.zeros(PARTICLES, 3)), whole)


@pytest.mark.parametrize("room", [1, 2000, 10**9])
def test_pieces_hold_every_particle_once_and_no_more_than_fits(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamside.imaging.classify2d.pruning._PAIR_VALUES", room)
    _, templates, _ = prepared()
    likely = torch.rand((50, 3), generator=torch.Generator().manual_seed(2)) > 0.5
    likely[:, 0] |= ~likely.any(dim=1)
    found = list(pieces(likely, templates))
    assert [number for piece in found for number in range(piece.start, piece.stop)] == list(range(50))
    each = len(templates.shifts) * templates.grid.angles
    for piece in found:
        assert piece.stop - piece.start == 1 or int(likely[piece].sum()) * each <= room
