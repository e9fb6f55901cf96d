"""What RELION sees of a session's jobs while it runs, when it ends, and when RELION meddles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from beamside.flow import projection
from beamside.formats.star import read_star, write_star
from beamside.project.project import Project
from beamside.project.records import ItemState
from beamside.project.relion import read_pipeline
from beamside.project.relion_files import write_job_pipeline
from beamside.project.relion_pipeline import Pipeline, format_pipeline

Make = Callable[..., Any]


def statuses(session: Any) -> dict[str, str]:
    return {job.name.split("/")[0]: job.status for job in read_pipeline(session.root).jobs}


def markers(session: Any) -> dict[str, list[str]]:
    return {
        stage.name: [path.name[16:] for path in (session.root / stage.job.name).glob("RELION_JOB_EXIT_*")]
        for stage in session.stages
    }


def test_selections_inputs_do_not_grow_with_the_rounds(made_session: Make) -> None:
    session = made_session()
    session.take()
    for iteration in (25, 31, 40):
        session.round(iteration)
        session.projection.refresh(dict, force=True)
    pipeline = read_pipeline(session.root)
    select, classes = pipeline.job("Select/job007"), pipeline.job("Class2D/job006")
    assert select is not None
    assert classes is not None
    assert select.inputs == ("Class2D/job006/run_it040_model.star",)
    assert session.options("select")["fn_model"] == select.inputs[0]
    assert [node.name.rsplit("/")[-1] for node in classes.outputs] == [
        f"run_it040_{role}.star" for role in ("data", "model", "optimiser")
    ]
    assert pipeline.loose_nodes == ()
    browsed = sorted(path.name for path in (session.root / ".Nodes/3").rglob("run_it*"))
    assert browsed == ["run_it040_data.star"], "older rounds are not offered any more"


def test_inputs_that_an_earlier_version_left_behind_go(made_session: Make) -> None:
    session = made_session()
    session.take()
    for iteration in (25, 31):
        session.round(iteration)
    session.projection.refresh(dict, force=True)
    path = session.root / "default_pipeline.star"
    blocks = read_star(path)
    for role in ("optimiser", "model"):
        node = f"Class2D/job006/run_it025_{role}.star"
        blocks["pipeline_nodes"].rows.append([node, 9, "ProcessData.star.relion.optimiser.class2d"])
        blocks["pipeline_input_edges"].rows.append([node, "Select/job007/"])
        blocks["pipeline_output_edges"].rows.append(["Class2D/job006/", node])
    write_star(path, blocks.values())
    assert len(read_pipeline(session.root).job("Select/job007").inputs) == 3  # type: ignore[union-attr]
    session.projection.refresh(dict, force=True)
    assert read_pipeline(session.root).job("Select/job007").inputs == ("Class2D/job006/run_it031_model.star",)  # type: ignore[union-attr]


def test_every_version_of_relion_can_browse_to_our_files(made_session: Make) -> None:
    session = made_session()
    session.take()
    session.round(25)
    session.projection.refresh(dict, force=True)
    session.projection.refresh(dict, force=True)
    folders: dict[str, set[str]] = {}
    for path in (session.root / ".Nodes").rglob("*.star"):
        folders.setdefault(path.name, set()).add(path.relative_to(session.root / ".Nodes").parts[0])
    assert folders == {
        "movies.star": {"0", "MicrographMoviesData", "MicrographMovieGroupMetadata"},
        "corrected_micrographs.star": {"1", "MicrographsData", "MicrographGroupMetadata"},
        "micrographs_ctf.star": {"1", "MicrographsData", "MicrographGroupMetadata"},
        "coords_suffix_autopick.star": {"2", "MicrographsCoords", "MicrographCoordsGroup"},
        "autopick.star": {"MicrographsCoords", "MicrographCoordsGroup"},
        "particles.star": {"3", "ParticlesData", "ParticleGroupMetadata"},
        "run_it025_data.star": {"3", "ParticlesData", "ParticleGroupMetadata"},
        "run_it025_model.star": {"8", "ProcessData"},
        "run_it025_optimiser.star": {"9", "ProcessData", "OptimiserData"},
        "class_averages.star": {"5", "ImagesData", "Image2DGroupMetadata"},
    }


def test_the_only_coordinates_of_the_pipeline_are_those_that_every_version_can_show(made_session: Make) -> None:
    session = made_session()
    session.take()
    session.projection.refresh(dict, force=True)
    job = read_pipeline(session.root).job("AutoPick/job004")
    assert job is not None
    assert [node.name for node in job.outputs] == ["AutoPick/job004/coords_suffix_autopick.star"]
    assert (session.root / "AutoPick/job004/autopick.star").exists()


def test_options_are_remembered_under_the_names_that_relion_reads_unless_its_user_gave_others(
    made_session: Make,
) -> None:
    session = made_session()
    session.take()
    hidden = session.root / ".gui_autopickjob.star"
    blocks = read_star(hidden)
    blocks["job"].columns.remove("rlnJobTypeLabel")  # as RELION 3.1 writes it
    blocks["job"].rows[0].pop(2)
    blocks["joboptions_values"].rows = [["log_diam_min", "77"]]
    write_star(hidden, blocks.values())
    session.round(25)
    session.finish()
    names = {path.name for path in session.root.glob(".gui_*.star")}
    kinds = ("import", "motioncorr", "ctffind", "manualpick", "autopick", "extract", "class2d", "select")
    assert names == {f".gui_{kind}job.star" for kind in kinds}
    assert read_star(hidden)["joboptions_values"].rows == [["log_diam_min", "77"]]
    shown = read_star(session.root / ".gui_manualpickjob.star")
    assert shown["job"].single("rlnJobType") == "3"
    assert ["diameter", "140"] in shown["joboptions_values"].rows
    assert ["angpix", "0.83"] in shown["joboptions_values"].rows


def test_files_that_take_long_are_written_over_several_turns_but_all_of_them_at_the_end(
    made_session: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, now, written = made_session(), [1000.0], list[str]()

    def write(stage: Any) -> None:
        written.append(stage.name)
        now[0] += 0.7

    monkeypatch.setattr(projection, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(session.projection, "_write_files", write)
    session.projection.refresh(dict)
    assert written == ["import", "motion"]
    session.projection.refresh(dict, force=True)
    assert written[2:] == [stage.name for stage in session.stages]


class TestOutput:
    def test_each_item_has_a_line_and_each_failure_its_reason(self, made_session: Make) -> None:
        session = made_session()
        session.take("raw/a")
        session.take("raw/b", until="motion", failed="The movie has\nno frames.")
        session.projection.refresh(dict, force=True)
        directory = session.root / session.job("motion")
        lines = [line.split("\t") for line in (directory / "run.out").read_text().splitlines()]
        assert [line[1:3] for line in lines] == [["done", "raw/a"], ["failed", "raw/b"]]
        assert lines[0][3] == "2.0 s, total motion 8.0 Å, early motion 3.0 Å, late motion 5.0 Å"
        (failure,) = (directory / "run.err").read_text().splitlines()
        assert failure.split("\t")[1:] == ["failed", "raw/b", "The movie has no frames."]

    def test_lines_are_added_once_however_often_a_session_goes_on(self, made_session: Make) -> None:
        session = made_session()
        session.take("raw/a")
        for _ in range(3):
            session.projection.refresh(dict, force=True)
        output = session.root / session.job("motion") / "run.out"
        before = output.stat().st_ino
        session.take("raw/b")
        session.finish()
        again = made_session()
        again.projection.refresh(dict, force=True)
        again.take("raw/c")
        again.finish()
        assert [line.split("\t")[2] for line in output.read_text().splitlines()] == ["raw/a", "raw/b", "raw/c"]
        assert output.stat().st_ino == before, "lines are added; the file is not written again"

    def test_an_item_that_is_done_again_has_another_line(
        self, made_session: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = made_session()
        session.take("raw/a", until="motion", failed="The disk was full.")
        session.projection.refresh(dict, force=True)
        later = datetime.now().timestamp() + 60
        monkeypatch.setattr("beamside.project.project.time.time", lambda: later)
        job = session.job("motion")
        session.writer.item(job, "raw/a", ItemState.WAITING, reason="asked to try again")
        session.writer.item(job, "raw/a", ItemState.QUEUED, attempt=1, optics=session.stage("motion").optics.to_text())
        session.writer.item(job, "raw/a", ItemState.DONE, key="k", result=session.result("motion", "raw/a", ".tiff"))
        session.projection.refresh(dict, force=True)
        lines = (session.root / job / "run.out").read_text().splitlines()
        assert [line.split("\t")[1] for line in lines] == ["failed", "done"]

    def test_the_notes_begin_with_what_relion_does_otherwise_and_have_a_command(self, made_session: Make) -> None:
        session = made_session()
        session.take()
        for iteration in (25, 31):
            session.round(iteration)
            session.projection.refresh(dict, force=True)
        notes = {stage.name: (session.root / stage.job.name / "note.txt").read_text() for stage in session.stages}
        assert notes["class2d"].splitlines()[0].endswith("ask for more iterations than the 31 that are done.")
        assert notes["class2d"].count("What RELION does differently") == 1
        assert notes["import"].startswith("\n ++++ Executing new job on"), "nothing differs"
        command = f"beamside session resume '{session.root}'"
        assert all(command in text.splitlines() for text in notes.values())


class TestEnds:
    def test_success_is_told_after_the_last_table(self, made_session: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        session = made_session()
        session.take("raw/a")
        session.projection.refresh(dict, force=True)
        session.take("raw/b")
        write, seen = projection.write_star_files, []

        def and_note(root: Path, stage: Any, rows: Any, *more: Any) -> None:
            seen.append((stage.name, list((root / stage.job.name).glob("RELION_JOB_EXIT_*"))))
            write(root, stage, rows, *more)

        monkeypatch.setattr(projection, "write_star_files", and_note)
        session.finish()
        assert {name for name, _ in seen} >= {"motion", "extract"}
        assert all(not found for _, found in seen)
        assert markers(session)["motion"] == ["SUCCESS"]
        table = read_star(session.root / session.job("motion") / "corrected_micrographs.star")["micrographs"]
        assert len(table) == 2

    def test_a_job_whose_last_table_cannot_be_written_has_not_succeeded(
        self, made_session: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = made_session()
        session.take()
        write = projection.write_star_files

        def full_disk_at_extraction(root: Path, stage: Any, rows: Any, *more: Any) -> None:
            if stage.name == "extract":
                raise OSError(28, "No space left on device")
            write(root, stage, rows, *more)

        monkeypatch.setattr(projection, "write_star_files", full_disk_at_extraction)
        session.projection.close_jobs("finished")
        assert (statuses(session)["Extract"], statuses(session)["AutoPick"]) == ("Failed", "Succeeded")
        assert (markers(session)["extract"], markers(session)["pick"]) == (["FAILURE"], ["SUCCESS"])

    @pytest.mark.parametrize(
        ("ending", "status"), [("failed", "Failed"), ("stopped", "Aborted"), ("finished", "Succeeded")]
    )
    def test_all_files_agree_on_how_a_job_ended(self, made_session: Make, ending: str, status: str) -> None:
        session = made_session()
        session.take()
        session.round(25)
        session.finish(ending)
        assert set(statuses(session).values()) == {status}
        own = [read_star(session.root / stage.job.name / "job_pipeline.star") for stage in session.stages]
        assert {blocks["pipeline_processes"].single("rlnPipeLineProcessStatusLabel") for blocks in own} == {status}
        marker = {"Failed": "FAILURE", "Aborted": "ABORTED", "Succeeded": "SUCCESS"}[status]
        assert all(found == [marker] for found in markers(session).values())
        assert {job.status for job in Project(session.root).load().jobs.values()} == {status}

    def test_a_job_names_its_inputs_as_they_are_though_the_pipeline_does_not_have_them_yet(
        self, made_session: Make
    ) -> None:
        session = made_session()
        session.take()
        session.round(25)
        before = read_pipeline(session.root)
        bare = Pipeline(tuple(replace(job, outputs=()) for job in before.jobs), before.counter)
        write_star(session.root / "default_pipeline.star", format_pipeline(bare))
        session.projection.close_jobs("finished")
        own = [read_star(session.root / stage.job.name / "job_pipeline.star") for stage in session.stages]
        nodes = [
            dict(zip(block.texts("rlnPipeLineNodeName"), block.texts("rlnPipeLineNodeTypeLabel"), strict=True))
            for blocks in (*own, read_star(session.root / "default_pipeline.star"))
            if (block := blocks.get("pipeline_nodes")) is not None
        ]
        for name, label in ((name, label) for found in nodes for name, label in found.items()):
            assert label == nodes[-1][name], f"{name} is the same for the job that uses it and in the whole pipeline"


def said(session: Any) -> list[str]:
    """Return what people are told of RELION."""
    session.projection.problems.flush(force=True)
    return [entry.sentence for key, entry in session.writer.state.problems.items() if key.startswith("relion")]


def as_relion_ran(session: Any, kind: str, ending: str) -> None:
    """Do what RELION 3.1 does when a user continues a job and its program ends: its own small pipeline, a marker, a table of its own."""
    job = read_pipeline(session.root).job(session.job(kind))
    assert job is not None
    write_job_pipeline(session.root, job)
    path = session.root / job.name / "job_pipeline.star"
    blocks = read_star(path)
    processes = blocks["pipeline_processes"]
    processes.columns, processes.rows = processes.columns[:4], [row[:4] for row in processes.rows]
    write_star(path, blocks.values())
    (session.root / job.name / f"RELION_JOB_EXIT_{ending}").touch()
    (session.root / job.name / "particles.star").write_text("RELION's\n")
    pipeline = read_pipeline(session.root)
    write_star(session.root / "default_pipeline.star", format_pipeline(pipeline))


class TestContinueInRelion:
    @pytest.mark.parametrize("ending", ["FAILURE", "SUCCESS"])
    def test_a_job_that_is_at_work_is_taken_back(self, made_session: Make, ending: str) -> None:
        """It was red for good: RELION's marker and state stayed until the session was started again."""
        session = made_session()
        session.take()
        session.projection.refresh(dict, force=True)
        as_relion_ran(session, "extract", ending)
        session.projection.refresh(dict, force=True)
        assert statuses(session)["Extract"] == "Running"
        assert markers(session)["extract"] == []
        assert "particles" in read_star(session.root / "Extract/job005/particles.star")
        (told,) = said(session)
        assert told.startswith("Extract/job005, on which this session works, was continued in RELION")
        session.finish()
        assert statuses(session)["Extract"] == "Succeeded"

    def test_a_job_that_is_marked_as_finished_while_it_is_at_work_goes_on(self, made_session: Make) -> None:
        session = made_session()
        session.take()
        session.projection.refresh(dict, force=True)
        (session.root / "Extract/job005/RELION_JOB_EXIT_SUCCESS").touch()
        session.projection.refresh(dict, force=True)
        assert (statuses(session)["Extract"], markers(session)["extract"]) == ("Running", [])
        (told,) = said(session)
        assert "was marked in RELION as Succeeded" in told

    def test_a_job_that_has_ended_is_relions_then(self, made_session: Make) -> None:
        session = made_session()
        session.take()
        session.projection.refresh(dict, force=True)
        session.projection.close_jobs("finished")
        as_relion_ran(session, "extract", "FAILURE")
        path = session.root / "default_pipeline.star"
        blocks = read_star(path)
        for row in blocks["pipeline_processes"].rows:
            if row[0] == "Extract/job005/":
                row[3], row[5] = "3", "Failed"
        write_star(path, blocks.values())
        session.projection.refresh(dict, force=True)
        assert statuses(session)["Extract"] == "Failed"
