"""Giving movies on to their jobs with what they get from the gain reference, and again when that is something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamside.flow.source_thread import FileImported
from beamside.flow.table import Tables
from beamside.project.records import ItemState, ProjectState

CAMERA_VALUES = ("gain", "gain_sha256", "relion_gain", "gain_error")
"""What a movie gets from the session's gain reference."""


def given_on(state: ProjectState, shape: Sequence[int]) -> list[str]:
    """Return the movies of a shape that were given on to be processed, by their paths in the project."""
    for job in reversed(state.jobs.values()):
        results = [
            entry.result for entry in job.items.values() if entry.state is ItemState.DONE and entry.result is not None
        ]
        if movies := [result for result in results if "movie" in result["outputs"]]:
            return [one["outputs"]["movie"] for one in movies if one["values"].get("shape") == list(shape)]
    return []


def give_on(tables: Tables, event: FileImported, camera: Mapping[str, Any]) -> None:
    """Give a movie on with what it gets."""
    own = {name: value for name, value in event.values.items() if not name.startswith("gain_reference")}
    tables.intake_done(FileImported(event.file, event.outputs, {**own, **camera}, event.problem))


def give_on_again(tables: Tables, name: str, camera: Mapping[str, Any]) -> None:
    """Another gain reference holds for a movie that was given on, or it may be corrected after all; nothing happens when it is the same."""
    result = tables.source.job.items[name].result
    assert result is not None
    own = {key: value for key, value in result["values"].items() if key not in CAMERA_VALUES}
    tables.intake_again(name, {**own, **camera}, "its gain reference changed")
