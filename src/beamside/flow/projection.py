"""What others see of a session while it runs.

STAR files, RELION's pipeline, the SQLite index, and a small file that says what goes on right now. All of it is made from the journals' state and may
be deleted. Writing is spaced so that it takes a small part of the time, however long the tables grow.
"""

from __future__ import annotations

import logging
import shlex
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from beamside.acquisition.manifest import Manifest
from beamside.errors import BeamsideError
from beamside.flow.missing import gone_results
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.flow.table import LOCK_SECONDS, Tables
from beamside.formats.atomic import atomic_path
from beamside.formats.star import write_star
from beamside.jobs.base import Row, StarContent
from beamside.project.index import Index
from beamside.project.index_file import remove_index
from beamside.project.live import write_live
from beamside.project.project import Project, ProjectWriter
from beamside.project.relion_files import abort_requested, clear_markers, mark_exit, write_job_files, write_job_options
from beamside.project.relion_pipeline import RelionJob, RelionNode
from beamside.project.relion_publish import create_relion_root, publish_pipeline

log = logging.getLogger(__name__)

SHARE = 0.05
"""Largest part of the time that a projection may take."""

ENDINGS: dict[str, Literal["SUCCESS", "FAILURE", "ABORTED"]] = {
    "Succeeded": "SUCCESS",
    "Failed": "FAILURE",
    "Aborted": "ABORTED",
}
"""RELION's markers of how a job ended, by its status."""


@dataclass
class Pace:
    """Decides when something that takes a while is due again."""

    interval: float
    next_time: float = 0.0
    started: float = field(default=0.0, repr=False)

    def due(self) -> bool:
        """Return True, and start the clock, when it is time."""
        self.started = time.monotonic()
        return self.started >= self.next_time

    def done(self) -> None:
        """Plan the next time from how long this one took."""
        now = time.monotonic()
        self.next_time = now + max(self.interval, (now - self.started) / SHARE)


