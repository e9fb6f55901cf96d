"""A round of classification: from extracted particles to RELION's files, going on from the checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.jobs.base import Item, Optics, Result, Workspace
from beamside.jobs.class2d import Class2dParameters
from beamside.jobs.class2d_worker import Checkpoint, classify_round, file_number, gather, shell_power
from beamside.jobs.extract import PARTICLE_COLUMNS
from beamside.jobs.ports import Given

BOX, PIXEL = 24, 8.0


def make_item(root: Path, name: str, count: int, seed: int) -> Item:
    """Particles that are a bar or a disc, in noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    shapes = [(np.abs(y) < 2) & (np.abs(x) < 8), y**2 + x**2 < 30]
    images = np.stack([shapes[index % 2] * 3.0 + rng.normal(size=(BOX, BOX)) for index in range(count)]).astype(
        np.float32
    )
    stack, star = f"Extract/job005/raw/{name}.mrcs", f"Extract/job005/raw/{name}_extract.star"
    (root / stack).parent.mkdir(parents=True, exist_ok=True)
    write_mrc(root / stack, images, PIXEL)
    row = [
        100.0,
        100.0,
        1.0,
        0,
        0.0,
        "",
        f"MotionCorr/job002/raw/{name}.mrc",
        1,
        5.0,
        0.1,
        15000.0,
        14900.0,
        20.0,
        0.0,
        1.0,
        0.0,
    ]
    rows = [[*row[:5], f"{index + 1:06d}@{stack}", *row[6:]] for index in range(count)]
    write_star(root / star, [StarBlock("images", list(PARTICLE_COLUMNS), rows)])
    extracted = Result(
        metrics={"extracted": float(count)},
        outputs={"particles": stack, "particles_star": star},
        values={"image_pixel_size": PIXEL, "image_size": BOX, "box": 2 * BOX},
    )
    return Item(
        f"raw/{name}", {"particles": Given(extracted, {"coordinates": Given(Result(values={"max_diameter": 130.0}))})}
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, "Class2D/job006", Optics(2.0, 300.0, 2.7, 0.1, 1.0))


PARAMETERS = Class2dParameters(classes=2, class_iterations=8)


def test_a_round_writes_what_relion_and_people_need(workspace: Workspace) -> None:
    items = [make_item(workspace.root, name, 40, seed) for seed, name in enumerate("ab")]
    result = classify_round(items, PARAMETERS, workspace, round_name="round001", final=True)
    assert result.metrics["classified"] == 80
    data = read_star(workspace.root / result.outputs["data"])["particles"]
    labels = np.array(data.integers("rlnClassNumber"))
    agreement = (labels[::2] == labels[0]).mean(), (labels[1::2] != labels[0]).mean()
    assert min(agreement) > 0.9, "bars and discs are in classes of their own"
    model = read_star(workspace.root / result.outputs["model"])
    assert sum(model["model_classes"].floats("rlnClassDistribution")) == pytest.approx(1, abs=1e-3)
    assert read_mrc(workspace.root / result.outputs["classes"]).shape == (2, BOX, BOX)
    assert (workspace.root / result.outputs["classes_image"]).stat().st_size > 0
    assert [entry["particles"] for entry in result.values["class_table"]] == [40, 40]
    assert result.values["micrograph_pixel_size"] == PIXEL / 2


def test_new_particles_join_the_classes_that_are_there(workspace: Workspace) -> None:
    first = [make_item(workspace.root, "a", 40, 0)]
    before = classify_round(first, PARAMETERS, workspace, round_name="round001", final=False)
    both = [make_item(workspace.root, "b", 20, 1), *first]
    after = classify_round(both, PARAMETERS, workspace, round_name="round002", final=True)
    assert after.metrics["iterations"] > before.metrics["iterations"]
    rows = read_star(workspace.root / after.outputs["data"])["particles"].texts("rlnMicrographName")
    assert rows[0].endswith("a.mrc"), "the particles of the last round come first, in their order"
    assert len(rows) == 60


def test_particles_that_changed_make_it_begin_anew_beside_the_round_of_before(workspace: Workspace) -> None:
    first = [make_item(workspace.root, "a", 40, 0)]
    before = classify_round(first, PARAMETERS, workspace, round_name="round001", final=False)
    files = {path: (workspace.root / path).read_bytes() for path in before.outputs.values()}
    again = classify_round(
        [make_item(workspace.root, "a", 30, 0)], PARAMETERS, workspace, round_name="round002", final=False
    )
    assert again.metrics["iterations"] <= PARAMETERS.class_iterations
    assert set(again.outputs.values()).isdisjoint(files)
    assert {path: (workspace.root / path).read_bytes() for path in files} == files


