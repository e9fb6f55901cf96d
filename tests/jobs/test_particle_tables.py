"""Which particles are joined, and what is written again from the table of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.formats.star import read_star, write_star
from beamside.formats.star_parts import PartsWriter, StarParts
from beamside.jobs.base import Item, Optics, RelionContext, Result, Row
from beamside.jobs.extract import PARTICLE_COLUMNS, Extraction, of_group, particles_by_stack
from beamside.jobs.join import Joining
from beamside.jobs.join_worker import _without_duplicates

OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)
JOB = "Extract/job005"
_X, _Y, _FOM, _GROUP = (
    PARTICLE_COLUMNS.index(name)
    for name in ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnOpticsGroup")
)

picks = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 3)), max_size=12)


def table_of(found: list[tuple[int, int, int]]) -> list[list[Any]]:
    places = {_X: 0, _Y: 1, _FOM: 2}
    return [
        [one[places[column]] if column in places else 0 for column in range(len(PARTICLE_COLUMNS))] for one in found
    ]


@given(st.lists(picks, min_size=1, max_size=3), st.integers(1, 30), st.sampled_from([0.5, 1.0, 2.0]))
def test_no_two_that_are_kept_are_close_and_each_that_is_not_is_close_to_one(
    found: list[list[tuple[int, int, int]]], distance: int, pixel_size: float
) -> None:
    tables = [table_of(one) for one in found]
    kept = _without_duplicates(tables, [pixel_size] * len(tables), float(distance))
    chosen = [(port, index) for port, indices in enumerate(kept) for index in indices]
    places = np.array([found[port][index][:2] for port, index in chosen], float).reshape(-1, 2) * pixel_size
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + np.eye(len(places)) * 1e9
    assert apart.min(initial=1e9) >= distance
    for port, one in enumerate(found):
        for index, pick in enumerate(one):
            if (port, index) in chosen:
                continue
            near = np.hypot(*(places - np.array(pick[:2]) * pixel_size).T) < distance
            better = [
                other <= port and (other < port or found[other][place][2] >= pick[2])
                for (other, place), close in zip(chosen, near, strict=True)
                if close
            ]
            assert any(better), "an earlier input, or a better pick of its own"


@given(st.lists(picks, min_size=1, max_size=3))
def test_a_distance_of_nought_keeps_all_in_their_order(found: list[list[tuple[int, int, int]]]) -> None:
    kept = _without_duplicates([table_of(one) for one in found], [1.0] * len(found), 0.0)
    assert kept == [list(range(len(one))) for one in found]


@given(picks, st.randoms(use_true_random=False))
def test_the_order_in_which_a_picker_lists_them_makes_no_difference(
    found: list[tuple[int, int, int]], random: Any
) -> None:
    found = [(x, y, place) for place, (x, y, _) in enumerate(found)]  # no two with one score
    mixed = list(found)
    random.shuffle(mixed)
    (first,), (second,) = (_without_duplicates([table_of(one)], [1.0], 15.0) for one in (found, mixed))
    assert {found[index] for index in first} == {mixed[index] for index in second}


@given(picks, st.integers(1, 5), st.integers(1, 5))
def test_rows_in_another_table_differ_only_in_their_group(
    found: list[tuple[int, int, int]], before: int, after: int
) -> None:
    rows = of_group(table_of(found), before)
    again = of_group(rows, after)
    assert {int(row[_GROUP]) for row in again} <= {after}
    assert [row[:_GROUP] + row[_GROUP + 1 :] for row in again] == [row[:_GROUP] + row[_GROUP + 1 :] for row in rows]
    assert all(int(row[_GROUP]) == before for row in rows), "the rows that were given are as they were"


def extracted(small: Any, name: str, count: int) -> Result:
    result: Result = small.particles([(10.0 * number, 5.0) for number in range(count)], name)
    return result


def publish(small: Any, results: list[Result], written: PartsWriter | None = None) -> Path:
    rows = [Row(Item(f"raw/{number}"), result) for number, result in enumerate(results)]
    content = Extraction().star_files(rows, Extraction.Parameters(), OPTICS, JOB, small.root)["particles.star"]
    assert isinstance(content, StarParts)
    path: Path = small.root / JOB / "particles.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    (written or PartsWriter()).write(path, content)
    return path


def test_micrographs_without_particles_have_no_rows_and_lend_the_table_its_size(small: Any) -> None:
    empty = Result({"extracted": 0.0}, values={"image_pixel_size": 6.0, "image_size": 32})
    blocks = read_star(publish(small, [empty]))
    assert len(blocks["particles"]) == 0
    assert blocks["optics"].floats("rlnImagePixelSize").tolist() == [6.0]
    assert blocks["optics"].integers("rlnImageSize").tolist() == [32]
    blocks = read_star(publish(small, [empty, extracted(small, "a", 2)]))
    assert len(blocks["particles"]) == 2
    assert blocks["optics"].floats("rlnImagePixelSize").tolist() == [4.0], "of those that are in it"


def test_the_table_grows_by_what_is_new_and_loses_what_is_taken_out(small: Any) -> None:
    writer = PartsWriter()
    one, two, three = (extracted(small, name, count) for name, count in (("a", 2), ("b", 1), ("c", 3)))
    for shown in ([one], [one, two], [one, two, three], [two, three], [one, three], []):
        table = read_star(publish(small, shown, writer))["particles"]
        stacks = [str(name).split("@")[1] for name in table.column("rlnImageName")]
        assert stacks == [one.outputs["particles"] for one in shown for _ in range(int(one.metrics["extracted"]))]


def test_what_was_extracted_again_under_the_same_name_replaces_its_rows(small: Any) -> None:
    writer = PartsWriter()
    others = extracted(small, "b", 1)
    assert len(read_star(publish(small, [extracted(small, "a", 4), others], writer))["particles"]) == 5
    assert len(read_star(publish(small, [extracted(small, "a", 2), others], writer))["particles"]) == 3


@pytest.mark.parametrize(
    ("gone", "role", "expected"),
    [
        ([], "particles_star", True),
        (["stack"], "particles_star", False),
        (["table"], "particles_star", False),
        ([], "particles", False),
        ([], "particles_image", False),
    ],
)
def test_only_rows_that_are_in_the_table_of_images_that_are_there_can_be_written_again(
    small: Any, gone: list[str], role: str, expected: bool
) -> None:
    result = extracted(small, "a", 2)
    table = publish(small, [result])
    files = {"stack": small.root / result.outputs["particles"], "table": table}
    for name in gone:
        files[name].unlink()
    assert Extraction().restorable(result, role, JOB, small.root) is expected


def test_each_is_written_again_by_itself(small: Any) -> None:
    results = [extracted(small, "a", 2), extracted(small, "b", 3), Result({"extracted": 0.0})]
    publish(small, results)
    kept, lost = (small.root / result.outputs["particles_star"] for result in results[:2])
    before, there = read_star(lost)["images"].records(), kept.stat()
    lost.unlink()
    assert Extraction().restore(results, JOB, small.root) == 1
    assert read_star(lost)["images"].records() == before
    assert kept.stat().st_mtime_ns == there.st_mtime_ns, "what is there is left alone"


def test_a_table_of_relion_is_read_by_the_names_of_its_columns(small: Any, tmp_path: Path) -> None:
    """RELION may have written the table again, with more columns and in another order."""
    path = publish(small, [extracted(small, "a", 2)])
    before = particles_by_stack(path)
    block = read_star(path)["particles"]
    block.columns = [*reversed(block.columns), "rlnBeamTiltClass"]
    block.rows = [[*reversed(row), 1] for row in block.rows]
    write_star(path, [block])
    assert particles_by_stack(path) == before


def test_relion_is_told_of_duplicates_that_it_would_keep() -> None:
    kind = Joining()
    assert kind.relion_differences(RelionContext(kind.Parameters(join_duplicate_distance=0), OPTICS)) == []
    (said,) = kind.relion_differences(RelionContext(kind.Parameters(), OPTICS))
    assert "within 30 Å" in said
    inputs = {"first": "Extract/job005/particles.star", "third": "Extract/job009/particles.star"}
    options = kind.relion_options(RelionContext(kind.Parameters(), OPTICS, inputs))
    assert [options[f"fn_part{number}"] for number in (1, 3)] == list(inputs.values())
    assert options["do_part"] == "Yes"
