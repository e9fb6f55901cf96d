"""The file of a micrograph's candidates: what is written is read, and what is damaged or of something else is found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.imaging.picking.candidates import STEPS, Candidates, OpenArea, accept
from beamside.jobs.pick_worker import read_candidates, write_candidates

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def candidates(scores: list[float], digits: list[list[int]]) -> Candidates:
    count = len(scores)
    return Candidates(
        coordinates=torch.arange(2 * count, dtype=torch.float32).reshape(count, 2),
        scores=torch.tensor(sorted(scores, reverse=True), dtype=torch.float32),
        diameters=torch.full((count,), 150.0),
        references=torch.arange(count) % 3,
        psi=torch.arange(count, dtype=torch.float32) * 5,
        threshold=1.5,
        floor=-2.0,
        excluded=0.125,
        open=OpenArea(torch.tensor(digits) / STEPS, (100, 120)),
    )


grids = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, STEPS), min_size=width, max_size=width), min_size=1, max_size=4)
)
# whole steps, as a file has six decimals
scores = st.lists(st.integers(-8, 80).map(lambda number: number / 4), max_size=8)


@SHARED
@given(scores, grids)
def test_what_is_written_is_read(tmp_path: Path, found: list[float], digits: list[list[int]]) -> None:
    """Also without any candidate, and where all is carbon: zeros at the beginning of a row of cells are no number."""
    before = candidates(found, digits)
    write_candidates(tmp_path / "c.star", "0e12", before)
    after = read_candidates(tmp_path / "c.star", "0e12")
    assert after is not None
    for name in ("coordinates", "scores", "diameters", "references", "psi"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name
        assert getattr(after, name).dtype == getattr(before, name).dtype
    assert (after.threshold, after.floor, after.excluded) == (1.5, -2.0, 0.125)
    assert torch.equal(after.open.parts, before.open.parts)
    assert after.open.shape == before.open.shape
    assert len(accept(after, 0.0, 0.0, 1.0)) == len(accept(before, 0.0, 0.0, 1.0))


def test_those_of_another_key_or_none_at_all_are_found_again(tmp_path: Path) -> None:
    write_candidates(tmp_path / "c.star", "a", candidates([1.0], [[9]]))
    assert read_candidates(tmp_path / "c.star", "b") is None
    assert read_candidates(tmp_path / "gone.star", "a") is None
    (tmp_path / "folder").mkdir()
    assert read_candidates(tmp_path / "folder", "a") is None


@SHARED
@given(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([b"", b"\0", b"x", b"\n", b" ", b"inf", b"1e999", b"_", b'"', b"\xff"]),
)
def test_a_damaged_file_is_never_an_error(tmp_path: Path, where: float, damage: bytes) -> None:
    path = tmp_path / "c.star"
    write_candidates(path, "a", candidates([3.0, 2.0, 1.0], [[9, 0], [0, 9]]))
    content = path.read_bytes()
    at = int(where * len(content))
    path.write_bytes(content[:at] + damage + (content[at + 1 :] if damage else b""))
    found = read_candidates(path, "a")
    if found is not None:
        assert len({len(found.scores), len(found.coordinates), len(found.psi), len(found.references)}) == 1


@pytest.mark.parametrize(
    ("field", "value"), [("beamsideHeight", "inf"), ("beamsideWidth", "nan"), ("beamsideOpen", "9x")]
)
def test_a_size_that_is_none_is_a_damaged_file(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "c.star"
    write_candidates(path, "a", candidates([1.0], [[9, 9]]))
    lines = path.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith(f"_{field}"))
    if field == "beamsideOpen":
        lines[number + 1] = value
    else:
        lines[number] = f"_{field} {value}"
    path.write_text("\n".join(lines) + "\n")
    assert read_candidates(path, "a") is None
