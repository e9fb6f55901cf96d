"""One stage of a session: a job of the workflow, with the items that are waiting for it and the stages that it is made from, by port."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from beamside.flow.gate import counts_as_done, counts_as_given_up, gate_revision, is_shut, shuts_nothing
from beamside.flow.groups import Groups
from beamside.flow.keys import earlier_versions, key_of, key_settings
from beamside.flow.optics import ItemOptics, listed_under
from beamside.flow.shown_rows import ShownRows
from beamside.flow.stage_links import StageLinks
from beamside.jobs.base import Item, Optics, Result, Row
from beamside.jobs.ports import Given
from beamside.jobs.triggers import Group
from beamside.parameters import ParameterModel
from beamside.project.records import FINAL_STATES, ItemEntry, ItemState

SETTINGS_LENGTH = 8
"""Length of the part of an aggregate's keys that its parameters make."""


_UNKNOWN = Given(Result())
"""Stands for what nobody has asked yet."""


class _Kept:
    """What was found out of an item; it holds while the stamp is the same. There are very many of these, so they are small."""

    __slots__ = ("given", "judged", "stamp")

    def __init__(self, stamp: tuple[int, ...]) -> None:
        self.stamp = stamp
        self.given: Given | None = _UNKNOWN
        self.judged: tuple[str, str] | None = None


