"""Rows are left out of a table, and everything else stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import CorruptFileError
from beamside.formats.star import StarBlock, format_star, parse_star
from beamside.formats.star_rows import without_rows

NAMES = st.sampled_from(["a.mrc", "data_b.mrc", "_c.mrc", "a b.mrc", "loop_", "d#e.mrc", "é.mrc", "#f"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.integers(0, 9), NAMES), max_size=12),
    st.sets(NAMES, max_size=3),
    st.sampled_from([0, 2]),
)
def test_only_rows_with_one_of_the_values_are_left_out(
    rows: list[tuple[str, int, str]], left_out: set[str], place: int
) -> None:
    columns = ["rlnFirst", "rlnNumber", "rlnLast"]
    optics = StarBlock("optics", ["rlnFirst", "rlnOpticsGroup"], [["a.mrc", 1], ["a b.mrc", 2]])
    after = StarBlock("more", ["rlnLast"], [["a.mrc"]])
    text = format_star([optics, StarBlock("particles", columns, [list(row) for row in rows]), after])
    kept = [list(row) for row in rows if row[place] not in left_out]
    found = without_rows(text, "particles", columns[place], left_out)
    assert found == format_star([optics, StarBlock("particles", columns, kept), after])


def test_with_nothing_to_leave_out_every_byte_stays() -> None:
    text = "# a comment\r\n\ndata_particles\nloop_\n_rlnMicrographName #1\na.mrc   \n\n\nb.mrc"
    assert without_rows(text, "particles", "rlnMicrographName", ()) == text
    assert without_rows(text, "particles", "rlnMicrographName", {"b.mrc"}) == text[:-5]


@pytest.mark.parametrize(
    "text", ["", "data_other\nloop_\n_rlnMicrographName\na.mrc\n", "data_particles\nloop_\n_rlnX\n1\n"]
)
def test_a_file_without_the_table_is_told(text: str) -> None:
    with pytest.raises(CorruptFileError, match=r"a\.star has no table data_particles with a column rlnMicrographName"):
        without_rows(text, "particles", "rlnMicrographName", {"a.mrc"}, "a.star")


def test_a_large_table_keeps_its_order() -> None:
    rows = [[f"m{number % 7}.mrc", number] for number in range(1000)]
    text = format_star([StarBlock("particles", ["rlnMicrographName", "rlnNumber"], rows)])
    found = parse_star(without_rows(text, "particles", "rlnMicrographName", {"m3.mrc", "m5.mrc"}))["particles"]
    assert found.integers("rlnNumber").tolist() == [number for number in range(1000) if number % 7 not in (3, 5)]
