"""What displays know of a session's jobs: taken from its workflow, so that a new job type is shown without a change here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamside.flow.settings import Section, present_names, sections
from beamside.flow.workflow import Workflow, item_origins, workflow_of
from beamside.jobs.base import JobType, Metric, Picture


@dataclass(frozen=True)
class JobView:
    """A job of a session's workflow.

    Attributes
    ----------
    name, title : its label, and what people read
    type : the job type
    is_source : whether it has what acquisition takes in
    is_last : whether no further job takes its items one by one
    items_of : the job in which its items begin to be, by label: they are what acquisition takes in, groups of these, or rounds
    made_from : the jobs that give it each of its items, by label, and whether it can do without
    """

    name: str
    title: str
    type: JobType
    is_source: bool = False
    is_last: bool = False
    items_of: str = ""
    made_from: tuple[tuple[str, bool], ...] = ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it measures."""
        return self.type.metrics

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The images for people that it writes."""
        return self.type.pictures

    @property
    def aggregate(self) -> bool:
        """True when its items are rounds, and not those of the source."""
        return self.type.aggregate

    @property
    def counted(self) -> str:
        """The metric that says how many of what the session is after are in an item; "" when its output is nothing of the sort."""
        return next((output.kind.counted for output in self.type.outputs if output.kind.counted), "")


def session_workflow(settings: Mapping[str, Any]) -> Workflow:
    """Return the workflow of a session from its settings by name, also those of an earlier version."""
    return workflow_of(present_names(settings).get("workflow"))


def job_views(settings: Mapping[str, Any]) -> tuple[JobView, ...]:
    """Return the jobs of a session in the order of its workflow."""
    workflow = session_workflow(settings)
    begins = item_origins(workflow.jobs)
    followed = {
        label
        for job in workflow.jobs
        for port, (label, _) in job.inputs.items()
        if not job.type.aggregate and job.type.input(port).takes == "each"
    }
    return tuple(
        JobView(
            job.label,
            workflow.title_of(job.label),
            job.type,
            is_source=not job.type.inputs,
            is_last=job.label not in followed,
            items_of=begins[job.label],
            made_from=tuple(
                (label, port.optional)
                for name, (label, _) in job.inputs.items()
                if (port := job.type.input(name)).takes == "each"
            ),
        )
        for job in workflow.jobs
    )


def session_sections(settings: Mapping[str, Any]) -> tuple[Section, ...]:
    """Return the groups of settings that a session has."""
    return sections(session_workflow(settings))
