"""The optics of each item: which group it is of, and under which optics a table may list it.

The rules are settings, and what they ask of a file is in the journal since it was taken in; so groups are never recorded, and follow at once when the
rules, or what is known of a file, change. What a result was made with is recorded, because that stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from beamside.acquisition.reports import Trouble
from beamside.flow.optics_rules import OpticsRule, facts_of
from beamside.jobs.base import Optics
from beamside.jobs.optics import OPTICS_GROUP_NAME, name_of
from beamside.project.records import ItemEntry

if TYPE_CHECKING:
    from beamside.flow.stages import Stage


MANY = 100
"""A rule that makes more groups than this is told."""

TOLD = "optics:"
"""How the keys of what is told of optics begin."""

BEFORE = "_before"
"""Ending of the name under which a table lists optics that are not the present ones."""


@dataclass(frozen=True)
class Group:
    """A rule with the optics of what it holds for; those of the session are in all that it does not give."""

    rule: OpticsRule
    optics: Optics


class ItemOptics:
    """Which optics each item has that was taken in: those of the first rule that holds, or the session's own."""

    def __init__(self, session: Optics, groups: Sequence[Group] = ()) -> None:
        self.session, self.groups = session, tuple(groups)
        self.overlaps: dict[tuple[int, ...], str] = {}
        """Rules that hold for the same item, by number, with the first such item."""
        self._known: dict[str, tuple[object, Optics, int]] = {}
        self._named: dict[tuple[int, str], Optics] = {}
        self._counts: Counter[str] = Counter()
        self._matched: Counter[int] = Counter()

    def of(self, entry: ItemEntry | None) -> Optics:
        """Return the optics of an item, by the source's entry of it; what was found is kept until something else is known of the item."""
        if not self.groups or entry is None or entry.result is None:
            return self.session
        known = self._known.get(entry.name)
        if known is None or known[0] is not entry.result:
            if known is not None:
                self._count(known[1], known[2], -1)
            optics, number = self._found(entry)
            known = self._known[entry.name] = entry.result, optics, number
            self._count(optics, number, 1)
        return known[1]

    def _count(self, optics: Optics, number: int, step: int) -> None:
        self._counts[optics.group] += step
        self._matched[number] += step

    def _found(self, entry: ItemEntry) -> tuple[Optics, int]:
        found = self._holding(facts_of((entry.result or {}).get("values", {})))
        if len(found) > 1:
            self.overlaps.setdefault(tuple(number for number, _ in found), entry.name)
        return (self._optics(found[0]), found[0][0]) if found else (self.session, -1)

    def of_facts(self, facts: Mapping[str, Any]) -> Optics:
        """Return the optics of a file of which these facts are known; see `facts_of`."""
        found = self._holding(facts)
        return self._optics(found[0]) if found else self.session

    def _holding(self, facts: Mapping[str, Any]) -> list[tuple[int, str]]:
        """Return the rules that hold, by number, each with the name of the group."""
        return [(number, name) for number, group in enumerate(self.groups) if (name := group.rule.group_of(facts))]

    def _optics(self, found: tuple[int, str]) -> Optics:
        number, name = found
        if found not in self._named:
            self._named[found] = replace(self.groups[number].optics, group=name)
        return self._named[found]

    def counts(self) -> dict[str, int]:
        """Return how many items each group has, the session's own first, then in the order of the rules; nothing where there are no rules."""
        if not self.groups:
            return {}
        found = {OPTICS_GROUP_NAME: self._counts[""]}
        for number, group in enumerate(self.groups):
            if not self._matched[number]:
                found[group.rule.name] = 0
            for (of, name), _ in sorted(self._named.items(), key=lambda one: one[0]):
                if of == number and self._counts[name]:
                    found[name] = self._counts[name]
        return found

    def troubles(self, *, final: bool) -> Iterator[Trouble]:
        """Yield what is to be told of the rules: which hold for the same items; at the end of a session also which hold for none."""
        for numbers, item in self.overlaps.items():
            rules = [self.groups[number].rule.name for number in numbers]
            sentence = (
                f"Files such as {item} match the optics groups {' and '.join(rules)}: the first that is given counts."
            )
            yield Trouble(f"{TOLD}overlap:{'+'.join(rules)}", sentence, "info")
        for number, group in enumerate(self.groups):
            names = [name for of, name in self._named if of == number and self._counts[name]]
            if len(names) > MANY:
                sentence = (
                    f"The rule {group.rule.name} makes {len(names)} optics groups of {self._matched[number]} files: if it should make few, have {{}} "
                    f"in its pattern ({group.rule.condition}) stand for what they have in common."
                )
                yield Trouble(f"{TOLD}many:{group.rule.name}", sentence)
            if final and self._known and not self._matched[number]:
                sentence = (
                    f"No file matches the optics group {group.rule.name} ({group.rule.condition}), so nothing was done with its values: if that is "
                    "not meant, correct it with 'beamside session set --optics-group'."
                )
                yield Trouble(f"{TOLD}unmatched:{group.rule.name}", sentence)


def listed_under(stage: Stage, item: str) -> Optics | None:
    """Return the optics under which a table may list what `stage` has of an item, with all that it was made from; None when there are none.

    These are the present ones where everything was made with them, as far as it uses them; else those that everything was made with. Nothing is
    listed whose files may meanwhile have been written over with other optics: it waits until it has been made again.
    """
    present = stage.optics_of(item)
    line = text_of(present)
    if not line:
        return present
    there = [entry for one in stage.line if not one.is_source and (entry := one.job.items.get(item)) is not None]
    if all(entry.made_with == line == entry.optics for entry in there if entry.result is not None):
        return present  # nearly always
    made = [(one, one.job.items[item]) for one in stage.line if not one.is_source and one.has_usable(item)]
    if all(entry.made_with == line == entry.optics or _fits(one, entry, present) for one, entry in made):
        return present
    earlier = stage.job.items[item].made_with
    if not earlier or not all(entry.made_with and _fits(one, entry, Optics.from_text(earlier)) for one, entry in made):
        return None
    before = Optics.from_text(earlier)
    return replace(before, group=f"{name_of(before)}{BEFORE}")


def _fits(stage: Stage, entry: ItemEntry, optics: Optics) -> bool:
    """Tell whether the result of `entry`, and its files, were made with `optics`, as far as the job uses them; without a record, the present ones."""
    used = stage.job_type.optics_used
    wanted = optics.used(used)
    if entry.optics and Optics.from_text(entry.optics).used(used) != wanted:
        return False
    if entry.made_with:
        return Optics.from_text(entry.made_with).used(used) == wanted
    return entry.key == stage.expected_key(entry.name)  # of a journal that does not say it, the key does


def text_of(optics: Optics) -> str:
    """Return optics as a line; "" for those of a workflow that has none."""
    return "" if optics.pixel_size != optics.pixel_size else optics.to_text()
