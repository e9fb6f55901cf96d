"""What RELION's window does to a project when its user deletes jobs and takes that back; RELION has no command for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from beamside.formats.star import format_star
from beamside.project.relion import read_pipeline
from beamside.project.relion_pipeline import Pipeline, format_pipeline, parse_pipeline


def delete(root: Path, *names: str) -> None:
    """Take jobs out of the pipeline, with the edges of their nodes; leave a record of them; move their directories to ``Trash/``."""
    before = read_pipeline(root)
    gone = [job for job in before.jobs if job.name in names]
    nodes = {node.name for job in gone for node in job.outputs}
    left = [
        replace(job, inputs=tuple(name for name in job.inputs if name not in nodes))
        for job in before.jobs
        if job.name not in names
    ]
    _write(root / gone[0].name / "deleted_pipeline.star", Pipeline(tuple(gone), before.counter))
    _write(root / "default_pipeline.star", Pipeline(tuple(left), before.counter))
    for job in gone:
        target = root / "Trash" / job.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():  # mv does not replace a directory that cleaning has made before
            shutil.move(root / job.name, target)
        if job.alias:
            (root / job.alias).unlink(missing_ok=True)


def undelete(root: Path, first: str) -> None:
    """Bring back what was deleted with the job `first`."""
    places = (root / "Trash" / first / "deleted_pipeline.star", root / first / "deleted_pipeline.star")
    deleted = parse_pipeline(next(place for place in places if place.exists()).read_bytes())
    now = read_pipeline(root)
    _write(root / "default_pipeline.star", Pipeline((*now.jobs, *deleted.jobs), now.counter))
    for job in deleted.jobs:
        shutil.move(root / "Trash" / job.name, root / job.name)


def _write(path: Path, pipeline: Pipeline) -> None:
    path.write_text(format_star(format_pipeline(pipeline)))
