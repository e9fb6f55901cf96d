"""What RELION's user has thrown away."""

from pathlib import Path

import pytest

from beamside.formats.star import format_star
from beamside.project.relion_pipeline import Pipeline, RelionJob, format_pipeline
from beamside.project.relion_trash import places_in_trash, was_deleted

JOB = RelionJob("CtfFind/job003", 2, "relion.ctffind", None, "Succeeded")
OTHER = RelionJob("Extract/job005", 5, "relion.extract", None, "Succeeded")


def touch(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "place", ["CtfFind/job003/raw/a.ctf", "CtfFind/job003/raw/raw/a.ctf", "CtfFind/job003/job003/raw/a.ctf"]
)
def test_a_file_that_was_cleaned_is_found_also_when_it_was_cleaned_twice(place: str) -> None:
    assert f"Trash/{place}" in places_in_trash("CtfFind/job003/raw/a.ctf")
    assert f"Trash/{place}" not in places_in_trash("CtfFind/job003/raw/b.ctf")


def test_a_job_of_the_pipeline_is_not_deleted_whatever_is_in_the_trash(tmp_path: Path) -> None:
    touch(tmp_path / "Trash" / JOB.name / "job.star")
    assert was_deleted(tmp_path, JOB.name, Pipeline())
    assert not was_deleted(tmp_path, JOB.name, Pipeline((JOB,), 6))


def test_a_job_that_was_cleaned_and_that_a_window_did_not_know_is_not_deleted(tmp_path: Path) -> None:
    touch(tmp_path / JOB.name / "job.star")
    touch(tmp_path / "Trash" / JOB.name / "raw/a.ctf")
    assert not was_deleted(tmp_path, JOB.name, Pipeline())


def test_a_job_whose_directory_a_worker_made_anew_is_deleted(tmp_path: Path) -> None:
    touch(tmp_path / "Trash" / JOB.name / "job.star")
    touch(tmp_path / JOB.name / "raw/b.ctf")
    assert was_deleted(tmp_path, JOB.name, Pipeline())


@pytest.mark.parametrize("place", ["Extract/job005", "Trash/Extract/job005"])
def test_a_job_that_could_not_be_moved_is_deleted_by_relions_record(tmp_path: Path, place: str) -> None:
    """RELION's `mv` fails when cleaning has made the directory in Trash/ before."""
    touch(tmp_path / JOB.name / "job.star")
    touch(tmp_path / "Trash" / JOB.name / "raw/a.ctf")
    record = format_star(format_pipeline(Pipeline((OTHER, JOB), 6)))
    touch(tmp_path / place / "deleted_pipeline.star", record)
    assert was_deleted(tmp_path, JOB.name, Pipeline())
    assert not was_deleted(tmp_path, "Class2D/job006", Pipeline())
