"""What a session does with the kind of source that its workflow takes in: the kind names it, and it is loaded here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from beamside.acquisition.arrivals import Remark, TakenFile
from beamside.acquisition.kinds import SourceKind
from beamside.flow.arrivals import Prepare
from beamside.flow.settings import SessionSettings
from beamside.jobs.loading import load_function

METADATA = "metadata-"
"""How the subjects of these remarks begin; they are made anew when the settings change."""

Compare = Callable[[SessionSettings, TakenFile], Iterable[Remark]]


class AsItIs:
    """For a file that needs no preparation: it is the item's output, and what was found in it are the item's values."""

    def __init__(self, role: str) -> None:
        self.role = role

    def __call__(self, taken: TakenFile) -> tuple[dict[str, str], dict[str, Any]]:
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


def _nothing(settings: SessionSettings, taken: TakenFile) -> Iterable[Remark]:
    return ()


def _owner(kind: SourceKind) -> str:
    return f"The kind of source {kind.name!r}"
