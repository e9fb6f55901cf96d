import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.simulate.movie import MovieSettings, draw_truth
from beamside.simulate.score import (
    Picks,
    adjusted_rand_index,
    defocus_error,
    grid_points,
    match_picks,
    motion_error,
    purity,
)
from beamside.simulate.specimen import make_specimen

TRUTH = draw_truth(MovieSettings(size=(256, 320), frames=12), make_specimen(), 4)


def test_perfect_shifts_have_no_error_whatever_their_offset() -> None:
    assert motion_error(TRUTH, lambda points: 5.0 - TRUTH.displacement(points)) == pytest.approx(0, abs=1e-9)


def test_shifts_of_the_wrong_sign_are_twice_as_bad_as_none() -> None:
    uncorrected = motion_error(TRUTH)
    assert uncorrected > 1
    assert motion_error(TRUTH, TRUTH.displacement) == pytest.approx(2 * uncorrected)


def test_an_error_is_the_length_of_vectors_in_angstrom() -> None:
    def off(points: np.ndarray) -> np.ndarray:
        shifts = -TRUTH.displacement(points)
        shifts[::2] += [0.3, 0.4]
        shifts[1::2] -= [0.3, 0.4]
        return shifts

    assert motion_error(TRUTH, off) == pytest.approx(0.5 * TRUTH.settings.pixel_size)


def test_shifts_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        motion_error(TRUTH, lambda points: np.zeros((3, len(points), 2)))


def test_grid_points_are_centres_of_a_division() -> None:
    points = grid_points((90, 180))
    assert points.shape == (81, 2)
    assert points[0].tolist() == [5, 10]
    assert points[-1].tolist() == [85, 170]


def test_defocus_axes_may_be_exchanged() -> None:
    true = TRUTH.defocus
    straight = defocus_error(TRUTH, true.u + 30, true.v + 10, true.angle + 180)
    exchanged = defocus_error(TRUTH, true.v + 10, true.u + 30, true.angle + 90)
    for error in (straight, exchanged):
        assert error.mean == pytest.approx(20)
        assert error.astigmatism == pytest.approx(20)
        assert error.angle == pytest.approx(0, abs=1e-9)
        assert error.vector == pytest.approx(20)


def test_a_pick_counts_once_and_the_nearest_wins() -> None:
    picks = match_picks([[0, 0], [10, 0], [50, 50]], [[1, 0], [4, 0], [80, 80]], 7)
    assert picks == Picks(2, 3, 3)
    assert match_picks([[0, 0]], [[1, 0], [2, 0]], 7) == Picks(1, 1, 2)


def test_no_picks_and_no_particles() -> None:
    assert match_picks([], [], 5).f1 == 1
    assert match_picks([[1, 1]], [], 5).recall == 0
    assert match_picks([], [[1, 1]], 5).precision == 0
    assert (Picks(1, 2, 3) + Picks(1, 1, 1)) == Picks(2, 3, 4)
    assert Picks(2, 4, 4).f1 == 0.5


def test_purity_counts_the_most_frequent_view() -> None:
    assert purity([0, 0, 0, 7, 7], [1, 1, 2, 3, 3]) == pytest.approx(0.8)


def test_adjusted_rand_index_of_a_worked_example() -> None:
    # Hubert & Arabie by hand: table [[2, 1], [0, 3]], pairs 1 + 3, rows 3 + 3, columns 1 + 6, of 15
    expected = (4 - 6 * 7 / 15) / ((6 + 7) / 2 - 6 * 7 / 15)
    assert adjusted_rand_index([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]) == pytest.approx(expected)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=40))
def test_names_of_classes_do_not_matter(labels: list[int]) -> None:
    renamed = [(label * 3 + 1) % 5 for label in labels]
    assert adjusted_rand_index(renamed, labels) == pytest.approx(1.0)
    assert purity(renamed, labels) == 1.0
