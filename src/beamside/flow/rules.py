"""Rules on what jobs measure, as people write them: ``ctf.ctf_resolution < 6``, in the unit in which the metric is shown.

What a job measures is declared by its type, so a rule is checked against that: the job, the metric, the unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from beamside.config import nearest, suggestion
from beamside.errors import ConfigError
from beamside.jobs.base import JobType, Metric
from beamside.parameters import ParameterModel, describe
from beamside.project.rules import Rule

if TYPE_CHECKING:
    from beamside.flow.settings import SessionSettings
    from beamside.flow.workflow import Workflow, WorkflowJob

WRITTEN = re.compile(
    r"\s*(?P<name>[^\W\d]\w*(?:\.\w+)?)\s*(?P<comparison><=|>=|≤|≥|<|>)\s*(?P<limit>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<unit>\S*)\s*"
)
SIGNS = {"≤": "<=", "≥": ">="}
UNITS = {"A": "Å", "um": "µm", "μm": "µm", "deg": "°"}
"""How units are typed that are not on every keyboard; one of the two signs for micro is the letter of the Greek alphabet."""


def parse_rule(text: str, workflow: Workflow) -> tuple[WorkflowJob, Rule]:
    """Return the rule that a text means, and the job on whose output it is.

    Raises
    ------
    ConfigError
        when it is none, or no job of the workflow measures that; the sentence says what there is
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"{text!r} is no rule: write what results must keep to, as metric, comparison and number, such as 'ctf.ctf_resolution < 6'."
        )
    job, metric = _measured(text, found["name"], workflow)
    unit = UNITS.get(found["unit"], found["unit"])
    if unit not in ("", metric.unit):
        shown = f"is in {metric.unit}, and not in {unit}" if metric.unit else f"has no unit, and not {unit}"
        raise ConfigError(f"{text!r}: {job.label}.{metric.name} {shown}; give the limit so.")
    limit, comparison = float(found["limit"]), SIGNS.get(found["comparison"], found["comparison"])
    if not math.isfinite(limit):
        raise ConfigError(f"{text!r}: {found['limit']} is too large a number.")
    return job, rule_of(job.label, metric, comparison, limit)


def rule_of(label: str, metric: Metric, comparison: str, limit: float) -> Rule:
    """Return a rule on a metric of a job."""
    text = f"{label}.{metric.name} {comparison} {limit:.12g} {metric.unit}".rstrip()
    return Rule(text, metric.name, comparison, limit, metric.scale)


def _measured(text: str, name: str, workflow: Workflow) -> tuple[WorkflowJob, Metric]:
    """Return the job and the metric that a name means: "ctf.ctf_resolution", or short where one job alone measures that."""
    label, dot, own = name.rpartition(".")
    jobs = [job for job in workflow.jobs if job.label == label] if dot else list(workflow.jobs)
    if not jobs:
        labels = [job.label for job in workflow.jobs if job.type.metrics]
        raise ConfigError(
            f"{text!r}: this session has no job {label!r}{suggestion(label, labels) or ': it has ' + ', '.join(labels) + '.'}"
        )
    found = [(job, metric) for job in jobs for metric in job.type.metrics if metric.name == own]
    found = found or [  # what is in the label need not be said again
        (job, metric) for job in jobs if dot for metric in job.type.metrics if metric.name == f"{job.type.name}_{own}"
    ]
    if not found:
        known = {metric.name: job for job in jobs for metric in job.type.metrics}
        near = nearest(own, known)
        hint = f"did you mean '{known[near].label}.{near}'?" if near else f"there are {', '.join(known) or 'none'}."
        whose = f"{jobs[0].label} has no metric" if dot else "no job of this session has a metric"
        raise ConfigError(f"{text!r}: {whose} {own!r}; {hint}")
    if len(found) > 1:
        listed = " or ".join(f"{job.label}.{metric.name}" for job, metric in found)
        raise ConfigError(f"{text!r}: several jobs measure {own!r}; write {listed}.")
    job, metric = found[0]
    if job.type.aggregate and not _gives_one_for_all(job.label, workflow):
        raise ConfigError(
            f"{text!r}: {job.label} works in rounds over all items, and a round cannot be held back; a rule is on what is measured of each item."
        )
    return job, metric


