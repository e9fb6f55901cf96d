"""What RELION 3.1's own pipeliner makes of our ``job.star`` files, when a job is cloned and when it is continued: programs that note their arguments
stand in for RELION's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beamside.formats.star import read_star

pytestmark = pytest.mark.peer

STAND_IN = """#!/bin/sh
printf '%s\\n' "${0##*/}" "$@" --- >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" = --pipeline_control ] && touch "${2}RELION_JOB_EXIT_SUCCESS"; shift; done
"""
PROGRAMS = ("import", "run_motioncorr", "run_ctffind", "autopick", "preprocess", "refine", "display")
KINDS = ("import", "motion", "ctf", "pick", "extract", "class2d", "select")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_program: Callable[[str], str]) -> Path:
    """The file in which stand-ins for RELION's programs, first on PATH, note how they were called."""
    require_program("relion_pipeliner")
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in PROGRAMS:
        path = programs / f"relion_{program}"
        path.write_text(STAND_IN)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    return tmp_path / "calls.txt"


def arguments(calls: Path) -> list[dict[str, str]]:
    """Return how programs were called, in order: the value of each option, "" of a switch, and the program's name under ""."""
    found = []
    for call in calls.read_text().split("---\n")[:-1]:
        words = call.splitlines()
        options: dict[str, str] = {"": words[0]}
        for word, following in zip(words[1:], [*words[2:], "--"], strict=True):
            if word.startswith("--"):
                options[word] = "" if following.startswith("--") else following
        found.append(options)
    return found


@pytest.fixture
def finished(made_session: Callable[..., Any]) -> Any:
    session = made_session()
    (session.root / "raw").mkdir()
    (session.root / "raw/mic_0001.xml").touch()
    session.take()
    session.round(25)
    session.finish()
    return session


def run_jobs(session: Any, jobs: list[str], run_program: Callable[..., str]) -> None:
    """Let RELION's pipeliner run jobs one after the other; it passes over the last one unless a blank follows."""
    names = "".join(f"{job}/ " for job in jobs)
    run_program("relion_pipeliner", "--RunJobs", names, "--schedule", "s", "--sec_wait_after", "0", cwd=session.root)


EXPECTED: dict[str, dict[str, str]] = {
    "import": {
        "": "relion_import",
        "--do_movies": "",
        "--i": "raw/*.tiff",
        "--angpix": "0.83",
        "--kV": "200",
        "--Cs": "2.7",
        "--Q0": "0.1",
    },
    "motion": {
        "": "relion_run_motioncorr",
        "--i": "Import/job001/movies.star",
        "--dose_per_frame": "1.25",
        "--patch_x": "5",
        "--patch_y": "5",
        "--bin_factor": "1",
        "--bfactor": "150",
        "--grouping_for_ps": "3",
    },
    "ctf": {
        "": "relion_run_ctffind",
        "--i": "MotionCorr/job002/corrected_micrographs.star",
        "--ResMin": "30",
        "--ResMax": "4",
        "--dFMin": "3000",
        "--dFMax": "50000",
        "--use_given_ps": "",
    },
    "pick": {
        "": "relion_autopick",
        "--i": "CtfFind/job003/micrographs_ctf.star",
        "--LoG": "",
        "--LoG_diam_min": "120",
        "--LoG_diam_max": "160",
        "--lowpass": "20",
    },
    "extract": {
        "": "relion_preprocess",
        "--i": "CtfFind/job003/micrographs_ctf.star",
        "--coord_dir": "AutoPick/job004/",
        "--coord_suffix": "_autopick.star",
        "--extract_size": "300",
        "--scale": "64",
        "--bg_radius": "24",
        "--invert_contrast": "",
    },
    "class2d": {
        "": "relion_refine",
        "--i": "Extract/job005/particles.star",
        "--K": "20",
        "--iter": "25",
        "--tau2_fudge": "2",
        "--particle_diameter": "176",
        "--ctf": "",
        "--zero_mask": "",
    },
    "select": {"": "relion_display", "--gui": "", "--i": "Class2D/job006/run_it025_model.star"},
}
"""What the programs must be told to do what our jobs did, as it was found: box, pattern, mask."""


