"""RELION's own programs work on a project that Beamside wrote, and Beamside keeps what they add."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from beamside.formats.star import StarBlock, read_star, write_star
from beamside.project.relion import (
    RelionJob,
    RelionNode,
    create_relion_root,
    mark_exit,
    next_job_number,
    number_of_job,
    publish_pipeline,
    read_pipeline,
    write_job_files,
)

pytestmark = [pytest.mark.peer]

RunProgram = Callable[..., str]

OPTICS = StarBlock.from_records(
    "optics",
    [
        {
            "rlnOpticsGroupName": "opticsGroup1",
            "rlnOpticsGroup": 1,
            "rlnMicrographOriginalPixelSize": 1.5,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
            "rlnMicrographPixelSize": 1.5,
        }
    ],
)

MOVIES = RelionJob(
    "Import/job001",
    0,
    "relion.import",
    "Import/krios_run",
    "Running",
    outputs=(RelionNode("Import/job001/movies.star", 0, "MicrographMoviesData.star.relion"),),
)
MOTION = RelionJob(
    "MotionCorr/job002",
    1,
    "relion.motioncorr",
    None,
    "Running",
    inputs=("Import/job001/movies.star",),
    outputs=(RelionNode("MotionCorr/job002/corrected_micrographs.star", 1, "MicrographsData.star.relion.motioncorr"),),
)
EXTERNAL = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --o ] && out=$2; shift; done
cat > "$out/RELION_OUTPUT_NODES.star" <<END
data_output_nodes
loop_
_rlnPipeLineNodeName #1
_rlnPipeLineNodeType #2
${out}picked.star 2
END
echo picked > "$out/picked.star"
touch "$out/RELION_JOB_EXIT_SUCCESS"
"""


@pytest.fixture
def project(tmp_path: Path, require_program: Callable[[str], str]) -> Path:
    """A small project with an import and a running motion correction, and the images that they name."""
    require_program("relion_pipeliner")
    root = tmp_path / "project"
    create_relion_root(root)
    for job in (MOVIES, MOTION):
        assert next_job_number(root) == int(job.name[-3:])
        write_job_files(
            root, job, {"bin_factor": "1", "other_args": ""}, "beamside worker", datetime(2026, 1, 2, 3, 4, 5)
        )
    movies = [{"rlnMicrographMovieName": f"raw/mic{n}.tiff", "rlnOpticsGroup": 1} for n in (1, 2)]
    write_star(root / "Import/job001/movies.star", [OPTICS, StarBlock.from_records("movies", movies)])
    names = [f"MotionCorr/job002/raw/mic{n}.mrc" for n in (1, 2)]
    micrographs = [
        {"rlnMicrographName": name, "rlnOpticsGroup": 1, "rlnAccumMotionTotal": 1.0 + n} for n, name in enumerate(names)
    ]
    write_star(
        root / "MotionCorr/job002/corrected_micrographs.star",
        [OPTICS, StarBlock.from_records("micrographs", micrographs)],
    )
    (root / "MotionCorr/job002/raw").mkdir()
    for name in names:
        with mrcfile.new(root / name) as file:
            file.set_data(np.random.default_rng(1).normal(size=(64, 96)).astype(np.float32))
            file.voxel_size = 1.5
    publish_pipeline(root, [MOVIES, MOTION])
    return root


def test_relion_sees_a_job_finish_by_its_marker(project: Path, run_program: RunProgram) -> None:
    mark_exit(project, "Import/job001", "SUCCESS")
    mark_exit(project, "MotionCorr/job002", "FAILURE")
    run_program("relion_pipeliner", "--check_job_completion", cwd=project)
    assert [job.status for job in read_pipeline(project).jobs] == ["Succeeded", "Failed"]
    assert not (project / ".relion_lock").exists()


