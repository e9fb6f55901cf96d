"""RELION reads particles of two optics groups, and goes on from a round of ours that has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beamside.formats.mrc import write_mrc
from beamside.formats.star import Value, read_star, write_star
from beamside.formats.star_parts import PartsWriter, StarParts
from beamside.jobs.base import Item, Optics, Result, Row, Workspace
from beamside.jobs.class2d import Class2dParameters
from beamside.jobs.class2d_worker import classify_round
from beamside.jobs.extract import PARTICLE_COLUMNS, Extraction, ExtractParameters, particles_block
from beamside.jobs.ports import Given

pytestmark = pytest.mark.peer

BOX, PIXEL = 24, 8.0
OWN = Optics(2.0, 300.0, 2.7, 0.1, 1.0)
SLOW = replace(OWN, group="slow", pixel_size=1.5, voltage=200.0, beam_tilt_x=0.5, common_pixel_size=2.0)


def extracted(root: Path, name: str, count: int) -> Item:
    """Particles of one micrograph: bars in noise."""
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    bar = ((np.abs(y) < 2) & (np.abs(x) < 8)) * 3.0
    images = bar + np.random.default_rng(count).normal(size=(count, BOX, BOX))
    stack, star = f"Extract/job005/raw/{name}.mrcs", f"Extract/job005/raw/{name}_extract.star"
    (root / stack).parent.mkdir(parents=True, exist_ok=True)
    write_mrc(root / stack, images.astype(np.float32), PIXEL)
    values: dict[str, Value] = dict.fromkeys(PARTICLE_COLUMNS, 1.0)
    values |= {"rlnMicrographName": f"MotionCorr/job002/raw/{name}.mrc", "rlnOpticsGroup": 1, "rlnClassNumber": 0}
    values |= {"rlnDefocusU": 15000.0, "rlnDefocusV": 14900.0}
    rows = [list((values | {"rlnImageName": f"{number:06d}@{stack}"}).values()) for number in range(1, count + 1)]
    write_star(root / star, [particles_block(rows)])
    result = Result(
        metrics={"extracted": float(count)},
        outputs={"particles": stack, "particles_star": star},
        values={"image_pixel_size": PIXEL, "image_size": BOX, "box": 2 * BOX},
    )
    return Item(
        f"raw/{name}", {"particles": Given(result, {"coordinates": Given(Result(values={"max_diameter": 130.0}))})}
    )


def groups_of(path: Path) -> tuple[list[str], list[float], list[float], dict[int, int]]:
    """Return names, voltages and beam tilts of the groups in a table of particles, and how many particles each has."""
    blocks = read_star(path)
    optics, numbers = blocks["optics"], blocks["particles"].integers("rlnOpticsGroup").tolist()
    names = optics.texts("rlnOpticsGroupName")
    tilts = optics.floats("rlnBeamTiltX").tolist()
    return names, optics.floats("rlnVoltage").tolist(), tilts, {one: numbers.count(one) for one in set(numbers)}


def test_relion_takes_both_groups_and_goes_on_with_them(tmp_path: Path, run_program: Callable[..., str]) -> None:
    items = [extracted(tmp_path, name, count) for name, count in (("a", 30), ("b", 21), ("c", 12))]
    rows = [Row(item, item.inputs["particles"].result, SLOW if item.name == "raw/b" else OWN) for item in items]
    table = Extraction().star_files(rows, ExtractParameters(), OWN, "Extract/job005", tmp_path)["particles.star"]
    assert isinstance(table, StarParts)
    PartsWriter().write(tmp_path / "Extract/job005/particles.star", table)
    wanted = (["opticsGroup1", "slow"], [300.0, 200.0], [0.0, 0.5], {1: 42, 2: 21})
    assert groups_of(tmp_path / "Extract/job005/particles.star") == wanted

    few = ["--psi_step", "30", "--offset_range", "3", "--offset_step", "2", "--pool", "10"]
    (tmp_path / "theirs").mkdir()
    run_program(
        "relion_refine", "--i", "Extract/job005/particles.star", "--o", "theirs/run", "--K", "1", "--iter", "1", "--ctf",
        "--tau2_fudge", "2", "--particle_diameter", "130", *few, cwd=tmp_path,
    )  # fmt: skip
    assert groups_of(tmp_path / "theirs/run_it001_data.star") == wanted

    workspace = Workspace(tmp_path, "Class2D/job006", OWN, item_optics={"raw/b": SLOW})
    parameters = Class2dParameters(classes=1, class_iterations=4)
    ours = classify_round(items, parameters, workspace, round_name="round001", final=True)
    iteration = int(ours.metrics["iterations"])
    assert groups_of(tmp_path / ours.outputs["data"]) == wanted
    run_program(
        "relion_refine", "--continue", ours.outputs["optimiser"], "--o", "Class2D/job006/run_ct", "--iter", str(iteration + 1),
        *few, cwd=tmp_path,
    )  # fmt: skip
    assert groups_of(tmp_path / f"Class2D/job006/run_ct_it{iteration + 1:03d}_data.star") == wanted
