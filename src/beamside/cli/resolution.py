"""From command line, facility file and defaults to the settings of a session, and from validation errors to sentences."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from beamside.cli.contradictions import contradictions
from beamside.cli.options import Declared, allowed, by_parameter, declared_parameters, value_text, vocabulary
from beamside.config import COMMAND_LINE, PROFILE_KEYS, Setting, expanded, load_facility, nearest, resolve, suggestion
from beamside.errors import ConfigError
from beamside.flow.settings import FIXED, Section, SessionSettings, present_names, sections
from beamside.flow.workflow import STANDARD, Workflow, find_workflow, workflow_of
from beamside.parameters import ParameterInfo

DEFAULT_PATTERNS = {
    "movie": ("*.tif", "*.tiff", "*.mrcs"),
    "micrograph": ("*.mrc", "*.tif", "*.tiff", "*.png"),
}
"""What is taken below a camera's roots when its profile has no ``pattern``. Cameras write sums of movies as .mrc beside the movies."""

_LOOKUP_DEPTH = 3


@dataclass(frozen=True)
class Resolved:
    """The settings of a session, and for each parameter its value and origin."""

    settings: SessionSettings
    origins: Mapping[str, Setting]


def resolve_session(
    given: Mapping[str, Any],
    *,
    profile: str = "",
    config: str | os.PathLike[str] | None = None,
    facility: bool = True,
) -> Resolved:
    """Return the settings of a session from what was `given` on the command line, a profile and the defaults.

    With ``facility=False`` no facility file is read, not even one in the usual places.

    Raises
    ------
    ConfigError
        for settings that are missing, unknown or impossible; one sentence, naming each of them
    """
    from_profile = load_facility(vocabulary(), config).profile(profile) if facility else {}
    typed = {name: value for name, value in by_parameter(given).items() if value is not None and value != ()}
    typed = present_names(typed)
    workflow = _workflow(typed, from_profile)
    declared_here = declared_parameters(workflow)
    defaults = {
        name: declared.section.presets.get(
            _own_name(declared), declared.info.field.get_default(call_default_factory=True)
        )
        for name, declared in declared_here.items()
        if not declared.required
    }
    settings = resolve(typed, _of_workflow(from_profile, workflow), defaults)
    settings["workflow"] = Setting(workflow.to_setting(), settings["workflow"].origin)
    paths, pattern = settings.pop("paths", None), settings.pop("pattern", None)
    if "data" not in settings and paths is not None:
        settings["data"] = _data_of_camera(settings, paths, pattern)
    settings = {name: absolute(name, setting) for name, setting in settings.items()}
    return Resolved(validated(settings, workflow), settings)


def _workflow(typed: Mapping[str, Any], from_profile: Mapping[str, Setting]) -> Workflow:
    setting = from_profile.get("workflow")
    given = typed.get("workflow") or (setting.value if setting is not None else STANDARD)
    return workflow_of(given) if isinstance(given, Mapping) else find_workflow(str(given))


def _own_name(declared: Declared) -> str:
    return next(name for name, flat in declared.section.names.items() if flat == declared.info.name)


def _of_workflow(profile: Mapping[str, Setting], workflow: Workflow) -> dict[str, Setting]:
    """Return the settings of a profile that a workflow has. A short name holds for all jobs that have a parameter of this name.

    A file holds for sessions of any workflow, so jobs of other workflows may be named in it.
    """
    found: dict[str, Setting] = {key: setting for key, setting in profile.items() if key in PROFILE_KEYS}
    of_session = {name for section in sections(workflow) if section.key in FIXED for name in section.names}
    for section in sections(workflow):
        for name, flat in section.names.items():
            short = profile.get(name) if section.key in FIXED or name not in of_session else None
            if (setting := profile.get(f"{section.key}.{name}", short)) is not None:
                found[flat] = setting
        if section.key not in FIXED:
            _check_labelled(section, profile)
    return found


def _check_labelled(section: Section, profile: Mapping[str, Setting]) -> None:
    """Refuse a setting that names a job which has no such parameter."""
    for name, setting in profile.items():
        label, _, own = name.rpartition(".")
        if label == section.key and own not in section.names:
            raise ConfigError(
                f"{setting.origin}: the job {label!r} of this workflow has no parameter {own!r}{suggestion(own, section.names)}"
            )


def absolute(name: str, setting: Setting) -> Setting:
    """Make paths of the command line absolute: the session goes on when this directory is left."""
    if setting.origin != COMMAND_LINE or name not in vocabulary().paths or not setting.value:
        return setting
    if isinstance(setting.value, tuple):
        return Setting(tuple(str(expanded(entry).absolute()) for entry in setting.value), setting.origin)
    return Setting(str(expanded(setting.value).absolute()), setting.origin)


