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
from pathlib import Path
from typing import Any

from beamside.acquisition.manifest import Manifest
from beamside.acquisition.reports import Remark, Trouble
from beamside.errors import in_words
from beamside.flow.gate import gate_revision
from beamside.flow.missing import Files, gone_results
from beamside.flow.opening import LOCK_SECONDS
from beamside.flow.problems import Problems
from beamside.flow.published import Shown, gates_before, publish
from beamside.flow.recovery import Recovery
from beamside.flow.relion_jobs import Ending, RelionJobs
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.flow.steps import Steps
from beamside.flow.stored_settings import load_settings
from beamside.flow.table import Tables
from beamside.formats.atomic import atomic_path
from beamside.formats.star import write_star
from beamside.formats.star_parts import PartsWriter, StarParts
from beamside.jobs.base import Row, StarContent
from beamside.project.index import Index
from beamside.project.index_file import remove_index
from beamside.project.live import write_live
from beamside.project.project import Project, ProjectWriter
from beamside.project.relion_publish import create_relion_root

log = logging.getLogger(__name__)

SHARE = 0.05
"""Largest part of the time that something that takes a while may take."""

TOGETHER = 0.1
"""Largest part of the time that everything whose cost grows with the tables may take together."""

RECORDS = 1000
"""So many records of each journal are put into the index at a time; readers of the index take in what there is more."""

LONG_SECONDS = 1.0
"""After so long, files of further jobs are left to the next turn of the session's loop."""


@dataclass
class Pace:
    """Decides when something that takes a while is due again.

    `held` says how long the session has waited for its journal so far: a disk that was full for an hour says nothing about how long a step takes.
    `share` is the largest part of the time that it may take; SHARE when it is not given.
    """

    interval: float
    held: Callable[[], float] = lambda: 0.0
    share: float | None = None
    next_time: float = 0.0
    started: float = field(default=0.0, repr=False)
    _held_before: float = field(default=0.0, repr=False)

    def due(self) -> bool:
        """Return True, and start the clock, when it is time."""
        self.begin()
        return self.started >= self.next_time

    def begin(self) -> None:
        """Start the clock."""
        self.started, self._held_before = time.monotonic(), self.held()

    def done(self) -> None:
        """Plan the next time from how long this one took."""
        now = time.monotonic()
        took = now - self.started - (self.held() - self._held_before)
        self.next_time = now + max(self.interval, took / (SHARE if self.share is None else self.share))


