"""The report's account of the gain reference: how it is used, why, and the picture that shows it; without one, whether the movies need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamside.flow.gain_case import question_of
from beamside.formats.orientation import Orientation
from beamside.monitor.report_pictures import LARGE, Embedded, PictureStore
from beamside.monitor.report_text import count, plural
from beamside.monitor.status import gain_records
from beamside.project.index import Index

STATES = {
    "decided": "in use",
    "asked": "asked",
    "open": "not known yet",
    "needed": "none is used, and the movies need one",
    "not needed": "none is used, and none is needed",
}
BY = {"movies": "the movies", "settings": "the settings", "person": "a person's answer"}


@dataclass(frozen=True)
class GainView:
    """A gain reference for one shape of movies; `question` is true while a person has to do something."""

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
    wanted = []
    for record in records:
        caption = (
            "What the means of different movies share"
            if record["state"] == "needed"
            else "Mean of the movies without and with the gain reference"
        )
        wanted.append((caption, _evidence(record).get("picture", ""), LARGE))
    pictures = store.embed(wanted)
    return [_view(record, picture) for record, picture in zip(records, pictures, strict=True)]


def _evidence(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured: of a doubt, what raised it."""
    doubt = record.get("doubt") or {}
    return dict(doubt.get("evidence") or record.get("evidence", {}))


def _view(record: dict[str, Any], picture: Embedded | None) -> GainView:
    evidence = _evidence(record)
    height, width = record["shape"]
    facts = [("Movies", f"{width} x {height} pixels"), ("State", STATES[record["state"]])]
    if record["state"] == "decided":
        facts.append(("Decided by", BY[record["by"]]))
    if record["state"] == "decided" and record.get("doubt"):
        facts.append(("Used so far", str(record["sentence"])))
    if evidence:
        facts += _facts(evidence)
    rows = tuple(
        (str(Orientation(rotate, flip)), "multiply" if slope < 0 else "divide", f"{slope:+.3f}", f"{error:.3f}")
        for rotate, flip, slope, error in evidence.get("matches", ())
    )
    question = question_of(record)
    return GainView(
        Path(record["reference"]).name or "No gain reference",
        question or record["sentence"],
        bool(question) or record["state"] == "needed",
        tuple(facts),
        ("Orientation", "Sign says", "Slope", "Error"),
        rows,
        picture,
    )


def _facts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("Compared with" if "matches" in evidence else "Looked at", plural(evidence["movies"], "movie")),
        ("Counts per pixel", f"{evidence['counts_per_pixel']:.1f}"),
    ]
    if "strength" in evidence:
        return [
            *facts,
            ("Pixels differ by", f"{evidence['strength']:.1%}"),
            ("Would be seen from", f"{evidence['limit']:.1%}"),
        ]
    return [
        *facts,
        ("Pattern of the reference", f"{evidence['pattern']:.1%}"),
        ("Margin", f"{count(round(evidence['margin']))} standard deviations"),
    ]
