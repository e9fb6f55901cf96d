"""One stage of a session: a job type at work in a job, with the items that are waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from beamside.flow.keys import earlier_versions, key_of, key_settings
from beamside.jobs.base import Item, JobType, Optics, Result, Row
from beamside.parameters import ParameterModel
from beamside.project.records import FINAL_STATES, ItemEntry, ItemState, JobEntry

SETTINGS_LENGTH = 8
"""Length of the part of an aggregate's keys that its parameters make."""


@dataclass
class Stage:
    """A job type, its parameters, its job's table, and the stage it follows. `gone` says that RELION has deleted the job."""

    job_type: JobType
    parameters: ParameterModel
    optics: Optics
    job: JobEntry
    upstream: Stage | None = None
    waiting: dict[str, None] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)
    gone: bool = False
    _settings: dict[str, str] = field(default_factory=dict, repr=False)
    _made_by: dict[str, tuple[tuple[str, str, str], str]] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Short name of the job type."""
        return self.job_type.name

    def chain(self) -> Iterator[Stage]:
        """Yield the stages before this one, the first one first."""
        if self.upstream is not None:
            yield from self.upstream.chain()
            yield self.upstream

    def results(self, item: str) -> dict[str, Result]:
        """Return the results that `item` has from the stages before this one, the first one first."""
        return _results(self.chain(), item)

    @property
    def deleted(self) -> bool:
        """True when RELION has deleted this job, or one that it is made from: nothing is done here until that is taken back."""
        return self.gone or (self.upstream is not None and self.upstream.deleted)

    def expected_key(self, item: str) -> str:
        """Return the key that a result for `item` has now; the first stage's key is that of the file's content.

        A result that only the version of an algorithm sets apart, its own or of one before, is valid and keeps its key.
        """
        if self.upstream is None:
            return self.job.items[item].key
        before = self.upstream.expected_key(item)
        entry = self.job.items.get(item)
        if entry is not None and self._version_of(entry, before):
            return entry.key
        return self._key([before], self.job_type.version)

    def key_made_from(self, before: str) -> str:
        """Return the key of a result that is made now from a result with the key `before`."""
        return self._key([before], self.job_type.version)

    def _key(self, inputs: list[str], version: str) -> str:
        """Return a key by a version of the algorithm; a session asks for very many, and what they have in common is made once."""
        if version not in self._settings:
            self._settings[version] = key_settings(self.job_type, self.parameters, self.optics, version)
        return key_of(self._settings[version], inputs)

    def _version_of(self, entry: ItemEntry, before: str) -> str:
        """Return the version of the algorithm by which the result of `entry` was made from a result with the key `before`; "" when it was not.

        What was found is kept: of each result it is asked several times when a session begins, and again after every recompute.
        """
        asked = (before, entry.key, str((entry.result or {}).get("version", "")))
        known = self._made_by.get(entry.name)
        if known is None or known[0] != asked:
            versions = (self.job_type.version, *self._versions(entry))
            found = next((version for version in versions if entry.key == self._key([before], version)), "")
            known = self._made_by[entry.name] = (asked, found)
        return known[1]

    def _versions(self, entry: ItemEntry) -> list[str]:
        """Return the earlier versions that a result may be of: the one it names, or all that there were."""
        named = (entry.result or {}).get("version")
        return [named] if named else earlier_versions(self.job_type)

    def usable(self, item: str) -> bool:
        """Return True when the result of this stage may be used further: it is there and no stage has given the item up."""
        return _usable((*self.chain(), self), item)

    def rows(self) -> list[Row]:
        """Return the items with usable results, in order of arrival, for the job's STAR files."""
        before = tuple(self.chain())
        stages = () if self.job_type.aggregate else (*before, self)
        return [
            Row(Item(entry.name, _results(before, entry.name)), Result.from_json(entry.result))
            for entry in self.job.items.values()
            if entry.result is not None and _usable(stages, entry.name)
        ]

    def revisions(self) -> tuple[int, ...]:
        """Return what `rows` depends on: the revisions of the jobs whose items they show, which stay the same while the rows do."""
        stages = (*self.chain(), self)
        return tuple(stage.job.revision for stage in stages if stage.job_type.aggregate == self.job_type.aggregate)

    def settings_key(self, version: str = "") -> str:
        """Return the part of an aggregate's keys that its parameters make; what it is made from makes the rest."""
        return self._key([], version or self.job_type.version)[:SETTINGS_LENGTH]

    def settings_version(self, entry: ItemEntry) -> str:
        """Return the version of the algorithm by which a round was made with the present parameters; "" when it was made with others."""
        for version in (self.job_type.version, *self._versions(entry)):
            if entry.key.startswith(self.settings_key(version)):
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
        """Return the finished items whose key is not that of the present inputs and parameters; of an aggregate, its last round."""
        if self.upstream is None:
            return []
        if self.job_type.aggregate:
            last = self.newest_round()
            return [last.name] if last is not None and not self.settings_version(last) else []
        return [
            entry.name
            for entry in self.job.items.values()
            if entry.state in FINAL_STATES and entry.key != self.expected_key(entry.name)
        ]

    def outdated(self) -> dict[str, str]:
        """Return the results that an earlier version of the algorithm has made, with that version; of an aggregate, its last round."""
        if self.upstream is None:
            return {}
        if self.job_type.aggregate:
            last = self.newest_round()
            versions = {last.name: self.settings_version(last)} if last is not None else {}
        else:
            done = [entry for entry in self.job.items.values() if entry.result and entry.state in FINAL_STATES]
            versions = {entry.name: self._version_of(entry, self.upstream.expected_key(entry.name)) for entry in done}
        return {name: version for name, version in versions.items() if version not in ("", self.job_type.version)}

    def being_redone(self, item: str) -> bool:
        """Tell whether an item that had a result here is being made again, here or in a stage before."""
        entry = self.job.items.get(item)
        if entry is None or entry.result is None:
            return False
        entries = [stage.job.items.get(item) for stage in (*self.chain(), self)]
        return any(other is not None and other.state not in FINAL_STATES for other in entries)

    def settled(self) -> bool:
        """Return True when nothing waits that can be done, and nothing is being processed here."""
        return not self.in_flight and (self.job_type.aggregate or self.deleted or not self.waiting)

    def entry(self, item: str) -> ItemEntry | None:
        """Return the table's entry of an item."""
        return self.job.items.get(item)


def _results(stages: Iterable[Stage], item: str) -> dict[str, Result]:
    found = {}
    for stage in stages:
        entry = stage.job.items.get(item)
        if entry is not None and entry.result is not None:
            found[stage.name] = Result.from_json(entry.result)
    return found


def _usable(stages: Iterable[Stage], item: str) -> bool:
    for stage in stages:
        entry = stage.job.items.get(item)
        if entry is None or entry.result is None or entry.state in (ItemState.REJECTED, ItemState.FAILED):
            return False
        if entry.result.get("rejected"):  # it stays out of the tables while it is processed again
            return False
    return True
