"""The models of motion: RELION's polynomial and the richer one that is fitted."""

import numpy as np
import pytest
import torch

from beamside.imaging.motion.model import (
    LocalMotion,
    fit_relion,
    grid_points,
    normalised,
    relion_shifts,
    spatial_basis,
    spatial_degrees,
)

SHAPE = (400, 600)


def written_out(c: np.ndarray, x: float, y: float, z: float) -> tuple[float, float]:
    """RELION's motion model, version 1, term by term."""
    terms = [1, x, x * x, y, y * y, x * y]
    dx = sum(c[3 * s + t - 1] * terms[s] * z**t for s in range(6) for t in (1, 2, 3))
    dy = sum(c[18 + 3 * s + t - 1] * terms[s] * z**t for s in range(6) for t in (1, 2, 3))
    return dx, dy


def test_coefficients_have_relions_order_sign_and_normalisation() -> None:
    coefficients = np.random.default_rng(0).normal(size=36)
    points = torch.tensor([[0.0, 0.0], [100.0, 450.0], [400.0, 600.0], [37.5, 12.25]], dtype=torch.float64)
    shifts = relion_shifts(torch.from_numpy(coefficients), points, SHAPE, 5)
    for m, (row, column) in enumerate(points.tolist()):
        for z in range(5):
            dx, dy = written_out(coefficients, column / 600 - 0.5, row / 400 - 0.5, z)
            assert shifts[z, m].tolist() == pytest.approx([dy, dx])


def test_the_first_frame_has_no_local_shift() -> None:
    shifts = relion_shifts(torch.ones(36, dtype=torch.float64), grid_points(SHAPE, 3, 3), SHAPE, 4)
    assert not shifts[0].any()


def test_a_polynomial_is_fitted_exactly() -> None:
    scale = torch.tensor([1, 1 / 20, 1 / 400], dtype=torch.float64).repeat(12)
    coefficients = torch.from_numpy(np.random.default_rng(1).normal(size=36)) * scale
    points = grid_points(SHAPE, 7, 7)
    fitted = fit_relion(relion_shifts(coefficients, points, SHAPE, 24), points, SHAPE)
    assert torch.allclose(fitted, coefficients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frames", [2, 3])
def test_short_movies_are_fitted_without_trouble(frames: int) -> None:
    points = grid_points(SHAPE, 5, 5)
    shifts = torch.from_numpy(np.random.default_rng(2).normal(size=(frames, 1, 2))).expand(frames, 25, 2)
    fitted = relion_shifts(fit_relion(shifts, points, SHAPE), points, SHAPE, frames)
    difference = fitted - shifts
    assert (difference - difference.mean(dim=0)).abs().max() < 1e-4


def test_spatial_modes_are_orthonormal_over_the_field() -> None:
    basis = spatial_basis(normalised(grid_points(SHAPE, 200, 200), SHAPE))
    gram = basis.T @ basis / len(basis)
    assert torch.allclose(gram, torch.eye(len(spatial_degrees()), dtype=torch.float64), atol=5e-3)


def test_local_motion_is_the_sum_of_its_modes() -> None:
    tracks = torch.zeros(3, len(spatial_degrees()), 2, dtype=torch.float64)
    tracks[2, 0] = torch.tensor([1.5, -2.0])
    tracks[2, spatial_degrees().index((0, 1)), 1] = 1.0
    motion = LocalMotion(SHAPE, tracks)
    points = torch.tensor([[200.0, 0.0], [200.0, 600.0]], dtype=torch.float64)
    shifts = motion.shifts(points)
    root = 3**0.5
    assert shifts[2].flatten().tolist() == pytest.approx([1.5, -2 - root, 1.5, -2 + root])
    assert not shifts[:2].any()
