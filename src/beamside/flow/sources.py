"""What a session does with the kind of source that its workflow takes in: the kind names it, and it is loaded here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from beamside.acquisition.kinds import SourceKind
from beamside.acquisition.reports import ImportedFile, Remark
from beamside.flow.checks import Account, Check, NoCheck, Surroundings
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import Prepare
from beamside.jobs.loading import load_function
from beamside.project.records import ProjectState

METADATA = "metadata-"
"""How the subjects of these remarks begin; they are made anew when the settings change."""

Compare = Callable[[SessionSettings, ImportedFile], Iterable[Remark]]


class AsItIs:
    """For a file that needs no preparation: it is the item's output, and what was found in it are the item's values."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __call__(self, taken: ImportedFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the outputs and values of a file that was taken in."""
        return {self.role: taken.path}, dict(taken.metadata)

    def retry(self) -> None:
        """Nothing is remembered of what did not work."""

    def take_settings(self, settings: SessionSettings) -> None:
        """No setting matters here."""


def preparation(
    kind: SourceKind, root: Path, job: str, settings: SessionSettings, records: Iterable[Mapping[str, Any]]
) -> Prepare:
    """Return what makes files of this kind ready for processing; `records` are those that earlier sessions wrote of references.

    Raises
    ------
    ConfigError
        When what the kind names cannot be loaded.
    """
    if not kind.prepare:
        return AsItIs(kind.role)
    made: Prepare = load_function(kind.prepare, _owner(kind))(root, job, settings, records)
    return made


def comparison(kind: SourceKind) -> Compare:
    """Return what compares metadata with the settings. Raises ConfigError when what the kind names cannot be loaded."""
    return load_function(kind.compare, _owner(kind)) if kind.compare else _nothing


def check(kind: SourceKind, around: Surroundings) -> Check:
    """Return what settles something about the source before its items may flow. Raises ConfigError when what the kind names cannot be loaded."""
    if not kind.check:
        return NoCheck(around)
    made: Check = load_function(kind.check, _owner(kind))(around)
    return made


def accounts(kind: SourceKind, records: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]) -> Sequence[Account]:
    """Return what a kind's check has found, from its records in the journal and the settings by parameter name."""
    found: Sequence[Account] = load_function(kind.account, _owner(kind))(records, settings) if kind.account else ()
    return found


def check_given(settings: SessionSettings) -> list[str]:
    """Look at the files that the settings name for their source; returns warnings. Raises InputError for one that cannot be used."""
    kind = settings.source_kind
    found: list[str] = load_function(kind.given, _owner(kind))(settings) if kind.given else []
    return found


def has_changed(settings: SessionSettings, state: ProjectState) -> bool:
    """Tell whether what is taken in is another thing with `settings` than with those of the project, so that all that was made of it is."""
    kind, now = settings.source_kind, settings.to_json()
    if kind.changed:
        return bool(load_function(kind.changed, _owner(kind))(settings, state))
    return any(name in state.settings and state.settings[name] != now[name] for name in kind.decisive)


def _nothing(settings: SessionSettings, taken: ImportedFile) -> Iterable[Remark]:
    return ()


def _owner(kind: SourceKind) -> str:
    return f"The kind of source {kind.name!r}"
