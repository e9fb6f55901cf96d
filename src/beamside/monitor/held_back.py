"""What gates hold back in a session, and why: read from the index, for status and report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from beamside.flow.workflow import Workflow, WorkflowJob
from beamside.project.index import Index
from beamside.project.rules import Rule


@dataclass(frozen=True)
class HeldBack:
    """By the label of a job: what its own gate holds back, with the reason of each; and the items that gates before keep from it."""

    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kept: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def at(self, label: str) -> frozenset[str]:
        """Return the items of which nothing that this job has made is used."""
        return frozenset(self.own.get(label, ())) | self.kept.get(label, frozenset())

    def reason(self, name: str) -> tuple[str, str]:
        """Return the first job that holds an item back, by its label, and why; empty when none does."""
        return next(((label, items[name]) for label, items in self.own.items() if name in items), ("", ""))


def read_held_back(index: Index, workflow: Workflow) -> HeldBack:
    """Return what is held back now, with the jobs in the order of the workflow."""
    rules: dict[str, list[Rule]] = {}
    for record in index.events("rules"):
        rules[record["job"]] = [Rule.from_json(rule) for rule in record["rules"]]
    words: dict[tuple[str, str], dict[str, Any]] = {}
    for record in index.events("verdict"):
        words[record["job"], record["item"]] = record
    if not any(rules.values()) and not words:
        return HeldBack()
    jobs, own, kept = index.jobs(), dict[str, dict[str, str]](), dict[str, frozenset[str]]()
    for job in workflow.jobs:
        if job.type.aggregate or job.label not in jobs:
            continue
        name = jobs[job.label]
        said = {item: record for (on, item), record in words.items() if on == name and record["word"] != "none"}
        own[job.label] = _broken(index, name, job, rules.get(name, ()), said) | {
            item: f"{record.get('who') or 'somebody'} rejected it"
            for item, record in said.items()
            if record["word"] == "reject"
        }
        kept[job.label] = _kept_from(job, own, kept)
    return HeldBack(own, kept)


def _broken(
    index: Index, name: str, job: WorkflowJob, rules: Iterable[Rule], said: Mapping[str, Any]
) -> dict[str, str]:
    metrics = {metric.name: metric for metric in job.type.metrics}
    found: dict[str, str] = {}
    for rule in rules:
        metric = metrics.get(rule.metric)
        for item, _, value in index.metric(name, rule.metric):
            value = math.nan if value is None else value  # noqa: PLW2901 - the database has no such numbers
            if item in found or item in said or rule.allows({rule.metric: value}):
                continue
            shown = f"{rule.shown(value):.{metric.digits if metric else 3}f}"
            what, unit = (metric.label, metric.unit) if metric is not None else (rule.metric, "")
            found[item] = f"{what} {shown} {unit}".rstrip() + f"; the rule is {rule.text}"
    return found


def _kept_from(
    job: WorkflowJob, own: Mapping[str, Mapping[str, str]], kept: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    """Return the items that do not reach a job: a port that it needs does not get them, or all of those of which it needs one."""
    needed, others = frozenset[str](), list[frozenset[str]]()
    optional = True
    for port in job.type.inputs:
        if port.takes != "each" or port.name not in job.inputs:
            continue
        label = job.inputs[port.name][0]
        shut = frozenset(own.get(label, ())) | kept.get(label, frozenset())
        if port.optional:
            others.append(shut)
        else:
            needed, optional = needed | shut, False
    return frozenset.intersection(*others) if optional and others else needed
