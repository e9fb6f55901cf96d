"""One stage of a session: a job type at work in a job, with the items that are waiting for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from beamside.flow.keys import item_key
from beamside.jobs.base import Item, JobType, Optics, Result, Row
from beamside.parameters import ParameterModel
from beamside.project.records import FINAL_STATES, ItemEntry, ItemState, JobEntry


@dataclass
class Stage:
    """A job type, its parameters, its job's table, and the stage it follows."""

    job_type: JobType
    parameters: ParameterModel
    optics: Optics
    job: JobEntry
    upstream: Stage | None = None
    waiting: dict[str, None] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)

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
        found = {}
        for stage in self.chain():
            entry = stage.job.items.get(item)
            if entry is not None and entry.result is not None:
                found[stage.name] = Result.from_json(entry.result)
        return found

    def expected_key(self, item: str) -> str:
        """Return the key that a result for `item` has now; the first stage's key is that of the file's content."""
        if self.upstream is None:
            return self.job.items[item].key
        return item_key(self.job_type, self.parameters, self.optics, [self.upstream.expected_key(item)])

    def usable(self, item: str) -> bool:
        """Return True when the result of this stage may be used further: it is there and no stage has given the item up."""
        return all(
            (entry := stage.job.items.get(item)) is not None
            and entry.result is not None
            and entry.state not in (ItemState.REJECTED, ItemState.FAILED)
            for stage in (*self.chain(), self)
        )

    def rows(self) -> list[Row]:
        """Return the items with usable results, in order of arrival, for the job's STAR files."""
        return [
            Row(Item(entry.name, self.results(entry.name)), Result.from_json(entry.result))
            for entry in self.job.items.values()
            if entry.result is not None and (self.job_type.aggregate or self.usable(entry.name))
        ]

    def revisions(self) -> tuple[int, ...]:
        """Return what `rows` depends on: the revisions of the jobs whose items they show, which stay the same while the rows do."""
        stages = (*self.chain(), self)
        return tuple(stage.job.revision for stage in stages if stage.job_type.aggregate == self.job_type.aggregate)

    def settings_key(self) -> str:
        """Return the part of an aggregate's keys that its parameters make; what it is made from makes the rest."""
        return item_key(self.job_type, self.parameters, self.optics, [])[:8]

    def stale(self) -> list[str]:
        """Return the finished items whose key is not that of the present inputs and parameters; of an aggregate, its last round."""
        if self.upstream is None:
            return []
        if self.job_type.aggregate:
            done = [entry for entry in self.job.items.values() if entry.state is ItemState.DONE]
            return [entry.name for entry in done[-1:] if not entry.key.startswith(self.settings_key())]
        return [
            entry.name
            for entry in self.job.items.values()
            if entry.state in FINAL_STATES and entry.key != self.expected_key(entry.name)
        ]

    def settled(self) -> bool:
        """Return True when nothing waits and nothing is being processed here."""
        return not self.in_flight and (self.job_type.aggregate or not self.waiting)

    def entry(self, item: str) -> ItemEntry | None:
        """Return the table's entry of an item."""
        return self.job.items.get(item)
