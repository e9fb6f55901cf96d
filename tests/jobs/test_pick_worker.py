"""Picking a micrograph: candidates are found once, thresholds move without another look, references are part of the project."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beamside.errors import InputError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import StarBlock, Value, read_star, write_star
from beamside.jobs import pick_worker
from beamside.jobs.base import Item, Optics, Result, Workspace
from beamside.jobs.pick import FROM_WORKFLOW, Picking, PickParameters
from beamside.jobs.pick_references import adopt_references, read_references
from beamside.jobs.ports import Given
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState
from beamside.simulate.movie import MovieSettings, simulate_micrograph
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler, view_directions

OPTICS = Optics(1.3, 300.0, 2.7, 0.1, 1.0)
NAME = "MotionCorr/job002/raw/mic.mrc"


@pytest.fixture(scope="module")
def micrograph() -> tuple[np.ndarray, dict[str, float]]:
    image, truth = simulate_micrograph(MovieSettings(size=(900, 900), contamination=0.3), make_specimen(), 11)
    defocus = truth.defocus
    values = {"defocus_u": defocus.u, "defocus_v": defocus.v, "defocus_angle": defocus.angle, "phase_shift": 0.0}
    return image, values


@pytest.fixture
def item(tmp_path: Path, micrograph: tuple[np.ndarray, dict[str, float]]) -> Item:
    image, values = micrograph
    (tmp_path / NAME).parent.mkdir(parents=True)
    write_mrc(tmp_path / NAME, image, 1.3)
    ctf = Result(values={**values, "micrograph_pixel_size": 1.3})
    return Item("raw/mic", {"micrographs": Given(ctf, {"micrographs": Given(Result(outputs={"micrograph": NAME}))})})


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts how often a micrograph is searched."""
    counted: list[str] = []

    def count(name: str) -> None:
        original = getattr(pick_worker, name)
        monkeypatch.setattr(pick_worker, name, lambda *given: (counted.append(name), original(*given))[1])

    count("pick_blobs")
    count("pick_templates")
    return counted


def run(root: Path, item: Item, **given: object) -> Result:
    parameters = PickParameters(particle_diameter=(140.0, 200.0), **given)  # type: ignore[arg-type]
    return pick_worker.pick(item, parameters, Workspace(root, "AutoPick/job004", OPTICS))


def picked(root: Path, result: Result) -> np.ndarray:
    return next(iter(read_star(root / result.outputs["coordinates"]).values())).floats("rlnAutopickFigureOfMerit")


def test_a_moved_threshold_does_not_look_at_the_micrograph_again(tmp_path: Path, item: Item, looks: list[str]) -> None:
    first = run(tmp_path, item)
    fewer, more = run(tmp_path, item, pick_threshold=5.0), run(tmp_path, item, pick_threshold=-5.0)
    assert looks == ["pick_blobs"]
    assert fewer.metrics["particles"] <= first.metrics["particles"] <= more.metrics["particles"]
    assert picked(tmp_path, more).min() >= first.values["threshold"] - 5
    assert run(tmp_path, item).metrics == first.metrics


def test_a_target_per_area_chooses_among_the_same_candidates(tmp_path: Path, item: Item, looks: list[str]) -> None:
    everything = run(tmp_path, item)
    few = run(tmp_path, item, picks_per_area=3.0)
    assert looks == ["pick_blobs"]
    assert 0 < few.metrics["particles"] < everything.metrics["particles"]


@pytest.mark.parametrize("change", [{"pick_resolution": 25.0}, {"mask_contamination": False}, {"pick_border": 200.0}])
def test_what_makes_candidates_looks_again(
    tmp_path: Path, item: Item, looks: list[str], change: dict[str, object]
) -> None:
    run(tmp_path, item)
    run(tmp_path, item, **change)
    assert looks == ["pick_blobs", "pick_blobs"]


def test_another_micrograph_under_the_same_name_is_looked_at(tmp_path: Path, item: Item, looks: list[str]) -> None:
    run(tmp_path, item)
    write_mrc(tmp_path / NAME, read_mrc(tmp_path / NAME)[::-1].copy(), 1.3)
    run(tmp_path, item)
    assert len(looks) == 2


def test_candidates_that_were_cut_short_are_found_again(tmp_path: Path, item: Item, looks: list[str]) -> None:
    first = run(tmp_path, item)
    path = tmp_path / first.outputs["candidates"]
    path.write_text(path.read_text()[:300])
    assert run(tmp_path, item).metrics == first.metrics
    assert len(looks) == 2


def references(path: Path, pixel_size: float = 4.0) -> Path:
    rot, tilt = view_directions(make_specimen(), 3).T
    write_mrc(path, project(make_specimen(), rotation_from_euler(rot, tilt, np.zeros(3)), 4.0, 64), pixel_size)
    return path


