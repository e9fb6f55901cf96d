"""Workflows: which jobs a session has and how they are connected, as data.

A workflow is a JSON file::

    {"title": "Two pickers",
     "jobs": {"import": {"type": "import"},
              "motion": {"type": "motion", "parameters": {"binning": 2}, "inputs": {"movies": "import.movies"}},
              ...}}

Each job has a label, a type, parameters that differ from the type's defaults, and for each of its ports the output of another job. `movies` and
`micrographs` come with the package; packages bring others by the entry point group ``beamside.workflows`` (a function that returns the content).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from beamside.config import expanded, suggestion
from beamside.errors import ConfigError
from beamside.flow.rules import parse_rule
from beamside.jobs.base import JobType
from beamside.jobs.ports import Input, Output
from beamside.jobs.registry import job_type
from beamside.parameters import ParameterModel, describe

LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}")

STANDARD = "movies"
"""The workflow of a session that names none."""

SHIPPED: dict[str, Mapping[str, Any]] = {
    name: json.loads(files("beamside.flow").joinpath(f"workflows/{name}.json").read_text("utf-8"))
    for name in ("movies", "micrographs")
}
"""The workflows that come with this package, by name."""

RESERVED = frozenset({"session", "acquisition", "optics", "execution"})
"""Names of other groups of settings, which no job may have as its label."""


@dataclass(frozen=True)
class WorkflowJob:
    """One job of a workflow.

    Attributes
    ----------
    label, type : its name in the workflow, and the job type
    parameters : values that the workflow gives it, by name
    inputs : for each port that is connected, the label of the other job and the name of its output
    """

    label: str
    type: JobType
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def defaults(self) -> ParameterModel:
        """Return the parameters that the job has when nothing else is said."""
        return self.type.Parameters.model_validate(dict(self.parameters))


@dataclass(frozen=True)
class Workflow:
    """Jobs in an order in which each comes after those that it is made from. ``name`` is that of a workflow that is known by name, or empty."""

    name: str
    title: str
    description: str
    jobs: tuple[WorkflowJob, ...]
    content: Mapping[str, Any] = field(repr=False)
    gates: tuple[str, ...] = ()

    def job(self, label: str) -> WorkflowJob:
        """Return the job of this label; raises KeyError."""
        return next((job for job in self.jobs if job.label == label), None) or _unknown(label)

    @property
    def source(self) -> WorkflowJob:
        """The job that has what acquisition takes in."""
        return next(job for job in self.jobs if not job.type.inputs)

    def title_of(self, label: str) -> str:
        """Return what people read of a job: its type's title, with the label where there are several of the type."""
        job = self.job(label)
        several = sum(other.type.name == job.type.name for other in self.jobs) > 1
        return f"{job.type.title} ({label})" if several else job.type.title

    def parameter_names(self) -> dict[tuple[str, str], str]:
        """Return what each parameter is called in settings, by label and own name: short where it is unique, else with the label before it."""
        owners: dict[str, int] = {}
        for job in self.jobs:
            for name in job.type.Parameters.model_fields:
                owners[name] = owners.get(name, 0) + 1
        return {
            (job.label, name): name if owners[name] == 1 else f"{job.label}.{name}"
            for job in self.jobs
            for name in job.type.Parameters.model_fields
        }

    def to_setting(self) -> Any:
        """Return what a project keeps of it: its name, or its content where it is from a file."""
        return self.name or dict(self.content)


def _unknown(label: str) -> WorkflowJob:
    raise KeyError(label)


def known_workflows() -> dict[str, Mapping[str, Any]]:
    """Return the content of the workflows that are known by name: those of this package, and of installed ones that can be loaded."""
    return {**_of_packages()[0], **SHIPPED}


def unusable_workflows() -> dict[str, str]:
    """Return why workflows of installed packages cannot be used, by name."""
    return _of_packages()[1]


def _of_packages() -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    found: dict[str, Mapping[str, Any]] = {}
    wrong: dict[str, str] = {}
    for point in dict.fromkeys(entry_points(group="beamside.workflows")):
        owner = f"The workflow {point.name!r} of {point.value}"
        if point.name in SHIPPED or point.name in found:
            whose = "Beamside" if point.name in SHIPPED else "another package"
            wrong[point.name] = f"{owner} is not used: {whose} has one of this name."
            continue
        try:
            content = point.load()()
            parse_workflow(content, name=point.name)
        except Exception as error:  # a package of somebody else may do anything when it is imported
            said = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}."
            wrong[point.name] = f"{owner} cannot be used: {said}"
        else:
            found[point.name] = content
    return found, wrong


