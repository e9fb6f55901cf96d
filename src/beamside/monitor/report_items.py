"""What became of every item of a session, over all of its jobs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from beamside.jobs.base import Metric
from beamside.monitor.held_back import HeldBack, read_held_back
from beamside.monitor.job_views import JobView, session_workflow
from beamside.project.index import Index
from beamside.project.records import ItemState

ItemEnd = Literal["done", "rejected", "failed", "held back", "waiting"]

HELD_BACK: ItemEnd = "held back"


@dataclass
class ItemView:
    """One item, with what all jobs say about it.

    Attributes
    ----------
    taken : when it came, in seconds since 1970
    stage : title of the job that it waits for, or that failed with it, rejected it or holds it back
    values : stored values of metrics, by (job type, metric)
    pictures : (caption, path below the project, whether it shows the whole micrograph)
    steps : (job title, state, seconds of processing)
    taken_in : whether it is a file that was taken in, and not a group of what came of several
    """

    name: str
    taken: float
    state: ItemEnd = "waiting"
    stage: str = ""
    reason: str = ""
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    pictures: list[tuple[str, str, bool]] = field(default_factory=list)
    steps: list[tuple[str, str, float]] = field(default_factory=list)
    taken_in: bool = True

    @property
    def short(self) -> str:
        """The file's name without its folder."""
        return self.name.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class RoundView:
    """One round of an aggregate job."""

    name: str
    state: str
    reason: str
    ended: float
    seconds: float
    metrics: dict[str, float]
    outputs: dict[str, str]
    values: dict[str, Any]


@dataclass(frozen=True)
class ProblemGroup:
    """Items that failed or were rejected in one job for the same kind of reason, with the reason of each."""

    stage: str
    state: str
    reason: str
    items: tuple[tuple[str, str], ...]


def read_items(index: Index, kinds: Sequence[JobView]) -> list[ItemView]:
    """Return every item of a session, the first to come first; `kinds` is its whole workflow."""
    jobs, held = index.jobs(), read_held_back(index, session_workflow(index.settings()))
    single = [kind for kind in kinds if not kind.aggregate]
    found: list[ItemView] = []
    for begins in dict.fromkeys(kind.items_of for kind in single):
        views: dict[str, ItemView] = {}
        chain = [kind for kind in single if kind.items_of == begins]
        for kind in chain:
            if kind.name in jobs:
                _read_job(index, kind, jobs[kind.name], views)
        _end(views.values(), chain)
        _hold_back(views.values(), chain, held)
        for view in views.values():
            view.taken_in = chain[0].is_source
        found += views.values()
    return sorted(found, key=lambda view: (view.taken, view.name))


def _end(views: Iterable[ItemView], chain: Sequence[JobView]) -> None:
    """Say of items whether they have come to the end of the jobs that have them, or what they wait for."""
    last = [kind.title for kind in chain if kind.is_last]
    for view in views:
        done = {title for title, state, _ in view.steps if state == ItemState.DONE}
        if done.issuperset(last) and last:  # also where a job that could be done without has given it up
            view.state, view.stage, view.reason = "done", "", ""
        elif view.state == "waiting" and not view.stage:
            there = {title for title, _, _ in view.steps}
            view.stage = next((kind.title for kind in chain if kind.title not in there), "")


def _hold_back(views: Iterable[ItemView], chain: Sequence[JobView], held: HeldBack) -> None:
    """Say of items that gates hold them back: from the end of one of the jobs, or from all that is still to be done."""
    last = [kind for kind in chain if kind.is_last]
    titles, out = {kind.name: kind.title for kind in chain}, {kind.name: held.at(kind.name) for kind in last}
    for view in views:
        done = {title for title, state, _ in view.steps if state == ItemState.DONE}
        shut = [view.name in out[kind.name] for kind in last if view.state == "done" or kind.title not in done]
        if view.state in ("done", "waiting") and shut and (any(shut) if view.state == "done" else all(shut)):
            label, reason = held.reason(view.name)
            view.state, view.stage, view.reason = HELD_BACK, titles.get(label, label), reason


def _read_job(index: Index, kind: JobView, job: str, views: dict[str, ItemView]) -> None:
    results = dict(index.results(job))
    for row in index.items(job):
        view = views.setdefault(row["name"], ItemView(row["name"], taken=row["arrived"]))
        state, finished = row["state"], row["state"] in (ItemState.DONE, ItemState.REJECTED)
        view.steps.append((kind.title, state, row["seconds"]))
        if finished and row["name"] in results:
            _take_result(view, kind, results[row["name"]])
        if view.state != "waiting" or view.stage:
            continue  # an earlier job has already said what became of it
        if state in (ItemState.FAILED, ItemState.REJECTED):
            view.state = "failed" if state == ItemState.FAILED else "rejected"
            view.stage, view.reason = kind.title, row["reason"]
        elif state != ItemState.DONE:
            view.stage = kind.title


def _take_result(view: ItemView, kind: JobView, result: dict[str, Any]) -> None:
    metrics = result.get("metrics") or {}
    view.values.update(((kind.name, name), value) for name, value in _finite(metrics).items())
    outputs = result.get("outputs") or {}
    view.pictures += [
        (picture.caption, outputs[picture.role], picture.micrograph)
        for picture in kind.pictures
        if picture.role in outputs
    ]


def read_rounds(index: Index, job: str) -> list[RoundView]:
    """Return the rounds of an aggregate job, in order."""
    results = dict(index.results(job))
    return [
        RoundView(
            name=row["name"],
            state=row["state"],
            reason=row["reason"],
            ended=row["changed"],
            seconds=row["seconds"],
            metrics=_finite((results.get(row["name"]) or {}).get("metrics") or {}),
            outputs=(results.get(row["name"]) or {}).get("outputs") or {},
            values=(results.get(row["name"]) or {}).get("values") or {},
        )
        for row in index.items(job)
    ]


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def metric_values(items: Sequence[ItemView], kind: JobView, metric: Metric) -> list[tuple[int, float]]:
    """Return (number of the item, stored value) of a metric where it was measured."""
    key = (kind.name, metric.name)
    return [(number, item.values[key]) for number, item in enumerate(items) if key in item.values]


_SHORT_NAME = 3


def group_problems(problems: Sequence[tuple[str, str, str, str]]) -> list[ProblemGroup]:
    """Put (stage, state, item, reason) together that differ only in names and numbers; the largest groups first."""
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for stage, state, item, reason in problems:
        groups.setdefault((stage, state, _kind_of_reason(reason, item)), []).append((item, reason))
    found = [
        ProblemGroup(stage, state, members[0][1] or "no reason was recorded", tuple(members))
        for (stage, state, _), members in groups.items()
    ]
    return sorted(found, key=lambda group: -len(group.items))


def _kind_of_reason(reason: str, item: str) -> str:
    name = item.rsplit("/", 1)[-1]
    names = [item, *([name] if len(name) > _SHORT_NAME else [])]  # "a" is a word, too
    without_names = re.sub(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)", "", reason)
    return re.sub(r"\S*[/\\]\S+|\d+(\.\d+)?", "…", without_names)