class Projection:
    """Keeps everything that is derived from the journals up to date."""

    def __init__(
        self,
        settings: SessionSettings,
        writer: ProjectWriter,
        stages: Sequence[Stage],
        problems: Problems | None = None,
        *,
        deleted: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with nothing written; `deleted` is called when RELION has deleted a job, or taken that back."""
        self.settings, self.writer, self.stages = settings, writer, stages
        self.problems = problems if problems is not None else Problems(writer)
        self.steps = Steps(self.problems)
        self.root = writer.project.root
        self.index = Index(writer.project, elsewhere=False)
        share = TOGETHER / (len(stages) + 2)  # of each stage's files, the index and RELION's pipeline
        self._star_pace = {stage.name: Pace(3.0, self._held, share) for stage in stages}
        self._tables = PartsWriter()
        self._seen: dict[str, tuple[int, ...]] = {}
        self._gates: dict[str, int] = {}
        self._shown: dict[str, Shown] = {}
        self._index_told = ""
        self.relion = RelionJobs(writer, stages, deleted=deleted, remark=self.problems.remark)
        self._index_pace, self._pipeline_pace = (Pace(seconds, self._held, share) for seconds in (1.0, 5.0))
        self._live_pace, self._abort_pace = (Pace(1.0, self._held) for _ in range(2))

    def _held(self) -> float:
        return self.writer.held_seconds

    def open_jobs(self) -> None:
        """Make the job directories, and tell RELION that the jobs run."""
        self.relion.open()

    def write_options(self) -> None:
        """Write the options of the jobs again: since they were opened, it became known what items get."""
        self.relion.write_options()

    def close_jobs(self, ending: Ending) -> None:
        """Write the last tables, and only then say how the jobs ended."""
        for stage in self._present():
            self._write_files(stage)
        complete = {stage.name for stage in self.stages if self._seen.get(stage.name) == _revisions(stage)}
        self.steps.run("the pipeline that RELION sees", lambda: self.relion.close(ending, complete), None)

    def refresh(self, live: Callable[[], dict[str, Any]], *, force: bool = False) -> None:
        """Write what is due; with `force`, everything. What cannot be written now is told, and does not keep the rest from being written.

        `live` says what is known only to the session; it is asked when it is to be written.
        """
        if force or self._live_pace.due():
            self.steps.run("the file that says what goes on now", lambda: write_live(self.writer.project, live()), None)
            self._live_pace.done()
        if force or self._index_pace.due():
            self._catch_up(whole=force)
            self._index_pace.done()
        if force or self._pipeline_pace.due():
            self.steps.run("the pipeline that RELION sees", self._publish, None)
            self._pipeline_pace.done()
        began = time.monotonic()
        for stage in self._present():
            if force or self._are_due(stage):
                self._write_files(stage)
            if not force and time.monotonic() - began > LONG_SECONDS:
                return  # what else is due follows in the next turn, after commands and a sign of life

    def _present(self) -> list[Stage]:
        """Return the stages whose jobs are there: nothing is written of those that RELION has deleted."""
        return [stage for stage in self.stages if not stage.gone]

    def _publish(self) -> None:
        for stage in self.relion.reclaim():
            self._seen.pop(stage.name, None)
            self._shown.pop(stage.name, None)
        self.relion.publish()
        trouble = self.relion.trouble
        self.problems.hold("relion-pipeline", [Trouble("relion-pipeline", trouble)] if trouble else [])

    def _are_due(self, stage: Stage) -> bool:
        """Tell whether a stage's files are to be written; what is held back leaves the tables at once."""
        gates = _gates(stage)
        return self._star_pace[stage.name].due() or gates != self._gates.get(stage.name, gates)

    def _write_files(self, stage: Stage) -> None:
        self.steps.run(f"the files of {stage.job.name}", lambda: self._write_star_files(stage), None)

    def _write_star_files(self, stage: Stage) -> None:
        pace, revisions = self._star_pace[stage.name], _revisions(stage)
        self._gates[stage.name] = _gates(stage)
        pace.begin()
        try:
            if revisions != self._seen.get(stage.name):
                rows = self.write_rows(stage)
                self.relion.update_options(stage, rows)
                self._seen[stage.name] = revisions
            self.relion.add_lines(stage)
        except OSError as error:
            sentence = f"The files of {stage.job.name} could not be written now ({in_words(error)}); the journals have it all, and the files follow."
            self.problems.hold(f"files:{stage.name}", [Trouble(f"files:{stage.name}", sentence)])
        else:
            self.problems.hold(f"files:{stage.name}", [])
        finally:
            pace.done()

    def write_tables(self) -> None:
        """Write the STAR files of all jobs that are there."""
        for stage in self._present():
            self.write_rows(stage)

    def write_rows(self, stage: Stage) -> list[Row]:
        """Write the STAR files of a stage's job and return their rows; a result that cannot be written is told, and left out."""
        rows = stage.rows()
        self._shown[stage.name] = publish(self.root, stage, self._shown.get(stage.name))
        try:
            write_star_files(self.root, stage, rows, self._tables)
        except OSError:
            raise
        except Exception as error:
            kept = [row for row in rows if self._is_writable(stage, row)]
            if len(kept) == len(rows):
                raise
            log.warning("the STAR files of %s are written without odd results: %s", stage.job.name, error)
            write_star_files(self.root, stage, kept, self._tables)
            return kept
        return rows

    def _is_writable(self, stage: Stage, row: Row) -> bool:
        try:
            files = stage.job_type.star_files([row], stage.parameters, stage.optics, stage.job.name, self.root)
            for part in (
                part for content in files.values() if isinstance(content, StarParts) for part in content.parts
            ):
                part.text()
        except OSError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            sentence = (
                f"The result of {row.item.name} in {stage.job.name} is odd ({said}): the STAR files are without it."
            )
            self.problems.remark(Remark(f"odd-result-{stage.name}", sentence, row.item.name, severity="error"))
            return False
        return True

    def _catch_up(self, *, whole: bool) -> None:
        """Bring the index up to date: `whole`, or as far as that stops the loop only for a moment.

        A full disk or a locked file delays it and never ends the session.
        """
        try:
            self.index.catch_up(None if whole else RECORDS)
        except (sqlite3.Error, OSError) as error:
            if str(error) != self._index_told:
                log.warning("the index could not be brought up to date now: %s", error)
            self._index_told = str(error)
        else:
            self._index_told = ""

    def abort_asked(self) -> bool:
        """Return True when a user of RELION asked one of the jobs to stop; the files are looked for now and then."""
        if not self._abort_pace.due():
            return False
        asked = self.relion.abort_asked()
        self._abort_pace.done()
        return asked


def _revisions(stage: Stage) -> tuple[int, ...]:
    """Return what the files of a stage's job depend on."""
    return (*stage.revisions(), *gates_before(stage))


def _gates(stage: Stage) -> int:
    """Return a number that changes with what people and rules hold back of what a stage's job is made from, and of its own results."""
    return sum(gate_revision(one.job) for one in (*stage.before, stage))


def write_star_files(root: Path, stage: Stage, rows: Sequence[Row], tables: PartsWriter | None = None) -> None:
    """Write the STAR files of a stage's job; of `tables` that grow by parts, what they had before is copied."""
    contents: dict[str, StarContent] = stage.job_type.star_files(
        rows, stage.parameters, stage.optics, stage.job.name, root
    )
    for name, content in contents.items():
        path = root / stage.job.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, StarParts):
            (tables or PartsWriter()).write(path, content)
        elif isinstance(content, str):
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
        settings = load_settings(project)
        tables = Tables(settings, writer)
        Recovery(tables).restore()
        files = Files(project.root)
        gone = [one for stage in tables.stages if not stage.gone for one in gone_results(files, stage)]
        remove_index(project)
        Manifest(project.root)
        projection = Projection(settings, writer, tables.stages)
        if projection.relion.stages:
            create_relion_root(project.root, wait=LOCK_SECONDS)
        projection.relion.write_files(f"beamside project rebuild {shlex.quote(str(project.root))}")
        projection.write_tables()
        for stage in [stage for stage in tables.stages if not stage.gone]:
            projection.relion.add_lines(stage)
        projection.relion.mark_exits()
        projection.relion.publish()
        return Rebuilt(projection.index.catch_up(), sum(one.needed and not one.cleaned for one in gone))
