"""RELION goes on from a round of classification of ours, with a group for each micrograph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from beamside.formats.mrc import write_mrc
from beamside.formats.star import StarBlock, Value, read_star, write_star
from beamside.jobs.base import Item, Optics, Result, Workspace
from beamside.jobs.class2d import Class2dParameters
from beamside.jobs.class2d_worker import classify_round
from beamside.jobs.extract import PARTICLE_COLUMNS
from beamside.jobs.ports import Given

pytestmark = pytest.mark.peer

BOX, PIXEL = 24, 8.0


def extracted(root: Path, name: str, count: int, noise: float) -> Item:
    """Particles of one micrograph: bars in noise."""
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    bar = ((np.abs(y) < 2) & (np.abs(x) < 8)) * 3.0
    images = bar + np.random.default_rng(count).normal(size=(count, BOX, BOX)) * noise
    stack, star = f"Extract/job005/raw/{name}.mrcs", f"Extract/job005/raw/{name}_extract.star"
    (root / stack).parent.mkdir(parents=True, exist_ok=True)
    write_mrc(root / stack, images.astype(np.float32), PIXEL)
    values = dict.fromkeys(PARTICLE_COLUMNS, 1.0) | {
        "rlnMicrographName": f"MotionCorr/job002/raw/{name}.mrc",
        "rlnOpticsGroup": 1,
        "rlnClassNumber": 0,
        "rlnDefocusU": 15000.0,
        "rlnDefocusV": 14900.0,
    }
    rows: list[list[Value]] = [
        list((values | {"rlnImageName": f"{number:06d}@{stack}"}).values()) for number in range(1, count + 1)
    ]
    write_star(root / star, [StarBlock("images", list(PARTICLE_COLUMNS), rows)])
    result = Result(
        metrics={"extracted": float(count)},
        outputs={"particles": stack, "particles_star": star},
        values={"image_pixel_size": PIXEL, "image_size": BOX, "box": 2 * BOX},
    )
    return Item(
        f"raw/{name}", {"particles": Given(result, {"coordinates": Given(Result(values={"max_diameter": 130.0}))})}
    )


def test_relion_goes_on_with_the_groups_and_the_noise_that_we_wrote(
    tmp_path: Path, run_program: Callable[..., str]
) -> None:
    items = [
        extracted(tmp_path, "thick", 30, 2.0),
        extracted(tmp_path, "thin", 20, 1.0),
        extracted(tmp_path, "a", 9, 1.0),
    ]
    workspace = Workspace(tmp_path, "Class2D/job006", Optics(2.0, 300.0, 2.7, 0.1, 1.0))
    ours = classify_round(
        items, Class2dParameters(classes=1, class_iterations=4), workspace, round_name="round001", final=True
    )
    iteration = int(ours.metrics["iterations"])
    run_program(
        "relion_refine", "--continue", ours.outputs["optimiser"], "--o", "Class2D/job006/run_ct", "--iter", str(iteration + 1),
        "--psi_step", "30", "--offset_range", "3", "--offset_step", "2", "--pool", "10", cwd=tmp_path,
    )  # fmt: skip
    before = read_star(tmp_path / ours.outputs["model"])
    # RELION writes the iteration that it begins with again: what it has read.
    read, after = (
        read_star(tmp_path / f"Class2D/job006/run_ct_it{number:03d}_model.star")
        for number in (iteration, iteration + 1)
    )
    for model in (read, after):
        assert [row[:3] for row in model["model_groups"].rows] == [row[:3] for row in before["model_groups"].rows]
    assert before["model_groups"].texts("rlnGroupName") == ["raw/a.mrc", "raw/thick.mrc", "raw/thin.mrc"]
    for group in (1, 2, 3):
        spectra = [model[f"model_group_{group}"].floats("rlnSigma2Noise") for model in (before, read)]
        np.testing.assert_allclose(spectra[1], spectra[0][: len(spectra[1])], rtol=1e-3)
    thick, thin = (np.median(after[f"model_group_{group}"].floats("rlnSigma2Noise")) for group in (2, 3))
    assert 2 < thick / thin < 6, "each micrograph keeps its own noise"
