"""What a session was in trouble with, as the journal tells it: outages that open and close, and remarks about files, grouped by subject.

Two kinds of record make it up. One says what became of an outage::

    {"event": "problem", "key": "look:source-unreadable:/camera", "state": "open" | "closed" | "unseen", "sentence": ..., "severity": ..., "count": 2}

("unseen" is written when a session begins: what the one before saw is looked at anew.)

The other adds what was noticed of files to the group of its subject; `items` are only those that are new. With the state "without" it takes them out
again, and with "closed" it ends the group::

    {"event": "problem", "subject": "pixel-size-metadata", "items": [...], "sentence": ..., "severity": ..., "low": ..., "high": ..., "unit": "Å"}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("info", "warning", "error")
"""How bad a problem is, the harmless first; an error needs a person, or data are at risk."""


@dataclass
class ProblemEntry:
    """An outage, or a group of remarks with one subject.

    Attributes
    ----------
    key : what it is about; of a group, its subject
    sentence : what is said of it; of a group, what was said of the first
    severity : one of `SEVERITIES`
    open : whether it is so now; a group stays open until what it compares is looked at anew
    over : whether it was so and was seen to end
    count : how often an outage was told, or how many files a group has
    opened, changed : when it became so, and when it was told last, in seconds since 1970
    grouped : whether it is a group
    items : the files of a group, in order; a remark that names none is known by its sentence
    low, high, unit : range of the group's values
    """

    key: str
    sentence: str
    severity: str = "warning"
    open: bool = True
    over: bool = False
    count: int = 0
    opened: float = 0.0
    changed: float = 0.0
    grouped: bool = False
    items: dict[str, None] = field(default_factory=dict, repr=False)
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def text(self) -> str:
        """Return the sentence, with the number of files, the first and the last of them, and the range of values where there are several."""
        if not self.grouped:
            return f"{self.sentence} (for the {ordinal(self.count)} time)" if self.count > 1 else self.sentence
        if self.count < 2:
            return self.sentence
        names = list(self.items)
        facts = f"{self.count} items, {names[0]} to {names[-1]}"
        if names[0] == self.sentence or names[-1] == self.sentence:
            facts = f"{self.count} times"
        if self.low is not None and self.high is not None and self.high > self.low:
            facts += f", {self.low:.4g} to {self.high:.4g} {self.unit}".rstrip()
        return f"{self.sentence} ({facts})"


def apply_problem_record(problems: dict[str, ProblemEntry], record: Mapping[str, Any]) -> ProblemEntry | None:
    """Take one record of the event "problem" into `problems`; return the entry that it is about."""
    if "subject" in record:
        return _apply_remarks(problems, record)
    key = record["key"]
    entry = problems.get(key)
    if entry is None:
        entry = problems[key] = ProblemEntry(key, "", open=False)
    opens = record["state"] == "open"
    if opens and not entry.open:
        entry.opened = record["time"]
    entry.open, entry.over, entry.changed = opens, record["state"] == "closed", record["time"]
    entry.sentence = record["sentence"] or entry.sentence
    entry.severity = record.get("severity", entry.severity)
    entry.count = record.get("count", entry.count)
    return entry


def _apply_remarks(problems: dict[str, ProblemEntry], record: Mapping[str, Any]) -> ProblemEntry | None:
    key = record["subject"]
    if record.get("state") == "closed":  # what was compared is compared anew
        return problems.pop(key, None)
    entry = problems.get(key)
    if record.get("state") == "without":
        return _take_out(problems, entry, record["items"])
    if entry is None:
        entry = problems[key] = ProblemEntry(key, record["sentence"], grouped=True, opened=record["time"])
    entry.changed = record["time"]
    entry.severity = record.get("severity", entry.severity)
    entry.items.update(dict.fromkeys(record["items"]))
    entry.count = len(entry.items)
    entry.low, entry.high = record.get("low", entry.low), record.get("high", entry.high)
    entry.unit = record.get("unit", entry.unit)
    return entry


def _take_out(
    problems: dict[str, ProblemEntry], entry: ProblemEntry | None, items: Iterable[str]
) -> ProblemEntry | None:
    if entry is not None:
        for item in items:
            entry.items.pop(item, None)
        entry.count = len(entry.items)
        if not entry.items:
            del problems[entry.key]
    return entry


def fold_problems(records: Iterable[Mapping[str, Any]]) -> dict[str, ProblemEntry]:
    """Return all problems that these records make up, by key."""
    problems: dict[str, ProblemEntry] = {}
    for record in records:
        apply_problem_record(problems, record)
    return problems


def open_problems(problems: Iterable[ProblemEntry]) -> list[ProblemEntry]:
    """Return those that are so now: errors first, then warnings, of each the newest last."""
    now = [entry for entry in problems if entry.open]
    return sorted(now, key=lambda entry: (-SEVERITIES.index(entry.severity), entry.opened))


def ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th, ..."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
