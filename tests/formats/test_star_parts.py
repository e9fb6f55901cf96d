"""Tables that grow by parts are the same as if they were written anew each time."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.formats.star import StarBlock, format_rows, read_star, write_star
from beamside.formats.star_parts import Part, PartsWriter, StarParts

COLUMNS = ["rlnCoordinateX", "rlnImageName"]


def content(numbers: list[int], made: list[int] | None = None, comment: float = 1.0) -> StarParts:
    """A table with a part for each number; those that are made are noted."""

    def lines(number: int) -> str:
        if made is not None:
            made.append(number)
        return "".join(format_rows(rows_of(number)))

    blocks = [StarBlock.from_mapping("optics", {"rlnVoltage": comment}), StarBlock("particles", COLUMNS)]
    return StarParts(blocks, [Part(number, partial(lines, number)) for number in numbers])


def rows_of(number: int) -> list[list[str | int | float]]:
    return [[number + 0.25, f"{index:06d}@a b{number}.mrcs"] for index in range(number % 4)]


def whole(folder: Path, numbers: list[int]) -> bytes:
    blocks = list(content([]).blocks)
    blocks[-1].rows = [row for number in numbers for row in rows_of(number)]
    write_star(folder / "whole.star", blocks)
    return (folder / "whole.star").read_bytes()


tables = st.lists(st.lists(st.integers(0, 9), max_size=6, unique=True), min_size=1, max_size=6)


@given(tables)
def test_however_a_table_changes_it_is_that_of_its_parts(versions: list[list[int]]) -> None:
    writer = PartsWriter()
    with tempfile.TemporaryDirectory() as name:
        for numbers in versions:
            writer.write(Path(name) / "table.star", content(numbers))
            assert (Path(name) / "table.star").read_bytes() == whole(Path(name), numbers)


def test_only_what_is_new_is_made(tmp_path: Path) -> None:
    writer, made = PartsWriter(), list[int]()
    for numbers in ([1, 2], [1, 2, 3], [1, 3, 5]):
        writer.write(tmp_path / "table.star", content(numbers, made))
    assert made == [1, 2, 3, 3, 5]


@pytest.mark.parametrize("event", ["another program wrote it", "it is gone", "the optics are others"])
def test_all_is_made_anew_when_the_file_is_not_the_one_that_was_written(tmp_path: Path, event: str) -> None:
    path, writer, made = tmp_path / "table.star", PartsWriter(), list[int]()
    writer.write(path, content([1, 2]))
    if event == "another program wrote it":
        path.write_text(path.read_text() + "# by another program\n")
    elif event == "it is gone":
        path.unlink()
    writer.write(path, content([1, 2], made, 2.0 if event == "the optics are others" else 1.0))
    assert made == [1, 2]
    assert len(read_star(path)["particles"]) == 3


def test_a_part_that_cannot_be_made_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path, writer = tmp_path / "table.star", PartsWriter()
    writer.write(path, content([1]))
    before = path.read_bytes()
    spoiled = content([1])
    with pytest.raises(OSError, match="gone"):
        writer.write(path, StarParts(spoiled.blocks, [*spoiled.parts, Part(2, partial(gone))]))
    assert path.read_bytes() == before
    writer.write(path, content([1, 3]))
    assert path.read_bytes() == whole(tmp_path, [1, 3])


def gone() -> str:
    raise FileNotFoundError("it is gone")
