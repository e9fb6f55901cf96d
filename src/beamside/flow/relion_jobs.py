"""RELION's view of a session: what its jobs are called, with which options RELION would do the same, what became of each item, and how they ended."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from beamside.acquisition.kinds import source_kind
from beamside.acquisition.reports import Remark
from beamside.errors import BeamsideError, ProjectError
from beamside.flow.opening import LOCK_SECONDS
from beamside.flow.stages import Stage
from beamside.jobs.base import JobType, Node, RelionContext, RelionViewer, Row
from beamside.project.project import ProjectWriter
from beamside.project.records import FINAL_STATES, ItemEntry, ItemState
from beamside.project.relion_files import (
    abort_requested,
    clear_markers,
    mark_exit,
    ran_in_relion,
    remember_options,
    write_job_files,
    write_job_options,
    write_job_pipeline,
)
from beamside.project.relion_notes import JobLog, LogLine, set_headline
from beamside.project.relion_pipeline import RelionJob, RelionNode
from beamside.project.relion_publish import create_relion_root, publish_pipeline
from beamside.project.relion_recovery import exit_status

log = logging.getLogger(__name__)

Ending = Literal["finished", "stopped", "failed"]

MARKERS: dict[str, Literal["SUCCESS", "FAILURE", "ABORTED"]] = {
    "Succeeded": "SUCCESS",
    "Failed": "FAILURE",
    "Aborted": "ABORTED",
}
"""RELION's markers of how a job ended, by its status."""