class Projection:
    """Keeps everything that is derived from the journals up to date."""

    def __init__(
        self,
        settings: SessionSettings,
        writer: ProjectWriter,
        stages: Sequence[Stage],
        *,
        deleted: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with nothing written; `deleted` is called when RELION has deleted a job, or taken that back."""
        self.settings, self.writer, self.stages = settings, writer, stages
        self._deleted = deleted
        self.root = writer.project.root
        self.index = Index(writer.project, elsewhere=False)
        self._star_pace = {stage.name: Pace(3.0) for stage in stages}
        self._seen: dict[str, tuple[int, ...]] = {}
        self._told = {stage.name: "" for stage in stages}
        self._index_told = ""
        self._options_written: dict[str, dict[str, str]] = {}
        self._index_pace, self._live_pace, self._pipeline_pace = Pace(1.0), Pace(1.0), Pace(5.0)

    @property
    def present(self) -> list[Stage]:
        """The stages whose jobs are there: nothing is written of those that RELION has deleted."""
        return [stage for stage in self.stages if not stage.gone]

    def open_jobs(self) -> None:
        """Make the job directories, and tell RELION that the jobs run."""
        create_relion_root(self.root, wait=LOCK_SECONDS)
        command = f"beamside session start # as {shlex.quote(str(self.root))}"
        for stage in self.present:
            clear_markers(self.root, stage.job.name)
            self.writer.set_status(stage.job.name, "Running")
        self.write_job_files(command)
        self.publish()

    def write_job_files(self, command: str) -> None:
        """Write the files of each job from which RELION knows its options; `command` goes to the job's notes."""
        for stage in self.present:
            write_job_files(self.root, self._relion_job(stage), self._options(stage), command, datetime.now())

    def write_options(self) -> None:
        """Write the options of the jobs again: since they were opened, it became known how the gain reference is used."""
        for stage in self.present:
            write_job_options(self.root, self._relion_job(stage), self._options(stage))

    def _options(self, stage: Stage) -> dict[str, str]:
        options = stage.job_type.relion_options(stage.parameters, stage.optics, self._inputs(stage))
        taken = self.stages[0].job.items.values()
        newest = next((entry.result for entry in reversed(taken) if entry.result is not None), None)
        values = newest["values"] if newest else {}
        return {**options, **stage.job_type.camera_options(values, stage.parameters, stage.optics)}

    def close_jobs(self, *, finished: bool) -> None:
        """Say how the jobs ended."""
        for stage in self.present:
            status, marker = self._ending(stage, finished)
            self.writer.set_status(stage.job.name, status)
            mark_exit(self.root, stage.job.name, marker)

    def _ending(self, stage: Stage, finished: bool) -> tuple[str, Literal["SUCCESS", "FAILURE", "ABORTED"]]:
        """A job has succeeded when it gave something, failed when it had items and gave nothing, and is aborted otherwise."""
        if finished and stage.rows():
            return "Succeeded", ENDINGS["Succeeded"]
        status = "Failed" if finished and stage.job.items else "Aborted"
        return status, ENDINGS[status]

    def refresh(self, live: dict[str, Any], *, force: bool = False) -> None:
        """Write what is due; with `force`, everything."""
        if force or self._live_pace.due():
            write_live(self.writer.project, live)
            self._live_pace.done()
        if force or self._index_pace.due():
            self._catch_up()
            self._index_pace.done()
        for stage in self.present:
            self._write_star_files(stage, force)
        if force or self._pipeline_pace.due():
            self.publish()
            self._pipeline_pace.done()

    def _write_star_files(self, stage: Stage, force: bool) -> None:
        pace = self._star_pace[stage.name]
        if not (pace.due() or force):
            return
        revisions = stage.revisions()
        if revisions == self._seen.get(stage.name):
            pace.done()
            return
        try:
            write_star_files(self.root, stage, stage.rows())
            self._write_changed_options(stage)
        except OSError as error:
            # The journals have it all; the files follow when the disk can be written again.
            if str(error) != self._told[stage.name]:
                log.warning("the STAR files of %s could not be written now: %s", stage.job.name, error)
            self._told[stage.name] = str(error)
        else:
            self._seen[stage.name], self._told[stage.name] = revisions, ""
        pace.done()

    def _write_changed_options(self, stage: Stage) -> None:
        """Write the options of a job again when they have changed: what is known of the movies, or the round that a job is made from."""
        options = self._options(stage)
        if options != self._options_written.get(stage.name):
            write_job_options(self.root, self._relion_job(stage), options)
            self._options_written[stage.name] = options

    def _catch_up(self) -> None:
        """Bring the index up to date; a full disk or a locked file delays it and never ends the session."""
        try:
            self.index.catch_up()
        except (sqlite3.Error, OSError) as error:
            if str(error) != self._index_told:
                log.warning("the index could not be brought up to date now: %s", error)
            self._index_told = str(error)
        else:
            self._index_told = ""

    def abort_asked(self) -> bool:
        """Return True when a user of RELION asked one of the jobs to stop."""
        asked = [abort_requested(self.root, stage.job.name) for stage in self.stages]
        return any(asked)

    def _inputs(self, stage: Stage) -> list[str]:
        """Return the node names of the jobs that `stage` takes, in the order of its job type's inputs."""
        found = []
        for name in stage.job_type.inputs:
            before = next((other for other in stage.chain() if other.name == name), None)
            if before is None:
                before = stage.upstream
            if before is not None and not before.gone:
                node = before.job_type.main_node(before.rows() if before.job_type.aggregate else ())
                found += [f"{before.job.name}/{node.file}"] if node is not None else []
        return found

    def _relion_job(self, stage: Stage) -> RelionJob:
        nodes = stage.job_type.current_nodes(stage.rows())
        return RelionJob(
            name=stage.job.name,
            type=stage.job_type.relion_type,
            label=stage.job_type.relion_label,
            alias=f"{stage.job_type.directory}/{stage.job.alias}" if stage.job.alias else None,
            status=stage.job.status,  # type: ignore[arg-type]
            inputs=tuple(self._inputs(stage)),
            outputs=tuple(
                RelionNode(f"{stage.job.name}/{node.file}", node.relion_type, node.relion_label) for node in nodes
            ),
        )

    def publish(self) -> None:
        """Write RELION's pipeline, also when nothing of ours has changed: RELION drops what it does not know when it writes."""
        try:
            pipeline = publish_pipeline(self.root, [self._relion_job(stage) for stage in self.stages])
        except BeamsideError as error:
            log.warning("RELION's pipeline file could not be written now: %s", error)
            return
        gone = [pipeline.job(stage.job.name) is None for stage in self.stages]
        if gone != [stage.gone for stage in self.stages]:
            for stage, now in zip(self.stages, gone, strict=True):
                stage.gone = now
            self._deleted()


def write_star_files(root: Path, stage: Stage, rows: Sequence[Row]) -> None:
    """Write the STAR files of a stage's job."""
    contents: dict[str, StarContent] = stage.job_type.star_files(
        rows, stage.parameters, stage.optics, stage.job.name, root
    )
    for name, content in contents.items():
        path = root / stage.job.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            with atomic_path(path) as temporary:
                temporary.write_text(content)
        else:
            write_star(path, content)


@dataclass(frozen=True)
class Rebuilt:
    """What was made again: the number of records in the index; and of how many results files are gone that cleaning has not put into ``Trash/``."""

    records: int
    lost: int


def rebuild(project: Project) -> Rebuilt:
    """Make the STAR files, the files of RELION's jobs, the checksums and the index again from the journals and the manifest.

    The files that jobs have made, such as micrographs and the STAR file of each, are not in the journals. Results that lack some are counted, and
    computed again when that is asked for.
    """
    project.require()
    with ProjectWriter(project) as writer:
        settings = SessionSettings.from_flat(writer.state.settings)
        tables = Tables(settings, writer)
        tables.restore()
        gone = [one for stage in tables.stages if not stage.gone for one in gone_results(project.root, stage)]
        remove_index(project)
        Manifest(project.root)
        projection = Projection(settings, writer, tables.stages)
        create_relion_root(project.root, wait=LOCK_SECONDS)
        projection.write_job_files(f"beamside project rebuild {shlex.quote(str(project.root))}")
        for stage in projection.present:
            write_star_files(project.root, stage, stage.rows())
            if stage.job.status in ENDINGS:
                mark_exit(project.root, stage.job.name, ENDINGS[stage.job.status])
        projection.publish()
        return Rebuilt(projection.index.catch_up(), sum(one.needed and not one.cleaned for one in gone))
