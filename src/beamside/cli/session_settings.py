"""A session's settings for people: where each value came from, and which have changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from beamside.cli.options import declared_parameters, value_text
from beamside.cli.output import console
from beamside.cli.resolution import Resolved
from beamside.config import DEFAULT, Setting
from beamside.flow.settings import SessionSettings, present_names, sections
from beamside.flow.workflow import workflow_of
from beamside.formats.atomic import atomic_path
from beamside.project.project import Project


def changed_settings(settings: SessionSettings, project: Project) -> list[str]:
    """Return the settings that change results and are not those that a project has, as "--binning 2, was 1"."""
    before = present_names(project.load(items=False).settings) if project.exists else {}
    now = settings.to_json()
    found = []
    for name, declared in declared_parameters(settings.workflow).items():
        counts = declared.section.key not in ("session", "acquisition", "execution") and declared.info.affects_result
        if (counts or name in settings.source_kind.decisive) and name in before and before[name] != now[name]:
            found.append(f"{declared.info.flag} {value_text(now[name]) or '-'}, was {value_text(before[name]) or '-'}")
    return found


def keep_origins(project: Project, resolved: Resolved) -> None:
    """Write down where each setting came from, for `show-config`."""
    with atomic_path(_origins_path(project)) as temporary:
        temporary.write_text(json.dumps({name: setting.origin for name, setting in resolved.origins.items()}, indent=1))


def change_origins(project: Project, names: Iterable[str]) -> None:
    """Write down that settings were changed by ``session set``."""
    origins = {**_origins(project), **dict.fromkeys(names, "session set")}
    with atomic_path(_origins_path(project)) as temporary:
        temporary.write_text(json.dumps(origins, indent=1))


def _origins_path(project: Project) -> Path:
    return project.private / "origins.json"


def _origins(project: Project) -> dict[str, str]:
    try:
        return dict(json.loads(_origins_path(project).read_bytes()))
    except (OSError, ValueError):  # where the values come from is not known then; the values are
        return {}


def with_origins(project: Project, values: Mapping[str, Any]) -> dict[str, Setting]:
    """Return `values` by parameter name, each with where it came from, as far as that was written down."""
    origins = _origins(project)
    return {name: Setting(value, origins.get(name, DEFAULT)) for name, value in values.items()}


def print_settings(settings: Mapping[str, Setting]) -> None:
    """Print the settings by section: flag, value with unit, origin."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("flag", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("origin", overflow="fold")
    workflow = workflow_of(settings["workflow"].value) if "workflow" in settings else None
    declared = declared_parameters(workflow)
    for section in sections(workflow):
        members = [name for name, item in declared.items() if item.section.key == section.key and name in settings]
        if members:
            table.add_row(f"[bold]{section.title}[/bold]")
        for name in members:
            info, setting = declared[name].info, settings[name]
            value = value_text(setting.value) or "-"
            unit = info.unit if any(map(str.isdigit, value)) else ""  # "auto" and "-" have none
            style = "" if setting.origin == DEFAULT else "[cyan]"
            table.add_row(f"  {info.flag}", f"{value} {unit}".strip(), f"{style}{_escaped(setting.origin)}")
    console().print(table)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
