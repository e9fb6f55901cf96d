"""Class averages beside the truth: an average that is the truth, turned and shifted, is found to be it; noise is not."""

import numpy as np
import pytest

from beamside.simulate.averages import aligned_frc, reached, score_averages
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler

BOX, PIXEL = 32, 8.0
SPECIMEN = make_specimen("asymmetric")
VIEW = np.array([40.0, 70.0])


def average(psi: float, shift: tuple[float, float]) -> np.ndarray:
    return project(SPECIMEN, rotation_from_euler(*VIEW, psi)[None], PIXEL, BOX, np.array([shift]))[0]


def test_a_turned_and_shifted_projection_is_found_to_be_the_truth() -> None:
    frc = aligned_frc(average(123.4, (1.3, -0.7)), VIEW, SPECIMEN, PIXEL, SPECIMEN.diameter)
    assert frc[1:].min() > 0.9


def test_another_view_and_noise_are_not() -> None:
    rng = np.random.default_rng(0)
    other = aligned_frc(average(10, (0, 0)), np.array([130.0, 110.0]), SPECIMEN, PIXEL, SPECIMEN.diameter)
    noise = rng.standard_normal((BOX, BOX)).astype(np.float32)
    assert other[4:].mean() < 0.6
    assert aligned_frc(noise, VIEW, SPECIMEN, PIXEL, SPECIMEN.diameter)[4:].mean() < 0.4


def test_classes_count_by_their_particles() -> None:
    averages = np.stack([average(30, (0, 0)), np.random.default_rng(0).standard_normal((BOX, BOX))]).astype(np.float32)
    directions = np.tile(VIEW, (10, 1))
    good = score_averages(averages, np.zeros(10, np.int64), directions, SPECIMEN, PIXEL, SPECIMEN.diameter)
    mixed = score_averages(
        averages, (np.arange(10) > 2).astype(np.int64), directions, SPECIMEN, PIXEL, SPECIMEN.diameter
    )
    assert good.mean > 0.9 > mixed.mean
    assert good.resolution < mixed.resolution
    assert good.spread == pytest.approx(0, abs=1e-3)


def test_the_mean_view_is_taken_where_all_differ() -> None:
    directions = VIEW + np.array([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
    score = score_averages(average(0, (0, 0))[None], np.zeros(4, np.int64), directions, SPECIMEN, PIXEL, 200.0)
    assert score.mean > 0.9
    assert score.spread == pytest.approx(4, abs=0.3)


def test_the_resolution_is_interpolated_between_rings() -> None:
    assert reached(np.array([1.0, 0.9, 0.7, 0.3, 0.1]), 100.0) == pytest.approx(100 / 2.5)
    assert reached(np.array([1.0, 0.9, 0.8]), 100.0) == pytest.approx(50.0)
