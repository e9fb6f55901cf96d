"""The way of RELION's user through a project that a session has made: clean, continue, delete, undelete, and one more movie in between."""

import importlib.util
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.formats.star import read_star
from beamside.project.problems import open_problems
from beamside.project.project import Project
from beamside.project.relion import read_pipeline


def _flow_fixtures() -> ModuleType:
    path = Path(__file__).parents[1] / "flow" / "conftest.py"
    spec = importlib.util.spec_from_file_location("flow_fixtures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_flow = _flow_fixtures()
light_workflow, whole_chain, write_movie = _flow.light_workflow, _flow.whole_chain, _flow.write_movie
session_settings, relion_window = _flow.session_settings, _flow.relion_window

pytestmark = [pytest.mark.peer, pytest.mark.usefixtures("whole_chain")]

JOBS = (
    "Import/job001",
    "MotionCorr/job002",
    "CtfFind/job003",
    "AutoPick/job004",
    "Extract/job005",
    "Class2D/job006",
    "Select/job007",
)
PROGRAMS = ("import", "run_motioncorr", "run_ctffind", "autopick", "preprocess", "refine", "display")
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "{log}"
while [ $# -gt 0 ]; do [ "$1" = --pipeline_control ] && job=$2; shift; done
touch "$job/RELION_JOB_EXIT_SUCCESS"
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """RELION's programs that compute, replaced by ones that note their command line and succeed."""
    folder, log = tmp_path / "programs", tmp_path / "commands.txt"
    folder.mkdir()
    for name in (f"relion_{program}{kind}" for program in PROGRAMS for kind in ("", "_mpi")):
        (folder / name).write_text(STAND_IN.format(log=log))
        (folder / name).chmod(0o755)
    (folder / "mpirun").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    (folder / "mpirun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return log


def run(settings: SessionSettings) -> Project:
    assert Session(settings, until_empty=True).run() == "finished"
    return Project(settings.root)


def calls(project: Project) -> Counter[str]:
    path = project.root / "calls.txt"
    found = Counter(line.split()[1] for line in path.read_text().splitlines()) if path.exists() else Counter()
    path.unlink(missing_ok=True)
    return found


def selected(project: Project) -> int:
    return len(read_star(project.root / "Select/job007/particles.star")["particles"])


def graph(project: Project) -> dict[str, tuple[str | None, str, set[str], set[str]]]:
    jobs = read_pipeline(project.root).jobs
    return {job.name: (job.alias, job.status, set(job.inputs), {node.name for node in job.outputs}) for job in jobs}


def test_clean_continue_delete_and_undelete_cost_nothing_and_lose_nothing(
    session_settings: Callable[..., SessionSettings],
    write_movie: Callable[..., Path],
    relion_window: ModuleType,
    run_program: Callable[..., str],
    stand_ins: Path,
) -> None:
    for name in "abcd":
        write_movie(name)
    settings = session_settings(target=stand_ins.parent / "out")
    project = run(settings)
    root = project.root
    calls(project)
    assert selected(project) == 20
    first = graph(project)
    assert {status for _, status, _, _ in first.values()} == {"Succeeded"}

    for number in range(1, len(JOBS) + 1):
        run_program("relion_pipeliner", "--gentle_clean", str(number), cwd=root)
    assert not (root / "CtfFind/job003/raw").exists()
    assert list((root / "Trash/Extract/job005/raw").glob("*_extract.star"))
    write_movie("e")
    run(settings)
    assert calls(project) == {"e_fractions": 4}, "one movie is computed"
    assert selected(project) == 25
    assert len(read_star(root / "Extract/job005/particles.star")["particles"]) == 50

    before = graph(project)
    for job in JOBS:
        options = ("--schedule", job.split("/", maxsplit=1)[0], "--sec_wait_after", "0")
        run_program("relion_pipeliner", "--RunJobs", f"{job}/", *options, cwd=root)
    commands = stand_ins.read_text().splitlines()
    assert [line.split()[0].removesuffix("_mpi") for line in commands] == [f"relion_{name}" for name in PROGRAMS]
    write_movie("f")
    run(settings)
    assert calls(project) == {"f_fractions": 4}
    assert selected(project) == 30
    after = graph(project)
    assert {name: job[0] for name, job in after.items()} == {name: job[0] for name, job in before.items()}
    assert {status for _, status, _, _ in after.values()} == {"Succeeded"}

    tail = JOBS[4:]
    relion_window.delete(root, *tail)
    run_program("relion_pipeliner", "--check_job_completion", cwd=root)
    write_movie("g")
    run(settings)
    assert calls(project) == {"g_fractions": 3}
    assert set(graph(project)) == set(JOBS) - set(tail)
    told = [problem.sentence for problem in open_problems(project.load().problems.values())]
    assert len([sentence for sentence in told if "was deleted in RELION" in sentence]) == len(tail)

    relion_window.undelete(root, tail[0])
    run_program("relion_pipeliner", "--check_job_completion", cwd=root)
    assert set(graph(project)) == set(JOBS)
    run(settings)
    assert calls(project) == {"g_fractions": 1}
    assert selected(project) == 35
    assert set(graph(project)) == set(JOBS)
    assert {name: graph(project)[name][:3] for name in JOBS[:6]} == {name: after[name][:3] for name in JOBS[:6]}