def _data_of_camera(settings: Mapping[str, Setting], paths: Setting, pattern: Setting | None) -> Setting:
    """Look the session's name up under the camera's roots, and return the patterns of its files."""
    if "name" not in settings:
        raise ConfigError(
            f"--name is missing: the profile finds the data by the session's name under {', '.join(paths.value)}"
        )
    name = str(settings["name"].value)
    kind = workflow_of(settings["workflow"].value).source.type.outputs[0].kind.name
    patterns = pattern.value if pattern else DEFAULT_PATTERNS.get(kind, ("*",))
    folders = [_find_folder(Path(root), name) for root in paths.value]
    if not any(folders):
        raise ConfigError(_no_folder(name, [Path(root) for root in paths.value], paths.origin))
    # a root where the session is not there yet is watched too: frames and averages may start at different times
    found = [folder or Path(root) / name for folder, root in zip(folders, paths.value, strict=True)]
    data = tuple(f"{folder}/**/{entry}" for folder in found for entry in patterns)
    return Setting(data, f"{paths.origin} paths, looked up by name")


def _find_folder(root: Path, name: str) -> Path | None:
    """Return the folder `name` below `root`, at most three levels down, the highest one first."""
    level = [root]
    for _ in range(_LOOKUP_DEPTH):
        for folder in level:
            if (folder / name).is_dir():
                return folder / name
        level = [child for folder in level for child in _folders(folder)]
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:  # a root that is not mounted now has no folders; the caller says that nothing was found
        return []


def _no_folder(name: str, roots: list[Path], origin: str) -> str:
    missing = [str(root) for root in roots if not root.is_dir()]
    if len(missing) == len(roots):
        return f"none of the camera's roots exists ({', '.join(missing)}, {origin}): mount them, or correct 'paths'"
    near = nearest(name, [folder.name for root in roots for folder in _folders(root)])
    hint = f"; did you mean {near!r}?" if near else ""
    return (
        f"there is no folder {name!r} under {', '.join(map(str, roots))} ({origin}){hint} "
        "Start the collection first, correct --name, or give --data"
    )


def validated(settings: Mapping[str, Setting], workflow: Workflow) -> SessionSettings:
    """Return the settings of a session from all of its parameters. Raises ConfigError with a sentence for each that is missing or impossible."""
    values = {name: setting.value for name, setting in settings.items()}
    sentences: list[str] = []
    missing: list[str] = []
    declared = declared_parameters(workflow)
    for section in sections(workflow):
        try:
            section.validate_own(values)
        except ValidationError as error:
            for details in error.errors():
                own = str(details["loc"][0]) if details["loc"] else ""
                name = section.names.get(own, own)
                if details["type"] == "missing":
                    missing.append(name)
                else:
                    sentences.append(_sentence(details, declared.get(name), settings.get(name), section.title))
    if missing:
        sentences.append(_missing_sentence([declared[name].info for name in missing]))
    if sentences:
        raise ConfigError("; ".join(dict.fromkeys(sentences)))
    resolved = SessionSettings.from_flat(values)
    sentences = contradictions(resolved, settings)
    if sentences:
        raise ConfigError("; ".join(sentences))
    return resolved


def _missing_sentence(infos: Sequence[ParameterInfo]) -> str:
    parts = []
    for info in infos:
        description = (
            re.sub(r" \([^)]*\)", "", info.field.description or info.name).split(":")[0].split(",")[0].rstrip(".")
        )
        parts.append(f"{info.flag} ({description[0].lower()}{description[1:]}{', ' + info.unit if info.unit else ''})")
    if len(parts) == 1:
        return f"{parts[0]} is missing: give it on the command line or in beamside.toml"
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{listed} are missing: give them on the command line or in beamside.toml"


def _sentence(details: ErrorDetails, declared: Declared | None, setting: Setting | None, section: str) -> str:
    """Return one sentence that names the flag, the value, where it came from and what is allowed."""
    if declared is None:  # a rule about several parameters at once
        return f"{section}: {_plain(details['msg'])}"
    subject = declared.info.flag
    if setting is not None:
        value = f"{value_text(setting.value)}" or "''"
        subject = (
            f"{declared.info.flag} {value}"
            if setting.origin == COMMAND_LINE
            else f"{declared.info.name} = {value} (from {setting.origin}, the same as {declared.info.flag})"
        )
    return f"{subject}: {_requirement(details, declared)}"


def _requirement(details: ErrorDetails, declared: Declared) -> str:
    kind = details["type"]
    unit = f" {declared.info.unit}" if declared.info.unit else ""
    allowed_range = allowed(declared.info)
    if kind.startswith(("greater_than", "less_than", "multiple_of")) and allowed_range:
        return f"must be {allowed_range}{unit}"
    if kind.startswith(("int", "float", "finite")):
        sort = "a whole number" if kind.startswith("int") else "a number"
        return f"must be {sort}{f' ({allowed_range}{unit})' if allowed_range or unit else ''}"
    if kind == "literal_error":
        choices = details.get("ctx", {}).get("expected", "").replace("'", "")
        return f"must be one of {choices}"
    if kind.startswith("bool"):
        return "must be true or false"
    return _plain(details["msg"])


def _plain(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return text[:1].lower() + text[1:]
