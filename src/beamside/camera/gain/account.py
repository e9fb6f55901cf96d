"""What was found out about the gain reference, for status and report: how it is used, why, and the picture that shows it.

Without one, whether the movies need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from beamside.camera.gain.case import present_records, question_of
from beamside.flow.checks import Account
from beamside.formats.orientation import Orientation

STATES = {
    "decided": "in use",
    "asked": "asked",
    "open": "not known yet",
    "needed": "none is used, and the movies need one",
    "not needed": "none is used, and none is needed",
}
BY = {"movies": "the movies", "settings": "the settings", "person": "a person's answer"}

WAYS = ("gain_rotate", "gain_flip", "gain_mode")
"""The settings that say how it is used."""


def accounts(records: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[Account]:
    """Return what is known for each shape of movies, with the settings that the session has now."""
    every, gain = list(records), settings.get("gain") or ""
    present = present_records(every, gain)
    unused = [record for record in present if _is_unused(record)] if gain else []
    shapes = {tuple(record["shape"]) for record in unused}
    beside = present_records(every, "") if unused else []
    needs = [record for record in beside if record["state"] == "needed" and tuple(record["shape"]) in shapes]
    return [_account(record, _ways(present)) for record in (*present, *needs)]


def _is_unused(record: Mapping[str, Any]) -> bool:
    """Tell whether a record says that the reference is not used for some movies, or it is asked whether it is to be used at all."""
    ways = [record, *record.get("sets", ())]
    asked = record["state"] == "asked" and record.get("evidence", {}).get("kind") == "absent"
    return asked or (record["state"] == "decided" and any(way["use"] == "none" for way in ways))


def _ways(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how the gain reference is used, where one way is used for all movies."""
    decided = [record for record in records if record["state"] == "decided" and record.get("use") != "none"]
    ways = {(record.get("rotate"), record.get("flip"), record.get("use")) for record in decided}
    return dict(zip(WAYS, ways.pop(), strict=True)) if len(ways) == 1 else {}


def _account(record: Mapping[str, Any], values: Mapping[str, Any]) -> Account:
    # Of a doubt, what raised it is shown.
    evidence = dict((record.get("doubt") or {}).get("evidence") or record.get("evidence", {}))
    height, width = record["shape"]
    facts = [("Movies", f"{width} x {height} pixels"), ("State", STATES[record["state"]])]
    if record["state"] == "decided":
        facts.append(("Decided by", BY[record["by"]]))
    if record["state"] == "decided" and record.get("doubt"):
        facts.append(("Used so far", str(record["sentence"])))
    question, sentence = question_of(record), str(record["sentence"])
    last = record.get("asked_last", {})
    if last and not record.get("doubt"):
        facts.append(("Asked last", f"{last['sentence'].split('. So far')[0]}. Answered: {last['answer']}"))
    return Account(
        subject="Gain reference",
        title=Path(record["reference"]).name or "No gain reference",
        sentence=question or sentence,
        question=question,
        told="" if record["state"] in ("asked", "needed") else sentence,
        urgent=bool(question) or record["state"] == "needed",
        facts=(*facts, *(_facts(evidence) if evidence else ())),
        headings=("Orientation", "Sign says", "Slope", "Error"),
        rows=tuple(
            (str(Orientation(rotate, flip)), "multiply" if slope < 0 else "divide", f"{slope:+.3f}", f"{error:.3f}")
            for rotate, flip, slope, error in evidence.get("matches", ())
        ),
        pictures=_pictures(record, evidence),
        values=values,
    )


def _pictures(record: Mapping[str, Any], evidence: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the pictures with their captions: what the movies say now, and what they said when a doubt was answered."""
    compared = "Mean of the movies without and with the gain reference"
    caption = "What the means of different movies share" if record["state"] == "needed" else compared
    last = "" if record.get("doubt") else record.get("asked_last", {}).get("picture", "")
    found = [(caption, evidence.get("picture", "")), (f"{compared}, when it was asked last", last)]
    return tuple((words, path) for words, path in found if path)


def _facts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    movies = evidence["movies"]
    facts = [
        ("Compared with" if "matches" in evidence else "Looked at", f"{movies} movie{'' if movies == 1 else 's'}"),
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
        ("Margin", f"{round(evidence['margin'])} standard deviations"),
    ]
