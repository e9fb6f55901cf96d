"""Choosing picks among candidates, from their scores alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from beamside.imaging.picking.candidates import Candidates, OpenArea, accept

PIXEL = 2.0


def spread(count: int, seed: int = 0, side: int = 4000, threshold: float = 0.5) -> Candidates:
    """Candidates at random places with scores from 1 down to 0."""
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(np.sort(rng.uniform(size=count))[::-1].copy()).float()
    return Candidates(
        coordinates=torch.from_numpy(rng.uniform(0, side, (count, 2))).float().round(),
        scores=scores,
        diameters=torch.full((count,), 100.0),
        references=torch.zeros(count, dtype=torch.int64),
        psi=torch.zeros(count),
        threshold=threshold,
        floor=0.0,
        excluded=0.0,
        open=OpenArea(torch.ones(64, 64), (side, side)),
    )


def area(found: Candidates) -> float:
    """The open area in µm²."""
    return found.open.pixels * (PIXEL * 1e-4) ** 2


@given(st.integers(0, 200), st.floats(-1, 1))
def test_a_moved_threshold_takes_exactly_the_scores_above_it(count: int, shift: float) -> None:
    found = spread(count)
    picks = accept(found, shift)
    assert len(picks) == int((found.scores >= 0.5 + shift).sum())
    assert torch.equal(picks.scores, found.scores[: len(picks)])


@pytest.mark.parametrize("wanted", [50.0, 200.0, 800.0])
def test_a_target_per_area_is_kept(wanted: float) -> None:
    found = spread(2000, seed=1)
    picks = accept(found, per_area=wanted, pixel_size=PIXEL)
    assert len(picks) == pytest.approx(wanted * area(found), rel=0.15)


def test_the_target_holds_in_each_part_of_the_field_although_scores_differ() -> None:
    found = spread(6000, seed=2, side=12000)
    left = found.coordinates[:, 1] < 6000
    scores = torch.where(left, found.scores + 5, found.scores)  # thin ice on the left
    order = scores.argsort(descending=True)
    picks = accept(
        Candidates(**{**vars(found.chosen(order)), "scores": scores[order]}), per_area=300.0, pixel_size=PIXEL
    )
    halves = [int((picks.coordinates[:, 1] < 6000).sum()), int((picks.coordinates[:, 1] >= 6000).sum())]
    assert min(halves) > 0.8 * max(halves)


def test_masked_parts_count_neither_for_the_whole_nor_for_the_neighbourhood() -> None:
    """Half of the field is carbon: the other half gets its picks per area and not those of the carbon too."""
    found = spread(4000, seed=3)
    allowed = torch.ones(400, 400, dtype=torch.bool)
    allowed[:, :200] = False
    found = found.chosen(found.coordinates[:, 1] >= 2000)
    half = Candidates(**{**vars(found), "open": OpenArea.of_mask(allowed, (4000, 4000))})
    assert area(half) == pytest.approx(area(found) / 2)
    picks = accept(half, per_area=300.0, pixel_size=PIXEL)
    assert len(picks) == pytest.approx(300.0 * area(half), rel=0.12)
    beside = (picks.coordinates[:, 1] < 2500).sum()  # a quarter of what is open, along the carbon
    assert int(beside) == pytest.approx(len(picks) / 4, rel=0.25)
    assert len(accept(found, per_area=300.0, pixel_size=PIXEL)) > 1.1 * len(picks)


def test_what_is_masked_is_known_to_a_small_part() -> None:
    rng = np.random.default_rng(4)
    allowed = torch.from_numpy(rng.uniform(size=(233, 311)) > 0.3)
    open_area = OpenArea.of_mask(allowed, (2000, 2670))
    assert open_area.pixels == pytest.approx(0.7 * 2000 * 2670, rel=0.02)
    around = open_area.around(np.array([[1000.0, 1000.0], [0.0, 1000.0]]), 300.0)
    assert around == pytest.approx(np.array([0.7, 0.35]) * np.pi * 300**2, rel=0.05)


def test_fewer_candidates_than_wanted_are_all_taken_and_none_are_fine() -> None:
    assert len(accept(spread(10), per_area=1e5, pixel_size=PIXEL)) == 10
    assert len(accept(spread(0), per_area=100.0, pixel_size=PIXEL)) == 0
