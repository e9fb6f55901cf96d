"""The simulated camera's gain reference, for any size of sensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.simulate.gain import gain_reference


@settings(max_examples=25)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 99))
def test_a_reference_has_mean_one_and_its_defects_are_on_the_sensor(height: int, width: int, seed: int) -> None:
    found = gain_reference((height, width), seed)
    assert found.gain.shape == (height, width)
    assert found.gain.dtype == np.float32
    assert found.gain.mean(dtype=np.float64) == pytest.approx(1, abs=1e-4)
    assert found.gain.min() > 0
    for defects in (found.dead, found.hot):
        assert len(defects) >= 1
        assert defects.shape[1] == 2
        assert (defects >= 0).all()
        assert (defects < [height, width]).all()


def test_the_dead_piece_of_a_column_is_in_one_column() -> None:
    dead = gain_reference((256, 128), 3).dead
    line = dead[-256 // 8 :]
    assert len(set(line[:, 1])) == 1
    assert np.diff(line[:, 0]).tolist() == [1] * (len(line) - 1)


def test_another_camera_has_another_pattern_and_the_same_one_the_same() -> None:
    first, again, other = (gain_reference((64, 64), seed).gain for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.3


def test_columns_share_a_pattern_that_survives_the_mean_over_rows() -> None:
    """By which an unfitting orientation is told."""
    gain = gain_reference((512, 256), 1).gain
    assert gain.mean(axis=0).std() > 3 * gain.mean(axis=1).std()
