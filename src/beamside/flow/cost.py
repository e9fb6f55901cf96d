"""What it costs to change settings: the results that would be computed again, and how long they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beamside.acquisition.transfer import hash_file
from beamside.flow.settings import SessionSettings
from beamside.flow.table import open_stages
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES, ProjectState

CAMERA_SETTINGS = ("gain", "gain_rotate", "gain_flip", "gain_mode", "defects")
"""Settings of what is taken in that change what movies become."""


@dataclass(frozen=True)
class Cost:
    """Results of one job that would be computed again; workers took so many seconds to make them."""

    title: str
    results: int
    seconds: float


def cost_of(settings: SessionSettings) -> list[Cost]:
    """Return what would be computed again of the project of `settings` when its session had them.

    Another gain reference, or one that is used in another way, concerns everything that was made of movies.
    """
    project = Project(settings.root)
    return cost_in(settings, project.load()) if project.exists else []


def cost_in(settings: SessionSettings, state: ProjectState) -> list[Cost]:
    """Return what would be computed again of a project in `state` when its session had `settings`."""
    camera, found = camera_has_changed(settings, state), []
    for stage in open_stages(settings, state):
        names = stage.stale()
        if camera and not stage.is_source and not stage.job_type.aggregate:
            done = (entry for entry in stage.job.items.values() if entry.state in FINAL_STATES)
            names = [entry.name for entry in done if entry.result is not None] or names
        if names:
            seconds = sum(stage.job.items[name].seconds for name in names)
            found.append(Cost(stage.title, len(names), seconds))
    return found


def results_of(costs: Sequence[Cost]) -> int:
    """Return how many results would be computed again in all."""
    return sum(cost.results for cost in costs)


def camera_has_changed(settings: SessionSettings, state: ProjectState) -> bool:
    """Tell whether `settings` name another gain reference or other defects than a project's session had, or another way of using them."""
    now, before = settings.to_json(), state.settings
    counting = (*CAMERA_SETTINGS, *(["gain_check"] if now["gain"] else []))
    changed = {name for name in counting if name in before and before[name] != now[name]}
    if not settings.source_kind.in_parts or not changed:
        return False
    known = {record.get("reference_sha256") for record in state.gains.values() if record["state"] == "decided"}
    try:  # the same reference at another place changes nothing
        return changed != {"gain"} or hash_file(Path(settings.acquisition.gain)) not in known
    except OSError:
        return True
