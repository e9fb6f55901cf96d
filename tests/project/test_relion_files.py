"""The files of a job directory: what RELION would have written, and nothing that it would trip over."""

from datetime import datetime
from pathlib import Path

import pytest

from beamside.errors import ProjectError
from beamside.formats.star import read_star
from beamside.project.relion import (
    RelionJob,
    RelionNode,
    abort_requested,
    clear_markers,
    mark_exit,
    validate_alias,
    write_job_files,
)
from beamside.project.relion_files import link_alias, register_nodes, unlink_alias

CORRECTED = RelionNode("MotionCorr/job002/corrected_micrographs.star", 1, "MicrographsData.star.relion.motioncorr")
MOTION = RelionJob(
    "MotionCorr/job002",
    1,
    "relion.motioncorr",
    "MotionCorr/first_try",
    "Running",
    ("Import/job001/movies.star",),
    (CORRECTED,),
)
WHEN = datetime(2026, 11, 2, 9, 5, 40)


def test_options_stand_in_alphabetical_order_for_every_version(tmp_path: Path) -> None:
    write_job_files(tmp_path, MOTION, {"patch_x": "5", "fn_gain_ref": "", "gain_flip": "No flipping (0)"}, "x", WHEN)
    for name in ("MotionCorr/job002/job.star", ".gui_motioncorrjob.star"):
        blocks = read_star(tmp_path / name)
        assert blocks["joboptions_values"].rows == [
            ["fn_gain_ref", ""],
            ["gain_flip", "No flipping (0)"],
            ["patch_x", "5"],
        ]
        assert blocks["job"].records() == [
            {"rlnJobType": "1", "rlnJobIsContinue": "0", "rlnJobTypeLabel": "relion.motioncorr", "rlnJobIsTomo": "0"}
        ]


def test_the_jobs_own_pipeline_is_as_relion_writes_it(tmp_path: Path) -> None:
    write_job_files(tmp_path, MOTION, {}, "x", WHEN)
    blocks = read_star(tmp_path / "MotionCorr/job002/job_pipeline.star")
    assert blocks["pipeline_general"].single("rlnPipeLineJobCounter") == "2"
    assert blocks["pipeline_processes"].rows[0][:4] == ["MotionCorr/job002/", "None", "1", "0"]
    assert blocks["pipeline_nodes"].rows[0][:2] == ["Import/job001/movies.star", "0"]
    assert blocks["pipeline_input_edges"].rows == [["Import/job001/movies.star", "MotionCorr/job002/"]]
    assert blocks["pipeline_output_edges"].rows == [["MotionCorr/job002/", CORRECTED.name]]


def test_notes_grow_and_logs_are_kept_when_a_job_is_continued(tmp_path: Path) -> None:
    write_job_files(tmp_path, MOTION, {}, "beamside one", WHEN)
    (tmp_path / "MotionCorr/job002/run.out").write_text("lines\n")
    write_job_files(tmp_path, MOTION, {}, "beamside two", WHEN)
    assert (tmp_path / "MotionCorr/job002/run.out").read_text() == "lines\n"
    assert (tmp_path / "MotionCorr/job002/run.err").read_text() == ""
    note = (tmp_path / "MotionCorr/job002/note.txt").read_text()
    first = "\n ++++ Executing new job on Mon Nov  2 09:05:40 2026\n ++++ with the following command(s): \nbeamside one\n ++++ \n"
    assert note == first + first.replace("one", "two")


def test_a_job_has_one_exit_marker_at_most(tmp_path: Path) -> None:
    write_job_files(tmp_path, MOTION, {}, "x", WHEN)
    for ending in ("SUCCESS", "ABORTED", "FAILURE"):
        mark_exit(tmp_path, MOTION.name, ending)
        assert [path.name for path in (tmp_path / MOTION.name).glob("RELION_JOB_*")] == [f"RELION_JOB_EXIT_{ending}"]
    clear_markers(tmp_path, MOTION.name)
    assert list((tmp_path / MOTION.name).glob("RELION_JOB_*")) == []


def test_beginning_again_takes_old_markers_away(tmp_path: Path) -> None:
    write_job_files(tmp_path, MOTION, {}, "x", WHEN)
    mark_exit(tmp_path, MOTION.name, "SUCCESS")
    (tmp_path / MOTION.name / "RELION_JOB_ABORT_NOW").touch()
    write_job_files(tmp_path, MOTION, {}, "x", WHEN)
    assert list((tmp_path / MOTION.name).glob("RELION_JOB_*")) == []


def test_a_request_to_abort_is_seen_once(tmp_path: Path) -> None:
    write_job_files(tmp_path, MOTION, {}, "x", WHEN)
    assert not abort_requested(tmp_path, MOTION.name)
    (tmp_path / MOTION.name / "RELION_JOB_ABORT_NOW").touch()
    assert abort_requested(tmp_path, MOTION.name)
    assert not abort_requested(tmp_path, MOTION.name)


def test_a_name_that_is_no_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="not a RELION job"):
        write_job_files(tmp_path, RelionJob("MotionCorr/mine", 1, "relion.motioncorr", None, "Running"), {}, "x", WHEN)


class TestAliases:
    @pytest.mark.parametrize(
        ("text", "alias"), [("first try", "first_try"), ("ab", "ab"), ("Kärnkraft-2", "Kärnkraft-2")]
    )
    def test_names_that_relion_takes(self, text: str, alias: str) -> None:
        assert validate_alias(text) == alias

    @pytest.mark.parametrize(
        "text", ["a", "", "  ", "job_two", "job002", "None", "a/b", "..", "a*b", "what?", "a$b", "x\ny", 'say"x"']
    )
    def test_names_that_relion_refuses(self, text: str) -> None:
        with pytest.raises(ProjectError, match="alias"):
            validate_alias(text)

    def test_the_link_is_relions(self, tmp_path: Path) -> None:
        (tmp_path / MOTION.name).mkdir(parents=True)
        link_alias(tmp_path, MOTION)
        link_alias(tmp_path, MOTION)
        link = tmp_path / "MotionCorr/first_try"
        assert link.is_symlink()
        assert link.resolve() == (tmp_path / MOTION.name).resolve()
        assert str(link.readlink()).rstrip("/") == "../MotionCorr/job002"
        unlink_alias(tmp_path, MOTION)
        assert not link.is_symlink()

    def test_a_link_to_another_job_is_set_right_and_a_real_directory_is_left(self, tmp_path: Path) -> None:
        link = tmp_path / "MotionCorr/first_try"
        link.parent.mkdir()
        link.symlink_to("../MotionCorr/job001/")
        unlink_alias(tmp_path, MOTION)
        assert link.is_symlink()
        link_alias(tmp_path, MOTION)
        assert link.readlink().name == "job002"
        link.unlink()
        link.mkdir()
        link_alias(tmp_path, MOTION)
        assert link.is_dir()
        assert not link.is_symlink()


def test_the_file_browser_knows_outputs_that_exist_by_number_and_by_label(tmp_path: Path) -> None:
    register_nodes(tmp_path, MOTION)
    assert not (tmp_path / ".Nodes").exists()
    (tmp_path / MOTION.name).mkdir(parents=True)
    (tmp_path / CORRECTED.name).touch()
    register_nodes(tmp_path, MOTION)
    for kind in ("1", "MicrographsData"):
        assert (tmp_path / ".Nodes" / kind / "MotionCorr/first_try/corrected_micrographs.star").read_bytes() == b""
