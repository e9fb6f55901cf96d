"""What job types are given: items, optics, workspaces, and what RELION's options are made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.jobs.base import (
    OPTICS_VALUES,
    Item,
    ItemGroup,
    Optics,
    RelionContext,
    Result,
    Row,
    Workspace,
    relion_value,
)
from beamside.jobs.ports import Given
from beamside.jobs.registry import job_type

OPTICS = Optics(1.0, 300.0, 2.7, 0.1, 1.2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "Yes"),
        (False, "No"),
        (3, "3"),
        (0.1 + 0.2, "0.3"),
        (1e6, "1000000"),
        (2.0, "2"),
        ("a b", "a b"),
        (-1, "-1"),
    ],
)
def test_values_are_written_as_relion_writes_them(value: Any, text: str) -> None:
    assert relion_value(value) == text


def test_the_dose_of_a_movie_goes_before_that_of_a_frame() -> None:
    assert OPTICS.frame_dose(40) == 1.2
    assert replace(OPTICS, total_dose=60.0).frame_dose(40) == 1.5


def test_a_group_that_differs_in_size_knows_the_sessions() -> None:
    assert OPTICS.reference_pixel_size == 1.0
    assert replace(OPTICS, pixel_size=0.5, common_pixel_size=1.0).reference_pixel_size == 1.0


@given(st.sets(st.sampled_from(OPTICS_VALUES)), st.floats(-2, 2), st.text("ab", max_size=2))
def test_what_came_later_is_used_only_where_it_is_set(names: set[str], tilt: float, group: str) -> None:
    """Keys of results that are there must not change because there is something new to know."""
    used = replace(OPTICS, beam_tilt_x=tilt, group=group).used(sorted(names))
    assert "group" not in used
    assert set(used) == names - {"beam_tilt_y", "common_pixel_size"} - (set() if tilt else {"beam_tilt_x"})


def test_the_nearest_result_is_looked_at_first_and_what_is_shared_only_when_asked() -> None:
    old = Given(Result(outputs={"a": "old", "b": "b"}, values={"v": 1, "w": None}))
    new = Given(Result(outputs={"a": "new"}, values={"v": 2}), {"before": old})
    item = Item("raw/m", {"one": new}, {"references": Given(Result(outputs={"c": "c"}))})
    assert (item.output("a"), item.output("b"), item.value("v"), item.value("x", 7)) == ("new", "b", 2, 7)
    assert item.find("c") == ""
    with pytest.raises(KeyError, match="c"):
        item.output("c")


@pytest.mark.parametrize("name", ["raw/m", "raw/square 1/m.a", "m"])
def test_files_of_an_item_are_in_the_jobs_directory_under_its_whole_name(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path, "Job/job003", OPTICS)
    for one in (Item(name), ItemGroup(name, [])):
        path = workspace.path(one, "_a.txt")
        assert path.parent.is_dir()
        assert workspace.relative(path) == f"Job/job003/{name}_a.txt"
        assert workspace.absolute(workspace.relative(path)) == path


def test_items_of_a_round_have_their_own_optics() -> None:
    other = replace(OPTICS, group="b", voltage=200.0)
    workspace = Workspace(Path(), "Job/job003", OPTICS, item_optics={"raw/b": other})
    assert [workspace.optics_of(Item(name)) for name in ("raw/a", "raw/b")] == [OPTICS, other]


json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)


@given(st.dictionaries(st.text(), st.floats(allow_nan=False)), st.dictionaries(st.text(), json), st.text())
def test_a_result_is_read_as_it_was_written(metrics: dict[str, float], values: dict[str, Any], rejected: str) -> None:
    result = Result(metrics, {"a": "b"}, values, rejected)
    assert Result.from_json(result.to_json()) == result
    assert Result.from_json({}) == Result(), "earlier versions left out what was empty"


def test_the_newest_result_that_has_a_value_tells_it() -> None:
    def row(box: int | None, before: int | None = None) -> Row:
        inputs = {} if before is None else {"in": Given(Result(values={"box": before}))}
        return Row(Item("m", inputs), Result(values={} if box is None else {"box": box}))

    def newest(*rows: Row) -> Any:
        return RelionContext(None, OPTICS, rows=rows).newest("box")

    assert newest() is None
    assert newest(row(1), row(2)) == 2
    assert newest(row(1), row(None)) == 1
    assert newest(row(1), row(None, before=3)) == 3
    assert newest(row(0), row(None)) == 0, "which is a value"


def test_a_setting_is_looked_for_in_the_job_and_then_in_those_before_the_nearest_first() -> None:
    extract, pick = job_type("extract").Parameters, job_type("pick").Parameters
    before = [extract(box_size=200), pick(particle_diameter="100:120"), extract(box_size=300)]
    context = RelionContext(job_type("class2d").Parameters(), OPTICS, before=before)
    assert (context.setting("classes"), context.setting("box_size")) == (50, 200)
    assert context.setting("particle_diameter") == (100, 120)
    assert context.setting("nothing", 5) == 5


def test_an_input_that_a_job_type_has_not_is_a_mistake() -> None:
    assert job_type("pick").input("references").takes == "one"
    with pytest.raises(KeyError, match="pick has no input movies"):
        job_type("pick").input("movies")
