"""What the microscope says beside what the user gave: real mistakes are told, with what fits; small differences are not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.acquisition.metadata_check import Given, compare_metadata

GIVEN = Given(pixel_size=1.08, voltage=300, total_dose=40.0, frames=40, width=4096)
SAID = {"pixel_size": 1.08, "voltage": 300.0, "total_dose": 40.0, "image_width": 4096.0}


def told(said: dict[str, float], given: Given = GIVEN) -> dict[str, str]:
    return {remark.subject: remark.sentence for remark in compare_metadata({**SAID, **said}, given)}


def test_what_agrees_is_not_told() -> None:
    assert told({}) == {}
    assert compare_metadata({}, GIVEN) == []
    assert told({"pixel_size": 1.083, "voltage": 300.2}) == {}


def test_a_wrong_pixel_size_and_voltage_are_told_with_the_option() -> None:
    found = told({"pixel_size": 0.415, "voltage": 200.0})
    assert "0.415 Å, and 1.08 Å was given (--pixel-size); check" in found["metadata-pixel-size"]
    assert "--voltage" in found["metadata-voltage"]


@pytest.mark.parametrize("dose", [38.6, 40.5, 36.5])
def test_doses_differ_a_little_from_exposure_to_exposure(dose: float) -> None:
    assert told({"total_dose": dose}) == {}


def test_the_option_that_the_dose_was_given_with_is_named() -> None:
    by_frame = told({"total_dose": 60.0})["metadata-total-dose"]
    assert "1 e/Å² a frame was given (--dose)" in by_frame
    assert "1.5 e/Å² a frame would fit" in by_frame
    whole = told({"total_dose": 60.0}, replace(GIVEN, dose_flag="--total-dose"))["metadata-total-dose"]
    assert "40 e/Å² was given (--total-dose); check" in whole
    assert "a frame" not in whole


def test_a_dose_given_for_the_wrong_thing_is_recognised() -> None:
    mistaken = replace(GIVEN, total_dose=1600.0)
    assert "40 e/Å² for the whole movie would fit" in told({}, mistaken)["metadata-total-dose"]
    mistaken = replace(GIVEN, total_dose=1.0, dose_flag="--total-dose")
    assert "1 e/Å² in each of the 40 frames would fit" in told({}, mistaken)["metadata-total-dose"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (2.16, "super-resolution pixels, 2 along"),
        (4.32, "super-resolution pixels, 4"),
        (0.54, "binned 2 times"),
        (0.27, "binned 4 times"),
    ],
)
def test_exact_factors_are_explained(said: float, words: str) -> None:
    assert words in told({"pixel_size": said})["metadata-pixel-size"]


def test_a_super_resolution_movie_has_more_pixels_than_the_image_of_its_record() -> None:
    movie = replace(GIVEN, pixel_size=0.54, width=8192)
    assert told({}, movie) == {}, "half the size is right"
    assert "0.54 Å in the movie" in told({}, replace(movie, pixel_size=1.08))["metadata-pixel-size"]
    assert told({}, replace(GIVEN, pixel_size=2.16, width=2048)) == {}, "binned on the way"


def test_rendered_pixels_of_eer_movies_are_smaller_than_the_cameras() -> None:
    movie = replace(GIVEN, pixel_size=0.54, upsampling=2)
    assert told({}, movie) == {}
    sentence = told({}, replace(movie, pixel_size=1.08))["metadata-pixel-size"]
    assert "--eer-upsampling 2" in sentence
    assert "--pixel-size 0.54 would fit" in sentence


def test_a_calibrated_pixel_size_is_only_noted() -> None:
    (remark,) = compare_metadata({**SAID, "pixel_size": 1.1}, GIVEN)
    assert (remark.severity, remark.subject) == ("info", "metadata-pixel-size-calibration")


@settings(deadline=None, max_examples=60)
@given(values=st.dictionaries(st.sampled_from([*SAID, "x"]), st.one_of(st.floats(), st.text(max_size=3), st.none())))
def test_nothing_that_a_record_says_is_too_odd(values: dict[str, object]) -> None:
    assert all(remark.sentence.endswith(".") for remark in compare_metadata(values, GIVEN))
