"""Publishing into RELION's pipeline: ours becomes visible, what RELION and its user put there stays."""

import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from beamside.errors import ProjectBusyError, ProjectError
from beamside.formats.star import format_star, read_star, write_star
from beamside.project.relion import (
    Pipeline,
    RelionJob,
    RelionNode,
    create_relion_root,
    next_job_number,
    publish_pipeline,
    read_pipeline,
    set_alias,
    write_job_files,
)
from beamside.project.relion_pipeline import format_pipeline

MOVIES = RelionNode("Import/job001/movies.star", 0, "MicrographMoviesData.star.relion")
IMPORT = RelionJob("Import/job001", 0, "relion.import", None, "Running", (), (MOVIES,))
CORRECTED = RelionNode("MotionCorr/job002/corrected_micrographs.star", 1, "MicrographsData.star.relion.motioncorr")
MOTION = RelionJob(
    "MotionCorr/job002", 1, "relion.motioncorr", "MotionCorr/live", "Running", (MOVIES.name,), (CORRECTED,)
)
OURS = (IMPORT, MOTION)
LABELS = ("rlnPipeLineProcessTypeLabel", "rlnPipeLineProcessStatusLabel", "rlnPipeLineNodeTypeLabel")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project in which our two jobs run."""
    create_relion_root(tmp_path)
    for job in OURS:
        write_job_files(tmp_path, job, {}, "beamside", datetime(2026, 1, 1))
    publish_pipeline(tmp_path, OURS)
    return tmp_path


def as_relion_31(root: Path, pipeline: Pipeline) -> None:
    """Write the pipeline as RELION 3.1 does: without labels, and without our own table."""
    blocks = format_pipeline(replace(pipeline, unread=None))
    for block in blocks:
        for label in LABELS:
            if label in block:
                position = block.index(label)
                block.columns.pop(position)
                for row in block.rows:
                    row.pop(position)
    (root / "default_pipeline.star").write_text(format_star(blocks))


def with_job(pipeline: Pipeline, job: RelionJob) -> Pipeline:
    jobs = {**{old.name: old for old in pipeline.jobs}, job.name: job}
    return replace(pipeline, jobs=tuple(jobs.values()), counter=max(pipeline.counter, int(job.name[-3:]) + 1))


def test_a_new_project_opens_in_relion_without_questions(tmp_path: Path) -> None:
    create_relion_root(tmp_path / "new")
    assert (tmp_path / "new/.gui_projectdir").exists()
    assert read_star(tmp_path / "new/default_pipeline.star")["pipeline_general"].single("rlnPipeLineJobCounter") == "1"
    assert not (tmp_path / "new/.relion_lock").exists()


def test_creating_keeps_what_is_there(root: Path) -> None:
    before = (root / "default_pipeline.star").read_bytes()
    create_relion_root(root)
    assert (root / "default_pipeline.star").read_bytes() == before


def test_our_jobs_are_in_the_pipeline_with_links_copies_and_counter(root: Path) -> None:
    assert read_pipeline(root) == Pipeline(OURS, 3)
    assert (root / "MotionCorr/live").resolve() == (root / "MotionCorr/job002").resolve()
    for job in OURS:
        assert (root / job.name / "default_pipeline.star").exists()


def test_publishing_the_same_again_touches_nothing(root: Path) -> None:
    (root / ".pipeline_has_changed").unlink()
    before = (root / "default_pipeline.star").stat().st_ino
    publish_pipeline(root, OURS)
    assert (root / "default_pipeline.star").stat().st_ino == before
    assert not (root / ".pipeline_has_changed").exists()
    publish_pipeline(root, [replace(IMPORT, status="Succeeded"), MOTION])
    assert (root / ".pipeline_has_changed").exists()


def test_outputs_enter_the_file_browser_when_they_exist(root: Path) -> None:
    assert not (root / ".Nodes").exists()
    (root / CORRECTED.name).touch()
    publish_pipeline(root, OURS)
    assert (root / ".Nodes/1/MotionCorr/live/corrected_micrographs.star").exists()


class TestWhatRelionAdded:
    select = RelionJob(
        "Select/job003",
        7,
        "relion.select",
        "Select/good",
        "Scheduled",
        (CORRECTED.name, "typed_in.star"),
        (RelionNode("Select/job003/micrographs.star", 1, "MicrographsData.star.relion"),),
    )

    def test_jobs_edges_alias_counter_and_typed_in_files_stay_and_labels_come_back(self, root: Path) -> None:
        loose = (RelionNode("typed_in.star", 3, "ParticlesData.star.relion"),)
        as_relion_31(root, replace(with_job(read_pipeline(root), self.select), counter=9, loose_nodes=loose))
        assert publish_pipeline(root, OURS) == Pipeline((*OURS, self.select), 9, loose)
        blocks = read_star(root / "default_pipeline.star")
        assert all(label in blocks["pipeline_processes"] for label in LABELS[:2])
        assert LABELS[2] in blocks["pipeline_nodes"]

    def test_an_alias_given_in_relion_wins_and_ours_comes_in_where_there_is_none(self, root: Path) -> None:
        as_relion_31(root, with_job(read_pipeline(root), replace(IMPORT, alias="Import/by_user")))
        published = publish_pipeline(root, [replace(IMPORT, alias="Import/ours"), MOTION])
        assert [job.alias for job in published.jobs] == ["Import/by_user", "MotionCorr/live"]

    def test_an_alias_that_another_job_has_is_not_given_twice(self, root: Path) -> None:
        new = RelionJob("MotionCorr/job003", 1, "relion.motioncorr", "MotionCorr/live", "Running")
        assert publish_pipeline(root, [*OURS, new]).jobs[2].alias is None

    def test_a_status_that_relion_set_does_not_hold_against_ours(self, root: Path) -> None:
        as_relion_31(root, with_job(read_pipeline(root), replace(MOTION, status="Failed")))
        assert publish_pipeline(root, OURS).jobs[1].status == "Running"

    def test_except_when_relion_ran_the_job_itself(self, root: Path) -> None:
        own = root / "MotionCorr/job002/job_pipeline.star"
        blocks = read_star(own)
        processes = blocks["pipeline_processes"]
        processes.columns = processes.columns[:4]
        processes.rows = [row[:4] for row in processes.rows]
        write_star(own, blocks.values())
        finished = [replace(IMPORT, status="Succeeded"), replace(MOTION, status="Succeeded")]
        assert publish_pipeline(root, finished).jobs[1].status == "Running"
        write_job_files(root, MOTION, {}, "beamside resumes", datetime(2026, 1, 2))
        assert publish_pipeline(root, finished).jobs[1].status == "Succeeded"

    def test_outputs_that_it_added_stay_while_they_exist_or_are_used(self, root: Path) -> None:
        names = ("MotionCorr/job002/logfile.pdf", "MotionCorr/job002/gone.star", "MotionCorr/job002/used.star")
        nodes = tuple(RelionNode(name, 3, "ParticlesData.star.relion") for name in names)
        (root / names[0]).touch()
        pipeline = with_job(read_pipeline(root), replace(MOTION, outputs=(CORRECTED, *nodes)))
        as_relion_31(root, with_job(pipeline, replace(self.select, inputs=(names[2],))))
        assert [node.name for node in publish_pipeline(root, OURS).jobs[1].outputs] == [
            CORRECTED.name,
            names[0],
            names[2],
        ]

    def test_a_job_deleted_in_relion_stays_deleted(self, root: Path) -> None:
        (root / "Trash/MotionCorr").mkdir(parents=True)
        shutil.move(root / MOTION.name, root / "Trash" / MOTION.name)
        as_relion_31(root, replace(read_pipeline(root), jobs=(IMPORT,)))
        assert publish_pipeline(root, OURS).jobs == (IMPORT,)
        assert not (root / MOTION.name).exists()


def test_an_older_iteration_of_ours_gives_way_unless_it_is_used(root: Path) -> None:
    def class2d(iteration: int) -> RelionJob:
        name = f"Class2D/job003/run_it{iteration:03d}_data.star"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
        node = RelionNode(name, 3, "ParticlesData.star.relion.class2d")
        return RelionJob("Class2D/job003", 8, "relion.class2d", None, "Running", (), (node,))

    for iteration in (1, 2):
        published = publish_pipeline(root, [*OURS, class2d(iteration)])
    assert [node.name[-11:-10] for node in published.jobs[2].outputs] == ["2"]
    user = RelionJob("Select/job004", 7, "relion.select", None, "Succeeded", ("Class2D/job003/run_it002_data.star",))
    as_relion_31(root, with_job(published, user))
    published = publish_pipeline(root, [*OURS, class2d(3)])
    assert [node.name[-11:-10] for node in published.jobs[2].outputs] == ["3", "2"]


def test_an_input_that_no_job_made_becomes_a_node(root: Path) -> None:
    published = publish_pipeline(
        root, [*OURS, RelionJob("Extract/job003", 5, "relion.extract", None, "Running", ("refs/mask.mrc",))]
    )
    assert published.loose_nodes == (RelionNode("refs/mask.mrc", 7, "Mask3D.mrc"),)


def test_a_torn_pipeline_is_recovered_and_its_remains_are_kept(root: Path) -> None:
    path = root / "default_pipeline.star"
    torn = path.read_bytes()[:420]
    path.write_bytes(torn)
    assert publish_pipeline(root, OURS) == Pipeline(OURS, 3)
    assert (root / "default_pipeline.star.torn").read_bytes() == torn


class TestNumbers:
    def test_each_is_given_once(self, root: Path) -> None:
        assert [next_job_number(root), next_job_number(root)] == [3, 4]
        assert read_pipeline(root).counter == 5

    def test_a_directory_that_is_there_is_passed_over(self, root: Path) -> None:
        (root / "Class3D/job003").mkdir(parents=True)
        assert next_job_number(root) == 4

    def test_one_that_relion_may_have_read_is_left_to_it(self, root: Path) -> None:
        as_relion_31(root, read_pipeline(root))
        assert [next_job_number(root), next_job_number(root)] == [4, 5]

    def test_one_that_relion_may_have_read_is_left_to_it_after_we_wrote_other_things(self, root: Path) -> None:
        as_relion_31(root, read_pipeline(root))
        publish_pipeline(root, [replace(IMPORT, status="Failed"), MOTION])
        set_alias(root, MOTION.name, "second try")
        assert next_job_number(root) == 4

    def test_a_project_without_a_pipeline_begins_with_one(self, tmp_path: Path) -> None:
        assert [next_job_number(tmp_path), next_job_number(tmp_path)] == [1, 2]

    def test_a_thousand_has_no_padding(self, root: Path) -> None:
        as_relion_31(root, replace(read_pipeline(root), counter=1000))
        (root / "Class3D/job1000").mkdir(parents=True)
        assert next_job_number(root) == 1001


class TestSetAlias:
    def test_the_name_and_the_link_change(self, root: Path) -> None:
        set_alias(root, MOTION.name, "second try")
        job = read_pipeline(root).job(MOTION.name)
        assert job is not None
        assert job.alias == "MotionCorr/second_try"
        assert (root / "MotionCorr/second_try").is_symlink()
        assert not (root / "MotionCorr/live").is_symlink()
        set_alias(root, MOTION.name, None)
        assert not (root / "MotionCorr/second_try").is_symlink()

    def test_names_are_checked(self, root: Path) -> None:
        with pytest.raises(ProjectError, match="keeps for job directories"):
            set_alias(root, MOTION.name, "job9")
        with pytest.raises(ProjectError, match="has no job"):
            set_alias(root, "MotionCorr/job077", "fine")
        publish_pipeline(root, [*OURS, replace(MOTION, name="MotionCorr/job003", alias=None)])
        with pytest.raises(ProjectError, match="Another job has the alias"):
            set_alias(root, "MotionCorr/job003", "live")


@pytest.mark.parametrize("alias", ["live", "Import/live", "MotionCorr/job5", "MotionCorr/two words"])
def test_an_alias_that_relion_would_refuse_is_refused(root: Path, alias: str) -> None:
    with pytest.raises(ProjectError):
        publish_pipeline(root, [IMPORT, replace(MOTION, alias=alias)])


def test_while_relion_writes_nothing_is_changed(root: Path) -> None:
    (root / ".relion_lock").mkdir()
    before = (root / "default_pipeline.star").read_bytes()
    for act in (lambda: publish_pipeline(root, [IMPORT], wait=0.1), lambda: next_job_number(root, wait=0.1)):
        with pytest.raises(ProjectBusyError):
            act()
    assert (root / "default_pipeline.star").read_bytes() == before


def test_a_failed_write_leaves_the_pipeline_and_no_lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (root / "default_pipeline.star").read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(ProjectError, match="cannot be written: No space"):
        publish_pipeline(root, [replace(IMPORT, status="Succeeded"), MOTION])
    assert (root / "default_pipeline.star").read_bytes() == before
    assert not (root / ".relion_lock").exists()
