"""All settings of a session: what the command line, `beamside.toml` and the defaults are resolved into."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from beamside.acquisition.kinds import SourceKind, source_kind
from beamside.acquisition.settings import AcquisitionSettings
from beamside.execution.settings import ExecutionSettings
from beamside.flow.optics import Group, ItemOptics
from beamside.flow.optics_rules import VALUES, parse_rule
from beamside.flow.rules import written_rules
from beamside.flow.workflow import STANDARD, Workflow, standard_workflow, workflow_of
from beamside.jobs.base import Optics
from beamside.jobs.optics import OPTICS_GROUP_NAME
from beamside.jobs.registry import job_types
from beamside.parameters import ParameterInfo, ParameterModel, describe, parameter


class SessionParameters(ParameterModel):
    """Where a session's data go and what it is called."""

    target: Path = parameter(
        ..., "Directory under which sessions are kept, as <target>/<group>/<name>.", affects_result=False
    )
    group: str = parameter("sessions", "Group that the session belongs to.", affects_result=False)
    name: str = parameter(..., "Name of the session.", affects_result=False)
    workflow: str | dict[str, Any] = parameter(
        STANDARD,
        "Workflow: a name, such as movies or micrographs (already summed ones), or a JSON file; see `beamside workflow list`.",
    )
    gate: tuple[str, ...] = parameter(
        (),
        "Rule on what a job measures, such as 'ctf.ctf_resolution < 6': results that break it are held back. May be given several times.",
        affects_result=False,
    )
    idle_minutes: float = parameter(
        0.0,
        "Finish the session after this long without a new file; 0: never.",
        unit="min",
        ge=0,
        advanced=True,
        affects_result=False,
    )
    report_minutes: float = parameter(
        2.0,
        "Time between two reports while the session runs.",
        unit="min",
        gt=0,
        le=1440,
        advanced=True,
        affects_result=False,
    )

    @field_validator("group", "name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[\w][\w .+=@-]*", value) or value.endswith((" ", ".")):
            raise ValueError("must begin with a letter or digit and have only letters, digits, blanks and . _ - + = @")
        return value


class OpticsParameters(ParameterModel):
    """The microscope."""

    pixel_size: float = parameter(
        ...,
        "Pixel size of the movies (of EER movies: of the pixels in which they are rendered).",
        unit="Å",
        gt=0.05,
        le=50,
    )
    voltage: float = parameter(..., "Acceleration voltage.", unit="kV", ge=40, le=1000)
    cs: float = parameter(2.7, "Spherical aberration.", unit="mm", ge=0, le=10)
    amplitude_contrast: float = parameter(0.1, "Amplitude contrast.", ge=0, le=0.5)
    dose: float = parameter(
        1.0, "Dose of one movie frame; of EER movies, of one raw frame of the camera.", unit="e/Å²", gt=0, le=100
    )
    total_dose: float = parameter(
        0.0,
        "Dose of a whole movie, divided among its frames; used instead of --dose unless it is 0.",
        unit="e/Å²",
        ge=0,
        le=10000,
    )
    beam_tilt_x: float = parameter(
        0.0, "Beam tilt along x, for the tables only.", unit="mrad", ge=-50, le=50, advanced=True, affects_result=False
    )
    beam_tilt_y: float = parameter(
        0.0, "Beam tilt along y, for the tables only.", unit="mrad", ge=-50, le=50, advanced=True, affects_result=False
    )
    optics_group: tuple[str, ...] = parameter(
        (),
        "Optics group of some of the files, as 'name: condition; values': 'tilted: file matches *_tilt30_*; pixel_size = 0.85'. May be given several "
        "times; the first that holds counts, and what matches none has the values above. 'none' takes them all back.",
    )

    @field_validator("optics_group", mode="before")
    @classmethod
    def _rules(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str | Mapping) else value
        if not isinstance(given, list | tuple):
            raise ValueError("must be a list of optics groups")
        if list(given) in (["none"], [""]):
            return ()
        rules = [parse_rule(one) for one in given]
        for name, number in Counter(rule.name for rule in rules).items():
            if number > 1 or name == OPTICS_GROUP_NAME:
                raise ValueError(
                    f"{name}: {'two groups have this name' if number > 1 else 'this is the name of what matches no rule'}"
                )
        for rule in rules:
            try:
                cls.model_validate({"pixel_size": 1.0, "voltage": 300.0, **dict(rule.values)})
            except ValidationError as error:
                details = error.errors()[0]
                raise ValueError(f"{rule.name}: {details['loc'][0]}: {details['msg'].lower()}") from None
        return tuple(map(str, rules))

    def optics(self) -> Optics:
        """Return the session's own, as jobs use them."""
        return self._optics({})

    def item_optics(self) -> ItemOptics:
        """Return what tells the optics of each item."""
        rules = [parse_rule(text) for text in self.optics_group]
        return ItemOptics(self.optics(), [Group(rule, self._optics(dict(rule.values))) for rule in rules])

    def _optics(self, own: Mapping[str, float]) -> Optics:
        """Return the optics of a group with values of its `own`."""
        if "dose" in own:
            own = {"total_dose": 0.0, **own}
        values = {name: float(own.get(name, getattr(self, name))) for name in VALUES}
        return Optics(
            values["pixel_size"],
            values["voltage"],
            values["cs"],
            values["amplitude_contrast"],
            values["dose"],
            values["total_dose"],
            values["beam_tilt_x"],
            values["beam_tilt_y"],
            common_pixel_size=self.pixel_size if values["pixel_size"] != self.pixel_size else 0.0,
        )


