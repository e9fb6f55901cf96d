"""Large classes are divided along what their particles differ in."""

import numpy as np
import pytest
import torch

from beamside.imaging.classify2d import ClassifySettings
from beamside.imaging.classify2d.expectation import make_batch
from beamside.imaging.classify2d.geometry import geometry_of
from beamside.imaging.classify2d.plan import Plan
from beamside.imaging.classify2d.polar import from_modes
from beamside.imaging.classify2d.shards import ClassSums, VariationRequest, make_shards, variation
from beamside.imaging.classify2d.splitting import classes_to_split, split_classes
from beamside.imaging.classify2d.stack import as_stack
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler

BOX, PIXEL, COUNT = 32, 8.0, 120
SETTINGS = ClassifySettings(classes=2, pixel_size=PIXEL, particle_diameter=190, max_shift=12)


def turned_and_shifted(view: tuple[float, float], psi: np.ndarray, shift: np.ndarray) -> np.ndarray:
    rotations = rotation_from_euler(np.full(len(psi), view[0]), np.full(len(psi), view[1]), psi)
    return project(make_specimen("asymmetric"), rotations, PIXEL, BOX, shift)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_class_of_two_views_is_divided_into_these(seed: int) -> None:
    rng = np.random.default_rng(seed)
    views = ((20.0, 60.0), (50.0, 75.0))
    psi = rng.uniform(-180, 180, COUNT)
    kind = np.arange(COUNT) // 2 % 2  # both kinds in both halves
    images = np.stack(
        [turned_and_shifted(views[k], psi[i : i + 1], np.zeros((1, 2)))[0] for i, k in enumerate(kind)]
    ).astype(np.float32)
    images /= images.std()
    noisy = images + 2.0 * rng.standard_normal(images.shape).astype(np.float32)
    geometry = geometry_of(BOX, SETTINGS, "cpu")
    grid = geometry.grid
    shards = make_shards(f"seed {seed}", as_stack(noisy), None, np.zeros(COUNT, np.int64), 50)
    label = np.ones(COUNT, np.int64)  # all in the second of two classes
    noise = np.full((1, grid.rings), 4.0, np.float32)
    nothing = np.zeros((0, grid.rings, grid.angles // 2), np.complex64)
    request = VariationRequest(
        SETTINGS,
        "cpu",
        grid,
        label[:0],
        nothing,
        nothing,
        noise,
        label,
        np.deg2rad(psi).astype(np.float32),
        np.zeros((COUNT, 2), np.float32),
    )
    plan = Plan(grid, grid.rings, None, np.zeros((1, 2), np.float32), 0.0, np.arange(COUNT), False, True)
    upright = [turned_and_shifted(view, np.zeros(1), np.zeros((1, 2)))[0] for view in views]
    data = torch.zeros((2, 2, grid.rings, grid.angles // 2), dtype=torch.complex64)
    weights = torch.zeros(data.shape)
    for half in range(2):
        mine = np.arange(half, COUNT, 2)
        turns = torch.as_tensor(request.psi[mine])
        rings = geometry.whole().forward(torch.as_tensor(noisy[mine]) * geometry.mask)
        batch = make_batch(
            rings,
            torch.ones(rings.shape),
            torch.as_tensor(noise).expand(len(mine), -1),
            torch.zeros(len(mine), 2),
            grid,
            turns,
        )
        data[half, 1] = from_modes(batch.modes.permute(1, 2, 0)).sum(0)
        weights[half, 1] = len(mine) / 4.0
    middle = geometry.whole().backward((data.sum(0) / weights.sum(0).clamp(min=1e-6))[1:])[0]

    def vary(asked: VariationRequest) -> list[ClassSums]:
        return [variation(shard, asked) for shard in shards]

    counts = torch.tensor([0.0, float(COUNT)])
    found, divided = split_classes(
        torch.stack([torch.zeros_like(middle), middle]), data, weights, counts, geometry, plan, request, vary
    )
    assert divided == [0, 1]
    inside = geometry.reference_mask > 0.5
    side, truth = (found[0] - found[1])[inside], torch.as_tensor(upright[0] - upright[1])[inside]
    likeness = abs(float(np.corrcoef(side.numpy(), truth.numpy())[0, 1]))
    random_side = geometry.whole().backward((data[0, 1] - data[1, 1])[None])[0][inside]
    assert likeness > 0.8
    assert likeness > 3 * abs(float(np.corrcoef(random_side.numpy(), truth.numpy())[0, 1]))
    assert torch.allclose((found[0] + found[1]) / 2, middle, atol=1e-5)


def test_only_empty_classes_get_particles_and_only_large_ones_give_them() -> None:
    counts = torch.tensor([0.0, 50.0, 3.0, 30.0, 1.0, 16.0])
    targets, sources = classes_to_split(counts)
    assert (targets, sources) == ([0, 4], [1, 3])
    assert classes_to_split(torch.tensor([10.0, 10.0])) == ([], [])
