"""Selecting from a round of classification: which classes, which particles, and the files that RELION reads."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from beamside.errors import ConfigError, CorruptFileError
from beamside.formats.mrc import read_mrc
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.imaging.classes.shape import Shape
from beamside.jobs.base import Item, Optics, Result, Workspace
from beamside.jobs.class2d_files import Round, write_round
from beamside.jobs.extract import PARTICLE_COLUMNS
from beamside.jobs.optics import optics_table
from beamside.jobs.ports import Given
from beamside.jobs.select import SelectParameters, class_numbers
from beamside.jobs.select_worker import choose, diameters, select_classes

BOX, PIXEL = 48, 4.0
Y, X = np.mgrid[:BOX, :BOX] - BOX // 2
COUNTS = (60, 50, 40, 30)
SMALL = "Class2D/job006"


def averages() -> np.ndarray:
    """Three bars, the first 3 pixels below the middle, and carbon."""
    rng = np.random.default_rng(1)
    bars = [(np.abs(Y - y) < 5) & (np.abs(X) < w) for y, w in ((3, 12), (0, 13), (0, 11))]
    carbon = 9 / (1 + np.exp(-(X + 9) / 2.0))
    return np.stack([*(b * 3.0 + rng.normal(0, 0.1, b.shape) for b in bars), carbon]).astype(np.float32)


@pytest.fixture
def item(tmp_path: Path) -> Item:
    """A round of 2D classification with four classes, as its job writes it."""
    labels = np.repeat(np.arange(4), COUNTS)
    count = len(labels)
    evidence = np.repeat([90.0, 85, 80, 3000], COUNTS)
    found = Round(
        iteration=25,
        pixel_size=PIXEL,
        mask_diameter=140.0,
        tau2_fudge=2.0,
        seed=1,
        last_iteration=25,
        shift_sd=4.0,
        resolution=12.0,
        references=averages(),
        weights=np.array(COUNTS) / count,
        resolutions=np.array([12.0, 12.5, 13.0, 35.0]),
        noise=np.ones((1, BOX // 2 + 1)),
        signal=np.ones(BOX // 2 + 1),
        groups=np.zeros(count, dtype=np.int64),
        labels=labels,
        psi=np.full(count, 90.0),
        shifts=np.zeros((count, 2)),
        pmax=np.full(count, 0.7),
        evidence=evidence,
    )
    rest = [1.0, 0, 0.0, "1@a.mrcs", "m.mrc", 1, 5.0, 0.1, 15000.0, 14900.0, 20.0, 0.0, 1.0, 0.0]
    rows = [[100.0 * (number % 20), 100.0 * (number // 20), *rest] for number in range(count)]
    assert len(rows[0]) == len(PARTICLE_COLUMNS)
    (tmp_path / SMALL).mkdir(parents=True)
    outputs = write_round(tmp_path, SMALL, found, rows, optics_table([], Optics(1.0, 300.0, 2.7, 0.1, 1.0)))
    values = {"final": True, "particle_diameter": 120.0, "micrograph_pixel_size": 1.0}
    return Item("round003", {"classes": Given(Result(outputs=outputs, values=values))})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, "Select/job007", Optics(1.0, 300.0, 2.7, 0.1, 1.0))


def select(item: Item, workspace: Workspace, **parameters: object) -> Result:
    return select_classes([item], SelectParameters(**parameters), workspace, round_name=item.name, final=True)


def test_the_particles_of_good_classes_are_kept_and_carbon_is_not(item: Item, workspace: Workspace) -> None:
    result = select(item, workspace)
    particles = read_star(workspace.root / result.outputs["whole_star"])
    assert result.metrics["selected"] == len(particles["particles"]) == 150
    assert set(particles["particles"].integers("rlnClassNumber")) == {1, 2, 3}
    assert (
        particles["optics"].floats("rlnImagePixelSize").tolist() == [0.0] or "rlnImagePixelSize" in particles["optics"]
    )
    flags = read_star(workspace.root / result.outputs["selection"])[""].integers("rlnSelected")
    assert flags.tolist() == [1, 1, 1, 0]
    stars = read_star(workspace.root / result.outputs["averages_star"])[""]
    assert read_mrc(workspace.root / result.outputs["averages"]).shape == (3, BOX, BOX)
    assert stars.texts("rlnReferenceImage")[0] == "000001@Select/job007/class_averages.mrcs"
    scores = stars.floats("rlnPredictedClassScore")
    assert (np.diff(scores) <= 0).all(), "the best class first"
    assert (workspace.root / result.outputs["selection_image"]).stat().st_size > 0
    assert [row["kept"] for row in result.values["class_table"]] == [True, True, True, False]
    assert result.metrics["selected_share"] == pytest.approx(150 / 180)


def test_recentring_moves_average_and_origins_together(item: Item, workspace: Workspace) -> None:
    moved = select(item, workspace)
    origins = read_star(workspace.root / moved.outputs["whole_star"])["particles"]
    y, x = (origins.floats(f"rlnOrigin{axis}Angst")[0] for axis in "YX")
    # ψ is 90°: down in the average is to the right in the particle
    assert (y, x) == pytest.approx((0, -3 * PIXEL), abs=0.5)
    select(item, workspace, select_recentre=False)
    particles = read_star(workspace.root / "Select/job007/particles_whole.star")["particles"]
    assert set(particles.floats("rlnOriginXAngst")) == {0.0}


def test_particles_that_lie_on_likelier_ones_after_classification_are_left_out(
    item: Item, workspace: Workspace
) -> None:
    data = workspace.root / item.inputs["classes"].result.outputs["data"]
    blocks = read_star(data)
    particles = blocks["particles"]
    column = {name: particles.columns.index(name) for name in particles.columns}
    # the second is picked 100 Å beside the first and moved to within 20 Å of it, the fourth onto the third in another micrograph
    particles.rows[1][column["rlnOriginXAngst"]] = 80.0
    particles.rows[0][column["rlnLogLikeliContribution"]] = 91.0
    particles.rows[3][column["rlnOriginXAngst"]] = 100.0
    particles.rows[3][column["rlnMicrographName"]] = "another.mrc"
    write_star(data, [StarBlock(each.name, each.columns, each.rows, each.loop) for each in blocks.values()])
    result = select(item, workspace)
    kept = read_star(workspace.root / result.outputs["whole_star"])["particles"].floats("rlnCoordinateX")[:4]
    assert (result.metrics["duplicates"], result.metrics["selected"]) == (1, 149)
    assert kept.tolist() == [0, 200, 300, 400]
    assert select(item, workspace, select_duplicate_distance=0).metrics["selected"] == 150


def test_a_round_of_an_earlier_version_is_selected_from_without_looking_for_duplicates(
    item: Item, workspace: Workspace
) -> None:
    before = item.inputs["classes"].result
    values = {name: value for name, value in before.values.items() if name != "micrograph_pixel_size"}
    earlier = Item(item.name, {"classes": Given(Result(outputs=before.outputs, values=values))})
    result = select(earlier, workspace)
    assert (result.metrics["duplicates"], result.metrics["selected"]) == (0, 150)
    assert "Duplicates were not looked for" in result.values["warnings"]["duplicates"]
    assert select(earlier, workspace, select_duplicate_distance=0).values["warnings"] == {}


def test_a_round_of_an_earlier_version_leaves_its_one_group_of_all_micrographs(
    item: Item, workspace: Workspace
) -> None:
    """RELION would keep the particles in it for ever, whatever micrographs they are from."""
    path = workspace.root / item.inputs["classes"].result.outputs["data"]
    blocks = read_star(path)
    blocks["particles"].columns.append("rlnGroupName")
    blocks["particles"].rows = [[*row, "group_01"] for row in blocks["particles"].rows]
    write_star(path, blocks.values())
    selected = read_star(workspace.root / select(item, workspace).outputs["whole_star"])["particles"]
    assert "rlnGroupName" not in selected
    assert selected.columns == [label for label in blocks["particles"].columns if label != "rlnGroupName"]
    assert all(len(row) == len(selected.columns) for row in selected.rows)


def test_classes_chosen_by_hand_are_kept_whatever_their_score(item: Item, workspace: Workspace) -> None:
    result = select(item, workspace, select_classes="4,2")
    kept = read_star(workspace.root / result.outputs["whole_star"])["particles"].integers("rlnClassNumber")
    assert set(kept) == {2, 4}
    with pytest.raises(ConfigError, match="Class 9 cannot be selected: there are 4 classes"):
        select(item, workspace, select_classes="9")


def test_nothing_selected_is_told(item: Item, workspace: Workspace) -> None:
    result = select(item, workspace, select_score=1.0)
    assert result.metrics["selected"] == 0
    assert "--select-score" in result.values["warnings"]["none"]
    assert len(read_star(workspace.root / result.outputs["whole_star"])["particles"]) == 0


def test_a_diameter_that_does_not_fit_is_told(item: Item, workspace: Workspace) -> None:
    result = select(item, workspace)
    assert result.metrics["long_diameter"] == pytest.approx(105, abs=12)
    assert result.metrics["short_diameter"] == pytest.approx(36, abs=10)
    assert result.values["warnings"] == {}
    values = {**item.inputs["classes"].result.values, "particle_diameter": 60.0}
    wrong = Item(item.name, {"classes": Given(Result(outputs=item.inputs["classes"].result.outputs, values=values))})
    sentence = select(wrong, workspace).values["warnings"]["diameter"]
    assert "up to 60 Å" in sentence
    assert "--particle-diameter" in sentence


def test_the_rule_keeps_the_best_of_those_that_pass() -> None:
    scores, counts = np.array([0.9, 0.3, 0.7, 0.8]), np.array([50.0, 50, 50, 1])
    assert choose(scores, counts, SelectParameters()) == [0, 2]
    assert choose(scores, counts, SelectParameters(select_min_share=0)) == [0, 3, 2]
    assert choose(scores, counts, SelectParameters(select_top=1)) == [0]
    assert choose(scores, np.zeros(4), SelectParameters()) == []


def test_diameters_are_those_of_the_views_that_show_them() -> None:
    shapes = [Shape((0, 0), 100, 60), Shape((0, 0), 150, 90), Shape((0, 0), 400, 10), Shape((0, 0), 0, 0)]
    assert diameters(shapes, np.array([50, 50, 50, 50]), [0, 1, 3]) == (150, 60)
    assert diameters(shapes, np.array([50, 50, 50, 50]), [3]) == (0, 0)


@pytest.mark.parametrize(("text", "expected"), [("", []), ("1,4, 7-9", [1, 4, 7, 8, 9]), ("3 3", [3])])
def test_class_numbers_are_read(text: str, expected: list[int]) -> None:
    assert class_numbers(text) == expected


@pytest.mark.parametrize("text", ["0", "a", "3-1", "1.5", "-2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="class numbers such as 1,4,7-9"):
        SelectParameters(select_classes=text)


def test_files_of_different_rounds_are_refused(item: Item, workspace: Workspace) -> None:
    data = workspace.root / item.inputs["classes"].result.outputs["data"]
    blocks = read_star(data)
    column = blocks["particles"].index("rlnClassNumber")
    blocks["particles"].rows[0][column] = 7
    write_star(data, [StarBlock(each.name, each.columns, each.rows, each.loop) for each in blocks.values()])
    with pytest.raises(CorruptFileError, match="classify again"):
        select(item, workspace)
