"""All settings of a session: what the command line, `beamside.toml` and the defaults are resolved into."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, field_validator

from beamside.acquisition.settings import AcquisitionSettings
from beamside.execution.settings import ExecutionSettings
from beamside.jobs.base import Optics
from beamside.jobs.registry import parameter_types
from beamside.parameters import ParameterInfo, ParameterModel, describe, parameter


class SessionParameters(ParameterModel):
    """Where a session's data go and what it is called."""

    target: Path = parameter(
        ..., "Directory under which sessions are kept, as <target>/<group>/<name>.", affects_result=False
    )
    group: str = parameter("sessions", "Group that the session belongs to.", affects_result=False)
    name: str = parameter(..., "Name of the session.", affects_result=False)
    mode: Literal["movies", "micrographs"] = parameter(
        "movies", "What the camera writes: movies, or already summed micrographs."
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

    def optics(self) -> Optics:
        """Return them as jobs use them."""
        return Optics(self.pixel_size, self.voltage, self.cs, self.amplitude_contrast, self.dose, self.total_dose)


class SessionSettings(BaseModel):
    """Everything that defines a session."""

    session: SessionParameters
    optics: OpticsParameters
    acquisition: AcquisitionSettings
    execution: ExecutionSettings
    jobs: dict[str, ParameterModel]

    @property
    def root(self) -> Path:
        """The project's directory."""
        return self.session.target.absolute() / self.session.group / self.session.name

    def to_json(self) -> dict[str, Any]:
        """Return the settings as one flat JSON object, by parameter name."""
        flat: dict[str, Any] = {}
        for part in self._parts():
            flat.update(part.model_dump(mode="json"))
        return flat

    def flat(self) -> dict[str, Any]:
        """Return the values by parameter name, as they are."""
        return {name: getattr(part, name) for part in self._parts() for name in type(part).model_fields}

    def _parts(self) -> tuple[ParameterModel, ...]:
        return (self.session, self.optics, self.acquisition, self.execution, *self.jobs.values())

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> SessionSettings:
        """Make settings from values by parameter name; what is not given has its default.

        Raises pydantic's ValidationError, with the parameter's name as location, for missing, unknown or impossible values.
        """
        parts: dict[str, ParameterModel] = {}
        known: set[str] = set()
        for section in sections():
            names = section.model.model_fields.keys()
            known |= names
            parts[section.key] = section.model.model_validate({name: values[name] for name in names if name in values})
        unknown = sorted(set(values) - known)
        if unknown:
            raise KeyError(unknown[0])
        settings: dict[str, Any] = {key: parts[key] for key in ("session", "optics", "acquisition", "execution")}
        settings["jobs"] = {job_type.name: parts[job_type.name] for job_type in parameter_types()}
        return cls.model_construct(None, **settings)


class Section(BaseModel):
    """A group of parameters with a heading for people."""

    key: str
    title: str
    model: type[ParameterModel]


@cache
def sections() -> tuple[Section, ...]:
    """Return all groups of session parameters, in the order in which people meet them."""
    fixed = (
        Section(key="session", title="Session", model=SessionParameters),
        Section(key="acquisition", title="Data", model=AcquisitionSettings),
        Section(key="optics", title="Microscope", model=OpticsParameters),
    )
    jobs = tuple(Section(key=kind.name, title=kind.title, model=kind.Parameters) for kind in parameter_types())
    return (*fixed, *jobs, Section(key="execution", title="Computing", model=ExecutionSettings))


def all_parameters() -> Iterator[tuple[Section, ParameterInfo]]:
    """Yield every parameter of a session with its section."""
    for section in sections():
        for info in describe(section.model):
            yield section, info
