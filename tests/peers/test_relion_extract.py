"""Our particles equal those that ``relion_preprocess --extract`` cuts from the same micrograph."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from beamside.imaging.particles import boxes_touch, extract_particles

pytestmark = pytest.mark.peer

MICROGRAPHS = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
opticsGroup1 1 1.5 300 2.7 0.1 1.5

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
mic.mrc 1 10000 10000 0
"""


@pytest.fixture(autouse=True)
def _relion(require_program: Callable[[str], str]) -> None:
    require_program("relion_preprocess")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """Make a sloping noisy micrograph and picks that include fractions, edges and corners."""
    folder = tmp_path_factory.mktemp("relion")
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:300, :400]
    micrograph = (rng.normal(5, 2, (300, 400)) + 0.01 * x - 0.02 * y).astype(np.float32)
    with mrcfile.new(folder / "mic.mrc") as file:
        file.set_data(micrograph)
        file.voxel_size = 1.5
    points = np.array(
        [
            (120, 100),
            (100.2, 150.9),
            (88.51, 99.5),
            (100, 5),
            (100, -3.4),
            (298, 398),
            (10, 431),
            (-31, 200),
            (299.6, 120),
        ]
    )
    lines = "".join(f"{px:.6f} {py:.6f}\n" for py, px in points)
    (folder / "mic_pick.star").write_text("\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n" + lines)
    (folder / "mics.star").write_text(MICROGRAPHS)
    return folder, torch.from_numpy(micrograph), torch.from_numpy(points)


def relion(folder: Path, *options: str) -> np.ndarray:
    command = "relion_preprocess --i mics.star --coord_suffix _pick.star --coord_dir ./ --part_dir out/ --part_star out/p.star --extract"
    shutil.rmtree(folder / "out", ignore_errors=True)
    subprocess.run([*command.split(), *options], cwd=folder, check=True, capture_output=True, timeout=120)
    return np.asarray(mrcfile.read(folder / "out/mic.mrcs"))


def test_normalised_inverted_rescaled_particles_are_equal(case: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    folder, micrograph, points = case
    theirs = relion(folder, "--extract_size", "64", "--scale", "32", "--norm", "--bg_radius", "12", "--invert_contrast")
    ours = extract_particles(micrograph, points, 64, 32, pixel_size=1.5).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_particles_without_ramp_removal_are_equal(case: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    folder, micrograph, points = case
    theirs = relion(folder, "--extract_size", "64", "--norm", "--no_ramp", "--bg_radius", "20")
    ours = extract_particles(
        micrograph, points, 64, pixel_size=1.5, background_diameter=60.0, invert=False, remove_ramp=False
    ).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_rescaled_particles_as_they_are_are_equal(case: tuple[Path, torch.Tensor, torch.Tensor]) -> None:
    folder, micrograph, points = case
    theirs = relion(folder, "--extract_size", "64", "--scale", "40")
    ours = extract_particles(micrograph, points, 64, 40, invert=False, normalise=False).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(("y", "x"), [(100, -31.5), (100, -32), (331.9, 10), (332, 10)])
def test_both_refuse_the_same_boxes(
    case: tuple[Path, torch.Tensor, torch.Tensor], tmp_path: Path, y: float, x: float
) -> None:
    folder, _, _ = case
    for name in ("mic.mrc", "mics.star"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "mic_pick.star").write_text(f"\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n{x} {y}\n")
    if boxes_touch(torch.tensor([[y, x]]), (300, 400), 64).all():
        assert relion(tmp_path, "--extract_size", "64").shape[-2:] == (64, 64)
    else:
        with pytest.raises(subprocess.CalledProcessError):
            relion(tmp_path, "--extract_size", "64")
