"""The gain reference and the defects that a movie is corrected with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import read_star
from beamside.jobs.base import Item, Optics, Result, Workspace
from beamside.jobs.motion import MotionParameters
from beamside.jobs.motion_worker import correct
from beamside.jobs.ports import Given
from beamside.jobs.registry import BUILT_IN
from beamside.testing import run_item

OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)
FRAMES = np.random.default_rng(2).poisson(20, (2, 64, 64)).astype(np.int16)


def corrected(root: Path, **values: Any) -> Result:
    if not (root / "m.mrcs").exists():
        write_mrc(root / "m.mrcs", FRAMES, 2.0)
    movie = Result(outputs={"movie": "m.mrcs"}, values={"frames": 2, "shape": [64, 64], **values})
    parameters = {"patches_x": 1, "patches_y": 1, "dose_weighting": False}
    return run_item(BUILT_IN["motion"], parameters, {"movies": movie}, root=root, optics=OPTICS)


def mean(root: Path, result: Result) -> float:
    return float(np.asarray(read_mrc(root / result.outputs["micrograph"]), dtype=np.float64).mean())


def gain(root: Path, image: np.ndarray, name: str = "gain.mrc") -> str:
    write_mrc(root / name, image.astype(np.float32), 2.0)
    return name


def test_counts_are_multiplied_by_the_reference_also_where_it_is_a_stack_of_one(tmp_path: Path) -> None:
    plain = mean(tmp_path, corrected(tmp_path))
    twice = np.full((64, 64), 2.0)
    for image in (twice, twice[None]):
        result = corrected(tmp_path, gain=gain(tmp_path, image))
        assert mean(tmp_path, result) == pytest.approx(2 * plain, rel=1e-3)
        assert result.values["gain"] == "gain.mrc"


def test_another_reference_under_the_same_name_is_read_again(tmp_path: Path) -> None:
    """A worker keeps the last ones in memory, as they are large and the same for all movies."""
    first = mean(tmp_path, corrected(tmp_path, gain=gain(tmp_path, np.full((64, 64), 2.0))))
    path = tmp_path / gain(tmp_path, np.full((64, 64), 4.0))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))
    assert mean(tmp_path, corrected(tmp_path, gain="gain.mrc")) == pytest.approx(2 * first, rel=1e-3)


def test_pixels_that_are_marked_as_defects_are_filled_from_their_surroundings(tmp_path: Path) -> None:
    frames = FRAMES.copy()
    frames[:, 30:32, :] = 3000
    write_mrc(tmp_path / "m.mrcs", frames, 2.0)
    marked = np.zeros((64, 64))
    marked[30:32] = 1
    result = corrected(tmp_path, defects=gain(tmp_path, marked, "defects.mrc"), defects_sha256="ab12")
    image = np.asarray(read_mrc(tmp_path / result.outputs["micrograph"]), dtype=np.float64)
    assert image[30:32].mean() == pytest.approx(image[10:20].mean(), rel=0.2)
    assert result.values["defects_sha256"] == "ab12"
    assert "defects" not in result.values


@pytest.mark.parametrize("shape", [(32, 64), (65, 64), (128, 128)])
def test_a_reference_of_another_size_is_told_with_both_sizes_and_is_for_good(tmp_path: Path, shape: Any) -> None:
    with pytest.raises(ProcessingError, match=f"{shape[1]} × {shape[0]}") as told:
        corrected(tmp_path, gain=gain(tmp_path, np.ones(shape)))
    assert "64 × 64" in str(told.value)
    assert not getattr(told.value, "__notes__", [])


def test_why_there_is_no_reference_is_what_the_movie_fails_with(tmp_path: Path) -> None:
    """The session has found out that it does not fit; no movie is corrected without it unasked."""
    with pytest.raises(ProcessingError, match=r"^The gain reference does not fit\.$"):
        corrected(tmp_path, gain_error="The gain reference does not fit.")


def test_a_reference_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessingError, match=r"gone\.mrc"):
        corrected(tmp_path, gain="gone.mrc")


def test_frames_are_counted_where_nobody_has(tmp_path: Path) -> None:
    """Results of an earlier version may not say it."""
    write_mrc(tmp_path / "m.mrcs", FRAMES, 2.0)
    item = Item("raw/m", {"movies": Given(Result(outputs={"movie": "m.mrcs"}))})
    found = correct(item, MotionParameters(patches_x=1, patches_y=1), Workspace(tmp_path, "MotionCorr/job002", OPTICS))
    assert found.values["frames"] == 2
    assert read_star(tmp_path / found.outputs["motion_star"])["general"].single("rlnImageSizeZ") == "2"
