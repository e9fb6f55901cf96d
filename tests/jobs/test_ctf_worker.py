"""A micrograph's CTF job: what is measured, what is left out of a failed fit, and what later jobs and RELION read."""

import math
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from beamside.flow.rules import limit_rules
from beamside.formats.mrc import write_mrc
from beamside.imaging.spectrum import micrograph_spectrum
from beamside.jobs.base import Item, Optics, RelionContext, Result, Row, Workspace
from beamside.jobs.ctf import CtfEstimation, CtfParameters, defocus_offset
from beamside.jobs.ctf_worker import fit
from beamside.jobs.ctffind_log import log_path
from beamside.jobs.ports import Given
from beamside.simulate.optics import Beam, Defocus, Tilt, transfer

SIZE, PIXEL = 1024, 1.4
OPTICS = Optics(PIXEL, 300.0, 2.7, 0.1, 1.0)


def white_structure(defocus: Defocus, *, phase_shift: float = 0.0, snr: float = 0.7, seed: int = 1) -> np.ndarray:
    """White structure seen through the CTF plus white noise."""
    rng = np.random.default_rng(seed)
    structure = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    beam = Beam(300.0, 2.7, 0.1, phase_shift)
    seen = np.fft.irfft2(structure * transfer((SIZE, SIZE), PIXEL, defocus, beam, 60.0), s=(SIZE, SIZE))
    return (math.sqrt(snr) * seen + rng.standard_normal((SIZE, SIZE))).astype(np.float32)


def tilted_structure(mean: float, tilt: Tilt, step: float = 75.0) -> np.ndarray:
    """The same of a tilted plane: at each place the image whose defocus is nearest."""
    rng = np.random.default_rng(3)
    structure = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    axis = ((np.arange(SIZE) - SIZE / 2) * PIXEL).astype(np.float32)
    place = np.round(tilt.offset(axis[:, None], axis[None, :]) / step)
    image = np.zeros((SIZE, SIZE))
    for number in np.unique(place):
        local = Defocus(mean + number * step, mean + number * step)
        optics = transfer((SIZE, SIZE), PIXEL, local, Beam(300.0, 2.7, 0.1), 60.0)
        image += (place == number) * np.fft.irfft2(structure * optics, s=(SIZE, SIZE))
    return (0.9 * image + rng.standard_normal((SIZE, SIZE))).astype(np.float32)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, "CtfFind/job003", OPTICS)


def as_item(workspace: Workspace, image: np.ndarray, *, spectrum: np.ndarray | None = None) -> Item:
    """Return an item whose motion correction left `image`, and the spectrum of `spectrum` (of `image` where not given)."""
    power, effective = micrograph_spectrum(torch.from_numpy(image if spectrum is None else spectrum), PIXEL)
    write_mrc(workspace.root / "m.mrc", image, PIXEL)
    write_mrc(workspace.root / "m_PS.mrc", power.numpy(), effective)
    motion = Result(
        outputs={"micrograph": "m.mrc", "power_spectrum": "m_PS.mrc"},
        values={"pixel_size": PIXEL, "spectrum_pixel_size": effective},
    )
    return Item("raw/m", {"micrographs": Given(motion)})


def test_a_fit_is_measured_drawn_and_written_for_relion(workspace: Workspace) -> None:
    item = as_item(workspace, white_structure(Defocus(15200, 15000, 30)))
    result = fit(item, CtfParameters(), workspace)
    assert not result.rejected
    assert result.metrics["defocus"] == pytest.approx(15100, abs=30)
    assert set(result.metrics) <= {metric.name for metric in CtfEstimation.metrics}
    assert all((workspace.root / path).stat().st_size for path in result.outputs.values())
    blocks = CtfEstimation().star_files([Row(item, result)], CtfParameters(), OPTICS, "CtfFind/job003", workspace.root)
    table = blocks["micrographs_ctf.star"][1]
    assert [float(value) for value in table.column("rlnDefocusU")] == [result.values["defocus_u"]]
    assert "rlnPhaseShift" not in table.columns
    if "ice_ring" in result.metrics:
        assert [float(value) for value in table.column("rlnCtfIceRingDensity")] == [result.metrics["ice_ring"]]


def test_relion_finds_a_micrograph_done_by_the_log_of_the_fit(workspace: Workspace) -> None:
    item = as_item(workspace, white_structure(Defocus(15200, 15000, 30)))
    result = fit(item, CtfParameters(), workspace)
    log = workspace.root / log_path(item, "CtfFind/job003")
    assert log == workspace.root / "CtfFind/job003/raw/m_PS_ctffind4.log", "named after the spectrum, as by RELION"
    assert result.outputs["ctf_spectrum"] == "CtfFind/job003/raw/m_PS.ctf"
    lines = log.read_text().splitlines()
    assert lines[1].split()[-1] == "CtfFind/job003/raw/m_PS_ctffind4.log"
    assert [lines[2].split()[place] for place in (3, 8, 13, 18)] == ["1.4000", "300.0", "2.70", "0.100"]
    before = log.read_text()
    log.unlink()
    CtfEstimation().write_for_relion([Row(item, result)], OPTICS, "CtfFind/job003", workspace.root)
    assert log.read_text() == before, "cleaned logs are written again when a session begins"
    found = [float(word) for word in lines[4].split()[1:]]
    assert found[:3] == pytest.approx([result.values[name] for name in ("defocus_u", "defocus_v", "defocus_angle")])
    assert found[4:] == pytest.approx([result.metrics[name] for name in ("ctf_score", "ctf_resolution")], rel=1e-4)
    assert CtfEstimation().relion_differences(
        RelionContext(CtfParameters(), OPTICS, rows=[Row(item, result)], job="CtfFind/job003", root=workspace.root)
    ) == ["RELION runs CTFFIND-4.1 instead of Beamside's own fit."]


