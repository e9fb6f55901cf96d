"""The report's record of how a session was set up: microscope, parameters, versions, host."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import beamside
from beamside.monitor.job_views import JobView, session_sections
from beamside.monitor.report_text import default_of, duration, moment, setting_text
from beamside.monitor.status import SessionStatus, read_accounts
from beamside.project.index import Index
from beamside.project.project import Project
from beamside.project.records import SESSION_ENDS

PACKAGES = ("torch", "numpy", "scipy", "parsl", "pydantic", "pillow", "tifffile", "imagecodecs")
END_EVENTS = SESSION_ENDS

OPTICS = (
    ("voltage", "Voltage", "kV"),
    ("cs", "Spherical aberration", "mm"),
    ("pixel_size", "Pixel size", "Å"),
    ("dose", "Dose per frame", "e/Å²"),
    ("total_dose", "Dose", "e/Å²"),
)


@dataclass(frozen=True)
class ParameterRow:
    """One parameter as it was used; `automatic` says that it was left to the program, and `value` is what became of it."""

    name: str
    description: str
    value: str
    default: str
    changed: bool
    automatic: bool = False


@dataclass(frozen=True)
class ParameterSection:
    """A group of parameters."""

    title: str
    rows: tuple[ParameterRow, ...]


def facts(index: Index, status: SessionStatus, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the header's facts: when the session ran, and the microscope."""
    events = index.events("session")
    started = next((record["time"] for record in events if record["state"] == "started"), None)
    ended = events[-1]["time"] if events and events[-1]["state"] in END_EVENTS else None
    found: list[tuple[str, str]] = []
    if started is not None:
        found.append(("Started", moment(started)))
        if ended is not None:
            found.append(("Ended", moment(ended)))
        found.append(("Duration", duration((ended or time.time()) - started)))
    found += [
        (label, setting_text(settings[name], unit)) for name, label, unit in _optics(settings) if name in settings
    ]
    if status.optics:
        listed = ", ".join(f"{name} {number}" for name, number in status.optics.items())
        found.append(("Files in optics groups", listed))
    found.append(("Beamside", beamside.__version__))
    found.append(("Project", status.root))
    return found


def _optics(settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what is shown of the microscope: of the two doses, the one that is used."""
    unused = "dose" if settings.get("total_dose") else "total_dose"
    return [fact for fact in OPTICS if fact[0] != unused]


def automatic_values(settings: Mapping[str, Any], kinds: Sequence[JobView], index: Index) -> dict[str, Any]:
    """Return what the parameters became that were left to the program, by name."""
    jobs = index.jobs()
    names = {section.key: section.names for section in session_sections(settings)}
    found: dict[str, Any] = {}
    for kind in (kind for kind in kinds if kind.name in jobs):
        own = {name: settings[flat] for name, flat in names[kind.name].items() if flat in settings}
        automatic = kind.type.automatic(own, index.newest_values(jobs[kind.name]))
        found |= {names[kind.name][name]: value for name, value in automatic.items()}
    settled = {name: value for account in read_accounts(index) for name, value in (account.values or {}).items()}
    asked = {name: value for name, value in settled.items() if settings.get(name) == "auto"}
    return {name: value for name, value in found.items() if not settings.get(name)} | asked


def parameter_sections(settings: Mapping[str, Any], automatic: Mapping[str, Any]) -> list[ParameterSection]:
    """Return all parameters that the session's workflow has, with those that differ from the defaults marked.

    Those in `automatic` are shown as they were resolved.
    """
    found = []
    for section in session_sections(settings):
        rows = []
        for info in section.infos():
            if info.name in settings:
                value, default = settings[info.name], default_of(info)
                shown = f"default: {setting_text(default, info.unit)}" if default is not None else "has no default"
                description = (info.field.description or "").rstrip(".")
                changed = default is None or value != default
                left = info.name in automatic
                text = _text(automatic.get(info.name, value), info.unit)
                rows.append(ParameterRow(info.name, description, text, shown, changed, left))
        if rows:
            found.append(ParameterSection(section.title, tuple(rows)))
    return found


def _text(value: Any, unit: str) -> str:
    return setting_text(value, "" if value in ("", "auto") else unit)


def versions(project: Project, index: Index) -> list[tuple[str, str]]:
    """Return the versions of the programs, and the machine that wrote the report."""
    created = index.events("project")
    begun = [("Project created with", f"Beamside {created[0]['version']}")] if created else []
    packages = [(name, found) for name in PACKAGES if (found := _version(name))]
    holder = project.writer_process()
    process = [("Session process", f"{holder.pid} on {holder.host}")] if holder else []
    machine = f"{platform.node()}, {platform.system()} {platform.release()}, {plural_cores()}"
    python = ("Python", platform.python_version())
    return [("Beamside", beamside.__version__), *begun, python, *packages, *process, ("Report written on", machine)]


def plural_cores() -> str:
    """Return how many cores this process may use."""
    number = len(os.sched_getaffinity(0))
    return f"{number} core{'' if number == 1 else 's'}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
