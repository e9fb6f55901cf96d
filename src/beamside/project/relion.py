"""RELION's view of a project: everything that the rest of Beamside uses of it, in one place."""

from beamside.project.relion_files import abort_requested, clear_markers, mark_exit, validate_alias, write_job_files
from beamside.project.relion_lock import RelionLock
from beamside.project.relion_pipeline import Pipeline, RelionJob, RelionNode, job_directory, number_of_job
from beamside.project.relion_publish import create_relion_root, next_job_number, publish_pipeline, set_alias
from beamside.project.relion_recovery import read_pipeline
from beamside.project.relion_types import JobStatus

__all__ = [
    "JobStatus",
    "Pipeline",
    "RelionJob",
    "RelionLock",
    "RelionNode",
    "abort_requested",
    "clear_markers",
    "create_relion_root",
    "job_directory",
    "mark_exit",
    "next_job_number",
    "number_of_job",
    "publish_pipeline",
    "read_pipeline",
    "set_alias",
    "validate_alias",
    "write_job_files",
]
