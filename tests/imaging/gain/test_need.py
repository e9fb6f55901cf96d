"""What different movies share tells that a camera's pixels were not corrected; nothing else that movies share is taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from beamside.imaging.gain.need import NEEDED, shared_pattern
from beamside.imaging.gain.need_picture import needed_picture
from beamside.simulate.gain import gain_reference

SIDE = 256
GAIN = gain_reference((SIDE, SIDE), 4).gain


def movies(
    number: int = 3, counts: float = 20.0, corrected: float | None = None, light: np.ndarray | float = 1.0
) -> list:
    """Sums of movies with ice of their own; `corrected` with what the correction leaves."""
    left = np.exp(np.random.default_rng(9).normal(0, corrected or 0, (SIDE, SIDE)))
    found = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        ice = np.exp(sum(0.05 * s * gaussian_filter(rng.normal(size=(SIDE, SIDE)), s) for s in (1, 4, 16)))
        total = rng.poisson(counts * ice * light / GAIN).astype(np.float32)
        found.append(total if corrected is None else (total * GAIN * left).astype(np.float32))
    return found


@pytest.mark.parametrize("counts", [4.0, 20.0, 100.0])
def test_a_pattern_of_pixels_is_found_and_measured(counts: float) -> None:
    found = shared_pattern(movies(8, counts))
    assert found.kind == "needed"
    relative = 1 / GAIN
    assert found.strength == pytest.approx((relative / gaussian_filter(relative, 10)).std(), rel=0.15)
    assert np.unravel_index(found.near.argmax(), found.near.shape) == (16, 16)


@pytest.mark.parametrize("left", [0.0, 0.01, 0.02])
def test_corrected_movies_need_none_also_where_the_correction_left_a_little(left: float) -> None:
    found = shared_pattern(movies(8, 40, corrected=left))
    assert found.kind == "clean"
    assert found.limit < NEEDED


def test_two_movies_with_few_counts_cannot_tell() -> None:
    assert shared_pattern(movies(2, 0.5)).kind == "unsure"
    assert shared_pattern(movies(1, 100)).kind == "unsure"


def test_a_beam_edge_at_the_same_place_is_no_pattern_and_hides_none() -> None:
    y, x = np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
    edge = 0.02 + 1 / (1 + np.exp((np.hypot(y - 20, x) - 0.45 * SIDE) / 2))
    assert shared_pattern(movies(6, 40, corrected=0.0, light=edge)).kind == "clean"
    assert shared_pattern(movies(6, 40, light=edge)).kind == "needed"


def test_dead_columns_and_hot_pixels_of_corrected_movies_are_no_pattern() -> None:
    damaged = movies(4, 30, corrected=0.0)
    for movie in damaged:
        movie[:, [40, 41, 200]] = 0
        movie[::50, ::50] += 3000
    assert shared_pattern(damaged).kind == "clean"


def test_one_specimen_exposed_again_a_little_elsewhere_is_no_pattern() -> None:
    specimen = np.exp(0.3 * gaussian_filter(np.random.default_rng(1).normal(size=(SIDE, SIDE)), 1))
    again = [np.random.default_rng(s).poisson(50 * np.roll(specimen, (3 * s, -5 * s), (0, 1))) for s in range(4)]
    assert shared_pattern(again).kind == "clean"


def test_copies_of_one_movie_share_everything_and_say_nothing() -> None:
    (movie,) = movies(1, 40, corrected=0.0)
    assert shared_pattern([movie, movie.copy(), movie.copy()]).kind == "unsure"


def test_movies_without_counts_or_without_noise_say_nothing() -> None:
    flat = np.full((64, 64), 7, np.float32)
    assert shared_pattern([np.zeros((64, 64)), flat]).kind == "unsure"
    assert shared_pattern([flat, 2 * flat]).kind != "needed"


def test_the_picture_shows_the_pattern_twice() -> None:
    sums = movies(4)
    picture = needed_picture(sums, shared_pattern(sums))
    assert picture.size == (1120, 450)
