"""Duplicates among classes: what is one view becomes one class, with its particles taken along; what is not stays apart."""

import math
from functools import cache

import numpy as np
import torch

from beamside.imaging.classify2d import ClassifySettings
from beamside.imaging.classify2d.classes import Duplicates, follow, recentre
from beamside.imaging.classify2d.expectation import turned
from beamside.imaging.classify2d.geometry import Geometry, geometry_of
from beamside.imaging.ctf.model import ctf_2d
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler

BOX, PIXEL = 48, 6.0
SETTINGS = ClassifySettings(classes=3, pixel_size=PIXEL, particle_diameter=190, max_shift=12)


def projections(views: list[tuple[float, float, float]], shifts: list[tuple[float, float]]) -> torch.Tensor:
    rot, tilt, psi = np.array(views).T
    images = project(make_specimen("asymmetric"), rotation_from_euler(rot, tilt, psi), PIXEL, BOX, np.array(shifts))
    return torch.as_tensor(images / images.std())


def sums(geometry: Geometry, images: torch.Tensor, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums that `weight` particles of each image with noise of power 1 would give, in two halves."""
    generator = torch.Generator().manual_seed(3)
    rings = geometry.whole().forward(images * geometry.mask)
    noise = torch.randn((2, *images.shape), generator=generator) * geometry.mask
    noisy = torch.stack([weight / 2 * rings + (weight / 2) ** 0.5 * geometry.whole().forward(each) for each in noise])
    return noisy, torch.full(noisy.shape, weight / 2)


def duplicates(weight: float, shift: tuple[float, float] = (1.4, -0.9)) -> Duplicates:
    """Return three classes: a view, the same one turned by 70° and shifted, and another view."""
    geometry = geometry_of(BOX, SETTINGS, "cpu")
    images = projections([(20, 60, 0), (20, 60, 70), (130, 100, 0)], [(0.0, 0.0), shift, (0.0, 0.0)])
    counts = torch.full((3,), weight)
    return Duplicates(geometry, geometry.grid, geometry.grid.rings, *sums(geometry, images, weight), counts)


@cache
def merged() -> Duplicates:
    found = duplicates(40.0)
    found.merge()
    return found


def test_two_classes_of_one_view_are_merged_and_another_view_is_not() -> None:
    found = merged()
    assert [{merge.source, merge.target} for merge in found.merges] == [{0, 1}]
    assert sorted(found.counts.tolist()) == [0.0, 40.0, 80.0]


def test_the_merged_class_is_the_sum_of_both_in_one_position() -> None:
    before, found = duplicates(40.0), merged()
    target = found.merges[0].target
    both, alone = found.data.sum(0)[target], before.data.sum(0)[target]
    likeness = (both * alone.conj()).real.sum() / (both.abs().square().sum() * alone.abs().square().sum()).sqrt()
    assert float(likeness) > 0.9
    assert float(both.abs().square().mean() / alone.abs().square().mean()) > 3


def test_particles_of_a_merged_class_come_along() -> None:
    found = merged()
    merge = found.merges[0]
    label, psi, shift = (
        torch.tensor([merge.source, 2]),
        torch.tensor([0.3, 0.3]),
        torch.tensor([[0.5, -0.2], [0.0, 0.0]]),
    )
    moved = shift + turned(merge.shift[None], psi)
    follow(found.merges, label, psi, shift)
    assert label.tolist() == [merge.target, 2]
    assert float(shift[0, 0]) == float(moved[0, 0])
    assert shift[1].tolist() == [0.0, 0.0]
    # class 1 is class 0 turned by 70 degrees, so going to the other one is a turn by as much
    turn = math.degrees(float(psi[0]) - 0.3)
    assert min(abs(turn - 70), abs(turn + 70)) < 2
    assert abs(float(merge.shift.norm()) - math.hypot(1.4, 0.9)) < 0.3


def test_so_little_signal_that_views_cannot_be_told_apart_gives_one_class() -> None:
    geometry = geometry_of(BOX, SETTINGS, "cpu")
    images = torch.zeros((3, BOX, BOX))
    found = Duplicates(
        geometry, geometry.grid, geometry.grid.rings, *sums(geometry, images, 20.0), torch.full((3,), 20.0)
    )
    found.merge()
    assert len(found.merges) == 2


def test_averages_are_brought_to_the_middle_and_particles_with_them() -> None:
    geometry = geometry_of(BOX, SETTINGS, "cpu")
    image = projections([(20, 60, 0)], [(0.0, 0.0)]).clamp(min=0)
    centred = recentre(geometry, image, torch.tensor([0]), torch.tensor([0.0]), torch.zeros(1, 2))
    shift = torch.zeros((1, 2))
    moved = recentre(geometry, torch.roll(centred, (5, -4), (1, 2)), torch.tensor([0]), torch.tensor([0.0]), shift)
    # whole pixels only, so it may come to lie a pixel off
    likeness = np.corrcoef(moved.ravel(), centred.ravel())[0, 1]
    assert likeness > 0.85
    assert torch.allclose(shift, torch.tensor([[-5.0, 4.0]]), atol=1.0)


def test_the_ctf_on_the_rings_has_the_phase_shift() -> None:
    geometry = geometry_of(BOX, SETTINGS, "cpu")
    ctf = torch.tensor([[12000.0, 11000.0, 25.0, 0.0], [12000.0, 11000.0, 25.0, 90.0]])
    rings = geometry.transfer(ctf, 2, geometry.grid)
    kwargs = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}
    for row, phase in enumerate((0.0, 90.0)):
        plane = ctf_2d((BOX, BOX), PIXEL, 12000.0, 11000.0, 25.0, phase_shift_deg=phase, **kwargs)
        # along the x axis at whole Fourier pixels the rings, at half ones, lie between the plane's values
        along = np.interp(geometry.grid.radii().numpy(), np.arange(BOX // 2 + 1), plane[0, : BOX // 2 + 1].numpy())
        assert np.corrcoef(along, rings[row, :, 0].numpy())[0, 1] > 0.97
    assert float((rings[0] - rings[1]).abs().max()) > 0.5
