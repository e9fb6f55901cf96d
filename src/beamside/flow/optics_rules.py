"""Rules that say to which optics group a file belongs, by what is known of it when it is taken in.

A rule is one line: a name, conditions, and the values in which the group differs from the session's own optics::

    tilted: file matches *_tilt30_* and magnification > 100000; pixel_size = 0.85, beam_tilt_x = 1.2

All conditions must hold. One about something that is not known of a file, such as its microscope's record that has not come yet, does not hold. Where
the pattern and the name have ``{}``, each text that it stands for makes a group of its own.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from beamside.acquisition.epu import NUMBERS as RECORDED
from beamside.config import suggestion

VALUES = (
    "pixel_size",
    "voltage",
    "cs",
    "amplitude_contrast",
    "dose",
    "total_dose",
    "beam_tilt_x",
    "beam_tilt_y",
)
"""Optics that a group may have of its own, by the names of their settings."""

TEXTS = ("file", "folder", "path")
"""What a pattern may be compared with: the file's name, a folder that it is in (by name, or as a whole path), and its whole path at the source."""

NUMBERS = tuple(dict.fromkeys(("width", "height", "frames", *RECORDED)))
"""What a number may be compared with: of the file itself the first three, of the microscope's record the others."""

SAME = 1e-3
"""Numbers that differ by less than this part of them are equal."""

_NAME = re.compile(r"[A-Za-z0-9_.-]*(?:\{\}[A-Za-z0-9_.-]*)?")
_CONDITION = re.compile(
    r"\s*(?P<field>\w+)\s*(?P<relation>matches\b|<=|>=|!=|==?|<|>)\s*(?:\"(?P<quoted>[^\"]*)\"|(?P<plain>[^\s;\"]+))\s*"
)
_AND = re.compile(r"and\s")


def _equal(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=SAME, abs_tol=1e-12)


_RELATIONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": _equal,
    "!=": lambda left, right: not _equal(left, right),
}


@dataclass(frozen=True)
class Condition:
    """One condition: a `field`, a `relation`, and what it is compared with: a pattern or a number."""

    field: str
    relation: str
    operand: str

    def __str__(self) -> str:
        plain = re.fullmatch(r"[^\s;]+", self.operand)
        return f"{self.field} {self.relation} {self.operand if plain else chr(34) + self.operand + chr(34)}"

    def holds(self, facts: Mapping[str, Any]) -> str | None:
        """Return None when it does not hold of a file with these facts, else the text that ``{}`` stands for, "" without one."""
        if self.relation == "matches":
            return _matched(self.operand, _texts(self.field, str(facts.get("path", ""))))
        value = facts.get(self.field)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return None
        return "" if _RELATIONS[self.relation](float(value), float(self.operand)) else None


@dataclass(frozen=True)
class OpticsRule:
    """Which files are of an optics group, and in which values it differs from the session's own optics."""

    name: str
    conditions: tuple[Condition, ...]
    values: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        values = ", ".join(f"{name} = {value:.10g}" for name, value in self.values)
        return f"{self.name}: {self.condition}{'; ' if values else ''}{values}"

    @property
    def condition(self) -> str:
        """The conditions, as they are written."""
        return " and ".join(map(str, self.conditions))

    def group_of(self, facts: Mapping[str, Any]) -> str | None:
        """Return the name of the group of a file with these facts; None when the rule does not hold of it."""
        found = [condition.holds(facts) for condition in self.conditions]
        if any(one is None for one in found):
            return None
        text = next(filter(None, found), "")
        return self.name.replace("{}", re.sub(r"[^A-Za-z0-9_.-]", "_", text))


