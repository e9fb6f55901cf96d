"""Fourier transforms at any points: as exact as single precision, and the adjoint is the adjoint."""

import math

import pytest
import torch

from beamside.imaging.classify2d.gridding import GriddedTransform


def points(count: int, radius: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    values = (torch.rand((2, count), generator=generator, dtype=torch.float64) * 2 - 1) * radius
    return values[0].abs(), values[1]


@pytest.mark.parametrize(("box", "radius"), [(32, 15.9), (33, 16.2), (96, 12.0)])
def test_it_is_the_fourier_transform_in_single_precision(box: int, radius: float) -> None:
    generator = torch.Generator().manual_seed(box)
    ky, kx = points(60, radius, generator)
    images = torch.randn((3, box, box), generator=generator)
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    phase = ky[:, None, None] * axis[:, None] + kx[:, None, None] * axis
    waves = torch.exp(-2j * math.pi / box * phase)
    expected = torch.einsum("pyx,nyx->np", waves, images.to(torch.complex128))
    found = GriddedTransform(box, ky, kx).forward(images)
    assert (found - expected).abs().max() < 3e-6 * expected.abs().max()


def test_the_adjoint_is_the_adjoint() -> None:
    generator = torch.Generator().manual_seed(4)
    transform = GriddedTransform(24, *points(80, 11.0, generator))
    images = torch.randn((2, 24, 24), generator=generator)
    values = torch.randn((2, 80), generator=generator, dtype=torch.complex64)
    one = (transform.forward(images) * values.conj()).real.sum(dim=1)
    other = (images * transform.adjoint(values)).sum(dim=(1, 2))
    assert torch.allclose(one, other, rtol=1e-4)


def test_many_images_are_transformed_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    transform = GriddedTransform(24, *points(10, 11.0, generator))
    images = torch.randn((7, 24, 24), generator=generator)
    whole = transform.forward(images)
    monkeypatch.setattr("beamside.imaging.classify2d.gridding._CHUNK_VALUES", 6000)
    assert torch.allclose(transform.forward(images), whole, atol=1e-5)
    assert torch.allclose(transform.adjoint(whole)[3], transform.adjoint(whole[3:4])[0], rtol=1e-4, atol=1e-4)
