"""Names in the table of arrivals: which source an item is of, and how a file is called that could not be taken in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from beamside.acquisition.names import candidate_stems
from beamside.project.records import ItemEntry, ItemState, JobEntry

SET_ASIDE = "set aside: "
"""With the source behind it, the key of a file that was set aside; such a file has no content to make a key of."""


def source_of(entry: ItemEntry | None) -> str:
    """Return the source of a file that was taken in or set aside; "" when there is none, or its journal does not say it."""
    if entry is None:
        return ""
    if entry.result is not None:
        return str(entry.result["values"].get("source", ""))
    return entry.key.removeprefix(SET_ASIDE) if entry.key.startswith(SET_ASIDE) else ""


def name_of(source: str, job: JobEntry) -> str:
    """Return the name that a file has, or would have had, in the project: the first that no other file has."""
    earlier = f"raw/{PurePath(source).stem}"  # as earlier versions named a file that they had set aside
    if (entry := job.items.get(earlier)) is not None and entry.state is ItemState.FAILED and not entry.key:
        return earlier
    return next(name for name in _names(source) if source_of(job.items.get(name)) in ("", source))


def displaced(name: str, source: str, job: JobEntry) -> tuple[str, str, str] | None:
    """Return what has the name `name`, which the file `source` gets now, and is another file that was set aside.

    It keeps its reason under the next name that is free: returned are that name, its source, and the reason. None when the name is free.
    """
    entry = job.items.get(name)
    other = source_of(entry)
    if entry is None or entry.key != SET_ASIDE + other or other == source:
        return None
    return next(found for found in _names(other) if found not in job.items), other, entry.reason


def _names(source: str) -> Iterator[str]:
    return (f"raw/{stem}" for stem in candidate_stems(source))
