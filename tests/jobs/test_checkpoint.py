"""The checkpoint of 2D classification: one file that is whole, or as if there were none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.imaging.classify2d import State
from beamside.jobs.class2d_worker import OF_EACH_PARTICLE, Checkpoint, surviving

Members = list[tuple[str, int]]


def state_of(members: Members) -> State:
    """A state after a round over these particles; each particle's psi is its number."""
    count, rings = sum(number for _, number in members), 5
    every = dict.fromkeys(("pmax", "share", "evidence"), np.ones(count, np.float32))
    return State(
        iteration=7,
        references=np.ones((2, 8, 8), np.float32),
        class_weights=np.array([0.5, 0.5], np.float32),
        resolution=np.array([12.0, 13.0], np.float32),
        quality=np.ones(2, np.float32),
        signal=np.ones(rings, np.float32),
        noise=np.arange(len(members) * rings, dtype=np.float32).reshape(len(members), rings),
        label=np.arange(count) % 2,
        psi=np.arange(count, dtype=np.float32),
        shift=np.zeros((count, 2), np.float32),
        leverage=np.zeros((2, rings), np.float32),
        shift_sd=2.0,
        current_resolution=12.0,
        stage=3,
        annealed_at=count,
        **every,
    )


def same(one: State, other: State) -> bool:
    return all(np.array_equal(getattr(one, each.name), getattr(other, each.name)) for each in fields(State))


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
members = st.lists(st.tuples(names, st.integers(0, 4)), max_size=4)


@given(members)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_is_saved_is_loaded(tmp_path: Path, particles: Members) -> None:
    checkpoint, state = Checkpoint(tmp_path), state_of(particles)
    checkpoint.save(state, particles)
    loaded, found = checkpoint.load()
    assert loaded is not None
    assert same(loaded, state)
    assert found == particles
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.npz"]


def earlier(folder: Path, state: State, particles: Members) -> None:
    """Write a checkpoint as earlier versions did."""
    state.save(folder / "checkpoint.npz")
    (folder / "checkpoint_members.json").write_text(json.dumps(particles))


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(tmp_path: Path) -> None:
    before, after = [("a.mrcs", 3), ("b.mrcs", 2)], [("a.mrcs", 3), ("c.mrcs", 2)]
    earlier(tmp_path, state_of(before), before)
    checkpoint = Checkpoint(tmp_path)
    loaded, found = checkpoint.load()
    assert loaded is not None
    assert found == before
    checkpoint.save(state_of(after), after)
    assert checkpoint.load()[1] == after, "the list of the earlier version is not taken for that of the new state"


@pytest.mark.parametrize(
    "content", ["", "null", "5", "[5]", '[["a.mrcs", null]]', '[["a.mrcs"]]', '[["a.mrcs", 4]]', "{"]
)
def test_an_earlier_versions_list_that_is_damaged_or_of_another_state_makes_it_begin_anew(
    tmp_path: Path, content: str
) -> None:
    earlier(tmp_path, state_of([("a.mrcs", 3)]), [])
    (tmp_path / "checkpoint_members.json").write_text(content)
    assert Checkpoint(tmp_path).load() == (None, [])


def test_there_is_none_before_the_first_round_and_after_its_list_was_lost(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path).load() == (None, [])
    state_of([("a.mrcs", 3)]).save(tmp_path / "checkpoint.npz")
    assert Checkpoint(tmp_path).load() == (None, [])


def cut(content: bytes, at: int) -> bytes:
    return content[:at]


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]


def emptied(content: bytes, at: int) -> bytes:
    """As a file that a crash of the machine left: of full length, and nothing in it from some place on."""
    return content[:at] + bytes(len(content) - at)


@given(damage=st.sampled_from([cut, flipped, emptied]), where=st.floats(0, 1, exclude_max=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
def test_a_damaged_file_is_as_if_there_were_none(
    tmp_path: Path, damage: Callable[[bytes, int], bytes], where: float
) -> None:
    particles = [("a.mrcs", 3), ("b.mrcs", 2)]
    checkpoint, state = Checkpoint(tmp_path), state_of(particles)
    checkpoint.save(state, particles, 4.0)
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(damage(content, int(where * len(content))))
    loaded, found = checkpoint.load()
    assert checkpoint.pixel_size() in (0.0, 4.0)
    if loaded is None:
        assert found == []
    else:  # the damage is in what nobody reads
        assert same(loaded, state)
        assert found == particles


@given(members, st.dictionaries(names, st.integers(0, 4), max_size=6))
def test_of_micrographs_that_are_gone_or_changed_nothing_is_kept_and_of_the_others_all(
    particles: Members, sizes: dict[str, int]
) -> None:
    particles = [
        (f"{number}{name}", count) for number, (name, count) in enumerate(particles)
    ]  # stacks have names of their own
    sizes = sizes | {name: count for name, count in particles if len(name) % 2}
    state = state_of(particles)
    left, kept = surviving(state, particles, sizes)
    total, there = (
        sum(count for _, count in some) for some in (particles, [m for m in particles if m in sizes.items()])
    )
    if 2 * there < total:
        assert (left, kept) == (None, [])
        return
    assert left is not None
    assert kept == [member for member in particles if member in sizes.items()]
    numbers = iter(range(total))
    expected = [
        number for member in particles for number in [next(numbers) for _ in range(member[1])] if member in kept
    ]
    assert left.psi.tolist() == expected, "each particle keeps what was found of it"
    assert all(len(getattr(left, name)) == there for name in OF_EACH_PARTICLE)
    assert left.noise.tolist() == [
        row for row, member in zip(state.noise.tolist(), particles, strict=True) if member in kept
    ]
    assert left.annealed_at <= max(there, state.annealed_at)


def test_a_state_whose_groups_are_not_its_micrographs_survives_only_as_a_whole() -> None:
    """Earlier versions had one spectrum of noise for all particles."""
    particles = [("a.mrcs", 3), ("b.mrcs", 2)]
    state = replace(state_of(particles), noise=np.ones((1, 5), np.float32))
    assert surviving(state, particles, dict(particles)) == (state, particles)
    assert surviving(state, particles, {"a.mrcs": 3}) == (None, [])