def test_clones_of_all_jobs_do_what_ours_did(finished: Any, calls: Path, run_program: Callable[..., str]) -> None:
    for kind in KINDS:
        run_program("relion_pipeliner", "--addJobFromStar", f"{finished.job(kind)}/job.star", cwd=finished.root)
    clones = [f"{finished.job(kind).split('/')[0]}/job{number:03d}" for number, kind in enumerate(KINDS, 8)]
    run_jobs(finished, clones, run_program)
    for kind, clone, call in zip(KINDS, clones, arguments(calls), strict=True):
        assert {option: call.get(option) for option in EXPECTED[kind]} == EXPECTED[kind]
        assert call["--pipeline_control"] == f"{clone}/"
        assert not any(value.startswith("-2147") for value in call.values())


def test_jobs_that_are_continued_go_on_in_their_place(
    finished: Any, calls: Path, run_program: Callable[..., str]
) -> None:
    for kind in KINDS:
        star = finished.root / finished.job(kind) / "job.star"
        begun = star.read_text()
        star.write_text(re.sub(r"(_rlnJobIsContinue\s+)0", r"\g<1>1", begun))
        assert star.read_text() != begun
    run_jobs(finished, [finished.job(kind) for kind in KINDS], run_program)
    done = dict(zip(KINDS, arguments(calls), strict=True))
    assert all(call["--pipeline_control"] == f"{finished.job(kind)}/" for kind, call in done.items())
    for kind in ("motion", "ctf", "pick", "extract"):
        assert "--only_do_unfinished" in done[kind]
        assert {option: done[kind].get(option) for option in EXPECTED[kind]} == EXPECTED[kind]
    assert done["class2d"]["--continue"] == "Class2D/job006/run_it025_optimiser.star"
    assert done["class2d"]["--particle_diameter"] == "176"
    assert done["import"]["--continue"] == ""


def test_before_anything_is_done_the_values_are_those_that_will_be_used(
    made_session: Callable[..., Any], calls: Path, run_program: Callable[..., str]
) -> None:
    """A running job with unresolved values could be continued in RELION, which then failed it for good."""
    session = made_session()
    session.projection.refresh(dict, force=True)
    session.touch("CtfFind/job003/micrographs_ctf.star")
    session.touch("AutoPick/job004/coords_suffix_autopick.star")
    run_program("relion_pipeliner", "--addJobFromStar", "Extract/job005/job.star", cwd=session.root)
    run_jobs(session, ["Extract/job008"], run_program)
    (call,) = arguments(calls)
    assert {option: call.get(option) for option in EXPECTED["extract"]} == EXPECTED["extract"]


def test_a_continued_ctf_job_leaves_our_table_as_it_is(
    made_session: Callable[..., Any], run_program: Callable[..., str]
) -> None:
    """RELION finds every micrograph done. Without CTFFIND, which is not there, it wrote an empty table over ours."""
    session = made_session()
    for name in ("raw/mic_0001", "raw/mic_0002"):
        session.take(name)
    session.finish()
    made_session().finish()  # it begins, and writes what was cleaned or never there
    table = session.root / "CtfFind/job003/micrographs_ctf.star"
    ours = read_star(table)["micrographs"]
    options = (
        "--i",
        "MotionCorr/job002/corrected_micrographs.star",
        "--o",
        "CtfFind/job003/",
        "--ctffind_exe",
        "/bin/false",
    )
    run_program(
        "relion_run_ctffind", *options, "--is_ctffind4", "--use_given_ps", "--only_do_unfinished", cwd=session.root
    )
    theirs = read_star(table)["micrographs"]
    assert len(theirs) == 2
    for label in ("rlnMicrographName", "rlnCtfImage"):
        assert theirs.texts(label) == ours.texts(label)
    numbers = ("DefocusU", "DefocusV", "DefocusAngle", "CtfAstigmatism", "CtfFigureOfMerit", "CtfMaxResolution")
    for label in (f"rln{name}" for name in numbers):
        assert theirs.floats(label) == pytest.approx(ours.floats(label), rel=1e-4, abs=1)
