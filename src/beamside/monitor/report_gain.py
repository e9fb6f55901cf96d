"""The report's account of the gain reference: how it is used, why, and the picture that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamside.formats.orientation import Orientation
from beamside.monitor.report_pictures import LARGE, Embedded, PictureStore
from beamside.monitor.report_text import count, plural
from beamside.monitor.status import gain_records
from beamside.project.index import Index

STATES = {"decided": "in use", "asked": "asked", "open": "not known yet"}
BY = {"movies": "found in the movies", "settings": "as the session was told", "person": "a person's answer"}


@dataclass(frozen=True)
class GainView:
    """A gain reference for one shape of movies; `question` is true while a person has to answer."""

    title: str
    sentence: str
    question: bool
    facts: tuple[tuple[str, str], ...]
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    picture: Embedded | None


def gain_views(index: Index, store: PictureStore) -> list[GainView]:
    """Return what the report shows of each gain reference."""
    records = gain_records(index)
    paths = [record.get("evidence", {}).get("picture", "") for record in records]
    pictures = store.embed([("Mean of the movies without and with the gain reference", path, LARGE) for path in paths])
    return [_view(record, picture) for record, picture in zip(records, pictures, strict=True)]


def _view(record: dict[str, Any], picture: Embedded | None) -> GainView:
    evidence = record.get("evidence", {})
    height, width = record["shape"]
    facts = [("Movies", f"{width} x {height} pixels"), ("State", STATES[record["state"]])]
    if record["state"] == "decided":
        facts.append(("Decided by", BY[record["by"]]))
    if evidence:
        facts += [
            ("Compared with", plural(evidence["movies"], "movie")),
            ("Counts per pixel", f"{evidence['counts_per_pixel']:.1f}"),
            ("Pattern of the reference", f"{evidence['pattern']:.1%}"),
            ("Margin", f"{count(round(evidence['margin']))} standard deviations"),
        ]
    rows = tuple(
        (str(Orientation(rotate, flip)), "multiply" if slope < 0 else "divide", f"{slope:+.3f}", f"{error:.3f}")
        for rotate, flip, slope, error in evidence.get("matches", ())
    )
    return GainView(
        Path(record["reference"]).name,
        record["sentence"],
        record["state"] == "asked",
        tuple(facts),
        ("Orientation", "Sign says", "Slope", "Error"),
        rows,
        picture,
    )