def _gives_one_for_all(label: str, workflow: Workflow) -> bool:
    """Tell whether a job takes one thing for all its items from the rounds of this one: a rule says which rounds are good enough."""
    return any(
        other == label and job.type.input(port).takes == "one"
        for job in workflow.jobs
        for port, (other, _) in job.inputs.items()
    )


def written_rules(texts: Iterable[str], workflow: Workflow) -> tuple[str, ...]:
    """Return rules as they are kept: with the name of the job and the unit, each once. Raises ConfigError for what is none."""
    return tuple(dict.fromkeys(parse_rule(text, workflow)[1].text for text in texts))


def changed_rules(
    settings: SessionSettings, add: Iterable[str], remove: Iterable[str], *, twice: bool = False
) -> tuple[str, ...]:
    """Return the rules of settings with some more and without others; a rule to remove is written as it is listed, or as the metric that it is on.

    Raises ConfigError for what is no rule, or not one of these; unless it may be done `twice`, and has been done before.
    """
    workflow, rules = settings.workflow, {text: parse_rule(text, settings.workflow) for text in settings.session.gate}
    for given in remove:
        name = WRITTEN.fullmatch(given)
        if name is None and re.fullmatch(r"\s*[\w.]+\s*", given):
            job, metric = _measured(given, given.strip(), workflow)
            meant = [text for text, (on, rule) in rules.items() if (on, rule.metric) == (job, metric.name)]
        else:
            meant = [text for text in (parse_rule(given, workflow)[1].text,) if text in rules]
        if not meant and not twice:
            raise ConfigError(f"{given!r} is none of the session's rules; {_listed(settings)}")
        for text in meant:
            del rules[text]
    return tuple(dict.fromkeys((*rules, *written_rules(add, workflow))))


def all_rules(settings: SessionSettings) -> list[tuple[str, str]]:
    """Return the rules that hold as people read them, each with the option that sets it."""
    found = [("--gate", text) for text in settings.session.gate]
    for job in settings.workflow.jobs:
        found += [(flag, rule.text) for flag, rule in limit_rules(job.label, job.type, settings.jobs[job.label])]
    return [(text, flag) for flag, text in found]


def _listed(settings: SessionSettings) -> str:
    known = [text if flag == "--gate" else f"{text} (set by {flag})" for text, flag in all_rules(settings)]
    return f"they are: {'; '.join(known)}." if known else "it has none."


def limit_rules(label: str, job_type: JobType, parameters: ParameterModel) -> list[tuple[str, Rule]]:
    """Return the rules that parameters of a job are, each with the option of the parameter."""
    flags = {info.name: info.flag for info in describe(type(parameters))}
    metrics = {metric.name: metric for metric in job_type.metrics}
    return [
        (flags[limit.parameter], rule_of(label, metrics[limit.metric], limit.comparison, float(value)))
        for limit in job_type.limits
        if (value := getattr(parameters, limit.parameter))
    ]


def rules_in(settings: SessionSettings) -> Mapping[str, tuple[Rule, ...]]:
    """Return the rules on the output of each job, by label: those that are given as rules, and those that parameters are."""
    found: dict[str, list[Rule]] = {}
    for text in settings.session.gate:
        job, rule = parse_rule(text, settings.workflow)
        found.setdefault(job.label, []).append(rule)
    for job in settings.workflow.jobs:
        found.setdefault(job.label, []).extend(
            rule for _, rule in limit_rules(job.label, job.type, settings.jobs[job.label])
        )
    return {label: tuple(dict.fromkeys(rules)) for label, rules in found.items() if rules}