class RelionJobs:
    """Writes what RELION reads of the jobs of a session, besides their tables."""

    def __init__(
        self,
        writer: ProjectWriter,
        stages: Sequence[Stage],
        *,
        deleted: Callable[[], None] = lambda: None,
        remark: Callable[[Remark], None] = lambda _remark: None,
    ) -> None:
        """Begin with nothing written; `deleted` is called when RELION has deleted a job, or taken that back, and `remark` tells people something."""
        self.writer, self._deleted, self._remark = writer, deleted, remark
        self.stages = [stage for stage in stages if stage.job_type.relion_type is not None]
        self.others = [stage for stage in stages if stage.job_type.relion_type is None]
        self.root = writer.project.root
        self.trouble = ""
        """Why RELION's pipeline could not be written when that was tried last."""
        self._written: dict[str, tuple[dict[str, str], list[str], RelionViewer | None]] = {}
        self._nodes: dict[str, tuple[tuple[int, ...], tuple[Node, ...]]] = {}
        self._told: dict[str, int] = {}
        self._camera: tuple[int, Mapping[str, Any]] | None = None
        self._logs = {stage.name: JobLog(self.root / stage.job.name) for stage in self.stages}

    @property
    def present(self) -> list[Stage]:
        """The stages whose jobs are there: nothing is written of those that RELION has deleted."""
        return [stage for stage in self.stages if not stage.gone]

    def open(self) -> None:
        """Make the job directories, and tell RELION that the jobs run."""
        for stage in self.others:
            (self.root / stage.job.name).mkdir(parents=True, exist_ok=True)
            self.writer.set_status(stage.job.name, "Running")
        if not self.stages:
            return
        create_relion_root(self.root, wait=LOCK_SECONDS)
        for stage in self.present:
            clear_markers(self.root, stage.job.name)
            self.writer.set_status(stage.job.name, "Running")
        self.write_files(f"beamside session resume {shlex.quote(str(self.root))}")
        self.publish()

    def write_files(self, command: str) -> None:
        """Write the files that RELION writes when a job begins; `command` goes to the job's notes."""
        for stage in self.present:
            context = self._context(stage, stage.rows())
            try:
                stage.job_type.write_for_relion(context.rows, stage.optics, stage.job.name, self.root)
            except OSError as error:
                log.warning("files of %s that RELION looks for could not be written: %s", stage.job.name, error)
            write_job_files(self.root, self._job(stage), self._options(stage, context), command, datetime.now())
            self._write_options(stage, context)

    def write_options(self) -> None:
        """Write the options of all jobs again: since they were opened, it became known what items get."""
        for stage in self.present:
            self.update_options(stage, stage.rows())

    def update_options(self, stage: Stage, rows: Sequence[Row]) -> None:
        """Write the options of a job again when they have changed: what is known of the items, or the round that a job is made from."""
        if stage not in self.stages:
            return
        self._write_options(stage, self._context(stage, rows))

    def _write_options(self, stage: Stage, context: RelionContext) -> None:
        options, differences = self._options(stage, context), stage.job_type.relion_differences(context)
        viewer = stage.job_type.relion_viewer(context)
        if (options, differences, viewer) == self._written.get(stage.name):
            return
        write_job_options(self.root, self._job(stage), options)
        if viewer is not None:
            remember_options(self.root, viewer.type, viewer.label, viewer.options)
        set_headline(self.root / stage.job.name, differences)
        self._written[stage.name] = options, differences, viewer

    def _context(self, stage: Stage, rows: Sequence[Row]) -> RelionContext:
        return RelionContext(
            parameters=stage.parameters,
            optics=stage.optics,
            inputs=self._inputs(stage),
            rows=rows,
            before=[other.parameters for other in reversed(stage.before)],
            lineage=frozenset(output.kind.name for other in stage.before for output in other.job_type.outputs),
            job=stage.job.name,
            root=self.root,
            shared={port: given.result for port, given in stage.shared.items()},
        )

    def _options(self, stage: Stage, context: RelionContext) -> dict[str, str]:
        return {
            **stage.job_type.relion_options(context),
            **stage.job_type.camera_options(self._usual_camera(), stage.parameters, stage.optics),
        }

    def _usual_camera(self) -> Mapping[str, Any]:
        """Return what is known of the newest of the items that have what most have."""
        source = next((stage for stage in self.stages if stage.is_source), None)
        if source is None:
            return {}
        if self._camera is None or self._camera[0] != source.job.revision:
            self._camera = source.job.revision, _usual(source)
        return self._camera[1]

    def add_lines(self, stage: Stage) -> None:
        """Add to the job's output what has become of items."""
        if stage not in self.stages:
            return
        records, told = stage.job.records, self._told.get(stage.name, 0)
        if told == records:
            return
        lines = (
            LogLine(entry.name, entry.changed, entry.state.value, _details(stage.job_type, entry))
            for entry in stage.job.items.values()
            if entry.recorded > told and entry.state in FINAL_STATES
        )
        self._logs[stage.name].add(lines, ItemState.FAILED.value)
        self._told[stage.name] = records

    def close(self, ending: Ending, complete: set[str]) -> None:
        """Say how the jobs ended: those named in `complete` have all their tables written."""
        for stage in self.others:
            self.writer.set_status(stage.job.name, self._ending(stage, ending, stage.name in complete))
        for stage in self.present:
            status = self._ending(stage, ending, stage.name in complete)
            self.writer.set_status(stage.job.name, status)
            self._write_own_pipeline(stage)
            mark_exit(self.root, stage.job.name, MARKERS[status])
        self.publish()

    def _write_own_pipeline(self, stage: Stage) -> None:
        present = self.present
        made = {node.name: node for before in stage.before if before in present for node in self._job(before).outputs}
        write_job_pipeline(self.root, self._job(stage), made)

    @staticmethod
    def _ending(stage: Stage, ending: Ending, complete: bool) -> Literal["Succeeded", "Failed", "Aborted"]:
        """A job has succeeded when it gave something, failed when it had items and gave nothing, and is aborted otherwise."""
        if ending == "failed" or not complete:
            return "Failed"
        if ending == "finished" and stage.rows():
            return "Succeeded"
        return "Failed" if ending == "finished" and stage.job.items else "Aborted"

    def mark_exits(self) -> None:
        """Say of jobs that ended in an earlier session how they did."""
        for stage in self.present:
            if stage.job.status in MARKERS:
                self._write_own_pipeline(stage)
                mark_exit(self.root, stage.job.name, MARKERS[stage.job.status])

    def reclaim(self) -> list[Stage]:
        """Take back the jobs that RELION says have ended, though they are still at work here; return the stages of those that it has run meanwhile.

        Somebody pressed Continue, and RELION's run has ended with what it wrote over our tables and options, or marked the job as finished.
        """
        ran = []
        for stage in self.present:
            name = stage.job.name
            ended = exit_status(self.root, name) if stage.job.status == "Running" else None
            if ended is None:
                continue
            what = f"was marked in RELION as {ended}"
            if ran_in_relion(self.root, name):
                ran.append(stage)
                what = f"was continued in RELION, and its run ended as {ended}"
            sentence = (
                f"{name}, on which this session works, {what}. The session goes on with the job and writes its tables again; "
                "clone a job in RELION to try other values."
            )
            self._remark(Remark("relion-meddled", sentence, name))
            clear_markers(self.root, name)
            self._write_own_pipeline(stage)
            self._written.pop(stage.name, None)
        return ran

    def abort_asked(self) -> bool:
        """Return True when a user of RELION asked one of the jobs to stop."""
        asked = [abort_requested(self.root, stage.job.name) for stage in self.stages]
        return any(asked)

    def publish(self) -> None:
        """Write RELION's pipeline, also when nothing of ours has changed: RELION drops what it does not know when it writes."""
        if not self.stages:
            return
        try:
            pipeline = publish_pipeline(self.root, [self._job(stage) for stage in self.stages if not stage.gone])
        except BeamsideError as error:
            self.trouble = f"What RELION sees of the session could not be written now: {error}"
            return
        self.trouble = ""
        gone = [pipeline.job(stage.job.name) is None for stage in self.stages]
        if gone != [stage.gone for stage in self.stages]:
            for stage, now in zip(self.stages, gone, strict=True):
                stage.gone = now
            self._deleted()

    def _inputs(self, stage: Stage) -> dict[str, str]:
        """Return the nodes that `stage` takes, by port."""
        found = {}
        for port, before in {**stage.upstreams, **stage.suppliers}.items():
            if before.job_type.relion_type is None or before.gone:
                continue
            output = stage.job.ports.get(port, "").rpartition(".")[2]
            node = before.job_type.output_node(output, before.rows() if before.job_type.aggregate else ())
            if node is not None:
                found[port] = f"{before.job.name}/{node.file}"
        return found

    def _job(self, stage: Stage) -> RelionJob:
        kind, name, revisions = stage.job_type, stage.job.name, stage.revisions()
        known = self._nodes.get(stage.name)
        nodes = known[1] if known is not None and known[0] == revisions else kind.current_nodes(stage.rows())
        self._nodes[stage.name] = revisions, nodes
        return RelionJob(
            name=name,
            type=_relion_type(kind),
            label=kind.relion_label,
            alias=f"{kind.directory}/{stage.job.alias}" if stage.job.alias else None,
            status=stage.job.status,  # type: ignore[arg-type]
            inputs=tuple(self._inputs(stage).values()),
            outputs=tuple(_nodes(name, nodes)),
            browsed=tuple((f"{name}/{node.file}", node.relion_label) for node in nodes if node.relion_type is None),
        )


