"""How a simulated specimen moves: what is drawn is what was asked for, and the truth that is written is what was simulated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.simulate.displacement import FAMILIES, Bumps, Displacement, Quadratic, random_displacement

SHAPE = (60, 90)
families = st.sampled_from(FAMILIES)


def drawn(family: str, seed: int, frames: int = 8, local: float = 2.0, jitter: float = 0.0) -> Displacement:
    return random_displacement(frames, SHAPE, 5.0, local, jitter, np.random.default_rng(seed), family)


def grid() -> np.ndarray:
    sides = (np.linspace(0, side, 9) for side in SHAPE)
    return np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 2)


@settings(max_examples=30)
@given(families, st.integers(0, 1000), st.integers(1, 12), st.floats(0, 4))
def test_nothing_has_moved_in_the_first_frame_and_all_is_finite(
    family: str, seed: int, frames: int, local: float
) -> None:
    found = drawn(family, seed, frames, local, jitter=0.3)
    moved = found.at(grid())
    assert moved.shape == (frames, 81, 2)
    assert found.frames == frames
    assert np.abs(moved[0]).max() == 0
    assert np.isfinite(moved).all()


@settings(max_examples=30)
@given(families, st.integers(0, 1000), st.floats(0.5, 4))
def test_local_motion_builds_up_to_what_was_asked_for(family: str, seed: int, local: float) -> None:
    last = drawn(family, seed, local=local).at(grid())[-1]
    spread = np.sqrt(((last - last.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert 0.8 * local <= spread + 1e-9
    assert spread - 1e-9 <= 1.2 * local


@pytest.mark.parametrize("family", FAMILIES)
def test_without_local_motion_all_moves_as_one(family: str) -> None:
    found = drawn(family, 1, local=0.0)
    moved = found.at(grid())
    assert np.abs(moved - moved[:, :1]).max() < 1e-12
    assert np.allclose(moved[:, 0], found.drift)
    assert found.largest(SHAPE) == pytest.approx(np.abs(found.drift).max())


@settings(max_examples=20)
@given(families, st.integers(0, 1000), st.integers(1, 70))
def test_strips_are_the_field_as_it_is_seen_row_by_row(family: str, seed: int, height: int) -> None:
    """A movie is drawn in strips; points of the truth are where the specimen was in the first frame."""
    found, frame = drawn(family, seed), 5
    parts = list(found.strips(frame, SHAPE, height))
    assert [index for part, *_ in parts for index in range(part.start, part.stop)] == list(range(SHAPE[0]))
    assert all(part.stop - part.start <= height for part, *_ in parts)
    dy, dx = (np.concatenate([strip[axis] for strip in parts]) for axis in (1, 2))
    assert dy.shape == dx.shape == SHAPE
    places = np.stack(np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij"), axis=-1).reshape(-1, 2)
    # what is seen at a pixel was before at that pixel without the drift
    wanted = found.at(places - found.drift[frame])[frame].reshape(*SHAPE, 2)
    assert np.allclose(np.stack([dy, dx], axis=-1), wanted, atol=2e-3)


@settings(max_examples=30)
@given(families, st.integers(0, 1000), st.integers(1, 8))
def test_the_truth_is_read_as_it_was_written(family: str, seed: int, frames: int) -> None:
    found = drawn(family, seed, frames)
    again = Displacement.from_json(json.loads(json.dumps(found.to_json())))
    assert type(again.modes) is type(found.modes) is (Bumps if family == "bumps" else Quadratic)
    assert np.allclose(again.at(grid()), found.at(grid()), atol=1e-4)
    assert again.to_json() == found.to_json(), "written again, it is the same"


def test_the_polynomial_is_of_second_order_in_the_place() -> None:
    """RELION's model can follow it exactly, which is what it is for."""
    found = drawn("polynomial", 3, local=3.0)
    y, x = (grid() / np.array(SHAPE) - 0.5).T
    terms = np.stack([np.ones_like(x), x, x**2, y, y**2, x * y], axis=1)
    last = found.at(grid())[-1]
    fitted, *_ = np.linalg.lstsq(terms, last, rcond=None)
    assert np.allclose(terms @ fitted, last, atol=1e-9)
    bumps = drawn("bumps", 3, local=3.0).at(grid())[-1]
    fitted, *_ = np.linalg.lstsq(terms, bumps, rcond=None)
    assert np.abs(terms @ fitted - bumps).max() > 0.2, "which the usual motion is not"


def test_the_same_seed_moves_in_the_same_way_and_another_family_is_named() -> None:
    assert drawn("bumps", 4).to_json() == drawn("bumps", 4).to_json() != drawn("bumps", 5).to_json()
    with pytest.raises(ConfigError, match="'waves'; choose one of bumps, polynomial"):
        drawn("waves", 4)