def test_the_picture_has_its_own_pixel_size(workspace: Workspace) -> None:
    item = as_item(workspace, white_structure(Defocus(15200, 15000, 30)))
    result = fit(item, CtfParameters(), workspace)
    with (
        mrcfile.open(workspace.root / "m_PS.mrc") as spectrum,
        mrcfile.open(workspace.root / result.outputs["ctf_spectrum"]) as picture,
    ):
        # it ends before the spectrum does, and a pixel is the same frequency in both
        assert picture.data.shape[0] < spectrum.data.shape[0]
        fields = [float(file.voxel_size.x) * file.data.shape[0] for file in (spectrum, picture)]
    assert fields[1] == pytest.approx(fields[0], rel=1e-3)


def test_the_movies_spectrum_is_used_where_there_is_one(workspace: Workspace) -> None:
    other = white_structure(Defocus(9000, 8900))
    result = fit(as_item(workspace, white_structure(Defocus(15200, 15000)), spectrum=other), CtfParameters(), workspace)
    assert result.metrics["defocus"] == pytest.approx(8950, abs=30)


def test_a_failed_fit_leaves_no_number_that_looks_fine(workspace: Workspace) -> None:
    item = as_item(workspace, white_structure(Defocus(15200, 15000), snr=0.0))
    result = fit(item, CtfParameters(), workspace)
    assert result.rejected.startswith("the CTF fit failed")
    assert set(result.metrics) <= {"ctf_score", "ice_ring"}
    assert not any("defocus" in name for name in result.values)
    files = CtfEstimation().star_files([Row(item, result)], CtfParameters(), OPTICS, "CtfFind/job003", workspace.root)
    assert files["micrographs_ctf.star"][1].rows == []


def test_a_phase_shift_is_written_when_it_was_asked_for(workspace: Workspace) -> None:
    item = as_item(workspace, white_structure(Defocus(9200, 9000, 30), phase_shift=80.0))
    parameters = CtfParameters(phase_shift=True, max_defocus=25000.0)
    result = fit(item, parameters, workspace)
    assert result.metrics["phase_shift"] == pytest.approx(80, abs=6)
    files = CtfEstimation().star_files([Row(item, result)], parameters, OPTICS, "CtfFind/job003", workspace.root)
    assert float(files["micrographs_ctf.star"][1].column("rlnPhaseShift")[0]) == pytest.approx(80, abs=6)


def test_a_tilted_specimen_gives_each_place_its_defocus(workspace: Workspace) -> None:
    tilt = Tilt(35.0, 25.0)
    parameters = CtfParameters(ctf_tilt=True, max_defocus=30000.0)
    result = fit(as_item(workspace, tilted_structure(15000.0, tilt)), parameters, workspace)
    assert not result.rejected
    assert result.metrics["tilt_angle"] == pytest.approx(35, abs=4)
    assert result.values["tilt_axis"] == pytest.approx(25, abs=8)
    for x, y in ((100.0, 200.0), (900.0, 512.0), (512.0, 512.0)):
        true = 15000 + float(tilt.offset(np.float32((y - SIZE / 2) * PIXEL), np.float32((x - SIZE / 2) * PIXEL)))
        assert result.metrics["defocus"] + defocus_offset(result, x, y) == pytest.approx(true, abs=120)


def test_rings_that_are_not_there_have_no_tilt(workspace: Workspace) -> None:
    item = as_item(workspace, white_structure(Defocus(15000, 15000), snr=0.03))
    result = fit(item, CtfParameters(ctf_tilt=True), workspace)
    assert result.rejected
    assert "tilt_angle" not in result.metrics
    assert result.values["tilt_failed"]
    assert defocus_offset(result, 0.0, 0.0) == 0.0


def test_a_flat_specimen_is_flat_within_the_error(workspace: Workspace) -> None:
    item = as_item(workspace, white_structure(Defocus(15000, 15000), snr=0.4))
    result = fit(item, CtfParameters(ctf_tilt=True), workspace)
    assert result.metrics["tilt_angle"] < 3 * result.values["tilt_error"]


def test_poor_fits_are_left_to_the_rule_that_a_limit_is(workspace: Workspace) -> None:
    parameters = CtfParameters(reject_resolution=2.9)
    result = fit(as_item(workspace, white_structure(Defocus(15200, 15000), snr=0.3)), parameters, workspace)
    assert result.rejected == ""
    [(flag, rule)] = limit_rules("ctf", CtfEstimation(), parameters)
    assert (flag, rule.text) == ("--reject-resolution", "ctf.ctf_resolution <= 2.9 Å")
    assert not rule.allows(result.metrics)
    assert limit_rules("ctf", CtfEstimation(), CtfParameters()) == []
    before = Result(rejected="the CTF fit holds to 7.1 Å only; micrographs worse than 6 Å are not used")
    assert CtfEstimation().rejected_by_limit(before)
    assert not CtfEstimation().rejected_by_limit(Result(rejected="the CTF fit failed: no Thon rings"))
