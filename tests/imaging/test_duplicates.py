"""Particles that are there twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist

from beamside.imaging.duplicates import duplicates

CENTRES = np.array([[0.0, 0], [0, 20], [0, 40], [0, 0], [200, 0]])
NAMES = ["a", "a", "a", "b", "a"]


def test_the_worthiest_of_close_particles_stays() -> None:
    worth = np.array([1.0, 3, 2, 0, 0])
    assert duplicates(CENTRES, NAMES, worth, 30.0).tolist() == [True, False, True, False, False]


def test_what_is_only_close_to_one_that_was_left_out_stays() -> None:
    worth = np.array([3.0, 2, 1, 0, 0])
    assert duplicates(CENTRES, NAMES, worth, 30.0).tolist() == [False, True, False, False, False]


def test_of_equals_the_first_stays() -> None:
    assert duplicates(np.zeros((3, 2)), ["a"] * 3, np.ones(3), 30.0).tolist() == [False, True, True]


def test_nothing_is_left_out_without_a_distance() -> None:
    assert not duplicates(np.zeros((3, 2)), ["a"] * 3, np.ones(3), 0.0).any()
    assert duplicates(np.zeros((0, 2)), [], np.ones(0), 30.0).shape == (0,)


@given(arrays.arrays(np.float64, st.tuples(st.integers(0, 40), st.just(2)), elements=st.floats(0, 100)), st.data())
def test_no_two_that_stay_are_close_and_what_goes_is_close_to_a_worthier_one(
    centres: np.ndarray, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from("ab"), min_size=len(centres), max_size=len(centres)))
    worth = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(centres), max_size=len(centres))), dtype=float)
    gone = duplicates(centres, names, worth, 10.0)
    close = (cdist(centres, centres) < 10.0) & (np.array(names)[:, None] == np.array(names)[None])
    stay = np.flatnonzero(~gone)
    assert not (close[np.ix_(stay, stay)] & ~np.eye(len(stay), dtype=bool)).any()
    for one in np.flatnonzero(gone):
        assert any(close[one, other] and worth[other] >= worth[one] for other in stay)