def facts_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rules ask of a file, from the values of an item that was taken in."""
    height, width = (*values.get("shape", ()), None, None)[:2]
    own = {"path": values.get("source", ""), "width": width, "height": height, "frames": values.get("frames")}
    return {**values.get("metadata", {}), **{name: value for name, value in own.items() if value is not None}}


def parse_rule(given: Any) -> OpticsRule:
    """Return a rule from its line, or from a table of a facility file with ``name``, ``when`` and values.

    Raises ValueError, with what is wrong in the words of the one who wrote it.
    """
    if isinstance(given, OpticsRule):
        return given
    if isinstance(given, Mapping):
        return _of_table(given)
    if not isinstance(given, str):
        raise ValueError("is a line of text, or a table with 'name', 'when' and values")
    name, colon, rest = given.partition(":")
    if not colon:
        raise ValueError(f"{given!r} has no name: write 'name: file matches *pattern*; pixel_size = 0.85'")
    where, _, values = _parted(rest)
    pairs = [pair.partition("=") for pair in values.split(",") if pair.strip()]
    return _rule(name.strip(), where, [(key.strip(), value.strip()) for key, _, value in pairs])


def _parted(text: str) -> tuple[str, str, str]:
    """Part conditions and values at the first semicolon that is not in quotes."""
    quoted = False
    for place, letter in enumerate(text):
        quoted ^= letter == '"'
        if letter == ";" and not quoted:
            return text[:place], ";", text[place + 1 :]
    return text, "", ""


def _of_table(table: Mapping[str, Any]) -> OpticsRule:
    missing = [name for name in ("name", "when") if not isinstance(table.get(name), str)]
    if missing:
        raise ValueError(f"a group of optics needs {' and '.join(map(repr, missing))}, each a text")
    return _rule(
        table["name"].strip(),
        table["when"],
        [(str(name).replace("-", "_"), value) for name, value in table.items() if name not in ("name", "when")],
    )


def _rule(name: str, where: str, values: list[tuple[str, Any]]) -> OpticsRule:
    if not name or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be the name of a group: use letters, digits and . _ -, and {{}} at most once"
        )
    conditions = tuple(_conditions(name, where))
    if "{}" in name and not any(one.relation == "matches" and "{}" in one.operand for one in conditions):
        raise ValueError(f"{name}: the name has {{}}, so a pattern must have it, too, to say what it stands for")
    found: dict[str, float] = {}
    for key, value in values:
        if key not in VALUES:
            raise ValueError(
                f"{name}: there is no value {key!r} of optics{suggestion(key, VALUES)} ({', '.join(VALUES)})"
            )
        if key in found:
            raise ValueError(f"{name}: {key} is given twice")
        found[key] = _number(name, key, value)
    return OpticsRule(name, conditions, tuple(found.items()))


def _conditions(name: str, text: str) -> Iterator[Condition]:
    place = 0
    while True:
        match = _CONDITION.match(text, place)
        if match is None:
            rest = text[place:].strip()
            what = f"{rest!r} is no condition" if rest else "a condition is missing"
            raise ValueError(f"{name}: {what}: write such as 'file matches *_tilt30_*' or 'magnification > 100000'")
        quoted = match["quoted"] is not None
        yield _condition(name, match["field"], match["relation"], match["quoted"] if quoted else match["plain"])
        place = match.end()
        if place == len(text):
            return
        joined = _AND.match(text, place)
        if joined is None:
            raise ValueError(
                f"{name}: {text[place:].strip()!r} follows a condition: join conditions with 'and'; a text with blanks stands in quotes"
            )
        place = joined.end()


def _condition(name: str, field: str, relation: str, operand: str) -> Condition:
    relation = "=" if relation == "==" else relation
    known = TEXTS if relation == "matches" else NUMBERS
    if field not in known:
        other = NUMBERS if relation == "matches" else TEXTS
        if field in other:
            how = (
                "compared with a number (<, <=, =, >=, >)"
                if relation == "matches"
                else "compared with a pattern (matches)"
            )
            raise ValueError(f"{name}: {field} can only be {how}")
        raise ValueError(
            f"{name}: nothing is known of {field!r}{suggestion(field, (*TEXTS, *NUMBERS))} ({', '.join((*TEXTS, *NUMBERS))})"
        )
    if relation == "matches":
        if not operand or operand.count("{}") > 1:
            raise ValueError(f"{name}: {operand!r} is no pattern: it has * and ?, and {{}} at most once")
        return Condition(field, relation, operand)
    return Condition(field, relation, f"{_number(name, field, operand):.10g}")


def _number(name: str, what: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name}: {what} must be a number, and is {str(value)!r}")
    return number


def _texts(field: str, path: str) -> list[str]:
    whole = PurePath(path)
    if field == "file":
        return [whole.name]
    return [path] if field == "path" else [str(whole.parent), *(part for part in whole.parent.parts if part != "/")]


def _matched(pattern: str, texts: list[str]) -> str | None:
    for text in texts:
        if (match := _compiled(pattern).fullmatch(text)) is not None:
            return match[1] if match.re.groups else ""
    return None


@lru_cache(maxsize=1000)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern with ``*``, ``?``, ``[...]`` and ``{}`` as a regular expression."""
    parts, place = list[str](), 0
    while place < len(pattern):
        letter, place = pattern[place], place + 1
        closing = pattern.find("]", place + 1) if letter == "[" else -1
        if letter == "*":
            parts.append(".*")
        elif letter == "?":
            parts.append(".")
        elif letter == "{" and pattern[place : place + 1] == "}":
            parts.append("(.+?)")
            place += 1
        elif closing > 0:
            inside = pattern[place:closing].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside}]")
            place = closing + 1
        else:
            parts.append(re.escape(letter))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:  # such as a range that runs backwards: then it is meant as it stands
        return re.compile(re.escape(pattern), re.DOTALL)
