import numpy as np
import pytest
import scipy.fft

from beamside.simulate.particles import particle_ctf, signal_deviation, simulate_stack
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler, view_directions


def test_the_same_seed_gives_the_same_stack_and_another_does_not() -> None:
    specimen = make_specimen("asymmetric")
    first, second, other = (simulate_stack(specimen, None, 20, 32, 8.0, 0.1, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.images, second.images)
    assert not np.allclose(first.images, other.images)


def test_noise_has_the_asked_level() -> None:
    specimen = make_specimen("asymmetric")
    stack = simulate_stack(specimen, view_directions(specimen, 5), 100, 48, 6.0, 0.08, 3)
    noise = stack.images - stack.clean
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    signal = signal_deviation(stack.clean, specimen.diameter / 6.0)
    assert signal**2 / noise.var() == pytest.approx(0.08, rel=0.03)


def test_views_are_used_equally_often() -> None:
    specimen = make_specimen("asymmetric")
    stack = simulate_stack(specimen, view_directions(specimen, 5), 50, 32, 8.0, 1.0, 3)
    assert np.bincount(stack.view).tolist() == [10] * 5


def test_the_truth_gives_the_clean_images_again() -> None:
    specimen = make_specimen("barrel")
    stack = simulate_stack(specimen, None, 6, 64, 4.0, np.inf, 5, per_micrograph=3, b_factor=0.0)
    assert np.array_equal(stack.images, stack.clean)
    assert len(stack.defocus) == 2
    for index in (0, 5):
        rotation = rotation_from_euler(*stack.eulers[index])[None]
        image = project(specimen, rotation, 4.0, 64, stack.shift[index])[0]
        expected = scipy.fft.irfft2(scipy.fft.rfft2(image) * stack.ctf(index), s=(64, 64))
        assert np.corrcoef(expected.ravel(), stack.clean[index].ravel())[0, 1] > 0.9999


def test_protein_is_white() -> None:
    specimen = make_specimen("barrel")
    stack = simulate_stack(specimen, np.array([[0.0, 0.0]]), 10, 64, 4.0, np.inf, 5, max_shift=0.0)
    row, column = np.mgrid[:64, :64] - 32
    radius = np.hypot(row, column) * 4.0
    ring, around = (radius > 38) & (radius < 60), (radius > 85) & (radius < 100)
    assert all(image[ring].mean() > image[around].mean() for image in stack.images)
    assert particle_ctf((64, 64), 4.0, stack.defocus[0], stack.beam)[0, 3] > 0