def _usual(source: Stage) -> Mapping[str, Any]:
    """Return the values of the newest of the items that have what most have."""
    taken: list[Mapping[str, Any]] = [
        entry.result["values"] for entry in source.job.items.values() if entry.result is not None
    ]
    kind = source_kind(source.job_type.outputs[0].kind.name)
    apart = [tuple(values.get(name, "") for name in kind.told_apart) for values in taken]
    counted = Counter(own for own, values in zip(apart, taken, strict=True) if not values.get(kind.fault))
    if not counted:
        return taken[-1] if taken else {}
    usual = counted.most_common(1)[0][0]
    return taken[len(apart) - 1 - apart[::-1].index(usual)]


def _relion_type(kind: JobType) -> int:
    if kind.relion_type is None:
        raise ProjectError(f"The job type {kind.name!r} has no RELION view.")  # such jobs are not published
    return kind.relion_type


def _nodes(job: str, nodes: Sequence[Node]) -> Iterator[RelionNode]:
    for node in nodes:
        if node.relion_type is not None:
            yield RelionNode(f"{job}/{node.file}", node.relion_type, node.relion_label)


def _details(kind: JobType, entry: ItemEntry) -> str:
    if entry.state is not ItemState.DONE:
        return entry.reason
    metrics = (entry.result or {}).get("metrics", {})
    measured = [
        f"{metric.label.lower()} {metrics[metric.name] * metric.scale:.{metric.digits}f} {metric.unit}".rstrip()
        for metric in kind.metrics
        if metric.name in metrics
    ]
    return ", ".join([f"{entry.seconds:.1f} s", *measured])
