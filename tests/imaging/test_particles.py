"""Particle extraction: boxes, edges, rescaling and normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import InputError
from beamside.imaging.boxes import choose_box, good_size
from beamside.imaging.particles import (
    background_radius,
    boxes_touch,
    choose_rescaled_box,
    extract_particles,
    normalise_background,
    resample,
    rescale,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at(*points: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float64).reshape(-1, 2)


def test_the_picked_pixel_becomes_the_middle_of_the_box() -> None:
    micrograph = torch.zeros(50, 60)
    micrograph[20, 31] = 1.0
    cut = extract_particles(micrograph, at((20.0, 31.0)), 16, invert=False, normalise=False)
    assert np.unravel_index(int(cut[0].argmax()), (16, 16)) == (8, 8)


def test_fractions_of_coordinates_are_cut_off_towards_zero() -> None:
    micrograph = noise(64, 64)
    whole = extract_particles(micrograph, at((20, 31), (0, 5)), 16)
    fractional = extract_particles(micrograph, at((20.9, 31.6), (-0.7, 5.99)), 16)
    assert torch.equal(whole, fractional)


def test_edge_pixels_are_repeated_outside_of_the_micrograph() -> None:
    micrograph = noise(32, 40)
    cut = extract_particles(micrograph, at((0, 39)), 16, invert=False, normalise=False)[0]
    expected = np.pad(micrograph.numpy(), 8, mode="edge")[:16, 39 : 39 + 16]
    np.testing.assert_allclose(cut.numpy(), expected, atol=1e-6)


def test_a_box_that_only_touches_the_micrograph_is_allowed_and_one_beyond_is_not() -> None:
    touching, beyond = at((-7, 10), (10, 47), (39, 10)), at((-8, 10), (10, 48), (40, 10))
    assert boxes_touch(touching, (32, 40), 16).all()
    assert not boxes_touch(beyond, (32, 40), 16).any()
    with pytest.raises(InputError, match=r"particle 2 \(x 48, y 10\)"):
        extract_particles(noise(32, 40), at((5, 5), (10, 48)), 16)


def test_no_particles_give_an_empty_stack() -> None:
    assert extract_particles(noise(64, 64), at(), 32, 16).shape == (0, 16, 16)


def test_the_background_gets_mean_zero_and_deviation_one_and_loses_its_slope() -> None:
    y, x = torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    micrograph = 900 + 3 * noise(200, 200) + 0.5 * x - 0.2 * y
    particles = extract_particles(micrograph, at((100, 90), (60, 120)), 64, background_diameter=40.0)
    axis = torch.arange(64.0) - 32
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > 20**2
    for particle in particles:
        background = particle[outside]
        assert abs(float(background.mean())) < 1e-5
        assert float(background.std(correction=0)) == pytest.approx(1, abs=1e-5)
        slope = np.polyfit(axis.expand(64, 64)[outside].numpy(), background.numpy(), 1)[0]
        assert abs(slope) < 1e-4


def test_protein_becomes_white() -> None:
    micrograph = 100 + 0.1 * noise(64, 64)
    micrograph[28:36, 28:36] -= 5
    assert float(extract_particles(micrograph, at((32, 32)), 32)[0, 12:20, 12:20].mean()) > 3


def test_a_flat_background_does_not_give_infinite_values() -> None:
    particles = extract_particles(torch.full((64, 64), 7.0), at((32, 32)), 32)
    assert torch.isfinite(particles).all()
    assert float(particles.abs().max()) < 1e-3


@pytest.mark.parametrize("small", [32, 16])
def test_a_flat_part_of_a_lively_micrograph_stays_flat(small: int) -> None:
    """What a detector's dead part gives is not blown up from rounding to noise."""
    micrograph = 1000 + 30 * noise(128, 128)
    micrograph[:64, :64] = 977.3
    particles = extract_particles(micrograph, at((32, 32), (90, 90)), 32, small)
    assert float(particles[0].abs().max()) < 1e-2
    assert float(particles[1].std()) > 0.5


def test_neighbours_do_not_change_the_order_or_each_other() -> None:
    micrograph = noise(300, 300)
    places = at(*[(float(y), float(x)) for y, x in np.random.default_rng(5).integers(0, 300, (80, 2))])
    together = extract_particles(micrograph, places, 48, 24)
    alone = torch.cat([extract_particles(micrograph, place[None], 48, 24) for place in places])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=1e-5)


def test_rescaling_equals_fourier_cropping_below_nyquist() -> None:
    smooth = noise(3, 31, 31)
    large = _upsample(smooth, 96)
    np.testing.assert_allclose(rescale(large, 36).numpy(), _upsample(smooth, 36).numpy(), atol=2e-5)


