"""Which way round a gain reference lies is read from the counts, with an error that is true, and never from chance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from beamside.formats.orientation import ORIENTATIONS, Orientation, fitting_orientations, fitting_ratio
from beamside.imaging.gain.orientation import Mode, Verdict, compare, compared_window
from beamside.simulate.gain import gain_reference
from beamside.simulate.movie import MovieSettings, simulate_movie

Image = NDArray[np.floating]


def undo(orientation: Orientation, image: Image) -> Image:
    """Return the image that `orientation` brings to `image`."""
    turned = image[::-1] if orientation.flip == "up-down" else image
    turned = turned[:, ::-1] if orientation.flip == "left-right" else turned
    return np.rot90(turned, orientation.rotate // 90)


def sensitivity(shape: tuple[int, int], seed: int = 3) -> Image:
    """How much each pixel counts."""
    return np.asarray(1 / gain_reference(shape, seed).gain, np.float64)


def scene(shape: tuple[int, int], seed: int) -> Image:
    """A specimen with contrast at all scales, a carbon edge and uneven light; 1 on average."""
    rng = np.random.default_rng([seed, 1])
    texture = sum(gaussian_filter(rng.normal(size=shape), s) * s for s in (1, 2, 4, 16))
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] / np.array(shape)[:, None, None]
    light = 1.2 - (y - 0.3) ** 2 - (x - 0.6) ** 2
    image = np.asarray(light * np.where(x + 0.3 * y > 0.8, 0.7, 1.0) * np.exp(0.05 * texture))
    return image / image.mean()


def count(rate: Image, seed: int, hot: int = 12) -> Image:
    rng = np.random.default_rng([seed, 2])
    counts = rng.poisson(rate).astype(np.float32)
    counts[rng.integers(0, rate.shape[0], hot), rng.integers(0, rate.shape[1], hot)] = 1000
    return counts


def verdict(counts: Image, reference: Image, ratio: float = 1.0) -> Verdict:
    shape = (counts.shape[0], counts.shape[1])
    return compare(counts[compared_window(shape, ratio)], reference, shape)


@pytest.mark.parametrize("mode", ["multiply", "divide"])
@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_every_orientation_mode_and_ratio_is_found(orientation: Orientation, mode: Mode, ratio: float) -> None:
    side = 256 if ratio >= 1 else 128
    physical = sensitivity((side, side))
    dose = 40 if ratio >= 1 else 40 * ratio**2
    if ratio > 1:  # a reference with more pixels than the movie has
        fine = np.kron(physical, np.ones((int(ratio), int(ratio))))
        fine = fine * np.exp(np.random.default_rng(1).normal(0, 0.03, fine.shape))
        response, reference = fine.reshape(side, int(ratio), side, int(ratio)).mean(axis=(1, 3)), fine
    else:  # pixels of the movie are parts of those of the reference
        response, reference = np.kron(physical, np.ones((round(1 / ratio),) * 2)), physical
    counts = count(dose * response * scene(response.shape, 5), 5)
    in_file = undo(orientation, reference if mode == "divide" else 1 / reference)
    found = verdict(counts, in_file, ratio)
    assert found.kind == "clear"
    assert found.best is not None
    assert (found.best.orientation, found.best.mode) == (orientation, mode)
    assert abs(found.best.slope) == pytest.approx(1, abs=0.1)


def test_a_single_movie_of_low_dose_is_enough() -> None:
    movie = simulate_movie(MovieSettings(size=(256, 256), frames=10, pixel_size=1.0, dose_per_frame=0.3), seed=2)
    total = movie.counts.sum(axis=0, dtype=np.float32)
    found = verdict(total, undo(Orientation(270, "none"), movie.gain.gain))
    assert found.kind == "clear"
    assert found.best is not None
    assert (str(found.best.orientation), found.best.mode) == ("rotated by 270°", "multiply")


def test_one_count_in_fifty_pixels_is_read_too() -> None:
    """As in the single frames of an EER movie."""
    found = verdict(count(0.02 * sensitivity((1024, 1024)), 8, hot=0), 1 / sensitivity((1024, 1024)))
    assert found.best is not None
    assert (found.best.orientation, found.best.mode) == (Orientation(), "multiply")
    assert found.best.sigmas > 5


def test_the_error_of_the_slope_is_true_and_chance_is_never_taken_for_a_pattern() -> None:
    """Slopes of references that have nothing to do with the counts, in units of their error, over many sessions and orientations."""
    deviations = []
    for seed in range(40):
        counts = count(3 * sensitivity((192, 192), seed) * scene((192, 192), seed), seed)
        found = verdict(counts, 1 / sensitivity((192, 192), 1000 + seed))
        assert found.kind in ("unsure", "absent")
        deviations += [match.slope / match.error for match in found.matches]
    assert np.std(deviations) == pytest.approx(1, abs=0.12)
    assert abs(np.mean(deviations)) < 0.2
    assert np.max(np.abs(deviations)) < 5


def test_counts_too_few_for_the_pattern_ask_for_more_and_never_answer_wrongly() -> None:
    kinds = []
    for seed in range(15):
        frames = [count(0.3 * sensitivity((96, 96), seed), 100 * seed + part, hot=0) for part in range(64)]
        for number in (1, 4, 16, 64):
            found = verdict(np.sum(frames[:number], axis=0), 1 / sensitivity((96, 96), seed))
            assert found.best is not None
            if found.kind == "clear":
                assert (found.best.orientation, found.best.mode) == (Orientation(), "multiply")
            kinds.append((number, found.kind))
    assert sum(kind == "unsure" for number, kind in kinds if number == 1) == 15
    assert sum(kind == "clear" for number, kind in kinds if number == 64) >= 13


def test_frames_that_were_corrected_already_show_no_pattern() -> None:
    response = sensitivity((256, 256))
    corrected = count(40 * response * scene((256, 256), 1), 1) / response
    assert verdict(corrected, 1 / response).kind == "absent"


def test_a_reference_of_another_camera_is_absent() -> None:
    counts = count(40 * sensitivity((256, 256), 1), 1)
    assert verdict(counts, 1 / sensitivity((256, 256), 2)).kind == "absent"


def test_a_reference_that_is_mostly_noise_is_not_trusted() -> None:
    """Its noise alone makes frames that it has corrected look uncorrected."""
    response = sensitivity((256, 256))
    noisy = 1 / response * np.exp(np.random.default_rng(3).normal(0, 0.05, response.shape))
    assert verdict(count(100 * response, 3), noisy).kind == "absent"
    assert verdict(count(100 * response, 3) * noisy, noisy).kind == "absent"


def test_a_reference_that_looks_the_same_both_ways_is_said_to() -> None:
    response = sensitivity((256, 256))
    response = (response + response[:, ::-1]) / 2
    found = verdict(count(40 * response, 4), 1 / response)
    assert found.kind == "alike"
    assert {str(match.orientation) for match in found.equals} == {
        "in the orientation of its file",
        "flipped left-right",
    }


def test_columns_that_repeat_do_not_decide() -> None:
    """Even and odd columns differ as they do after read-out by two amplifiers; mirrored, this looks like a reference that divides."""
    response = sensitivity((256, 256)) * np.where(np.arange(256) % 2, 1.1, 0.9)
    found = verdict(count(40 * response, 4), 1 / response)
    assert found.best is not None
    assert (found.kind, found.best.orientation, found.best.mode) == ("clear", Orientation(), "multiply")
    assert abs(found.matches[1].slope) < 0.3


def test_a_flat_reference_decides_nothing_and_need_not() -> None:
    assert verdict(count(np.full((128, 128), 40.0), 1), np.ones((128, 128))).kind == "flat"
    y = 1 + 0.2 * np.cos(np.linspace(0, np.pi, 512))[:, None] * np.ones(512)
    smooth = verdict(count(np.full((512, 512), 40.0), 1), y)
    assert smooth.kind == "flat"
    assert smooth.shading > 0.05


def test_movies_without_light_say_nothing() -> None:
    assert verdict(np.zeros((128, 128)), sensitivity((128, 128))).kind == "unsure"
    assert verdict(np.full((128, 128), 7.0), sensitivity((128, 128))).kind == "absent"


def test_defects_of_the_reference_are_left_out() -> None:
    response = sensitivity((256, 256))
    gain = 1 / response
    gain[100:104] = 0
    gain[:, 30] = np.nan
    found = verdict(count(40 * response, 9), gain)
    assert found.best is not None
    assert (found.kind, found.best.orientation) == ("clear", Orientation())


@pytest.mark.parametrize("shape", [(2300, 130), (130, 2301), (129, 129)])
def test_large_and_odd_frames_are_compared_around_their_middle(shape: tuple[int, int]) -> None:
    response = sensitivity(shape)
    for orientation in fitting_orientations(shape, shape):
        found = verdict(count(40 * response, 6), undo(orientation, 1 / response))
        assert found.best is not None
        assert (found.kind, found.best.orientation) == ("clear", orientation)


def test_a_reference_that_only_fits_when_turned_is_compared_turned() -> None:
    response = sensitivity((200, 260))
    found = verdict(count(40 * response, 6), undo(Orientation(90, "up-down"), 1 / response))
    assert found.best is not None
    assert (found.kind, found.best.orientation) == ("clear", Orientation(90, "up-down"))
    assert {match.orientation.rotate for match in found.matches} == {90, 270}


def test_there_are_eight_orientations_whatever_they_are_called() -> None:
    image = np.arange(6).reshape(2, 3)
    assert len({one.apply(image).tobytes() + bytes(one.apply(image).shape) for one in ORIENTATIONS}) == 8
    for rotate in (0, 90, 180, 270):
        for flip in ("none", "up-down", "left-right"):
            one = Orientation(rotate, flip)  # type: ignore[arg-type]
            assert one.canonical() in ORIENTATIONS
            assert np.array_equal(one.canonical().apply(image), one.apply(image))
            assert np.array_equal(one.apply(undo(one, image)), image)


def test_shapes_belong_together_in_ratios_of_1_2_and_4() -> None:
    assert fitting_ratio((8, 12), (2, 3)) == 4
    assert fitting_ratio((2, 3), (4, 6)) == 0.5
    assert fitting_ratio((3, 2), (4, 6)) is None
    assert fitting_ratio((6, 9), (2, 3)) is None