def test_a_job_added_by_relion_and_its_edges_and_alias_are_kept(project: Path, run_program: RunProgram) -> None:
    (project / "pick.sh").write_text(EXTERNAL)
    (project / "pick.sh").chmod(0o755)
    options = "fn_exe == ./pick.sh;in_mic == MotionCorr/job002/corrected_micrographs.star"
    run_program(
        "relion_pipeliner", "--addJob", "External", "--addJobOptions", options, "--setJobAlias", "by_hand", cwd=project
    )
    processes = read_star(project / "default_pipeline.star")["pipeline_processes"]
    assert "rlnPipeLineProcessTypeLabel" not in processes, "this RELION keeps labels, so the test shows nothing"

    publish_pipeline(project, [replace(MOVIES, status="Succeeded"), MOTION])
    added = read_pipeline(project).jobs[2]
    assert (added.name, added.type, added.alias, added.status) == (
        "External/job003",
        99,
        "External/by_hand",
        "Scheduled",
    )
    assert added.inputs == ("MotionCorr/job002/corrected_micrographs.star",)

    run_program(
        "relion_pipeliner", "--RunJobs", "External/job003/", "--schedule", "s", "--sec_wait_after", "1", cwd=project
    )
    publish_pipeline(project, [replace(MOVIES, status="Succeeded"), MOTION])
    pipeline = read_pipeline(project)
    assert [job.status for job in pipeline.jobs] == ["Succeeded", "Running", "Succeeded"]
    assert [node.name for node in pipeline.jobs[2].outputs] == ["External/job003/picked.star"]
    assert pipeline.counter == 4
    labels = read_star(project / "default_pipeline.star")["pipeline_nodes"].texts("rlnPipeLineNodeTypeLabel")
    assert labels[-1] == "MicrographsCoords.star.relion"
    assert next_job_number(project) == 5, "RELION may have read 4, and takes a number long before it adds the job"


def test_relion_never_takes_a_number_that_we_reserved(project: Path, run_program: RunProgram) -> None:
    assert next_job_number(project) == 3
    run_program("relion_pipeliner", "--addJob", "External", "--addJobOptions", "fn_exe == ./pick.sh", cwd=project)
    assert [job.name for job in read_pipeline(project).jobs][-1] == "External/job004"


