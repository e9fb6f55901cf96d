"""RELION's own programs on a project that a session made from movies: they open it, read its files, and work on from them."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.formats.mrc import read_header, read_mrc
from beamside.formats.star import read_star
from beamside.project.relion import read_pipeline

pytestmark = [pytest.mark.peer, pytest.mark.slow]

Run = Callable[..., str]


@pytest.fixture(scope="module")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session over five small simulated movies."""
    folder = tmp_path_factory.mktemp("a session")
    microscope = [
        sys.executable,
        "-m",
        "beamside.simulate.microscope",
        "--output",
        str(folder / "camera"),
        "--truth",
        str(folder / "truth"),
    ]
    subprocess.run(
        [*microscope, "--movies", "5", "--size", "1024", "--frames", "10", "--rate", "600", "--seed", "3"], check=True
    )
    settings = SessionSettings.from_flat(
        {
            "target": folder / "out",
            "name": "run1",
            "data": (str(folder / "camera/*_Fractions.tiff"),),
            "gain": str(folder / "camera/gain.mrc"),
            "pixel_size": 1.3,
            "voltage": 300,
            "particle_diameter": "150:200",
            "classes": 4,
            "class_iterations": 8,
            "class_box": 48,
            "poll_seconds": 0.1,
            "settle_seconds": 0.0,
            "executor": "inline",
        }
    )
    assert Session(settings, until_empty=True).run() == "finished"
    return settings.root


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    copy = tmp_path / "project"
    shutil.copytree(finished_project, copy, symlinks=True)
    return copy


def test_relion_sees_the_jobs_as_finished_and_its_own_job_is_kept(project: Path, run_program: Run) -> None:
    run_program("relion_pipeliner", "--check_job_completion", cwd=project)
    assert {job.name: job.status for job in read_pipeline(project).jobs} == dict.fromkeys(
        [
            "Import/job001",
            "MotionCorr/job002",
            "CtfFind/job003",
            "AutoPick/job004",
            "Extract/job005",
            "Class2D/job006",
            "Select/job007",
        ],
        "Succeeded",
    )
    run_program(
        "relion_pipeliner",
        "--addJob",
        "Extract",
        "--addJobOptions",
        "star_mics == CtfFind/job003/micrographs_ctf.star;coords_suffix == AutoPick/job004/coords_suffix_autopick.star;extract_size == 192",
        cwd=project,
    )
    assert read_pipeline(project).jobs[-1].name == "Extract/job008"
    from beamside.flow.projection import rebuild
    from beamside.project.project import Project

    rebuild(Project(project))
    kept = read_pipeline(project).job("Extract/job008")
    assert kept is not None
    assert kept.status == "Scheduled"
    assert kept.label == "relion.extract", "the labels that RELION dropped are there again"


def test_relion_extracts_the_same_particles_from_our_micrographs_and_coordinates(
    project: Path, run_program: Run
) -> None:
    run_program(
        "relion_preprocess", "--i", "CtfFind/job003/micrographs_ctf.star", "--coord_dir", "AutoPick/job004/", "--coord_suffix", "_autopick.star",
        "--part_star", "Relion/particles.star", "--part_dir", "Relion/", "--extract", "--extract_size", "240", "--scale", "48",
        "--norm", "--bg_radius", "18", "--invert_contrast", cwd=project,
    )  # fmt: skip
    theirs = read_star(project / "Relion/particles.star")["particles"]
    ours = read_star(project / "Extract/job005/particles.star")["particles"]
    found = {(row[0], row[1], row[2]): row[3] for row in positions(theirs)}
    ours_by_position = {(row[0], row[1], row[2]): row[3] for row in positions(ours)}
    assert len(ours_by_position) > 50
    assert set(ours_by_position) <= set(found), (
        "RELION takes our coordinates as they are; it only keeps those at the edge too"
    )


def positions(table: object) -> list[tuple[str, str, str, str]]:
    columns = ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnImageName")
    return list(zip(*(table.texts(name) for name in columns), strict=True))  # type: ignore[attr-defined]


