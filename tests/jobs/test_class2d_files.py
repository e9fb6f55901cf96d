"""RELION's files of a round of 2D classification: numbers that must fit each other from file to file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.formats.mrc import read_header
from beamside.formats.star import StarBlock, read_star
from beamside.jobs.base import Item, Optics, RelionContext, Result, Row
from beamside.jobs.class2d import Class2dParameters, Classification2d, mask_diameter
from beamside.jobs.class2d_files import COMMENT, DATA_COLUMNS, Round, optics_members, relion_groups, write_round
from beamside.jobs.extract import PARTICLE_COLUMNS
from beamside.jobs.optics import optics_table

BOX, JOB = 8, "Class2D/job006"
OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)


def a_round(labels: list[int], groups: list[int], **changes: Any) -> Round:
    count, shells = len(labels), BOX // 2 + 1
    found = Round(
        iteration=25,
        pixel_size=4.0,
        mask_diameter=30.0,
        tau2_fudge=2.0,
        seed=3,
        last_iteration=20,
        shift_sd=1.5,
        resolution=16.0,
        references=np.ones((3, BOX, BOX), np.float32),
        weights=np.array([0.5, 0.5, 0.0]),
        resolutions=np.array([16.0, 17.0, 999.0]),
        noise=1.0 + np.arange((max(groups) + 1) * shells, dtype=np.float64).reshape(-1, shells),
        signal=np.full(shells, 0.5),
        groups=np.array(groups, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        psi=np.arange(count) * 10.0,
        shifts=np.stack([np.arange(count), -np.arange(count)], axis=1).astype(np.float64),
        pmax=np.full(count, 0.75),
        evidence=np.full(count, 100.0),
    )
    return replace(found, **changes)


def written(
    root: Path, found: Round, rows: list[Any], optics: Any = None
) -> tuple[dict[str, str], dict[str, dict[str, StarBlock]]]:
    (root / JOB).mkdir(parents=True, exist_ok=True)
    names = write_round(root, JOB, found, rows, optics or optics_table([], OPTICS))
    return names, {role: read_star(root / name) for role, name in names.items() if name.endswith(".star")}


def test_files_name_each_other_and_the_images(tmp_path: Path, small: Any) -> None:
    rows = [small.particle(f"{number}@s.mrcs", 1.0, 2.0, "m.mrc") for number in range(1, 4)]
    names, files = written(tmp_path, a_round([0, 1, 0], [0, 0, 0]), rows)
    assert {role: Path(name).name for role, name in names.items()} == {
        **{role: f"run_it025_{role}.star" for role in ("data", "model", "sampling", "optimiser")},
        "classes": "run_it025_classes.mrcs",
    }
    optimiser = files["optimiser"]["optimiser_general"]
    listed = {
        "rlnModelStarFile": "model",
        "rlnExperimentalDataStarFile": "data",
        "rlnOrientSamplingStarFile": "sampling",
    }
    assert {label: optimiser.single(label) for label in listed} == {
        label: names[role] for label, role in listed.items()
    }
    assert files["model"]["model_classes"].texts("rlnReferenceImage") == [
        f"{k:06d}@{names['classes']}" for k in (1, 2, 3)
    ]
    header = read_header(tmp_path / names["classes"])
    assert (header.shape, header.pixel_size) == ((3, BOX, BOX), pytest.approx(4.0))
    assert (tmp_path / names["optimiser"]).read_text().startswith(f"# {COMMENT}\n"), "by which RELION knows the file"
    assert optimiser.integers("rlnNumberOfIterations").tolist() == [25], "never fewer than are done"


def test_particles_have_what_was_found_of_them_and_keep_the_rest(tmp_path: Path, small: Any) -> None:
    rows = [small.particle(f"{number}@s.mrcs", 7.0 * number, 2.0, "m.mrc") for number in range(1, 4)]
    _, files = written(tmp_path, a_round([2, 0, 0], [0, 0, 0]), rows)
    table = files["data"]["particles"]
    assert table.columns == list(DATA_COLUMNS)
    assert table.integers("rlnClassNumber").tolist() == [3, 1, 1]
    assert table.floats("rlnAnglePsi").tolist() == [0, 10, 20]
    assert table.floats("rlnOriginYAngst").tolist() == [0, 1, 2]
    assert table.floats("rlnOriginXAngst").tolist() == [0, -1, -2]
    assert table.floats("rlnCoordinateX").tolist() == [7, 14, 21]
    assert table.texts("rlnImageName") == ["1@s.mrcs", "2@s.mrcs", "3@s.mrcs"]
    assert files["model"]["model_classes"].floats("rlnClassDistribution").tolist() == [0.5, 0.5, 0]


micrographs = st.lists(
    st.sampled_from(["Motion/job002/raw/b.mrc", "M/job0021/a.mrc", "raw/é.mrc", "Z.mrc"]), min_size=1, max_size=6
)


@given(micrographs)
def test_groups_are_numbered_in_the_order_in_which_relion_sorts_micrographs(names: list[str]) -> None:
    ours = list(dict.fromkeys(names))
    column = PARTICLE_COLUMNS.index("rlnMicrographName")
    rows: list[list[Any]] = [
        [name if place == column else 0 for place in range(len(PARTICLE_COLUMNS))] for name in names
    ]
    groups = relion_groups(np.array([ours.index(name) for name in names]), rows)
    relions = sorted(ours, key=os.fsencode)
    assert [groups.numbers[ours.index(name)] for name in names] == [relions.index(name) + 1 for name in names]
    assert [ours[group] for group in groups.order] == relions
    assert all("/job" not in name for name in groups.names)


def test_the_models_tables_follow_relions_numbers(tmp_path: Path, small: Any) -> None:
    rows = [small.particle("1@s.mrcs", 1.0, 2.0, f"MotionCorr/job002/raw/{name}.mrc") for name in "zzza"]
    _, files = written(tmp_path, a_round([0, 0, 1, 1], [0, 0, 0, 1]), rows)
    model = files["model"]
    assert model["model_groups"].texts("rlnGroupName") == ["raw/a.mrc", "raw/z.mrc"]
    assert model["model_groups"].integers("rlnGroupNrParticles").tolist() == [1, 3]
    first, second = (model[f"model_group_{number}"].floats("rlnSigma2Noise") for number in (1, 2))
    assert (second[0], first[0]) == (1, 1 + BOX // 2 + 1), "our first group is the micrograph z"
    assert model["model_optics_group_1"].floats("rlnSigma2Noise") == pytest.approx((3 * second + first) / 4)
    resolution = model["model_class_1"].floats("rlnAngstromResolution")
    assert resolution.tolist() == pytest.approx([999.0, 32.0, 16.0, 32 / 3, 8.0], rel=1e-4)


def test_noise_of_each_optics_group_is_that_of_its_particles(tmp_path: Path, small: Any) -> None:
    fine = replace(OPTICS, group="fine", pixel_size=1.0)
    table = optics_table([Row(Item("a"), Result()), Row(Item("b"), Result(), fine)], OPTICS)
    rows = [small.particle("1@s.mrcs", 1.0, 2.0, f"{name}.mrc") for name in "aab"]
    place = PARTICLE_COLUMNS.index("rlnOpticsGroup")
    rows[2][place] = 2
    assert optics_members(table, rows).tolist() == [0, 0, 1]
    _, files = written(tmp_path, a_round([0, 0, 1], [0, 0, 1]), rows, table)
    spectra = [files["model"][f"model_optics_group_{number}"].floats("rlnSigma2Noise")[0] for number in (1, 2)]
    assert spectra == [1, 1 + BOX // 2 + 1]
    assert files["model"]["model_general"].single("rlnNrOpticsGroups") == "2"


def test_the_newest_round_is_what_relion_is_shown_and_goes_on_from() -> None:
    def done(number: int) -> Row:
        roles = ("data", "model", "optimiser", "sampling", "classes")
        return Row(
            Item(f"round{number:03d}"),
            Result({"iterations": number}, {r: f"{JOB}/run_it{number:03d}_{r}.star" for r in roles}),
        )

    kind = Classification2d()
    assert kind.main_node([]) is None
    rows = [done(25), done(125)]
    assert [node.file for node in kind.current_nodes(rows)] == [
        f"run_it125_{role}.star" for role in ("data", "model", "optimiser")
    ]
    main = kind.main_node(rows)
    assert main is not None
    assert main.file == "run_it125_model.star"
    context = RelionContext(Class2dParameters(), OPTICS, rows=rows)
    assert kind.relion_options(context)["fn_cont"] == f"{JOB}/run_it125_optimiser.star"
    assert "more iterations than the 125 that are done" in kind.relion_differences(context)[1]


@pytest.mark.parametrize(
    ("mask", "largest", "box", "expected"),
    [(0, 100, 200, 110), (150, 100, 200, 150), (0, 190, 200, 190), (500, 100, 200, 190), (0, 0, 200, 190)],
)
def test_a_mask_never_reaches_the_edge_of_the_box(mask: float, largest: float, box: float, expected: float) -> None:
    assert mask_diameter(Class2dParameters(class_mask=mask), largest, box) == pytest.approx(expected)
