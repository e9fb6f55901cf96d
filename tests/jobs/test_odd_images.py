"""Exposures without a beam, with a dead frame, of one frame, too small, or with pixels that are no numbers: each gives a result or a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import read_star
from beamside.jobs.base import Optics, Result
from beamside.jobs.registry import BUILT_IN
from beamside.testing import run_item

OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)
FRAMES = np.random.default_rng(4).poisson(2, (4, 64, 64)).astype(np.int16)


def pixels(root: Path, path: str) -> np.ndarray:
    return np.asarray(read_mrc(root / path), dtype=np.float32)


def corrected(root: Path, frames: np.ndarray, **parameters: Any) -> Result:
    write_mrc(root / "m.mrcs", frames, 2.0)
    movie = Result(outputs={"movie": "m.mrcs"}, values={"frames": len(frames), "shape": list(frames.shape[1:])})
    chosen = {"patches_x": 3, "patches_y": 3, **parameters}
    return run_item(BUILT_IN["motion"], chosen, {"movies": movie}, root=root, optics=OPTICS)


def with_dead_frame() -> np.ndarray:
    frames = FRAMES.copy()
    frames[1] = 0
    return frames


@pytest.mark.parametrize(
    "frames",
    [FRAMES * 0, FRAMES * 0 + 7, FRAMES[:1], with_dead_frame()],
    ids=["no beam", "constant", "one frame", "a dead frame"],
)
def test_a_movie_without_much_in_it_is_summed_and_has_not_moved(tmp_path: Path, frames: np.ndarray) -> None:
    result = corrected(tmp_path, frames, dose_weighting=False)
    found = pixels(tmp_path, result.outputs["micrograph"])
    assert found.shape == frames.shape[1:]
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(frames.sum(axis=0).mean(), rel=0.02, abs=1e-3)
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert result.values["frames"] == len(frames)
    shifts = read_star(tmp_path / result.outputs["motion_star"])["global_shift"]
    assert len(shifts) == len(frames)
    assert np.isfinite(shifts.floats("rlnMicrographShiftX")).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_movie_with_pixels_that_are_no_numbers_is_refused_at_once(tmp_path: Path, value: float) -> None:
    frames = FRAMES.astype(np.float32)
    frames[2, 5, 5] = value
    with pytest.raises(ProcessingError, match="not numbers") as told:
        corrected(tmp_path, frames)
    assert not getattr(told.value, "__notes__", [])


def test_a_movie_that_is_too_small_is_refused_with_what_is_enough(tmp_path: Path) -> None:
    with pytest.raises(ProcessingError, match="64 × 64 is the least"):
        corrected(tmp_path, FRAMES[:, :16, :16])


def spoilt(small: Any, how: str) -> np.ndarray:
    image = small.noise(96, 96)
    if how == "flat":
        image[:] = 7.0
    elif how == "too small":
        image = image[:8, :8]
    else:
        image[30, 30] = float(how)
    return np.ascontiguousarray(image)


@pytest.mark.parametrize("how", ["flat", "nan", "inf", "too small"])
def test_a_micrograph_that_cannot_be_fitted_says_why(small: Any, how: str) -> None:
    with pytest.raises(ProcessingError, match="too small" if how == "too small" else "constant or has values") as told:
        run_item(BUILT_IN["ctf"], None, {"micrographs": small.micrograph(image=spoilt(small, how))}, root=small.root)
    assert not getattr(told.value, "__notes__", [])


@pytest.mark.parametrize("how", ["nan", "inf", "too small"])
def test_a_micrograph_that_cannot_be_picked_says_why(small: Any, how: str) -> None:
    inputs = {"micrographs": small.fitted(image=spoilt(small, how))}
    with pytest.raises(ProcessingError, match="too small" if how == "too small" else "not finite") as told:
        run_item(BUILT_IN["pick"], {"particle_diameter": [30, 40]}, inputs, root=small.root, optics=OPTICS)
    assert not getattr(told.value, "__notes__", [])


def test_in_a_flat_micrograph_there_are_no_particles(small: Any) -> None:
    inputs = {"micrographs": small.fitted(image=spoilt(small, "flat"))}
    result = run_item(BUILT_IN["pick"], {"particle_diameter": [30, 40]}, inputs, root=small.root, optics=OPTICS)
    assert (result.metrics["particles"], result.metrics["pick_score"]) == (0, 0)
    assert len(read_star(small.root / result.outputs["coordinates"])[""]) == 0
    assert (small.root / result.outputs["picks_image"]).is_file()


@pytest.mark.parametrize("how", ["nan", "inf"])
def test_no_particle_is_cut_out_that_would_spoil_all_classes(small: Any, how: str) -> None:
    inputs = {"micrographs": small.fitted(image=spoilt(small, how)), "coordinates": small.coordinates([(32.0, 32.0)])}
    with pytest.raises(ProcessingError, match=r"m1\.mrc has values that are not finite"):
        run_item(BUILT_IN["extract"], {"class_box": 16, "box_size": 16}, inputs, root=small.root, optics=OPTICS)


def test_a_flat_particle_is_nought(small: Any) -> None:
    inputs = {
        "micrographs": small.fitted(image=spoilt(small, "flat")),
        "coordinates": small.coordinates([(32.0, 32.0)]),
    }
    result = run_item(BUILT_IN["extract"], {"class_box": 16, "box_size": 16}, inputs, root=small.root, optics=OPTICS)
    assert np.abs(pixels(small.root, result.outputs["particles"])).max() < 1e-3