def _upsample(images: torch.Tensor, size: int) -> torch.Tensor:
    """Pad the Fourier transform of square images of odd size (which have no Nyquist components)."""
    old = images.shape[-1]
    spectrum = torch.fft.fftshift(torch.fft.fft2(images.double()), dim=(-2, -1))
    padded = torch.zeros(len(images), size, size, dtype=spectrum.dtype)
    first = size // 2 - old // 2
    padded[:, first : first + old, first : first + old] = spectrum
    return torch.fft.ifft2(torch.fft.ifftshift(padded, dim=(-2, -1))).real.float() * (size / old) ** 2


def test_rescaling_keeps_the_mean_and_treats_nyquist_as_a_windowed_real_transform_does() -> None:
    images = noise(4, 48, 48)
    spectrum = np.fft.fft2(images.double().numpy())
    kept = spectrum[:, np.r_[0:9, -7:0]][:, :, :9] * (16 * 16) / (48 * 48)
    expected = np.fft.irfft(np.fft.ifft(kept, axis=1), n=16, axis=2)
    result = rescale(images, 16)
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(result.mean(dim=(1, 2)), images.mean(dim=(1, 2)), atol=1e-6)


def test_normalising_twice_changes_nothing() -> None:
    once = normalise_background(5 + 2 * noise(3, 32, 32), 12)
    assert torch.allclose(normalise_background(once, 12), once, atol=1e-5)


@pytest.mark.parametrize(
    ("box", "small", "diameter"), [(63, 32, None), (64, 31, None), (32, 64, None), (64, 32, 64.0), (64, 32, -1.0)]
)
def test_impossible_sizes_are_clear_errors(box: int, small: int, diameter: float | None) -> None:
    with pytest.raises(InputError):
        extract_particles(noise(100, 100), at((50, 50)), box, small, background_diameter=diameter)


def test_background_radius_is_three_eighths_of_the_box_or_half_the_diameter() -> None:
    assert background_radius(256, 64, 1.0, None) == 24
    assert background_radius(256, 64, 0.8, 160.0) == 25


@given(st.integers(min_value=1, max_value=5000))
def test_good_sizes_are_even_smooth_and_not_much_larger(minimum: int) -> None:
    size = good_size(minimum)
    assert size % 2 == 0
    assert minimum <= size <= max(4, 1.25 * minimum)
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    assert size == 1


def test_boxes_follow_from_the_particle() -> None:
    assert choose_box(160, 1.0) == 240
    assert choose_rescaled_box(240, 1.0, 4.0) == 60
    assert choose_rescaled_box(64, 4.0, 3.0) == 64


def smooth(size: int, pixel_size: float) -> torch.Tensor:
    """A smooth object around pixel ``size // 2``, on pixels of any size."""
    axis = (torch.arange(size, dtype=torch.float64) - size // 2) * pixel_size
    y, x = axis[:, None], axis[None, :]
    blob = torch.exp(-((x - 3) ** 2 + (y + 5) ** 2) / (2 * 12**2))
    return (blob + torch.cos(2 * torch.pi * x / 30) * torch.exp(-(x**2 + y**2) / (2 * 30**2))).float()


def test_resampling_is_cropping_the_transform_where_that_leads_to_the_same_pixels() -> None:
    images = smooth(96, 2.0)[None] + rescale(rescale(noise(1, 96, 96), 30), 30).mean()
    torch.testing.assert_close(resample(images, 32, 3.0), rescale(images, 32), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("size", "pixel_size"), [(240, 1.0), (300, 0.85), (180, 1.37)])
def test_resampled_images_do_not_depend_on_the_pixels_that_they_had(size: int, pixel_size: float) -> None:
    found = resample(smooth(size, pixel_size)[None], 64, 3.5 / pixel_size)[0]
    torch.testing.assert_close(found, smooth(64, 3.5), atol=1e-4, rtol=0)


def test_resampling_keeps_the_mean_and_leaves_out_what_the_new_pixels_cannot_hold() -> None:
    fine = torch.cos(2 * torch.pi * torch.arange(120) / 4).expand(120, 120)
    found = resample(2.0 + fine[None], 30, 3.7)
    torch.testing.assert_close(found, torch.full((1, 30, 30), 2.0), atol=1e-4, rtol=0)


def test_particles_of_two_pixel_sizes_are_alike_when_they_are_brought_to_one() -> None:
    found = []
    for size, pixel_size, box in ((256, 1.0, 192), (300, 0.85, 240)):
        images = extract_particles(
            smooth(size, pixel_size),
            at((size // 2, size // 2)),
            box,
            48,
            pixel_size=pixel_size,
            rescaled_pixel_size=4.0,
            normalise=False,
        )
        found.append(images[0])
    torch.testing.assert_close(found[0], found[1], atol=5e-3, rtol=0)


@pytest.mark.parametrize(("box", "pixel_size", "message"), [(64, 4.0, "do not fit"), (256, 0.5, "coarser")])
def test_resampling_to_what_is_not_there_is_refused(box: int, pixel_size: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        extract_particles(noise(300, 300), at((150, 150)), box, 48, pixel_size=1.0, rescaled_pixel_size=pixel_size)