def test_a_micrograph_that_changed_or_is_gone_does_not_cost_the_classes(workspace: Workspace) -> None:
    items = [make_item(workspace.root, name, 30, seed) for seed, name in enumerate("abcd")]
    before = classify_round(items, PARAMETERS, workspace, round_name="round001", final=False)
    left = [items[0], make_item(workspace.root, "b", 20, 7), items[3], make_item(workspace.root, "e", 20, 8)]
    after = classify_round(left, PARAMETERS, workspace, round_name="round002", final=False)
    assert after.metrics["iterations"] > before.metrics["iterations"], "it goes on with those that are left"
    rows = read_star(workspace.root / after.outputs["data"])["particles"]
    names = [Path(name).stem for name in dict.fromkeys(rows.texts("rlnMicrographName"))]
    assert names == ["a", "d", "b", "e"]
    labels = np.array(rows.integers("rlnClassNumber"))
    assert (labels[::2] == labels[0]).mean() > 0.9
    assert (labels[1::2] != labels[0]).mean() > 0.9, "each particle has kept its class, or got the right one"


def test_files_are_numbered_after_the_rounds_that_are_whole(tmp_path: Path) -> None:
    assert file_number(tmp_path, 8) == 8
    (tmp_path / "run_it008_optimiser.star").touch()
    (tmp_path / "run_it009_data.star").touch()  # of a round that was cut short
    assert file_number(tmp_path, 3) == 9
    assert file_number(tmp_path, 30) == 30


def test_fewer_classes_make_it_begin_anew(workspace: Workspace) -> None:
    items = [make_item(workspace.root, "a", 60, 0)]
    classify_round(items, PARAMETERS, workspace, round_name="round001", final=False)
    checkpoint = Checkpoint(workspace.root / workspace.job)
    state, members = checkpoint.load()
    assert state is not None
    each = (
        "references",
        "class_weights",
        "resolution",
        "quality",
        "leverage",
    )  # with few particles there are few classes
    five = {name: np.concatenate([getattr(state, name)] * 3)[:5] for name in each}
    checkpoint.save(replace(state, iteration=100, **five), members)
    again = classify_round(items, PARAMETERS, workspace, round_name="round002", final=False)
    assert len(again.values["class_table"]) == 2
    assert again.metrics["iterations"] <= PARAMETERS.class_iterations