def test_a_number_that_relion_has_read_but_not_yet_used_is_left_to_it(
    project: Path, run_program: RunProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELION reads the next number under its lock, makes the job's directory without it, and adds the job under a second lock."""
    programs = project.parent / "programs"
    programs.mkdir()
    (programs / "mkdir").write_text(
        '#!/bin/sh\ntouch made\nwhile [ ! -e go ]; do sleep 0.02; done\nexec /bin/mkdir "$@"\n'
    )
    (programs / "mkdir").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with ThreadPoolExecutor(1) as pool:
        options = ("--addJob", "External", "--addJobOptions", "fn_exe == ./pick.sh")
        running = pool.submit(run_program, "relion_pipeliner", *options, cwd=project)
        try:
            while not (project / "made").exists() and not running.done():
                time.sleep(0.02)
            publish_pipeline(project, [replace(MOVIES, status="Succeeded"), MOTION])
            ours = [next_job_number(project), next_job_number(project)]
        finally:
            (project / "go").touch()
        running.result()
    assert ours == [4, 5]
    pipeline = publish_pipeline(project, [MOVIES, MOTION])
    assert pipeline.jobs[-1].name == "External/job003"
    assert next_job_number(project) > pipeline.counter


def test_relion_reads_our_job_options(project: Path, run_program: RunProgram) -> None:
    run_program(
        "relion_pipeliner",
        "--addJobFromStar",
        "MotionCorr/job002/job.star",
        "--addJobOptions",
        "input_star_mics == Import/job001/movies.star",
        cwd=project,
    )
    copy = read_star(project / "MotionCorr/job003/job.star")["joboptions_values"]
    assert (
        dict(zip(copy.texts("rlnJobOptionVariable"), copy.texts("rlnJobOptionValue"), strict=True))["bin_factor"] == "1"
    )


def test_a_job_of_ours_that_relion_ran_again_is_relions(project: Path, run_program: RunProgram) -> None:
    job = RelionJob("External/job003", 99, "relion.external", None, "Succeeded")
    write_job_files(project, job, {"fn_exe": "./fail.sh"}, "beamside worker", datetime(2026, 1, 2))
    mark_exit(project, job.name, "SUCCESS")
    assert publish_pipeline(project, [MOVIES, MOTION, job]).jobs[2].status == "Succeeded"
    (project / "fail.sh").write_text("#!/bin/sh\ntouch External/job003/RELION_JOB_EXIT_FAILURE\n")
    (project / "fail.sh").chmod(0o755)
    schedule = ("--schedule", "again", "--overwrite_jobs", "--sec_wait_after", "1")
    run_program("relion_pipeliner", "--RunJobs", "External/job003/", *schedule, cwd=project)
    assert publish_pipeline(project, [MOVIES, MOTION, job]).jobs[2].status == "Failed"


def test_star_handler_reads_names_with_blanks(tmp_path: Path, run_program: RunProgram) -> None:
    names = ["my mic.mrc", "it's.mrc", "data_1/a.mrc", "#b.mrc", "_c.mrc"]
    rows = [
        {"rlnOpticsGroup": 1, "rlnMicrographName": name, "rlnDefocusU": 1e4 * n}
        for n, name in enumerate(names, start=1)
    ]
    write_star(tmp_path / "in.star", [OPTICS, StarBlock.from_records("micrographs", rows)])
    arguments = ("--i_tablename", "micrographs", "--select", "rlnDefocusU", "--minval", "0", "--maxval", "45000")
    run_program("relion_star_handler", "--i", "in.star", "--o", "out.star", *arguments, cwd=tmp_path)
    selected = read_star(tmp_path / "out.star")["micrographs"]
    assert selected.texts("rlnMicrographName") == names[:4]
    np.testing.assert_allclose(selected.floats("rlnDefocusU"), [10000, 20000, 30000, 40000])


def test_star_handler_joins_our_tables(project: Path, run_program: RunProgram) -> None:
    file = "MotionCorr/job002/corrected_micrographs.star"
    write_star(project / "other.star", read_star(project / file).values())
    run_program("relion_star_handler", "--i", f"{file} other.star", "--combine", "--o", "all.star", cwd=project)
    assert len(read_star(project / "all.star")["micrographs"]) == 4


def test_image_handler_reads_the_micrographs_of_our_table(project: Path, run_program: RunProgram) -> None:
    name = "MotionCorr/job002/raw/mic1.mrc"
    run_program(
        "relion_image_handler",
        "--i",
        name,
        "--o",
        "halved.mrc",
        "--angpix",
        "1.5",
        "--rescale_angpix",
        "3.0",
        cwd=project,
    )
    with mrcfile.open(project / "halved.mrc") as file:
        assert file.data.shape == (32, 48)
    assert "1.5" in run_program("relion_image_handler", "--i", name, "--stats", cwd=project)


def test_relion_waits_for_our_lock(project: Path, run_program: RunProgram) -> None:
    lock = project / ".relion_lock"
    lock.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        ["relion_pipeliner", "--check_job_completion"],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as program:
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(2)
        lock.rmdir()
        assert program.wait(30) == 0


@pytest.mark.slow
def test_nothing_is_lost_when_relion_and_we_write_at_the_same_time(project: Path, run_program: RunProgram) -> None:
    (project / "pick.sh").write_text(EXTERNAL)
    reserved: list[int] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            status = "Succeeded" if len(reserved) % 2 else "Running"
            publish_pipeline(project, [replace(MOVIES, status=status), MOTION], wait=60)
            reserved.append(next_job_number(project, wait=60))
            stop.wait(0.02)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for _ in range(6):
            run_program(
                "relion_pipeliner", "--addJob", "External", "--addJobOptions", "fn_exe == ./pick.sh", cwd=project
            )
    finally:
        stop.set()
        publisher.join()
    pipeline = publish_pipeline(project, [MOVIES, MOTION])
    added = [number_of_job(job.name) for job in pipeline.jobs if job.type == 99]
    assert len(added) == 6
    assert len({*added, *reserved}) == len(added) + len(reserved), "a job number was given twice"
    assert pipeline.counter > max(*added, *reserved)
