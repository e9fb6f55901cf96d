"""The STAR file of a movie, from which RELION's Polish and Beamside's own steps know the motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from beamside.formats.rendering import Rendering
from beamside.formats.star import StarBlock, format_star, parse_star
from beamside.imaging.motion.correction import MotionResult
from beamside.imaging.motion.model import LocalMotion
from beamside.jobs.base import Item, Optics, Result
from beamside.jobs.fractions import Fractions
from beamside.jobs.motion import MotionParameters
from beamside.jobs.motion_worker import motion_star
from beamside.jobs.ports import Given

OPTICS = Optics(0.5, 300.0, 2.7, 0.1, 1.0)
FRAMES = 3
PLAIN = Fractions(FRAMES, 1.25)


def moved(**changes: Any) -> MotionResult:
    """A movie of 40 by 60 pixels that moves as a whole."""
    nothing = torch.zeros(0, 2)
    plain = MotionResult(
        shape=(40, 60),
        pixel_size=1.0,
        global_shifts=torch.tensor([[0.0, 0.0], [1.5, -0.25], [2.5, -0.5]], dtype=torch.float64),
        local_motion=None,
        local_model=None,
        patch_centres=nothing,
        patch_shifts=torch.zeros(0, FRAMES, 2),
        tile_trust=1.0,
        hot_pixels=torch.zeros(0, 2, dtype=torch.long),
        binning=2.0,
        average=None,
        dose_weighted=torch.zeros(20, 30),
        even=None,
        odd=None,
        power_spectrum=torch.zeros(8, 8),
        power_spectrum_pixel_size=1.0,
        motion_total=2.0,
        motion_early=1.0,
        motion_late=1.0,
    )
    return replace(plain, **changes)


def star(found: MotionResult, divided: Fractions = PLAIN, **values: Any) -> dict[str, StarBlock]:
    item = Item("raw/m", {"movies": Given(Result(outputs={"movie": "raw/m.tiff"}, values=values))})
    blocks = motion_star(found, item, MotionParameters(pre_exposure=2.0), OPTICS, divided)
    return parse_star(format_star(blocks))


def test_the_movie_is_described_as_it_was_taken_and_corrected() -> None:
    general = star(moved())["general"].records()[0]
    expected = {
        "rlnImageSizeX": 60,
        "rlnImageSizeY": 40,
        "rlnImageSizeZ": FRAMES,
        "rlnMicrographBinning": 2,
        "rlnMicrographOriginalPixelSize": 0.5,
        "rlnMicrographDoseRate": 1.25,
        "rlnMicrographPreExposure": 2,
        "rlnVoltage": 300,
        "rlnMicrographStartFrame": 1,
        "rlnMotionModelVersion": 0,
    }
    assert {name: float(general[name]) for name in expected} == expected
    assert general["rlnMicrographMovieName"] == "raw/m.tiff"
    assert not {"rlnMicrographGainName", "rlnEERUpsampling", "rlnEERGrouping"} & set(general)


def test_shifts_are_x_and_y_of_each_frame_from_1() -> None:
    table = star(moved())["global_shift"]
    assert table.integers("rlnMicrographFrameNumber").tolist() == [1, 2, 3]
    assert table.floats("rlnMicrographShiftX").tolist() == [0, -0.25, -0.5]
    assert table.floats("rlnMicrographShiftY").tolist() == [0, 1.5, 2.5]


def test_what_there_is_not_has_no_table() -> None:
    """RELION takes an empty table of hot pixels or of a motion model for a damaged file."""
    assert list(star(moved())) == ["general", "global_shift"]


def test_local_motion_has_its_model_and_each_patch_its_track() -> None:
    tracks = torch.tensor([[[0.0, 0.0], [0.5, 0.25], [1.0, 0.5]], [[0.0, 0.0], [-0.5, 0.0], [-1.0, 0.0]]])
    blocks = star(
        moved(
            local_motion=LocalMotion.__new__(LocalMotion),
            local_model=torch.arange(36, dtype=torch.float64) * 1e-4,
            patch_centres=torch.tensor([[10.0, 15.0], [30.0, 45.0]]),
            patch_shifts=tracks,
        )
    )
    assert blocks["general"].single("rlnMotionModelVersion") == "1"
    model = blocks["local_motion_model"]
    assert model.integers("rlnMotionModelCoeffsIdx").tolist() == list(range(36))
    assert model.floats("rlnMotionModelCoeff") == pytest.approx([1e-4 * number for number in range(36)], rel=1e-5)
    local = blocks["local_shift"].records()
    assert len(local) == 2 * FRAMES
    last = {name: float(value) for name, value in local[2].items()}
    assert last == {
        "rlnMicrographFrameNumber": 3,
        "rlnCoordinateX": 15,
        "rlnCoordinateY": 10,
        "rlnMicrographShiftX": 0.5,
        "rlnMicrographShiftY": 1,
    }


def test_hot_pixels_are_x_and_y() -> None:
    table = star(moved(hot_pixels=torch.tensor([[3, 50]])))["hot_pixels"]
    assert (table.floats("rlnCoordinateX").tolist(), table.floats("rlnCoordinateY").tolist()) == ([50], [3])


def test_the_gain_is_the_one_that_relion_uses_rightly_and_an_eer_movie_is_rendered_again_in_the_same_way() -> None:
    divided = Fractions(FRAMES, 1.0, Rendering(2, 20), 5)
    general = star(moved(), divided, gain="g.mrc", relion_gain="reciprocal.mrc")["general"]
    assert general.single("rlnMicrographGainName") == "reciprocal.mrc"
    assert [general.single(name) for name in ("rlnEERUpsampling", "rlnEERGrouping")] == ["2", "20"]
    assert Path(str(general.single("rlnMicrographMovieName"))).parent == Path("raw"), "a path in the project"
