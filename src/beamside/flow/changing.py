"""Changing the settings of a session that exists: which can be changed when, and what they become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamside.config import suggestion
from beamside.errors import ConfigError
from beamside.flow.settings import SessionSettings, all_parameters
from beamside.flow.sources import check_given
from beamside.flow.start import adopt_files
from beamside.flow.stored_settings import impossible

IDENTITY = frozenset({"target", "group", "name", "workflow"})
"""What says which session it is; another value is another session."""

AT_START = frozenset({"executor", "memory", "device", "gpu_workers"})
"""What a session takes when it begins, besides all that is about its source and camera."""


@dataclass(frozen=True)
class Change:
    """A setting that gets another value; `flag` is its option."""

    name: str
    flag: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.flag} is {_shown(self.now)} (was {_shown(self.before)})"


@dataclass(frozen=True)
class Changed:
    """What a change of settings has done: the changes, how many results are computed again, and when; and what comes later than the rest."""

    changes: tuple[Change, ...]
    again: int
    when: str = ""
    later: str = ""


def with_values(settings: SessionSettings, values: Mapping[str, Any]) -> SessionSettings:
    """Return `settings` with other values, by parameter name; files that they name are taken into the project.

    Raises ConfigError for what is unknown or impossible, or says which session it is, and InputError for files that cannot be used.
    """
    known = {info.name: info.flag for _, info in all_parameters(settings.workflow)}
    for name in values:
        if name not in known:
            raise ConfigError(f"There is no setting {name!r}{suggestion(name, known)}.")
        if name in IDENTITY:
            raise ConfigError(
                f"{known[name]} says which session it is, and stays; start another session with another one."
            )
    flat = {**settings.to_json(), **values}
    if wrong := impossible(flat, settings.workflow):
        raise ConfigError("; ".join(f"{known.get(name, name)} {why}" for name, why in wrong.items()) + ".")
    new = adopt_files(SessionSettings.from_flat(flat))
    if new.acquisition != settings.acquisition:
        check_given(new)
    return new


def changes_between(before: SessionSettings, now: SessionSettings) -> tuple[Change, ...]:
    """Return the settings that have another value `now`."""
    old, new = before.to_json(), now.to_json()
    return tuple(
        Change(info.name, info.flag, old[info.name], new[info.name])
        for _, info in all_parameters(before.workflow)
        if old[info.name] != new[info.name]
    )


def check_running(changes: tuple[Change, ...]) -> None:
    """Raise ConfigError when a session that runs cannot take one of these changes."""
    at_start = AT_START | {info.name for section, info in all_parameters() if section.key == "acquisition"}
    fixed = [change.flag for change in changes if change.name in at_start and not _gives_gpus_back(change)]
    if fixed:
        raise ConfigError(
            f"{' and '.join(fixed)} can be changed only while the session does not run: stop it, set this, and resume it."
        )


def _gives_gpus_back(change: Change) -> bool:
    return change.name == "device" and change.now == "cpu"


def _shown(value: Any) -> str:
    """Return a value for people: 2 and not 2.0, and lists without brackets."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "empty"
    if isinstance(value, float):
        return f"{value:.10g}"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
