"""The settings that a project has kept: read as far as this version knows them, also when an earlier one wrote them, or a crash cut them short."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from beamside.errors import ConfigError
from beamside.flow.rules import written_rules
from beamside.flow.settings import SessionSettings, all_parameters, known_names, present_names, sections
from beamside.flow.workflow import Workflow, workflow_of
from beamside.formats.atomic import atomic_path
from beamside.project.guard import PRIVATE_FILE
from beamside.project.project import Project

log = logging.getLogger(__name__)

Tell = Callable[[str], object]


def settings_path(project: Project) -> Path:
    """Return the file through which settings are handed to the session process."""
    return project.private / "settings.json"


def store_settings(project: Project, settings: SessionSettings) -> None:
    """Leave settings in a project for its next session."""
    with atomic_path(settings_path(project)) as temporary:
        temporary.touch(mode=PRIVATE_FILE)
        temporary.write_text(json.dumps(settings.to_json(), indent=1))


def load_settings(project: Project, tell: Tell = log.warning) -> SessionSettings:
    """Return the settings that a project's session has: those handed over last, else those in the journal.

    Where the project is, its directory says: settings of one that was moved or copied still name the place it had, and a session that believed
    them would write into the original. What this version has to leave out is told to `tell`, each as a sentence.

    Raises
    ------
    ConfigError
        when there are none, or one has a value that this version does not take; the sentence says how to go on.
    """
    flat = _handed_over(project, tell) or project.require().load(items=False).settings
    if not flat:
        raise ConfigError(f"{project.root} has no settings yet; start it with `beamside session start`.")
    return settings_of(project, flat, tell)


def settings_of(project: Project, flat: Mapping[str, Any], tell: Tell = log.warning) -> SessionSettings:
    """Return the settings of a project from their values by parameter name; see `load_settings`."""
    flat = present_names(flat)
    workflow = workflow_of(flat.get("workflow"))
    known = {info.name for _, info in all_parameters(workflow)}
    for name in sorted(set(flat) - known - known_names()):
        tell(
            f"The setting {name} ({json.dumps(flat[name])}) of the session {project.root} is not known to this version of Beamside, so it is "
            "left out: it was removed, or belongs to a job type whose package is not installed here."
        )
    values = {name: value for name, value in flat.items() if name in known}
    if wrong := impossible(values, workflow):
        listed = "; ".join(f"--{name.replace('_', '-')} {why}" for name, why in wrong.items())
        raise ConfigError(
            f"The session {project.root} has settings that this version of Beamside does not take ({listed}): start it again with "
            "'beamside session start', the same --target, --group and --name, and values that are possible."
        )
    settings = SessionSettings.from_flat(values)
    root = project.root.absolute()
    if settings.root.resolve() == root.resolve():
        return settings
    place = {"target": root.parents[1], "group": root.parent.name, "name": root.name}
    return settings.model_copy(update={"session": settings.session.model_copy(update=place)})


def impossible(values: Mapping[str, Any], workflow: Workflow | None = None) -> dict[str, str]:
    """Return what is wrong with values by parameter name, in the words that follow the name; empty when all can be used."""
    wrong: dict[str, str] = {}
    if workflow is None:
        try:
            workflow = workflow_of(values.get("workflow"))
        except ConfigError as error:
            return {"workflow": str(error)}
    for section in sections(workflow):
        try:
            section.validate_own(values)
        except ValidationError as error:
            for entry in error.errors():
                name = str(entry["loc"][0]) if entry["loc"] else section.title
                name = section.names.get(name, name)
                given = f"is {json.dumps(values[name])}: " if name in values else ""
                wrong[name] = given + entry["msg"].removeprefix("Value error, ")
    if "gate" not in wrong:
        try:
            written_rules(values.get("gate") or (), workflow)
        except ConfigError as error:
            wrong["gate"] = str(error).rstrip(".")
    return wrong


def _handed_over(project: Project, tell: Tell) -> Mapping[str, Any]:
    path = settings_path(project)
    try:
        flat = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        flat, why = None, str(error)
    else:
        why = "it is not an object"
    if isinstance(flat, dict):
        return flat
    tell(f"The file {path} cannot be used ({why}); the settings that the session had last are taken from its journal.")
    return {}