def test_references_become_part_of_the_project_and_find_particles(tmp_path: Path, item: Item, looks: list[str]) -> None:
    given = PickParameters(pick_method="template", pick_references=str(references(tmp_path / "mine.mrcs")))
    adopted = adopt_references(given, tmp_path)
    assert adopted.pick_references.startswith("References/picking-")
    assert adopt_references(adopted, tmp_path) == adopted
    (tmp_path / "mine.mrcs").unlink()
    result = run(tmp_path, item, pick_method="template", pick_references=adopted.pick_references)
    run(tmp_path, item, pick_method="template", pick_references=adopted.pick_references, pick_threshold=1.0)
    assert looks == ["pick_templates"]
    table = next(iter(read_star(tmp_path / result.outputs["coordinates"]).values()))
    assert result.metrics["particles"] > 5
    assert set(table.integers("rlnClassNumber")) <= {1, 2, 3}
    assert len(set(table.floats("rlnAnglePsi"))) > 1


def test_references_of_another_job_find_what_the_same_file_finds(tmp_path: Path, item: Item, looks: list[str]) -> None:
    file = references(tmp_path / "mine.mrcs").name
    by_file = picked(tmp_path, run(tmp_path, item, pick_method="template", pick_references=file))
    shared = {"references": Given(Result(outputs={"averages": file}))}
    given = {"pick_method": "template", "pick_references": FROM_WORKFLOW}
    by_port = run(tmp_path, replace(item, shared=shared), **given)
    assert np.array_equal(picked(tmp_path, by_port), by_file)
    run(tmp_path, replace(item, shared=shared), **given, pick_threshold=1.0)
    assert looks == ["pick_templates"] * 2, "a moved threshold does not look again"
    write_mrc(tmp_path / "other.mrcs", read_mrc(tmp_path / file)[:2], 4.0)
    run(tmp_path, replace(item, shared={"references": Given(Result(outputs={"averages": "other.mrcs"}))}), **given)
    assert looks == ["pick_templates"] * 3, "with others it does"


def test_what_another_job_gives_and_cannot_be_references_is_told(tmp_path: Path, item: Item) -> None:
    write_mrc(tmp_path / "flat.mrcs", np.zeros((2, 8, 8), np.float32), 4.0)
    shared = {"references": Given(Result(outputs={"averages": "flat.mrcs"}))}
    with pytest.raises(InputError, match="empty"):
        run(tmp_path, replace(item, shared=shared), pick_method="template", pick_references=FROM_WORKFLOW)


@pytest.mark.parametrize(
    ("values", "connected", "says"),
    [
        ({"pick_method": "template", "pick_references": FROM_WORKFLOW}, ["micrographs", "references"], ""),
        ({"pick_method": "template", "pick_references": FROM_WORKFLOW}, ["micrographs"], "needs a workflow"),
        (
            {"pick_method": "template", "pick_references": "a.mrcs"},
            ["references"],
            "says where the references come from",
        ),
        ({"pick_method": "blob", "pick_references": FROM_WORKFLOW}, ["references"], "stay as they are"),
        ({"pick_method": "blob"}, ["micrographs"], ""),
        ({"pick_method": "template", "pick_references": "a.mrcs"}, ["micrographs"], ""),
    ],
)
def test_references_come_from_one_place(values: dict[str, str], connected: list[str], says: str) -> None:
    said = Picking().contradiction(PickParameters(**values), connected)  # type: ignore[arg-type]
    assert says in said
    assert bool(said) == bool(says)


def test_other_content_under_the_same_name_is_another_reference(tmp_path: Path) -> None:
    path = references(tmp_path / "mine.mrcs")
    given = PickParameters(pick_method="template", pick_references=str(path))
    first = adopt_references(given, tmp_path).pick_references
    write_mrc(path, read_mrc(path)[:2], 4.0)
    assert adopt_references(given, tmp_path).pick_references != first


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "do not exist"),
        (lambda path: path.write_bytes(b"no image"), "class averages"),
        (lambda path: write_mrc(path, np.zeros((2, 8, 8), np.float32), 4.0), "empty"),
        (lambda path: write_mrc(path, np.ones((2, 8, 9), np.float32), 4.0), "square"),
        (lambda path: references(path, pixel_size=0.0), "pixel size"),
    ],
)
def test_what_cannot_be_references_is_told_when_the_session_starts(tmp_path: Path, make: object, says: str) -> None:
    make(tmp_path / "refs.mrcs")  # type: ignore[operator]
    given = PickParameters(pick_method="template", pick_references=str(tmp_path / "refs.mrcs"))
    with pytest.raises(InputError, match=says):
        Picking().adopt(given, tmp_path)


def test_own_classes_are_asked_for_before_there_are_any(tmp_path: Path) -> None:
    given = PickParameters(pick_method="template", pick_references="classes")
    with pytest.raises(InputError, match="no classes yet"):
        Picking().adopt(given, tmp_path)