@dataclass(eq=False)
class Stage(StageLinks):
    """A job of the workflow with its table: which items are ready, what of them may be used, and which results are out of date."""

    waiting: dict[str, None] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)
    _taken: int = field(default=0, repr=False)
    _settings: dict[tuple[str, Optics], tuple[str, ...]] = field(default_factory=dict, repr=False)
    _kept: dict[str, _Kept] = field(default_factory=dict, repr=False)
    _rows: ShownRows = field(default_factory=ShownRows, repr=False)

    @cached_property
    def line(self) -> tuple[Stage, ...]:
        """The stages before that have the same items, and this one."""
        return (*self.alongside, self)

    @property
    def first(self) -> Stage:
        """The stage in which the items of this one begin to be."""
        return self.line[0]

    @cached_property
    def groups(self) -> Groups | None:
        """Who belongs together, where this stage takes groups."""
        trigger = self.job_type.trigger
        return Groups(self, trigger) if isinstance(trigger, Group) else None

    def take(self, parameters: ParameterModel, optics: ItemOptics) -> None:
        """Have other parameters, or other optics, from now on; the keys of results change with them."""
        self.parameters, self.item_optics = parameters, optics
        self._taken += 1
        self._settings.clear()
        if self.groups is not None:
            self.groups.forget()

    @property
    def optics(self) -> Optics:
        """The session's own optics."""
        return self.item_optics.session

    def optics_of(self, item: str) -> Optics:
        """Return the optics of an item: those of its optics group, or the session's own; of what has members, those that all of them have."""
        first = self.first
        if first.is_source:
            return self.item_optics.of(first.job.items.get(item))
        found = {first.gathered.optics_of(name) for name in first.groups.used(item)} if first.groups is not None else ()
        return next(iter(found)) if len(found) == 1 else self.optics

    def other_optics(self, entries: Iterable[ItemEntry]) -> dict[str, str]:
        """Return the optics, each as a line, of those items that have others than the session's own, or a beam tilt, which is in no key."""
        if not self.item_optics.groups and not (self.optics.beam_tilt_x or self.optics.beam_tilt_y):
            return {}
        optics = ((entry.name, self.optics_of(entry.name)) for entry in entries)
        return {name: one.to_text() for name, one in optics if one.group or one.beam_tilt_x or one.beam_tilt_y}

    def results(self, item: str) -> dict[str, dict[str, Any]]:
        """Return the results, as JSON and by label, that `item` has from the stages before; what was given up, or is held back, is left out."""
        return _results(self.alongside, item)

    def members(self, item: str) -> list[str]:
        """Return the items of the stage before that `item` is made of: itself, or what belongs to the group."""
        return [item] if self.groups is None else self.groups.used(item)

    def work_on(self, item: str) -> list[tuple[str, dict[str, Any]]]:
        """Return what a worker gets of `item`: itself or its members, each with the results that it has before this stage."""
        return [(name, self.handed(name)) for name in self.members(item)]

    def handed(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the results that a worker gets of one of the items that it works on: itself, or a member of the round or group."""
        return _results(self.alongside or self.gathered.line, name)

    def item(self, name: str) -> Item:
        """Return an item with what the ports of this stage give of it."""
        return Item(name, self._inputs(name), self.shared)

    @property
    def shared(self) -> dict[str, Given]:
        """What ports give that take one thing for all items, as far as it is there."""
        used = self.job.shared
        return {port: Given(Result.from_json(used[port].result)) for port in self.suppliers if port in used}

    def _inputs(self, item: str) -> dict[str, Given]:
        used = {
            port: stage
            for port, stage in self.upstreams.items()
            if stage not in self.optional or not stage.is_shut(item)
        }
        given = {port: stage.given(item) for port, stage in used.items()}
        return {port: one for port, one in given.items() if one is not None}

    def expected_key(self, item: str) -> str:
        """Return the key that a result for `item` has now; the first stage's key is that of the file's content.

        A result that only the version of an algorithm sets apart, its own or of one before, is valid and keeps its key.
        """
        if self.is_source:
            return self.job.items[item].key
        return self._judged(item)[0]

    def _judged(self, item: str) -> tuple[str, str]:
        """Return the expected key of an item, and the version of the algorithm by which its result was made from what is there; "" when it was not.

        What was found is kept until something is recorded of the item: it is asked several times when a session begins, and with every event.
        """
        if self.first.groups is not None:
            return self._judge(item)  # it is made of other items, too
        kept = self._kept_of(item)
        if kept.judged is None:
            kept.judged = self._judge(item)
        return kept.judged

    def _judge(self, item: str) -> tuple[str, str]:
        before, optics, version = self._expected_inputs(item), self.optics_of(item), self.job_type.version
        entry = self.job.items.get(item)
        for made_by in (version, *self._versions(entry)) if entry is not None else ():
            if entry is not None and entry.key in self._keys(before, made_by, optics):
                return entry.key, made_by
        return self._key(before, version, optics), ""

    def _expected_inputs(self, item: str) -> tuple[str, ...]:
        if self.groups is not None:
            return (self.groups.inputs(item, self.gathered.expected_key),)
        return tuple(
            stage.expected_key(item) if stage in self.required or stage.usable(item) else "" for stage in self.counted
        )

    def key_made_now(self, item: str) -> str:
        """Return the key of a result that is made now from the results that are there."""
        if self.groups is not None:
            before = [self.groups.inputs(item, lambda name: self.gathered.job.items[name].key)]
        else:
            before = [stage.job.items[item].key if stage.usable(item) else "" for stage in self.counted]
        return self._key(before, self.job_type.version, self.optics_of(item))

    def _key(self, inputs: Sequence[str], version: str, optics: Optics) -> str:
        """Return the key that is given to a result by a version of the algorithm."""
        return next(self._keys(inputs, version, optics))

    def _keys(self, inputs: Sequence[str], version: str, optics: Optics) -> Iterator[str]:
        """Yield the keys of one result, the present one first; a session asks for very many, and what they have in common is made once."""
        common = self._settings.get((version, optics))
        if common is None:
            common = key_settings(self.job_type, self.parameters, optics, version, self.job.had)
            self._settings[version, optics] = common
        return (key_of(settings, [*inputs, *self._shared_keys()]) for settings in common)

    def _versions(self, entry: ItemEntry) -> list[str]:
        """Return the earlier versions that a result may be of: the one it names, or all that there were."""
        named = (entry.result or {}).get("version")
        return [named] if named else earlier_versions(self.job_type)

    def usable(self, item: str) -> bool:
        """Return True when the result of this stage may be used further: none before it has given the item up, and no gate holds it back."""
        return not self.is_shut(item) and self.has_usable(item)

    def has_usable(self, item: str) -> bool:
        """Return True when the result of this stage could be used further, were all gates open."""
        return self.given(item) is not None

    def given(self, item: str) -> Given | None:
        """Return the result of this stage for `item` with what it was made from; None when it may not be used further, all gates being open.

        What was found is kept until something is recorded of the item, here or in a stage before: tables are written again and again.
        """
        kept = self._kept_of(item)
        if kept.given is _UNKNOWN:
            kept.given = self._find_given(item)
        return kept.given

    def _kept_of(self, item: str) -> _Kept:
        stamp, kept = self._stamp(item), self._kept.get(item)
        if kept is None or kept.stamp != stamp:
            kept = self._kept[item] = _Kept(stamp)
        return kept

    def _stamp(self, item: str) -> tuple[int, ...]:
        """Return what stays the same while nothing is recorded of the item, and no gate, parameter or optics change, here or before."""
        numbers, common = [], 0
        for stage in self.line:
            job = stage.job
            entry = job.items.get(item)
            numbers.append(0 if entry is None else entry.recorded)
            common += gate_revision(job) + job.shared_changes + stage._taken
        first = self.line[0]
        return (*numbers, common, 0 if first.groups is None else first.groups.revision(item))

    def _find_given(self, item: str) -> Given | None:
        entry = self.job.items.get(item)
        if entry is None or entry.result is None or counts_as_given_up(self.job, entry):
            return None
        if entry.result.get("rejected") and self.job.words.get(item) != "accept":
            return None  # it stays out of the tables while it is processed again
        if self.groups is not None and not self.groups.used(item):
            return None
        inputs = self._inputs(item)
        if not inputs.keys() >= self.required_ports:
            return None
        if self.optional and not self.required and not any(stage.has_usable(item) for stage in self.optional):
            return None
        return Given(Result.from_json(entry.result), inputs)

    @property
    def _all_open(self) -> bool:
        """True when no gate here or before holds anything back; asked again and again, so it is a plain loop."""
        for stage in self.line:  # noqa: SIM110 - `all` takes twice as long
            if not shuts_nothing(stage.job):
                return False
        return True

    def is_shut(self, item: str) -> bool:
        """Return True when a gate holds back what this stage has of `item`: its own, or one before. Rounds are not held back."""
        if self.job_type.aggregate or self._all_open:
            return False
        if is_shut(self.job, item) or self.is_held_back(item):
            return True
        return self._chooses and self._is_made_from_shut(item)

    def is_held_back(self, item: str) -> bool:
        """Return True when a gate before this stage keeps `item` from it: from an input that it needs, or from all that it could be made from."""
        if self.job_type.aggregate or self._all_open:
            return False
        if not self._chooses:  # as nearly always; it is asked of very many items
            return any(is_shut(stage.job, item) for stage in self.alongside)
        if any(stage.is_shut(item) for stage in self.required):
            return True
        shut = [stage for stage in self.optional if stage.is_shut(item)]
        return (
            bool(shut)
            and not self.required
            and all(stage in shut or stage.has_given_up(item) for stage in self.optional)
        )

    @cached_property
    def _chooses(self) -> bool:
        """True when this stage, or one before that has the same items, can do without an input."""
        return any(stage.optional for stage in self.line)

    def _is_made_from_shut(self, item: str) -> bool:
        """Return True when the result for `item` was made from an input that is held back now, though it could do without."""
        entry = self.job.items.get(item)
        if entry is None or entry.result is None or not any(stage.is_shut(item) for stage in self.optional):
            return False
        return not self._judged(item)[1]

    def is_ready(self, item: str) -> bool:
        """Return True when all that `item` is made from here is there, or will not come where it can be done without."""
        if self.lacks_shared or self.is_held_back(item) or not all(stage.is_settled(item) for stage in self.required):
            return False
        if self.groups is not None:
            return self.groups.is_ready(item)
        shut = [stage.is_shut(item) for stage in self.optional]
        there = [stage.is_settled(item) and not out for stage, out in zip(self.optional, shut, strict=True)]
        return (bool(self.required) or any(there)) and all(
            settled or out or stage.has_given_up(item)
            for settled, out, stage in zip(there, shut, self.optional, strict=True)
        )

    def is_settled(self, item: str) -> bool:
        """Return True when `item` is done here, and all that it was made from is."""
        entry = self.job.items.get(item)
        return counts_as_done(self.job, entry) and (self.is_source or self.is_ready(item))

    def has_given_up(self, item: str) -> bool:
        """Return True when `item` has no result here and will not get one, unless something is tried again."""
        entry = self.job.items.get(item)
        return self.deleted or counts_as_given_up(self.job, entry) or self.cannot_come(item)

    def cannot_come(self, item: str) -> bool:
        """Return True when what `item` needs was given up in a stage before."""
        if self.is_source:
            return False
        if self.groups is not None:
            return self.groups.has_nothing(item)
        if self.required:
            return any(stage.has_given_up(item) for stage in self.required)
        return bool(self.optional) and all(stage.has_given_up(item) for stage in self.optional)

    def may_begin(self, item: str) -> bool:
        """Return True when `item` is to be in this table: what it is made from directly is done."""
        if self.is_held_back(item):
            return False
        if self.groups is not None:
            return bool(self.groups.used(item))
        needed = [stage for stage in self.counted if stage in self.required]
        done = [_is_done(stage, item) and not stage.is_shut(item) for stage in (needed or self.optional)]
        return all(done) if needed else any(done)

    def rows(self) -> list[Row]:
        """Return the items with usable results, in order of arrival, for the job's STAR files."""
        if self.job_type.aggregate:
            entries = [entry for entry in self.job.items.values() if entry.result is not None]
            return [Row(self.item(entry.name), Result.from_json(entry.result or {})) for entry in entries]
        for name in self._rows.changed(self.line, self.revisions()):
            self._rows.found[name] = self._row(name)
        return [row for name in self.job.items if (row := self._rows.found.get(name)) is not None]

    def _row(self, name: str) -> Row | None:
        entry = self.job.items.get(name)
        if entry is None or entry.result is None or self.is_shut(name):
            return None
        given, optics = self.given(name), listed_under(self, name)
        return Row(Item(name, given.inputs), given.result, optics) if given is not None and optics is not None else None

    def revisions(self) -> tuple[int, ...]:
        """Return what `rows` depends on: the revisions of the jobs whose items they show, which stay the same while the rows do."""
        groups = sum(stage.groups.total for stage in self.line if stage.groups is not None)
        return (
            self._taken,
            groups,
            *[number for stage in self.line for number in (stage.job.revision, gate_revision(stage.job))],
        )

    def settings_key(self) -> str:
        """Return the part of an aggregate's keys that its parameters make; what it is made from makes the rest."""
        return self._key([], self.job_type.version, self.optics)[:SETTINGS_LENGTH]

    def settings_version(self, entry: ItemEntry) -> str:
        """Return the version of the algorithm by which a round was made with the present parameters; "" when it was made with others."""
        for version in (self.job_type.version, *self._versions(entry)):
            if entry.key[:SETTINGS_LENGTH] in (key[:SETTINGS_LENGTH] for key in self._keys([], version, self.optics)):
                return version
        return ""

    def is_round_of(self, entry: ItemEntry, key: str) -> bool:
        """Tell whether a round that is done is the one with `key`, by the present version of the algorithm or an earlier one."""
        return entry.key[SETTINGS_LENGTH:] == key[SETTINGS_LENGTH:] and bool(self.settings_version(entry))

    def newest_round(self) -> ItemEntry | None:
        """Return the last round of an aggregate that has a result, when it is not being made again."""
        last = next((entry for entry in reversed(self.job.items.values()) if entry.result is not None), None)
        return last if last is not None and last.state is ItemState.DONE else None

    def stale(self) -> list[str]:
        """Return the finished items whose key is not that of the present inputs and parameters; of an aggregate, its last round.

        One that cannot be done again, because a stage before has given it up, stays as it is.
        """
        if self.is_source:
            return []
        if self.job_type.aggregate:
            last = self.newest_round()
            return [last.name] if last is not None and not self.settings_version(last) else []
        return [
            entry.name
            for entry in self.job.items.values()
            if entry.state in FINAL_STATES and self.is_out_of_date(entry.name) and not self.cannot_come(entry.name)
        ]

    def is_out_of_date(self, item: str) -> bool:
        """Tell whether the result of an item, or that there is none, is not of the present inputs and parameters.

        Of a group nothing is said while members are being processed. What can be made of several inputs is another result without one of them that a
        gate holds back, but not without all: then it is held back itself.
        """
        if self.groups is not None and (self.groups.underway(item) or self.groups.has_nothing(item)):
            return False
        if self.optional and self.is_held_back(item):
            return False
        return self.job.items[item].key != self.expected_key(item)

    def outdated(self) -> dict[str, str]:
        """Return the results that an earlier version of the algorithm has made, with that version; of an aggregate, its last round."""
        if self.is_source:
            return {}
        if self.job_type.aggregate:
            last = self.newest_round()
            versions = {last.name: self.settings_version(last)} if last is not None else {}
        else:
            done = [entry for entry in self.job.items.values() if entry.result and entry.state in FINAL_STATES]
            versions = {entry.name: self._judged(entry.name)[1] for entry in done}
        return {name: version for name, version in versions.items() if version not in ("", self.job_type.version)}

    def being_redone(self, item: str) -> bool:
        """Tell whether an item that had a result here is being made again, here or in a stage before whose result is used."""
        entry = self.job.items.get(item)
        if entry is None or entry.result is None:
            return False
        entries = [stage.job.items.get(item) for stage in self.line]
        if any(other is not None and other.state not in FINAL_STATES for other in entries):
            return not self._chooses or self._is_underway(item)
        grouping = self.first if self.first.groups is not None else None
        return grouping is not None and any(map(grouping.gathered.being_redone, grouping.members(item)))

    def _is_underway(self, item: str) -> bool:
        """Tell whether an item is still to be made here, or in a stage before whose result no gate keeps from this one."""
        entry = self.job.items.get(item)
        if entry is not None and entry.state not in FINAL_STATES and not self.is_held_back(item):
            return True
        return any(stage._is_underway(item) for stage in self.required) or any(
            stage._is_underway(item) for stage in self.optional if not stage.is_shut(item)
        )

    def settled(self) -> bool:
        """Return True when nothing waits that can be done, and nothing is being processed here."""
        return not self.in_flight and (self.job_type.aggregate or self.deleted or not self.to_do())

    def to_do(self) -> int:
        """Return how many items wait here that no gate holds back, and that wait for nothing else: no further member, and nothing that all need."""
        if self.lacks_shared:
            return 0
        if self.groups is not None:
            return sum(self.groups.is_ready(name) for name in self.waiting)
        if all(shuts_nothing(stage.job) for stage in self.alongside):
            return len(self.waiting)
        return sum(not self.is_held_back(name) for name in self.waiting)

    def entry(self, item: str) -> ItemEntry | None:
        """Return the table's entry of an item."""
        return self.job.items.get(item)

    def owner(self, item: str, port: str, role: str) -> tuple[Stage | None, str]:
        """Return the nearest stage behind `port` whose result for `item` has a file of this role, and the file."""
        level: list[Stage] = [self.upstreams[port]] if port in self.upstreams else []
        while level:
            for stage in level:
                entry = stage.entry(item)
                outputs = entry.result["outputs"] if entry is not None and entry.result is not None else {}
                if role in outputs:
                    return stage, outputs[role]
            level = [other for stage in level for other in stage.upstreams.values()]
        return None, ""


def followers(stages: Sequence[Stage], stage: Stage) -> Iterator[Stage]:
    """Yield those of `stages` that take each item of `stage`."""
    return (
        other
        for other in stages
        if not other.job_type.aggregate and other.groups is None and stage in other.upstreams.values()
    )


def _results(stages: Sequence[Stage], item: str) -> dict[str, dict[str, Any]]:
    """Return the results that `item` has from `stages`, by label; what was given up, or is held back, is left out."""
    return {
        stage.label: entry.result
        for stage in stages
        if stage.usable(item) and (entry := stage.job.items[item]).result is not None
    }


def _is_done(stage: Stage, item: str) -> bool:
    entry = stage.entry(item)
    return (
        entry is not None and counts_as_done(stage.job, entry) and (stage.is_source or not stage.is_out_of_date(item))
    )