def find_workflow(given: str, base: Path | None = None) -> Workflow:
    """Return the workflow of this name, or in the file of this path.

    Raises
    ------
    ConfigError
        when there is none, or it is wrong; the sentence names the file and the place in it
    """
    content = SHIPPED.get(given) or known_workflows().get(given)
    if content is not None:
        return parse_workflow(content, name=given)
    path = expanded(given) if base is None else base / given
    if path.suffix != ".json" and not _is_file(path):
        if given in (wrong := unusable_workflows()):
            raise ConfigError(wrong[given])
        hint = suggestion(given, known_workflows())
        raise ConfigError(
            f"There is no workflow {given!r}{hint}; `beamside workflow list` shows those that are known, or give a file (.json)."
        )
    return read_workflow(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def read_workflow(path: Path) -> Workflow:
    """Return the workflow in a JSON file; see `find_workflow` for what is raised."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"The workflow file {path} cannot be read: {reason}; check --workflow.") from error
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"The workflow file {path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The workflow file {path} cannot be used: {error}.") from error
    return parse_workflow(content, place=str(path), text=text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice; give each job a label of its own")
        found[name] = value
    return found


def workflow_of(setting: Any) -> Workflow:
    """Return the workflow that a project keeps in its settings; see `Workflow.to_setting`."""
    if isinstance(setting, Mapping):
        return parse_workflow(setting, place="the workflow of the project")
    if setting is None:
        return standard_workflow()
    if not isinstance(setting, str):
        raise ConfigError(f"A workflow is a name or a file, and not {json.dumps(setting)}.")
    return find_workflow(setting)


def parse_workflow(content: Any, *, name: str = "", place: str = "", text: str = "") -> Workflow:
    """Return the workflow that JSON `content` describes.

    Parameters
    ----------
    content : as read from the file
    name : of a workflow that is known by name
    place, text : of the file, so that a message can name the line
    """
    return _Reader(name, place or f"the workflow {name!r}", text).read(content)


class _Reader:
    """Reads one workflow; every message names the place in it."""

    def __init__(self, name: str, place: str, text: str) -> None:
        self.name, self.place, self.lines = name, place, text.splitlines()

    def read(self, content: Any) -> Workflow:
        if not isinstance(content, Mapping):
            raise self._error("", 'it must be an object: {"title": ..., "jobs": {...}}')
        self._no_others("", content, ("title", "description", "jobs", "gates"), "workflow")
        jobs = content.get("jobs")
        if not isinstance(jobs, Mapping) or not jobs:
            raise self._error("jobs", 'it needs "jobs", an object with a label for each job')
        for key in ("title", "description"):
            if not isinstance(content.get(key, ""), str):
                raise self._error(key, f"{key!r} must be text")
        found = {label: self._job(label, job) for label, job in jobs.items()}
        for job in found.values():
            self._check_inputs(job, found)
        ordered = self._ordered(found)
        self._check_same_items(ordered)
        sources = [job.label for job in ordered if not job.type.inputs]
        if len(sources) != 1:
            what = f"{' and '.join(sources)} both do" if sources else "none does"
            raise self._error("jobs", f"exactly one job must take in what comes from the source, but {what}")
        title = str(content.get("title") or self.name or Path(self.place).stem)
        gates = content.get("gates", [])
        if (
            not isinstance(gates, Sequence)
            or isinstance(gates, str)
            or not all(isinstance(rule, str) for rule in gates)
        ):
            raise self._error("gates", '"gates" must be a list of rules, such as ["ctf.ctf_resolution < 6"]')
        made = Workflow(self.name, title, str(content.get("description", "")), tuple(ordered), content, tuple(gates))
        for rule in gates:
            try:
                parse_rule(rule, made)
            except ConfigError as error:
                raise self._error("gates", str(error).rstrip(".")) from error
        return made

    def _job(self, label: str, job: Any) -> WorkflowJob:
        if not LABEL.fullmatch(label) or "__" in label or label in RESERVED:
            taken = " and not the name of a group of settings" if label in RESERVED else ""
            raise self._error(
                label, f"the label {label!r} must be of small letters, digits and single _, begin with a letter{taken}"
            )
        if not isinstance(job, Mapping):
            raise self._error(label, f'the job {label!r} must be an object: {{"type": ..., "inputs": {{...}}}}')
        self._no_others(label, job, ("type", "parameters", "inputs"), f"job {label!r}")
        if not isinstance(job.get("type"), str):
            raise self._error(label, f'the job {label!r} needs a "type", the name of a job type')
        try:
            kind = job_type(job["type"])
        except ConfigError as error:
            raise self._error(label, f"job {label!r}: {error}".rstrip(".")) from error
        parameters = job.get("parameters", {})
        if not isinstance(parameters, Mapping):
            raise self._error(label, f'"parameters" of the job {label!r} must be an object')
        inputs = job.get("inputs", {})
        if not isinstance(inputs, Mapping):
            raise self._error(label, f'"inputs" of the job {label!r} must be an object: {{"port": "label.output"}}')
        for port in kind.inputs:
            if port.name in inputs:
                parameters = {**port.presets, **parameters}
        self._check_parameters(label, kind, parameters)
        return WorkflowJob(
            label, kind, parameters, {port: self._target(label, port, to) for port, to in inputs.items()}
        )

    def _check_parameters(self, label: str, kind: JobType, parameters: Mapping[str, Any]) -> None:
        known = {info.name: info for info in describe(kind.Parameters)}
        for name in parameters:
            if name not in known:
                hint = suggestion(name, known)
                raise self._error(label, f"the job {label!r} ({kind.name}) has no parameter {name!r}{hint}", name)
        try:
            kind.Parameters.model_validate(dict(parameters))
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            if first["type"] == "missing":  # given when the session starts
                return
            said = first["msg"].removeprefix("Value error, ")
            if not name and self._can_follow(first):
                return
            raise self._error(
                label, f"{name or 'parameters'} of the job {label!r}: {said[:1].lower()}{said[1:]}", name
            ) from error

    @staticmethod
    def _can_follow(error: Mapping[str, Any]) -> bool:
        """A rule about several parameters may be met by what is given when the session starts."""
        return str(error["type"]) == "value_error"

    def _target(self, label: str, port: str, to: Any) -> tuple[str, str]:
        parts = to.split(".") if isinstance(to, str) else []
        if len(parts) != 2 or not all(parts):
            raise self._error(
                label,
                f'input {port!r} of the job {label!r} must name an output as "label.output", not {json.dumps(to)}',
                port,
            )
        return parts[0], parts[1]

    def _check_inputs(self, job: WorkflowJob, jobs: Mapping[str, WorkflowJob]) -> None:
        ports = {port.name: port for port in job.type.inputs}
        for port, (label, name) in job.inputs.items():
            if port not in ports:
                has = f"it has {', '.join(ports)}" if ports else "it takes what comes from the source"
                raise self._error(
                    job.label, f"the job {job.label!r} ({job.type.name}) has no input {port!r}: {has}", port
                )
            if label not in jobs:
                hint = suggestion(label, jobs)
                raise self._error(
                    job.label,
                    f"input {port!r} of the job {job.label!r} names {label!r}, and there is no such job{hint}",
                    port,
                )
            self._check_kind(job, ports[port], jobs[label], name)
        for needed in job.type.inputs:
            if needed.name not in job.inputs and not needed.optional:
                raise self._error(
                    job.label,
                    f"the job {job.label!r} ({job.type.name}) needs its input {needed.name!r} ({needed.kind.title.lower()})",
                )
        gathered = [port for port in job.inputs if ports[port].takes != "one"]
        if job.type.aggregate and len(gathered) > 1:
            raise self._error(
                job.label,
                f"the job {job.label!r} ({job.type.name}) takes all items together, and that of one input only: "
                f"{' and '.join(gathered)} are too many; join them before",
            )
        if job.type.inputs and not gathered:
            raise self._error(job.label, f"the job {job.label!r} ({job.type.name}) needs at least one input")

    def _check_same_items(self, ordered: Sequence[WorkflowJob]) -> None:
        """What a job takes one by one must be the same items on all its ports: a group and a round are items of their own."""
        begins = item_origins(ordered)
        for job in ordered:
            first: dict[str, str] = {}
            for port, (label, _) in job.inputs.items():
                if job.type.input(port).takes == "each":
                    first.setdefault(begins[label], port)
            if len(first) > 1:
                (one, port), (other, second), *_ = first.items()
                raise self._error(
                    job.label,
                    f"the inputs of the job {job.label!r} do not take the same items: "
                    f"{port!r} takes those of {one!r}, and {second!r} those of {other!r}",
                    second,
                )

    def _check_kind(self, job: WorkflowJob, port: Input, other: WorkflowJob, name: str) -> None:
        outputs: Sequence[Output] = other.type.outputs
        output = next((one for one in outputs if one.name == name), None)
        if output is None:
            has = f"it has {', '.join(one.name for one in outputs)}" if outputs else "it has none"
            raise self._error(
                job.label, f"the job {other.label!r} ({other.type.name}) has no output {name!r}: {has}", port.name
            )
        if not output.kind.is_a(port.kind):
            raise self._error(
                job.label,
                f"input {port.name!r} of the job {job.label!r} takes {port.kind.title.lower()}, "
                f"and {other.label}.{name} gives {output.kind.title.lower()}",
                port.name,
            )

    def _ordered(self, jobs: Mapping[str, WorkflowJob]) -> list[WorkflowJob]:
        """Return the jobs so that each follows those that it is made from, else in the order of the file."""
        ordered: dict[str, WorkflowJob] = {}

        def add(label: str, path: tuple[str, ...]) -> None:
            if label in ordered:
                return
            if label in path:
                circle = " → ".join([*path[path.index(label) :], label])
                raise self._error(label, f"the jobs form a circle: {circle}")
            for other, _ in jobs[label].inputs.values():
                add(other, (*path, label))
            ordered[label] = jobs[label]

        for label in jobs:
            add(label, ())
        return list(ordered.values())

    def _no_others(self, label: str, content: Mapping[str, Any], known: Sequence[str], whose: str) -> None:
        for key in content:
            if key not in known:
                hint = suggestion(str(key), known)
                raise self._error(
                    label, f"the {whose} has {key!r}, which is not known{hint} (known: {', '.join(known)})", str(key)
                )

    def _error(self, label: str, sentence: str, near: str = "") -> ConfigError:
        line = self._line(label, near)
        where = f"{self.place}, line {line}" if line else self.place
        where = where if self.lines else where[:1].upper() + where[1:]
        return ConfigError(f"{where}: {sentence}{'' if sentence.endswith('?') else '.'}")

    def _line(self, label: str, near: str) -> int:
        """Return the number of the line that has a job's label, or what is near behind it; 0 when it is not known."""
        start = next(
            (number for number, line in enumerate(self.lines) if label and f'"{label}"' in line.split(":")[0]), None
        )
        if start is None:
            start = next((number for number, line in enumerate(self.lines) if label and f'"{label}"' in line), None)
        if start is None:
            return 0
        for number in range(start, len(self.lines)) if near else ():
            if f'"{near}"' in self.lines[number]:
                return number + 1
        return start + 1


def ancestors(workflow: Workflow, label: str) -> Iterator[str]:
    """Yield the labels of the jobs that a job is made from, in the order of the workflow."""
    wanted, todo = set[str](), [label]
    while todo:
        for other, _ in workflow.job(todo.pop()).inputs.values():
            if other not in wanted:
                wanted.add(other)
                todo.append(other)
    yield from (job.label for job in workflow.jobs if job.label in wanted)


def item_origins(jobs: Sequence[WorkflowJob]) -> dict[str, str]:
    """Return, for each job by label, the job in which its items begin to be; `jobs` are in the order of the workflow.

    What acquisition takes in are items, and so are the groups of a job that takes groups, and the rounds of one that works in rounds.
    """
    begins: dict[str, str] = {}
    for job in jobs:
        before = (label for port, (label, _) in job.inputs.items() if job.type.input(port).takes == "each")
        begins[job.label] = begins.get(next(before, ""), job.label)
    return begins


def standard_workflow() -> Workflow:
    """Return the workflow of a session that names none."""
    return find_workflow(STANDARD)