def test_own_classes_are_those_selected_in_the_newest_round(tmp_path: Path) -> None:
    given = PickParameters(pick_method="template", pick_references="classes")
    with ProjectWriter(Project(tmp_path)) as writer:
        writer.create_job("Select/job001", "select", {}, {})
        for number, count in ((1, 2), (2, 3)):
            averages = f"Select/job001/averages{number}.mrcs"
            (tmp_path / averages).parent.mkdir(parents=True, exist_ok=True)
            write_mrc(tmp_path / averages, np.random.default_rng(number).normal(size=(count, 16, 16)), 4.0)
            result = {"metrics": {}, "outputs": {"averages": averages}, "values": {}, "rejected": ""}
            for state in (ItemState.WAITING, ItemState.QUEUED):
                writer.item("Select/job001", f"round{number:03d}", state)
            writer.item("Select/job001", f"round{number:03d}", ItemState.DONE, key="k", result=result)
    adopted = Picking().adopt(given, tmp_path)
    images, pixel_size = read_references(tmp_path / adopted.pick_references)
    assert (len(images), pixel_size) == (3, pytest.approx(4.0))
    assert Picking().adopt(adopted, tmp_path) == adopted, "they are kept in the project, whatever is selected later"


def test_where_several_jobs_select_it_is_said_which_is_meant(tmp_path: Path) -> None:
    def adopt(given: str) -> int:
        parameters = Picking().adopt(PickParameters(pick_method="template", pick_references=given), tmp_path)
        return len(read_references(tmp_path / parameters.pick_references)[0])

    with ProjectWriter(Project(tmp_path)) as writer:
        for number, label in ((1, "small"), (2, "large")):
            job, averages = f"Select/job00{number}", f"averages{number}.mrcs"
            writer.create_job(job, "select", {}, {}, label=label)
            write_mrc(tmp_path / averages, np.random.default_rng(number).normal(size=(number, 16, 16)), 4.0)
            result = {"metrics": {}, "outputs": {"averages": averages}, "values": {}, "rejected": ""}
            for state in (ItemState.WAITING, ItemState.QUEUED):
                writer.item(job, "round001", state)
            writer.item(job, "round001", ItemState.DONE, key="k", result=result)
            if number == 1:
                assert adopt("classes") == adopt("classes:small") == 1
                with pytest.raises(InputError, match="No job 'large' selects classes; 'small' does"):
                    adopt("classes:large")
    assert [adopt("classes:small"), adopt("classes:large")] == [1, 2]
    for given in ("classes", "classes:other"):
        with pytest.raises(InputError, match="small, large: say which with --pick-references classes:LABEL"):
            adopt(given)


def test_templates_without_references_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="references"):
        PickParameters(pick_method="template")


def stack_of_discs(path: Path, scales: tuple[float, ...], sign: float = 1.0) -> Path:
    y, x = np.mgrid[:32, :32] - 16
    disc = sign * np.exp(-(x**2 + y**2) / 30.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, np.stack([disc * scale for scale in scales]).astype(np.float32), 4.0)
    return path


def adopted_images(root: Path, given: str, **more: str) -> np.ndarray:
    parameters = PickParameters(pick_method="template", pick_references=given, **more)
    return read_references(root / adopt_references(parameters, root).pick_references)[0]


def test_a_star_file_of_the_project_chooses_references(tmp_path: Path) -> None:
    stack_of_discs(tmp_path / "Class2D/job007/run_classes.mrcs", (1, 2, 3))
    star = tmp_path / "Select/job008/class_averages.star"
    star.parent.mkdir(parents=True)
    rows: list[list[Value]] = [[f"{number:06d}@Class2D/job007/run_classes.mrcs"] for number in (3, 1)]
    write_star(star, [StarBlock("", ["rlnReferenceImage"], rows)])
    for given in (str(star), "Select/job008/class_averages.star"):
        assert adopted_images(tmp_path, given).max(axis=(1, 2)) == pytest.approx([3, 1])


def test_black_protein_becomes_white(tmp_path: Path) -> None:
    white = adopted_images(tmp_path, str(stack_of_discs(tmp_path / "white.mrcs", (1, 2))))
    black = str(stack_of_discs(tmp_path / "black.mrcs", (1, 2), -1.0))
    assert np.array_equal(adopted_images(tmp_path, black), white)
    assert np.array_equal(adopted_images(tmp_path, black, pick_reference_protein="white"), -white)
    assert np.array_equal(
        adopted_images(tmp_path, str(tmp_path / "white.mrcs"), pick_reference_protein="black"), -white
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [("1@gone.mrcs", "not in"), ("9@a.mrcs", "no image 9"), ("x@a.mrcs", "number"), ("0@a.mrcs", "number")],
)
def test_a_star_file_that_lists_what_is_not_there_is_an_error(tmp_path: Path, name: str, says: str) -> None:
    stack_of_discs(tmp_path / "a.mrcs", (1, 2))
    write_star(tmp_path / "refs.star", [StarBlock("", ["rlnReferenceImage"], [[name]])])
    with pytest.raises(InputError, match=says):
        adopted_images(tmp_path, str(tmp_path / "refs.star"))
