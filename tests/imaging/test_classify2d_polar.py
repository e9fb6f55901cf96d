"""Images on rings in Fourier space: exact, and rotations are shifts of the index."""

import math

import pytest
import torch

from beamside.imaging.classify2d.polar import (
    PolarTransform,
    angles_needed,
    coarse_angles,
    from_modes,
    make_grid,
    shift_rings,
    soft_disc,
    to_modes,
)

BOX = 32
RADIUS = 12.0


def blob_image(centres: list[tuple[float, float]], width: float = 1.6, box: int = BOX) -> torch.Tensor:
    """Return Gaussian blobs at (y, x) pixels from the middle."""
    axis = torch.arange(box) - box // 2
    return sum(  # type: ignore[return-value]
        (1 + number) * torch.exp(-((axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2).float() / (2 * width**2))
        for number, (y, x) in enumerate(centres)
    )


@pytest.fixture(scope="module")
def transform() -> PolarTransform:
    return PolarTransform(make_grid(BOX, RADIUS + 2, BOX / 2 - 0.5), RADIUS + 2)


def test_it_is_the_fourier_transform_on_the_rings(transform: PolarTransform) -> None:
    image = blob_image([(3.0, -2.0), (-4.0, 1.5)])
    rings = transform.forward(image[None])[0]
    ky, kx = transform.grid.points()
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    phase = ky[..., None, None] * axis[:, None] + kx[..., None, None] * axis[None, :]
    inside = axis[:, None] ** 2 + axis[None, :] ** 2 < (RADIUS + 2) ** 2
    expected = (torch.exp(-2j * math.pi / BOX * phase) * (image * inside)).sum(dim=(-2, -1)) / BOX
    assert torch.allclose(rings.to(torch.complex128), expected, atol=1e-5)


def test_going_there_and_back_keeps_an_image_that_the_rings_can_hold(transform: PolarTransform) -> None:
    image = blob_image([(3.0, -2.0), (-4.0, 1.5), (0.0, 6.0)])
    back = transform.backward(transform.forward(image[None]))[0]
    assert (back - image).abs().max() < 0.015 * image.max()


def test_the_power_on_the_rings_is_that_of_the_pixels(transform: PolarTransform) -> None:
    image = blob_image([(3.0, -2.0), (-4.0, 1.5)])
    power = transform.forward(image[None])[0].abs().square() * transform.grid.area()[:, None]
    assert float(2 * power.sum()) == pytest.approx(float(image.square().sum()), rel=0.004)


def test_orders_and_rings_turn_into_each_other(transform: PolarTransform) -> None:
    rings = transform.forward(blob_image([(3.0, -2.0), (-4.0, 1.5)])[None])
    assert torch.allclose(from_modes(to_modes(rings)), rings, atol=1e-5)


def test_a_turned_image_has_its_rings_moved_along(transform: PolarTransform) -> None:
    grid, steps = transform.grid, 5
    angle = 2 * math.pi * steps / grid.angles
    cos, sin = math.cos(angle), math.sin(angle)
    points = [(3.0, -2.0), (-4.0, 1.5), (0.0, 6.0)]
    turned = [(x * sin + y * cos, x * cos - y * sin) for y, x in points]
    first, second = transform.forward(torch.stack([blob_image(points), blob_image(turned)]))
    assert torch.allclose(second[:, steps:], first[:, :-steps], atol=2e-3 * float(first.abs().max()))


def test_a_shifted_image_has_the_phases_of_the_shift(transform: PolarTransform) -> None:
    first, second = transform.forward(torch.stack([blob_image([(1.0, -2.0)]), blob_image([(2.5, 0.0)])]))
    moved = first * shift_rings(transform.grid, torch.tensor([1.5, 2.0]))
    assert torch.allclose(moved, second, atol=2e-3 * float(first.abs().max()))


def test_a_coarser_grid_has_the_values_of_the_finer_one(transform: PolarTransform) -> None:
    grid = transform.grid
    coarse = grid.coarser(6, coarse_angles(grid, RADIUS, 6, 0))
    assert coarse.angles < grid.angles
    image = blob_image([(3.0, -2.0), (-4.0, 1.5)])[None]
    direct = PolarTransform(coarse, RADIUS + 2).forward(image)
    assert torch.allclose(grid.cut(transform.forward(image), coarse), direct, atol=1e-5)


def test_more_angles_are_taken_for_larger_objects_and_finer_detail() -> None:
    assert angles_needed(64, 20, 8) < angles_needed(64, 20, 30) <= angles_needed(64, 31, 30)


def test_the_soft_disc_is_one_inside_and_zero_outside() -> None:
    disc = soft_disc(32, 8, 4)
    assert float(disc[16, 16]) == 1
    assert float(disc[16, 24]) == 1
    assert float(disc[16, 26]) == pytest.approx(0.5)
    assert float(disc[16, 29]) == 0
