"""Opening the jobs of a project as stages: those that are there go on, and what the workflow has besides is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from beamside.flow.rules import rules_in
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.flow.workflow import WorkflowJob
from beamside.project.project import ProjectWriter
from beamside.project.records import JobEntry, ProjectState
from beamside.project.relion_pipeline import Pipeline
from beamside.project.relion_publish import next_job_number
from beamside.project.relion_recovery import read_pipeline
from beamside.project.relion_trash import was_deleted

LOCK_SECONDS = 150.0
"""How long to wait for RELION's lock when a job is made: longer than it takes to know that the one who left it is dead."""


def open_jobs(settings: SessionSettings, writer: ProjectWriter, *, new_for_deleted: bool = False) -> list[Stage]:
    """Return the stages of a workflow's jobs, in its order; jobs that the project does not have yet are made.

    With `new_for_deleted`, new ones are made for those that RELION has deleted.
    """
    root, stages, new = writer.project.root, list[Stage](), list[Stage]()
    pipeline = read_pipeline(root)
    for planned in settings.workflow.jobs:
        stage = _open_stage(settings, writer, planned, stages)
        stage.gone = is_gone(root, stage.job, pipeline, list(writer.state.jobs))
        aggregate = planned.type.aggregate
        follows_new = aggregate and any(upstream in new for upstream in stage.upstreams.values())
        if new_for_deleted and (stage.gone or follows_new):
            stage = _make_stage(settings, writer, planned, stages)
            new += [stage] if aggregate else []  # the rounds of what follows it are named after its rounds
        stages.append(stage)
    return stages


def _open_stage(
    settings: SessionSettings, writer: ProjectWriter, planned: WorkflowJob, before: Sequence[Stage]
) -> Stage:
    dumped = settings.jobs[planned.label].model_dump(mode="json")
    job = writer.state.job_labelled(planned.label)
    if job is None:
        return _make_stage(settings, writer, planned, before)
    if job.parameters != dumped:
        writer.set_parameters(job.name, dumped)
    writer.rules(job.name, rules_in(settings).get(planned.label, ()))
    return made_stage(settings, planned, job, before)


def _make_stage(
    settings: SessionSettings, writer: ProjectWriter, planned: WorkflowJob, before: Sequence[Stage]
) -> Stage:
    shown = any(job.type.relion_type is not None for job in settings.workflow.jobs)
    number = next_job_number(writer.project.root, wait=LOCK_SECONDS) if shown else _next_number(writer)
    names = {stage.label: stage.job.name for stage in before}
    several = sum(job.type.directory == planned.type.directory for job in settings.workflow.jobs) > 1
    job = writer.create_job(
        f"{planned.type.directory}/job{number:03d}",
        planned.type.name,
        settings.jobs[planned.label].model_dump(mode="json"),
        {port: f"{names[label]}.{output}" for port, (label, output) in planned.inputs.items()},
        alias=planned.label if several else "live",
        label=planned.label,
    )
    writer.rules(job.name, rules_in(settings).get(planned.label, ()))
    return made_stage(settings, planned, job, before)


def _next_number(writer: ProjectWriter) -> int:
    """Return the next job number of a project that has no RELION pipeline: that of no job in the journal, nor of any directory."""
    number = 1 + max((int(name[-3:]) for name in writer.state.jobs if name[-3:].isdigit()), default=0)
    while any(writer.project.root.glob(f"*/job{number:03d}")):
        number += 1
    return number


def is_gone(root: Path, job: JobEntry, pipeline: Pipeline, ours: Sequence[str]) -> bool:
    """Tell whether RELION's user has deleted a job, also when ``Trash/`` was emptied since: of `ours` others are there, and of it nothing is."""
    if was_deleted(root, job.name, pipeline):
        return True
    vanished = pipeline.job(job.name) is None and not (root / job.name).exists()
    had_results = any(entry.result for entry in job.items.values())
    return vanished and had_results and any(pipeline.job(name) is not None for name in ours)


def made_stage(settings: SessionSettings, planned: WorkflowJob, job: JobEntry, before: Sequence[Stage]) -> Stage:
    """Return the stage of a workflow's job; the stages that it is made from are among those `before`."""
    by_label = {stage.label: stage for stage in before}
    connected = [
        (port, by_label[planned.inputs[port.name][0]]) for port in planned.type.inputs if port.name in planned.inputs
    ]
    return Stage(
        planned.type,
        settings.jobs[planned.label],
        before[0].item_optics if before else settings.optics.item_optics(),
        job,
        {port.name: stage for port, stage in connected if port.takes != "one"},
        {port.name: stage for port, stage in connected if port.takes == "one"},
        label=planned.label,
        title=settings.workflow.title_of(planned.label),
    )


def open_stages(settings: SessionSettings, state: ProjectState) -> list[Stage]:
    """Return the stages of a project's jobs as `settings` see them, for looking only."""
    stages: list[Stage] = []
    for planned in settings.workflow.jobs:
        job = state.job_labelled(planned.label)
        there = {stage.label for stage in stages}
        if job is not None and all(label in there for label, _ in planned.inputs.values()):
            stages.append(made_stage(settings, planned, job, stages))
    return stages