def test_relion_classifies_our_particles(project: Path, run_program: Run) -> None:
    (project / "Refine").mkdir()
    run_program(
        "relion_refine", "--o", "Refine/run", "--i", "Extract/job005/particles.star", "--iter", "1", "--K", "2", "--ctf", "--tau2_fudge", "2",
        "--particle_diameter", "220", "--flatten_solvent", "--zero_mask", "--psi_step", "30", "--offset_range", "3", "--offset_step", "2",
        "--norm", "--scale", "--dont_check_norm", "--pool", "10", cwd=project, timeout=280,
    )  # fmt: skip
    data = read_star(project / "Refine/run_it001_data.star")["particles"]
    assert len(data) == len(read_star(project / "Extract/job005/particles.star")["particles"])


def test_relion_continues_our_classification(project: Path, run_program: Run) -> None:
    """The model, sampling and optimiser files of a round are such that RELION goes on from them."""
    optimiser = max((project / "Class2D/job006").glob("run_it*_optimiser.star"))
    iteration = int(optimiser.name[6:9])
    run_program(
        "relion_refine", "--continue", str(optimiser.relative_to(project)), "--o", "Class2D/job006/run_ct", "--iter", str(iteration + 1),
        "--psi_step", "30", "--offset_range", "3", "--offset_step", "2", "--pool", "10", cwd=project, timeout=280,
    )  # fmt: skip
    after = read_star(project / f"Class2D/job006/run_ct_it{iteration + 1:03d}_data.star")["particles"]
    before = read_star(project / f"Class2D/job006/run_it{iteration:03d}_data.star")["particles"]
    assert len(after) == len(before)
    labels = np.array(before.integers("rlnClassNumber")), np.array(after.integers("rlnClassNumber"))
    assert (labels[0] == labels[1]).mean() > 0.6, "most particles stay in the class that we gave them"


def test_relion_reads_our_selection(project: Path, run_program: Run) -> None:
    """Its class averages are images that RELION knows, and the pipeline leads from the newest round of classification to it."""
    select = read_pipeline(project).job("Select/job007")
    assert select is not None
    newest = max((project / "Class2D/job006").glob("run_it*_model.star")).name
    assert select.inputs == (f"Class2D/job006/{newest}",)
    assert f"Class2D/job006/{newest}" in (project / "Select/job007/job.star").read_text()
    assert {Path(node.name).name: node.type for node in select.outputs} == {
        "particles.star": 3,
        "class_averages.star": 5,
    }
    averages = read_star(project / "Select/job007/class_averages.star")[""]
    run_program(
        "relion_star_handler", "--i", "Select/job007/particles.star", "--o", "copy.star", "--combine", cwd=project
    )
    ours = read_star(project / "Select/job007/particles.star")["particles"]
    copied = read_star(project / "copy.star")["particles"]
    assert copied.floats("rlnOriginXAngst") == pytest.approx(ours.floats("rlnOriginXAngst"), abs=1e-4)
    assert copied.integers("rlnClassNumber").tolist() == ours.integers("rlnClassNumber").tolist()
    stats = run_program("relion_image_handler", "--i", averages.texts("rlnReferenceImage")[0], "--stats", cwd=project)
    assert "48" in stats


def test_relion_reads_our_images(project: Path, run_program: Run) -> None:
    micrograph = next((project / "MotionCorr/job002/raw").glob("*_Fractions.mrc"))
    run_program(
        "relion_image_handler",
        "--i",
        str(micrograph.relative_to(project)),
        "--o",
        "half.mrc",
        "--rescale_angpix",
        "2.6",
        "--angpix",
        "1.3",
        cwd=project,
    )
    assert read_header(project / "half.mrc").shape[1:] == (512, 512)
    assert abs(float(read_mrc(project / "half.mrc").mean()) / float(read_mrc(micrograph).mean()) - 1) < 0.01
    stats = run_program("relion_image_handler", "--i", str(micrograph.relative_to(project)), "--stats", cwd=project)
    assert "1024 x 1024" in stats.replace(" x 1 x 1", "")


