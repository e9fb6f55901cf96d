"""What it costs to change settings: the results that would be computed again, and how long they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beamside.flow.opening import open_stages
from beamside.flow.settings import SessionSettings
from beamside.flow.sources import has_changed
from beamside.flow.stages import Stage
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES, ProjectState


@dataclass(frozen=True)
class Cost:
    """Results of one job that would be computed again; workers took so many seconds to make them."""

    title: str
    results: int
    seconds: float


def cost_of(settings: SessionSettings) -> list[Cost]:
    """Return what would be computed again of the project of `settings` when its session had them.

    A setting that makes other items of what is taken in concerns everything that was made of them.
    """
    project = Project(settings.root)
    return cost_in(settings, project.load()) if project.exists else []


def cost_in(settings: SessionSettings, state: ProjectState) -> list[Cost]:
    """Return what would be computed again of a project in `state` when its session had `settings`."""
    all_, found = has_changed(settings, state), []
    for stage in open_stages(settings, state):
        names = stage.stale()
        if all_ and not stage.is_source and not stage.job_type.aggregate:
            done = (entry for entry in stage.job.items.values() if entry.state in FINAL_STATES)
            names = [entry.name for entry in done if entry.result is not None] or names
        if names:
            seconds = sum(stage.job.items[name].seconds for name in names)
            found.append(Cost(stage.title, len(names), seconds))
    return found


def cost_after(stages: Sequence[Stage], stage: Stage) -> list[Cost]:
    """Return what would be computed again when something changed that is the same for all items of `stage`: all that it and what follows it has."""
    found = []
    for one in stages:
        if one is stage and stage.job_type.aggregate:
            last = one.newest_round()
            done = [] if last is None else [last]
        elif one is stage or (stage in one.before and not one.job_type.aggregate):
            finished = (entry for entry in one.job.items.values() if entry.state in FINAL_STATES)
            done = [entry for entry in finished if _goes_back_to(one, entry.name, stage)]
        else:
            continue
        if done:
            found.append(Cost(one.title, len(done), sum(entry.seconds for entry in done)))
    return found


def _goes_back_to(one: Stage, item: str, stage: Stage) -> bool:
    """Tell whether an item of a stage is one of `stage`, or a group with a member that goes back to one."""
    if stage in one.line:
        return item in stage.job.items
    grouping = one.first
    return grouping.groups is not None and any(
        _goes_back_to(grouping.gathered, member, stage) for member in grouping.members(item)
    )


def results_of(costs: Sequence[Cost]) -> int:
    """Return how many results would be computed again in all."""
    return sum(cost.results for cost in costs)
