"""Cutting particles out: which, from where, and what each row says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_header, read_mrc
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.jobs.base import Optics, Result
from beamside.jobs.extract_worker import _inside
from beamside.jobs.registry import BUILT_IN
from beamside.testing import run_item

OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)
BOX = 16


def extract(
    small: Any, places: list[tuple[float, float]], image: np.ndarray | None = None, **parameters: Any
) -> Result:
    inputs = {"micrographs": small.fitted(image=image), "coordinates": small.coordinates(places)}
    chosen = {"class_box": BOX, "box_size": BOX, **parameters}
    return run_item(BUILT_IN["extract"], chosen, inputs, root=small.root, optics=OPTICS)


def images(root: Path, result: Result) -> np.ndarray:
    found = np.asarray(read_mrc(root / result.outputs["particles"]), dtype=np.float32)
    return found.reshape(-1, *found.shape[-2:])


def rows(root: Path, result: Result) -> StarBlock:
    return read_star(root / result.outputs["particles_star"])["images"]


@pytest.mark.parametrize("invert", [True, False])
def test_what_is_at_a_pick_is_in_the_middle_of_its_image(small: Any, invert: bool) -> None:
    micrograph = small.noise(64, 96) * 0.01
    for x, y in ((20, 40), (70, 12)):
        micrograph[y, x] = -50.0  # protein is dark
    result = extract(small, [(70.0, 12.0), (20.0, 40.0)], micrograph, invert_contrast=invert)
    for image in images(small.root, result):
        best = image.argmax() if invert else image.argmin()
        assert np.unravel_index(best, image.shape) == (BOX // 2, BOX // 2)
    assert rows(small.root, result).floats("rlnCoordinateX").tolist() == [70, 20], "in the order of the picks"


@given(st.integers(4, 40), st.integers(8, 64), st.integers(8, 64), st.integers(-5, 70), st.integers(-5, 70))
def test_a_box_is_inside_when_all_its_pixels_are(half: int, width: int, height: int, x: int, y: int) -> None:
    box = 2 * half
    pixels = {(x - half, y - half), (x + half - 1, y + half - 1)}
    wanted = all(0 <= column < width and 0 <= row < height for column, row in pixels)
    assert _inside(np.array([[x + 0.9, y + 0.2]] if min(x, y) >= 0 else [[x, y]]), (height, width), box)[0] == wanted


@pytest.mark.parametrize("places", [[], [(2.0, 30.0)], [(float("nan"), 30.0)], [(1e9, -1e9)]])
def test_where_nothing_can_be_cut_out_there_is_nothing_and_no_failure(
    small: Any, places: list[tuple[float, float]]
) -> None:
    result = extract(small, places)
    assert result.metrics == {"extracted": 0.0, "at_edge": float(len(places))}
    assert result.outputs == {}
    assert result.values["image_size"] == BOX, "the tables of the job tell it"


def test_one_particle_is_a_stack_of_one_with_its_pixel_size(small: Any) -> None:
    result = extract(small, [(64.0, 64.0)], box_size=32)
    header = read_header(small.root / result.outputs["particles"])
    assert (header.shape[-2:], header.pixel_size) == ((BOX, BOX), pytest.approx(4.0))
    assert images(small.root, result).shape == (1, BOX, BOX)
    assert result.values == {"image_pixel_size": 4.0, "image_size": BOX, "box": 32}
    assert rows(small.root, result).texts("rlnImageName") == [f"000001@{result.outputs['particles']}"]


def test_rows_name_image_and_micrograph_by_paths_in_the_project(small: Any) -> None:
    result = extract(small, [(64.0, 64.0), (30.0, 30.0)])
    table = rows(small.root, result)
    assert table.texts("rlnImageName") == [f"{number:06d}@Extract/job001/raw/m1.mrcs" for number in (1, 2)]
    assert set(table.texts("rlnMicrographName")) == {"m1.mrc"}
    assert table.integers("rlnOpticsGroup").tolist() == [1, 1]


def test_the_same_picks_again_give_the_same_files(small: Any) -> None:
    places = [(64.0, 64.0), (30.0, 30.0)]
    first = extract(small, places)
    before = {path: (small.root / path).read_bytes() for path in first.outputs.values()}
    assert extract(small, places) == first
    assert {path: (small.root / path).read_bytes() for path in before} == before


def test_a_larger_box_leaves_out_more_and_the_images_that_stay_are_of_one_size(small: Any) -> None:
    places = [(12.0, 64.0), (64.0, 64.0)]
    assert extract(small, places, box_size=16).metrics == {"extracted": 2.0, "at_edge": 0.0}
    result = extract(small, places, box_size=40)
    assert result.metrics == {"extracted": 1.0, "at_edge": 1.0}
    assert rows(small.root, result).floats("rlnCoordinateX").tolist() == [64]


def test_particles_are_white_and_their_background_is_nought(small: Any) -> None:
    micrograph = 500.0 + 20.0 * small.noise(128, 128)
    (image,) = images(small.root, extract(small, [(64.0, 64.0)], micrograph, box_size=64, class_box=64))
    y, x = np.mgrid[:64, :64] - 32
    rim = image[np.hypot(y, x) > 0.75 * 32]
    assert abs(rim.mean()) < 0.1
    assert rim.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("columns", "values", "says"),
    [
        (["rlnMicrographName"], [["m1.mrc"]], "rlnCoordinateX"),
        (["rlnCoordinateX", "rlnCoordinateY"], [["12", "a"]], "Row 1 of rlnCoordinateY"),
    ],
)
def test_coordinates_that_are_none_are_told(small: Any, columns: list[str], values: list[list[Any]], says: str) -> None:
    result = small.coordinates([])
    write_star(small.root / result.outputs["coordinates"], [StarBlock("", columns, values)])
    inputs = {"micrographs": small.fitted(), "coordinates": result}
    with pytest.raises(ProcessingError, match=says) as told:
        run_item(BUILT_IN["extract"], None, inputs, root=small.root, optics=OPTICS)
    assert not getattr(told.value, "__notes__", []), "it is the file's fault, and no other attempt is made"


def test_a_file_that_is_gone_is_named(small: Any) -> None:
    inputs = {"micrographs": small.fitted(), "coordinates": small.coordinates([(64.0, 64.0)])}
    (small.root / inputs["coordinates"].outputs["coordinates"]).unlink()
    with pytest.raises(ProcessingError, match=r"m1_picks\.star cannot be read: No such file"):
        run_item(BUILT_IN["extract"], None, inputs, root=small.root, optics=OPTICS)