@pytest.mark.parametrize(
    ("star", "table"),
    [
        ("Import/job001/movies.star", "movies"),
        ("MotionCorr/job002/corrected_micrographs.star", "micrographs"),
        ("CtfFind/job003/micrographs_ctf.star", "micrographs"),
        ("Extract/job005/particles.star", "particles"),
    ],
)
def test_relion_reads_our_star_files(project: Path, run_program: Run, star: str, table: str) -> None:
    run_program("relion_star_handler", "--i", star, "--o", "copy.star", "--combine", cwd=project)
    before, after = read_star(project / star)[table], read_star(project / "copy.star")[table]
    assert len(after) == len(before) > 0
    assert set(before.columns) <= set(after.columns)


def test_relion_finds_the_same_motion_in_the_same_movies(project: Path, run_program: Run) -> None:
    """Signs, axes, the rows of TIFF files and the orientation of the gain reference are RELION's."""
    options = read_star(project / "MotionCorr/job002/job.star")["joboptions_values"].rows
    gain = next(str(value) for name, value in options if name == "fn_gain_ref")
    run_program(
        "relion_run_motioncorr", "--i", "Import/job001/movies.star", "--o", "Relion/", "--use_own", "--j", "2", "--patch_x", "1", "--patch_y", "1",
        "--gainref", gain, "--dose_per_frame", "1", "--dose_weighting", "--bfactor", "150", cwd=project,
    )  # fmt: skip
    micrographs = read_star(project / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    files = micrographs.texts("rlnMicrographMetadata")
    assert all(len(read_star(project / ours)["local_motion_model"]) == 36 for ours in files)
    ours = np.concatenate([shifts(project / path) for path in files])
    theirs = np.concatenate([shifts(project / path.replace("MotionCorr/job002", "Relion")) for path in files])
    for axis in (0, 1):
        assert np.corrcoef(ours[:, axis], theirs[:, axis])[0, 1] > 0.9
    assert np.abs(ours - theirs).mean() < 0.6, "pixels"


def shifts(path: Path) -> np.ndarray:
    table = read_star(path)["global_shift"]
    track = np.array([table.floats("rlnMicrographShiftX"), table.floats("rlnMicrographShiftY")]).T
    return track - track.mean(axis=0)


def test_jobs_that_relion_continues_stay_as_they_are(project: Path, run_program: Run) -> None:
    """RELION's own programs, called as its pipeliner calls them when somebody presses Continue, find everything done and make the same tables."""
    tables = {
        "MotionCorr/job002": (
            "corrected_micrographs.star",
            "micrographs",
            ["rlnMicrographName", "rlnAccumMotionTotal"],
        ),
        "CtfFind/job003": ("micrographs_ctf.star", "micrographs", ["rlnMicrographName", "rlnDefocusU", "rlnCtfImage"]),
        "AutoPick/job004": ("summary.star", "", ["rlnMicrographName", "rlnGroupNrParticles"]),
        "Extract/job005": ("particles.star", "particles", ["rlnImageName", "rlnCoordinateX", "rlnDefocusU"]),
    }
    before = {job: contents(project / job / file, table, columns) for job, (file, table, columns) in tables.items()}
    for job in tables:
        star = project / job / "job.star"
        star.write_text(re.sub(r"(_rlnJobIsContinue\s+)0", r"\g<1>1", star.read_text()))
    names = "".join(f"{job}/ " for job in tables)
    run_program(
        "relion_pipeliner", "--RunJobs", names, "--schedule", "s", "--sec_wait_after", "1", cwd=project, timeout=200
    )
    assert {job.status for job in read_pipeline(project).jobs} == {"Succeeded"}
    for job, (file, table, columns) in tables.items():
        after = contents(project / job / file, table, columns)
        assert len(after) == len(before[job]) > 0
        for ours, theirs in zip(before[job], after, strict=True):
            assert [
                value if isinstance(value, str) else pytest.approx(value, rel=1e-3, abs=0.01) for value in ours
            ] == theirs


def contents(path: Path, table: str, columns: list[str]) -> list[list[str | float]]:
    """Return some columns of a table, sorted, numbers as numbers."""

    def plain(text: str) -> str | float:
        try:
            return float(text)
        except ValueError:
            return text

    found = read_star(path)[table]
    return sorted([plain(text) for text in row] for row in zip(*(found.texts(name) for name in columns), strict=True))