NO_OPTICS = OpticsParameters.model_construct(
    pixel_size=math.nan,
    voltage=math.nan,
    cs=math.nan,
    amplitude_contrast=math.nan,
    dose=math.nan,
    total_dose=math.nan,
    beam_tilt_x=0.0,
    beam_tilt_y=0.0,
    optics_group=(),
)
"""For a workflow without optics: no job uses them, and whoever did by mistake would get no number that looks right."""


class SessionSettings(BaseModel):
    """Everything that defines a session; ``jobs`` has the parameters of each job by its label in the workflow."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    session: SessionParameters
    optics: OpticsParameters
    acquisition: AcquisitionSettings
    execution: ExecutionSettings
    jobs: dict[str, ParameterModel]
    workflow: Workflow

    @property
    def root(self) -> Path:
        """The project's directory."""
        return self.session.target.absolute() / self.session.group / self.session.name

    @property
    def source_kind(self) -> SourceKind:
        """What is taken in: the kind of source of the items that the workflow's first job gives."""
        return source_of(self.workflow)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as one flat JSON object, by parameter name."""
        return {
            section.names[name]: value
            for section, part in self._parts()
            for name, value in part.model_dump(mode="json").items()
        }

    def flat(self) -> dict[str, Any]:
        """Return the values by parameter name, as they are."""
        return {
            section.names[name]: getattr(part, name)
            for section, part in self._parts()
            for name in type(part).model_fields
        }

    def having(self, name: str) -> ParameterModel | None:
        """Return the parameters of the first job that has one of this name; None when there is none."""
        return next((job for job in self.jobs.values() if name in type(job).model_fields), None)

    def take_over(self, other: SessionSettings) -> None:
        """Have the values of `other` from now on; whoever holds these settings has them too."""
        self.session, self.optics, self.acquisition = other.session, other.optics, other.acquisition
        self.execution = other.execution
        self.jobs.update(other.jobs)

    def _parts(self) -> Iterator[tuple[Section, ParameterModel]]:
        for section in sections(self.workflow):
            yield section, self.jobs[section.key] if section.key in self.jobs else getattr(self, section.key)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> SessionSettings:
        """Make settings from values by parameter name; what is not given has its default.

        Raises pydantic's ValidationError, with the parameter's own name as location, for missing or impossible values, KeyError for unknown ones,
        and ConfigError for a workflow that cannot be used.
        """
        values = present_names(values)
        workflow = workflow_of(values.get("workflow"))
        parts: dict[str, ParameterModel] = {"optics": NO_OPTICS}
        known: set[str] = set()
        for section in sections(workflow):
            known.update(section.names.values())
            parts[section.key] = section.validate_own(values)
        unknown = sorted(
            set(values) - known - known_names()
        )  # those of jobs that this workflow does not have are not used
        if unknown:
            raise KeyError(unknown[0])
        session: Any = parts["session"]
        parts["session"] = session.model_copy(update={"gate": written_rules(session.gate, workflow)})
        fixed: dict[str, Any] = {key: parts[key] for key in FIXED}
        return cls.model_construct(
            None, **fixed, jobs={job.label: parts[job.label] for job in workflow.jobs}, workflow=workflow
        )


FIXED = ("session", "optics", "acquisition", "execution")
"""Groups of settings that every session has."""


class Section(BaseModel):
    """A group of parameters with a heading for people; ``names`` says what each is called in settings, ``presets`` has the workflow's own values."""

    key: str
    title: str
    model: type[ParameterModel]
    names: dict[str, str]
    presets: dict[str, Any] = {}

    def own(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of `values`, which are by their names in settings, that belong here, by their own names."""
        given = {name: values[flat] for name, flat in self.names.items() if flat in values}
        return {**self.presets, **given}

    def validate_own(self, values: Mapping[str, Any]) -> ParameterModel:
        """Return the parameters with those of `values` that belong here; raises pydantic's ValidationError."""
        return self.model.model_validate(self.own(values))

    def infos(self) -> Iterator[ParameterInfo]:
        """Yield what is declared of each parameter, under the name and the flag that it has in settings."""
        for info in describe(self.model):
            flat = self.names[info.name]
            if info.name in self.presets:
                field = copy(info.field)
                field.default = getattr(self.validate_own({}), info.name)
                info = replace(info, field=field)  # noqa: PLW2901 - with the workflow's own value as default
            if flat == info.name:
                yield info
            else:
                yield replace(info, name=flat, flag=f"--{self.key}.{info.flag.removeprefix('--')}")


def sections(workflow: Workflow | None = None) -> tuple[Section, ...]:
    """Return all groups of session parameters, in the order in which people meet them; without a workflow, those of the standard one."""
    workflow = workflow or standard_workflow()
    kept = _SECTIONS.get(id(workflow))
    if kept is None or kept[0] is not workflow:
        while len(_SECTIONS) > 20:
            _SECTIONS.pop(next(iter(_SECTIONS)))
        kept = _SECTIONS[id(workflow)] = (workflow, _sections(workflow))
    return kept[1]


_SECTIONS: dict[int, tuple[Workflow, tuple[Section, ...]]] = {}


def _sections(workflow: Workflow) -> tuple[Section, ...]:
    names = workflow.parameter_names()
    fixed = (
        ("session", "Session", SessionParameters),
        ("acquisition", "Data", AcquisitionSettings),
        ("optics", "Microscope", OpticsParameters),
        ("execution", "Computing", ExecutionSettings),
    )
    reserved = {name for _, _, model in fixed for name in model.model_fields}
    *first, last = (
        Section(
            key=key,
            title=title,
            model=model,
            names={name: name for name in model.model_fields},
            presets={"gate": workflow.gates} if key == "session" and workflow.gates else {},
        )
        for key, title, model in fixed
        if key != "optics" or has_optics(workflow)
    )
    jobs = tuple(
        Section(
            key=job.label,
            title=workflow.title_of(job.label),
            model=job.type.Parameters,
            names={
                name: f"{job.label}.{name}" if name in reserved else names[job.label, name]
                for name in job.type.Parameters.model_fields
            },
            presets=dict(job.parameters),
        )
        for job in workflow.jobs
    )
    return (*first, *jobs, last)


def source_of(workflow: Workflow) -> SourceKind:
    """Return what a workflow takes in."""
    return source_kind(workflow.source.type.outputs[0].kind.name)


def with_rules_of(settings: SessionSettings, other: SessionSettings) -> SessionSettings:
    """Return `other` with the rules of `settings`, which are of the same workflow."""
    now, names = settings.to_json(), ["gate"]
    for section in sections(other.workflow):
        if section.key in other.jobs:
            names += [section.names[limit.parameter] for limit in other.workflow.job(section.key).type.limits]
    return SessionSettings.from_flat({**other.to_json(), **{name: now[name] for name in names}})


def has_optics(workflow: Workflow) -> bool:
    """Tell whether the optics matter to a workflow: to the result of one of its jobs, or to RELION's tables."""
    return any(job.type.optics_used or job.type.relion_type is not None for job in workflow.jobs)


def present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the names that they have now: what is called ``workflow`` was the ``mode`` of earlier versions."""
    found = {
        name: value for name, value in values.items() if name != "mode" and not (name == "workflow" and value is None)
    }
    if "mode" in values:
        found.setdefault("workflow", values["mode"])
    return found


def all_parameters(workflow: Workflow | None = None) -> Iterator[tuple[Section, ParameterInfo]]:
    """Yield every parameter of a session with its section, under the name that it has in settings."""
    for section in sections(workflow):
        for info in section.infos():
            yield section, info


def known_names() -> frozenset[str]:
    """Return the own names of all parameters that any job type has, and of the optics: settings of another workflow may have them."""
    own = (name for kind in job_types().values() for name in kind.Parameters.model_fields)
    return frozenset((*own, *OpticsParameters.model_fields))
