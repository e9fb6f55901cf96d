"""Picking references become files of the project: what is said of them, the same twice, and files that are odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import InputError
from beamside.formats.mrc import write_mrc
from beamside.formats.star import StarBlock, write_star
from beamside.jobs.base import Optics, RelionContext, Result
from beamside.jobs.pick import FROM_WORKFLOW, Picking, PickParameters
from beamside.jobs.pick_references import LARGEST, check_references, protein_is_white, read_references
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)
Y, X = np.mgrid[:16, :16] - 8
BLOB = np.exp(-(X**2 + Y**2) / 12.0).astype(np.float32)


def adopt(root: Path, references: str, **more: Any) -> PickParameters:
    given = PickParameters(pick_method="template", pick_references=references, **more)
    adopted: PickParameters = Picking().adopt(given, root)
    return adopted


def content(root: Path, parameters: PickParameters) -> tuple[np.ndarray, float]:
    return read_references(root / parameters.pick_references)


@pytest.fixture
def file(tmp_path: Path) -> str:
    write_mrc(tmp_path / "mine.mrcs", np.stack([BLOB, 2 * BLOB]), 4.0)
    return str(tmp_path / "mine.mrcs")


def test_what_was_said_of_the_file_is_in_the_copy_and_said_no_more(tmp_path: Path, file: str) -> None:
    adopted = adopt(tmp_path, file, pick_reference_pixel_size=3.0, pick_reference_protein="white")
    assert (adopted.pick_reference_pixel_size, adopted.pick_reference_protein) == (0.0, "auto")
    images, pixel_size = content(tmp_path, adopted)
    assert pixel_size == pytest.approx(3.0)
    assert np.array_equal(images, np.stack([BLOB, 2 * BLOB]))


def test_the_same_content_is_one_file_whatever_it_is_called(tmp_path: Path, file: str) -> None:
    """So a file that was moved, or a session that is started again, makes no result old."""
    first = adopt(tmp_path, file)
    (tmp_path / "mine.mrcs").rename(tmp_path / "moved.mrcs")
    assert adopt(tmp_path, str(tmp_path / "moved.mrcs")) == first
    assert adopt(tmp_path, "moved.mrcs") == first, "a path in the project"
    assert len(list((tmp_path / "References").iterdir())) == 1


def test_a_copy_is_left_as_it_is_and_what_does_not_change_it_makes_no_result_old(tmp_path: Path, file: str) -> None:
    first = adopt(tmp_path, file)
    assert adopt(tmp_path, first.pick_references) == first
    assert adopt(tmp_path, first.pick_references, pick_reference_protein="white") == first


def test_a_pixel_size_that_is_given_later_is_used(tmp_path: Path, file: str) -> None:
    """When a session goes on, its stored parameters name the copy, and the user names only what was wrong."""
    first = adopt(tmp_path, file, pick_reference_protein="white")
    again = adopt(tmp_path, first.pick_references, pick_reference_pixel_size=2.5)
    assert again.pick_references != first.pick_references
    assert again.pick_reference_pixel_size == 0.0
    images, pixel_size = content(tmp_path, again)
    assert pixel_size == pytest.approx(2.5)
    assert np.array_equal(images, content(tmp_path, first)[0])


def test_contrast_that_is_corrected_later_is_turned_and_is_not_looked_at_again(tmp_path: Path) -> None:
    write_mrc(tmp_path / "odd.mrcs", -BLOB[None], 4.0)
    first = adopt(tmp_path, "odd.mrcs", pick_reference_protein="white")  # whoever says so knows better
    moved = adopt(tmp_path, first.pick_references, pick_reference_pixel_size=2.0)
    assert np.array_equal(content(tmp_path, moved)[0], -BLOB[None])
    turned = adopt(tmp_path, first.pick_references, pick_reference_protein="black")
    assert np.array_equal(content(tmp_path, turned)[0], BLOB[None])
    assert adopt(tmp_path, turned.pick_references) == turned


def test_a_copy_that_is_gone_is_missing_and_not_taken_for_one_that_is_there(tmp_path: Path, file: str) -> None:
    first = adopt(tmp_path, file)
    (tmp_path / first.pick_references).unlink()
    with pytest.raises(InputError, match="do not exist; check --pick-references"):
        adopt(tmp_path, first.pick_references)
    assert adopt(tmp_path, file) == first


def test_a_single_image_is_a_stack_of_one(tmp_path: Path) -> None:
    write_mrc(tmp_path / "one.mrc", BLOB, 4.0)
    images, _ = content(tmp_path, adopt(tmp_path, "one.mrc"))
    assert images.shape == (1, 16, 16)


def test_a_star_file_takes_whole_stacks_and_single_images_and_refuses_others_sizes(tmp_path: Path, file: str) -> None:
    def star(*names: str) -> str:
        write_star(tmp_path / "refs.star", [StarBlock("", ["rlnReferenceImage"], [[name] for name in names])])
        return "refs.star"

    images, _ = content(tmp_path, adopt(tmp_path, star("mine.mrcs", "2@mine.mrcs"), pick_reference_protein="white"))
    assert images.max(axis=(1, 2)).tolist() == [1, 2, 2]
    write_mrc(tmp_path / "small.mrcs", BLOB[None, :8, :8], 4.0)
    with pytest.raises(InputError, match="differ in size"):
        adopt(tmp_path, star("1@mine.mrcs", "1@small.mrcs"))
    with pytest.raises(InputError, match="list no image"):
        adopt(tmp_path, star())


def test_a_stack_that_was_cut_short_is_refused(tmp_path: Path, file: str) -> None:
    path = Path(file)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="Give a stack of class averages"):
        adopt(tmp_path, file)
    assert not (tmp_path / "References").exists()


@pytest.mark.parametrize(
    ("images", "pixel_size", "says"),
    [
        (np.stack([BLOB] * (LARGEST + 1)), 4.0, f"There are {LARGEST + 1}"),
        (BLOB[None, :, :8], 4.0, "8 × 16 pixels"),
        (np.full((1, 8, 8), np.nan, np.float32), 4.0, "not finite"),
        (np.zeros((2, 8, 8), np.float32), 4.0, "empty"),
        (np.zeros((0, 8, 8), np.float32), 4.0, "There are 0"),
        (BLOB[None], 0.0, "--pick-reference-pixel-size"),
        (BLOB[None], 60.0, "--pick-reference-pixel-size"),
    ],
)
def test_what_cannot_be_references_is_said_with_its_name(images: np.ndarray, pixel_size: float, says: str) -> None:
    with pytest.raises(InputError, match=says) as told:
        check_references(images, pixel_size, "refs.mrcs")
    assert "refs.mrcs" in str(told.value)


@given(st.floats(0.1, 50), st.floats(-100, 100), st.integers(0, 2))
def test_contrast_is_told_whatever_the_scale_and_however_many_images_are_empty(
    scale: float, offset: float, empty: int
) -> None:
    white = np.stack([BLOB * scale + offset, *[np.full_like(BLOB, offset)] * empty]).astype(np.float32)
    assert protein_is_white(white - white.mean(axis=(1, 2), keepdims=True))
    black = (offset - white).astype(np.float32)
    assert not protein_is_white(black - black.mean(axis=(1, 2), keepdims=True))


def selected(writer: ProjectWriter, name: str, outputs: dict[str, str]) -> None:
    for state in (ItemState.WAITING, ItemState.QUEUED):
        writer.item("Select/job001", name, state)
    result = {"metrics": {}, "outputs": outputs, "values": {}, "rejected": ""}
    writer.item("Select/job001", name, ItemState.DONE, key="k", result=result)


def test_a_newest_round_that_selected_nothing_is_told_and_no_earlier_one_taken(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrcs", BLOB[None], 4.0)
    with ProjectWriter(Project(tmp_path)) as writer:
        writer.create_job("Select/job001", "select", {}, {})
        selected(writer, "round001", {"averages": "a.mrcs"})
        assert content(tmp_path, adopt(tmp_path, "classes"))[0].shape == (1, 16, 16)
        selected(writer, "round002", {})
        with pytest.raises(InputError, match="lower --select-score"):
            adopt(tmp_path, "classes")


def test_own_classes_are_white_whatever_they_look_like_and_no_more_than_are_of_use(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrcs", np.stack([-BLOB] * (LARGEST + 5)), 4.0)
    with ProjectWriter(Project(tmp_path)) as writer:
        writer.create_job("Select/job001", "select", {}, {})
        selected(writer, "round001", {"averages": "a.mrcs"})
    images, _ = content(tmp_path, adopt(tmp_path, "classes"))
    assert len(images) == LARGEST
    assert np.array_equal(images[0], -BLOB)


@pytest.mark.parametrize("method", ["blob", "topaz"])
def test_references_that_are_not_used_are_not_looked_at(tmp_path: Path, method: str) -> None:
    given = PickParameters(pick_method=method, pick_references="/gone.mrcs")
    assert Picking().adopt(given, tmp_path) == given


def test_relion_is_told_the_references_of_the_workflow_as_far_as_they_are_there(tmp_path: Path) -> None:
    write_mrc(tmp_path / "a.mrcs", BLOB[None], 4.0)
    given = PickParameters(pick_method="template", pick_references=FROM_WORKFLOW)
    assert Picking().adopt(given, tmp_path) == given
    for shared, file, pixel_size in (
        ({}, "", "-1"),
        ({"references": Result(outputs={"averages": "a.mrcs"})}, "a.mrcs", "4"),
    ):
        options = Picking().relion_options(RelionContext(given, OPTICS, root=tmp_path, shared=shared))
        assert (options["fn_refs_autopick"], options["angpix_ref"]) == (file, pixel_size)
