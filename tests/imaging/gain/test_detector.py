"""Detector correction."""

import numpy as np
import pytest
import torch

from beamside.errors import GainError, InputError
from beamside.imaging.gain.detector import check_gain, detector_correction, find_outliers, to_tensor
from beamside.simulate.gain import gain_reference

SHAPE = (192, 160)


def counts(frames: int, mean: float = 1.0, seed: int = 0, gain: np.ndarray | None = None) -> np.ndarray:
    rate = np.full(SHAPE, mean) if gain is None else mean / np.where(gain > 0, gain, np.inf)
    return np.random.default_rng(seed).poisson(rate, (frames, *SHAPE)).astype(np.uint8)


def total(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames.sum(axis=0, dtype=np.int32))


def test_the_gain_multiplies_the_counts() -> None:
    gain = np.random.default_rng(1).uniform(0.8, 1.25, SHAPE).astype(np.float32)
    frames = counts(20, 4.0, gain=gain)
    correction, hot = detector_correction(total(frames), gain)
    assert len(hot) == 0
    assert np.array_equal(correction.apply(frames[3], 3).numpy(), frames[3] * gain)


def test_without_a_gain_reference_the_frames_stay_as_they_are() -> None:
    frames = counts(20)
    correction, _ = detector_correction(total(frames), None)
    assert np.array_equal(correction.apply(frames[0], 0).numpy(), frames[0].astype(np.float32))


def test_hot_pixels_are_found_and_nothing_else_is() -> None:
    frames = counts(40)
    places = [(5, 7), (100, 31), (191, 159), (0, 0)]
    for y, x in places:
        frames[:, y, x] += 3
    _, hot = detector_correction(total(frames), None)
    assert sorted(map(tuple, hot.tolist())) == sorted(places)


def test_dead_pixels_are_found_where_a_count_would_have_been_certain() -> None:
    frames = counts(40)
    frames[:, 50, 60] = 0
    assert find_outliers(total(frames)).nonzero().tolist() == [[50, 60]]


def test_pixels_without_counts_are_not_called_dead_at_a_low_dose() -> None:
    assert not find_outliers(total(counts(5, 0.3))).any()


@pytest.mark.parametrize("mean", [0.02, 0.3, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("corrected", [False, True])
def test_few_counts_a_pixel_hide_no_hot_pixel_and_make_none(mean: float, corrected: bool) -> None:
    """As in EER and super-resolution movies, where a hot pixel of the camera is four or sixteen of the movie."""
    side = 768
    gain = gain_reference((side, side), 4).gain
    counts = np.random.default_rng(7).poisson(mean / gain, (side, side)).astype(np.float32)
    hot = [(100, 100), (300, 400), (300, 401), (301, 400), (301, 401)]
    for y, x in hot:
        counts[y, x] += 40 + 2 * mean
    before = counts.copy()
    found = find_outliers(torch.from_numpy(counts), torch.from_numpy(gain) if corrected else None)
    assert sorted(map(tuple, found.nonzero().tolist())) == hot
    assert np.array_equal(counts, before), "the sum itself stays as it is"


def test_a_cluster_of_hot_pixels_does_not_hide_itself() -> None:
    frames = counts(40)
    frames[:, 80:83, 90:93] = 60
    outliers = find_outliers(total(frames))
    assert outliers[80:83, 90:93].all()
    assert int(outliers.sum()) == 9


def test_a_dark_crystal_is_no_defect() -> None:
    rate = np.ones(SHAPE)
    rate[60:120, 40:100] = 0.7
    frames = np.random.default_rng(5).poisson(rate, (40, *SHAPE)).astype(np.uint8)
    assert int(find_outliers(total(frames)).sum()) == 0


def test_defects_are_filled_from_good_neighbours_and_change_from_frame_to_frame() -> None:
    frames = counts(40, 5.0)
    defects = np.zeros(SHAPE, dtype=bool)
    defects[30:34, :] = True
    frames[:, defects] = 200
    correction, _ = detector_correction(total(frames), None, defects)
    filled = np.stack([correction.apply(frame, index).numpy()[defects] for index, frame in enumerate(frames)])
    assert filled.max() < 30
    assert filled.mean() == pytest.approx(5.0, abs=0.1)
    assert filled.var() == pytest.approx(5.0, rel=0.1)
    pattern = filled.mean(axis=0).var()
    assert pattern < 5.0 / 8, (
        "a filled pixel takes turns among neighbours, so its mean varies less than one pixel's would"
    )


def test_zeros_in_the_gain_are_defects() -> None:
    gain = np.ones(SHAPE, dtype=np.float32)
    gain[10, 20] = 0
    frames = counts(30, 3.0)
    correction, hot = detector_correction(total(frames), gain)
    assert correction.defects.tolist() == [10 * SHAPE[1] + 20]
    assert len(hot) == 0
    assert any(float(correction.apply(frame, index)[10, 20]) > 0 for index, frame in enumerate(frames))


def test_a_movie_with_almost_only_defects_still_gets_filled() -> None:
    defects = np.ones(SHAPE, dtype=bool)
    defects[100, 100] = False
    frames = counts(5, 9.0)
    correction, _ = detector_correction(total(frames), None, defects)
    assert bool((correction.apply(frames[0], 0) == float(frames[0, 100, 100])).all())


def test_a_gain_of_another_shape_is_named_with_both_sizes() -> None:
    with pytest.raises(GainError, match=r"160 × 100 pixels but the movie is 160 × 192"):
        check_gain(np.ones((100, 160), dtype=np.float32), SHAPE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_damaged_gain_is_refused(value: float) -> None:
    gain = np.ones(SHAPE, dtype=np.float32)
    gain[3, 3] = value
    with pytest.raises(GainError):
        check_gain(gain, SHAPE)


def test_a_defect_map_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="defect map"):
        detector_correction(total(counts(3)), None, np.zeros((5, 5)))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">i2", ">u2", "<f4", ">f4", "u4"])
def test_frames_of_every_type_are_understood(dtype: str) -> None:
    frame = np.arange(12, dtype=dtype).reshape(3, 4)
    assert to_tensor(frame).to(torch.float64).tolist() == np.arange(12.0).reshape(3, 4).tolist()
