"""How movies are divided into fractions, and what people and RELION are told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.jobs.base import Optics
from beamside.jobs.fractions import fractions, is_eer, left_over_sentence, upsampling_of
from beamside.jobs.motion import MotionCorrection, MotionParameters, relion_gain

OPTICS = Optics(1.0, 300.0, 2.7, 0.1, 0.05)


@given(st.integers(1, 5000), st.floats(0.001, 40), st.floats(0.1, 20))
def test_fractions_and_what_is_left_over_are_all_raw_frames(frames: int, total: float, wanted: float) -> None:
    optics = replace(OPTICS, total_dose=total)
    found = fractions("m.eer", frames, MotionParameters(eer_dose=wanted), optics)
    assert found.rendering is not None
    size = found.rendering.group
    assert found.frames * size + found.left_over == frames
    assert found.left_over < size
    assert found.frames >= 1
    assert found.dose == pytest.approx(size * total / frames)
    per_frame = total / frames
    if 1 < size < frames:  # no other number of frames comes nearer to what is wanted
        assert abs(size * per_frame - wanted) <= min(abs((size + step) * per_frame - wanted) for step in (-1, 1)) + 1e-9


@given(st.integers(1, 100), st.floats(0, 10), st.sampled_from(["m.tiff", "m.mrc", "eer.tif", "m"]))
def test_other_movies_are_as_the_camera_wrote_them(frames: int, dose: float, name: str) -> None:
    found = fractions(name, frames, MotionParameters(eer_upsampling=2), replace(OPTICS, dose_per_frame=dose))
    assert (found.frames, found.dose, found.rendering, found.left_over) == (frames, dose, None, 0)
    assert upsampling_of(name, MotionParameters(eer_upsampling=2)) == 1
    assert left_over_sentence(name, frames, MotionParameters(), OPTICS) == ""


def test_the_dose_of_a_whole_movie_is_divided_among_its_frames() -> None:
    assert fractions("m.tiff", 50, MotionParameters(), replace(OPTICS, total_dose=40.0)).dose == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["a.eer", "a.EER", "raw/b.c.eer"])
def test_an_eer_movie_is_told_by_its_ending(name: str) -> None:
    assert is_eer(name)
    assert upsampling_of(name, MotionParameters(eer_upsampling=2)) == 2


def test_a_dose_for_another_kind_of_frame_is_refused_with_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r"1,000 raw frames, and a dose of 1 e/Å² .* makes 1,000 e/Å².*--total-dose"):
        fractions("raw/m.eer", 1000, MotionParameters(), replace(OPTICS, dose_per_frame=1.0))
    assert left_over_sentence("m.eer", 1000, MotionParameters(), replace(OPTICS, dose_per_frame=1.0)) == ""


def test_raw_frames_that_are_left_out_are_told_and_none_are_not() -> None:
    said = left_over_sentence("m.eer", 1010, MotionParameters(), OPTICS)
    assert "1,010 raw frames are processed in 50 fractions of 20 raw frames (1 e/Å²)" in said
    assert "last 10 raw frames (1.0% of the dose)" in said
    assert left_over_sentence("m.eer", 1000, MotionParameters(), OPTICS) == ""


@pytest.mark.parametrize(
    ("values", "parameters", "expected"),
    [
        ({"source": "/d/m.eer", "frames": 1010}, {}, {"dose_per_frame": "1", "eer_grouping": "20"}),
        (
            {"source": "/d/m.eer", "frames": 1000},
            {"eer_upsampling": 2},
            {"dose_per_frame": "1", "eer_grouping": "20", "other_args": "--eer_upsampling 2"},
        ),
        ({"source": "/d/m.tiff", "frames": 40}, {}, {"dose_per_frame": "0.05"}),
        ({"source": "/d/m.eer", "frames": 100000}, {}, {}),
        ({"source": "/d/m.eer"}, {}, {}),
    ],
)
def test_relion_is_told_how_the_newest_movie_is_divided(
    values: dict[str, Any], parameters: dict[str, Any], expected: dict[str, str]
) -> None:
    options = MotionCorrection().camera_options(values, MotionParameters(**parameters), OPTICS)
    camera = {"fn_gain_ref", "gain_rot", "gain_flip", "fn_defect"}
    assert {name: value for name, value in options.items() if name not in camera} == expected


@pytest.mark.parametrize(
    ("values", "gain"),
    [
        ({}, ""),
        ({"gain": "g.mrc"}, "g.mrc"),
        ({"gain": "g.mrc", "relion_gain": "r.mrc"}, "r.mrc"),
        ({"gain": None}, ""),
    ],
)
def test_relion_gets_the_reference_that_it_uses_rightly_and_is_not_told_to_turn_it(
    values: dict[str, Any], gain: str
) -> None:
    assert relion_gain(values) == gain
    options = MotionCorrection().camera_options({**values, "defects": "d.txt"}, MotionParameters(), OPTICS)
    assert (options["fn_gain_ref"], options["fn_defect"]) == (gain, "d.txt")
    assert (options["gain_rot"], options["gain_flip"]) == ("No rotation (0)", "No flipping (0)")