def test_particles_of_another_box_under_the_same_names_make_it_begin_anew(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were extracted again with another --class-box: as many as before, and nothing of the averages fits them."""
    before = classify_round(
        [make_item(workspace.root, "a", 30, 0)], PARAMETERS, workspace, round_name="round001", final=False
    )
    monkeypatch.setitem(globals(), "BOX", 16)
    again = classify_round(
        [make_item(workspace.root, "a", 30, 0)], PARAMETERS, workspace, round_name="round002", final=False
    )
    assert read_mrc(workspace.root / again.outputs["classes"]).shape[-2:] == (16, 16)
    assert again.metrics["iterations"] <= PARAMETERS.class_iterations
    assert set(again.outputs.values()).isdisjoint(before.outputs.values())


@pytest.mark.parametrize(("factor", "anew"), [(1.25, True), (1.001, False)])
def test_particles_of_another_pixel_size_make_it_begin_anew(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, factor: float, anew: bool
) -> None:
    """Another --box-size that is scaled to the same number of pixels: averages of another magnification lead astray."""
    items = [make_item(workspace.root, "a", 30, 0)]
    before = classify_round(items, PARAMETERS, workspace, round_name="round001", final=False)
    monkeypatch.setitem(globals(), "PIXEL", factor * PIXEL)
    items = [make_item(workspace.root, "a", 30, 0)]
    again = classify_round(items, PARAMETERS, workspace, round_name="round002", final=False)
    assert (again.metrics["iterations"] <= before.metrics["iterations"]) is anew
    assert again.values["pixel_size"] == PIXEL


def test_no_particles_at_all_are_told(workspace: Workspace) -> None:
    empty = Item("raw/e", {"particles": Given(Result(metrics={"extracted": 0.0}))})
    with pytest.raises(ProcessingError, match="There are no particles to classify"):
        classify_round([empty], PARAMETERS, workspace, round_name="round001", final=True)


def test_micrographs_without_particles_are_passed_over(workspace: Workspace) -> None:
    empty = Item("raw/e", {"particles": Given(Result(metrics={"extracted": 0.0}))})
    gathered = gather([empty, make_item(workspace.root, "a", 5, 0)], [], workspace)
    assert gathered.members == [("Extract/job005/raw/a.mrcs", 5)]
    assert gathered.known == 0


def test_power_of_white_noise_is_flat_and_in_relions_scale() -> None:
    noise = np.random.default_rng(1).normal(size=(400, 16, 16)).astype(np.float32)
    assert np.allclose(shell_power(noise)[1:], 1 / (2 * 16**2), rtol=0.1)


def test_each_micrograph_has_a_noise_spectrum_of_its_own(workspace: Workspace) -> None:
    items = [make_item(workspace.root, name, count, 1) for name, count in (("a", 30), ("b", 20))]
    gathered = gather(items, [], workspace)
    assert gathered.groups.tolist() == [0] * 30 + [1] * 20
    classify_round(items, PARAMETERS, workspace, round_name="round001", final=False)
    state, _ = Checkpoint(workspace.root / workspace.job).load()
    assert state is not None
    assert len(state.noise) == 2


def test_relion_is_told_a_group_for_each_micrograph(workspace: Workspace) -> None:
    """RELION sorts the particles by micrograph and numbers the groups so; a name for all of them would make one group of everything that follows."""
    items = [make_item(workspace.root, name, count, seed) for seed, (name, count) in enumerate((("b", 30), ("a", 20)))]
    outputs = classify_round(items, PARAMETERS, workspace, round_name="round001", final=False).outputs
    data = read_star(workspace.root / outputs["data"])["particles"]
    assert "rlnGroupName" not in data
    assert data.integers("rlnGroupNumber").tolist() == [2] * 30 + [1] * 20
    model = read_star(workspace.root / outputs["model"])
    assert model["model_general"].single("rlnNrGroups") == "2"
    assert [row[:3] for row in model["model_groups"].rows] == [["1", "raw/a.mrc", "20"], ["2", "raw/b.mrc", "30"]]
    spectra = [model[f"model_{name}"].floats("rlnSigma2Noise") for name in ("group_1", "group_2", "optics_group_1")]
    assert [len(spectrum) for spectrum in spectra] == [BOX // 2 + 1] * 3
    assert (spectra[0] != spectra[1]).any()
    assert np.allclose(spectra[2], 0.4 * spectra[0] + 0.6 * spectra[1], rtol=1e-3)
    assert 0.7 < np.median(spectra[2]) * 2 * BOX**2 < 2, (
        "white noise of variance 1 and a little signal, in RELION's scale"
    )


def test_the_model_can_stand_for_the_optimiser(workspace: Workspace) -> None:
    """RELION 3.1 selects from a model, RELION 4 and 5 rank the classes of an optimiser; a Select job names one file for all."""
    outputs = classify_round(
        [make_item(workspace.root, "a", 40, 0)], PARAMETERS, workspace, round_name="round001", final=False
    ).outputs
    tables = [read_star(workspace.root / outputs[role])["optimiser_general"] for role in ("model", "optimiser")]
    assert tables[0].records() == tables[1].records()
    assert tables[0].single("rlnModelStarFile") == outputs["model"]


def test_two_optics_groups_are_in_all_files_of_a_round(workspace: Workspace) -> None:
    items = [make_item(workspace.root, name, 40, seed) for seed, name in enumerate("abc")]
    other = replace(workspace.optics, group="slow", voltage=200.0, pixel_size=1.5, common_pixel_size=2.0)
    workspace = replace(workspace, item_optics={"raw/b": other})
    result = classify_round(items, PARAMETERS, workspace, round_name="round001", final=True)
    blocks = read_star(workspace.root / result.outputs["data"])
    names = blocks["optics"].texts("rlnOpticsGroupName")
    assert (names, blocks["optics"].floats("rlnVoltage").tolist()) == (["opticsGroup1", "slow"], [300.0, 200.0])
    assert blocks["optics"].floats("rlnImagePixelSize").tolist() == [PIXEL, PIXEL]
    found = zip(
        blocks["particles"].texts("rlnMicrographName"), blocks["particles"].integers("rlnOpticsGroup"), strict=True
    )
    assert {(Path(name).stem, number) for name, number in found} == {("a", 1), ("b", 2), ("c", 1)}
    model = read_star(workspace.root / result.outputs["model"])
    assert model["model_general"].integers("rlnNrOpticsGroups").tolist() == [2]
    assert {"model_optics_group_1", "model_optics_group_2"} <= model.keys()


def test_particles_are_given_the_microscope_of_their_group(workspace: Workspace) -> None:
    items = [make_item(workspace.root, name, 2, seed) for seed, name in enumerate("ab")]
    assert gather(items, [], workspace).ctf.shape == (4, 4)
    tilted = replace(workspace.optics, group="tilted", beam_tilt_x=1.0)
    assert gather(items, [], replace(workspace, item_optics={"raw/a": tilted})).ctf.shape == (4, 4)
    slow = replace(workspace.optics, group="slow", voltage=200.0)
    ctf = gather(items, [], replace(workspace, item_optics={"raw/b": slow})).ctf
    assert ctf[:, 4:].tolist() == [[300.0, 2.7, 0.1]] * 2 + [[200.0, 2.7, 0.1]] * 2


def test_particles_of_different_sizes_are_refused_with_both_sizes(workspace: Workspace) -> None:
    items = [make_item(workspace.root, name, 12, seed) for seed, name in enumerate("ab")]
    given = items[1].inputs["particles"]
    values = {**given.result.values, "image_pixel_size": 1.1 * PIXEL}
    items[1] = Item("raw/b", {"particles": replace(given, result=replace(given.result, values=values))})
    with pytest.raises(ProcessingError, match=f"{BOX} px of {PIXEL:.4g} Å and {BOX} px of {1.1 * PIXEL:.4g} Å"):
        classify_round(items, PARAMETERS, workspace, round_name="round001", final=True)
