"""When jobs run that take all items together, or each round of another job.

One that declares increments runs at a number of something, at each further increment, and once more over all at the end. One that follows rounds runs
after each of them.

What a round has published stays until one over complete inputs takes its place: no round begins while results of before are being made again, or
while files that it would read are gone. A smaller selection would follow, and the classes of later rounds would begin from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from beamside.acquisition.reports import Remark
from beamside.flow.dispatch import Dispatcher
from beamside.flow.gate import counts_as_done, shuts_nothing
from beamside.flow.missing import without_inputs
from beamside.flow.recovery import Recovery
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.flow.table import Tables
from beamside.jobs.members import digest_of
from beamside.jobs.triggers import Increments
from beamside.project.records import FINAL_STATES, ItemEntry, ItemState


class Rounds:
    """Starts rounds of the aggregate stages."""

    def __init__(self, settings: SessionSettings, tables: Tables, recovery: Recovery, dispatcher: Dispatcher) -> None:
        self.settings, self.tables, self.recovery, self.dispatcher = settings, tables, recovery, dispatcher
        self._tried: dict[str, int] = {}
        self._not_due: dict[str, tuple[object, ...]] = {}

    def consider(self, *, final: bool) -> bool:
        """Start a round where one is due; returns True while one is due or running."""
        return any([self._consider(stage, final) for stage in self.tables.stages if stage.job_type.aggregate])  # noqa: C419 - all must be looked at

    def _consider(self, stage: Stage, final: bool) -> bool:
        if stage.in_flight:
            return True
        if stage.deleted or stage.lacks_shared or (final and stage.waits_for_shared):
            return False  # the last round is made when all is there that may come
        trigger = stage.job_type.trigger
        if isinstance(trigger, Increments):
            return self._gather(stage, trigger, final)
        return self._follow(stage, stage.gathered)

    def _gather(self, stage: Stage, trigger: Increments, final: bool) -> bool:
        """Start a round over all items of the stage before, where one is due and its inputs are complete."""
        before = stage.gathered
        tables = (*before.revisions(), stage.job.records, stage.parameters, final)
        if self._not_due.get(stage.name) == tables:
            return False  # as when all items were looked at last
        if not final and not self._may_be_due(stage, trigger):
            self._not_due[stage.name] = tables
            return False
        done = _finished(before)
        number = sum(_count(entry, trigger.counts) for entry in done)
        items, digest = (
            [entry.name for entry in done],
            digest_of(((entry.name, entry.key) for entry in done), before.other_optics(done)),
        )
        key = stage.settings_key() + digest
        last = next((entry for entry in reversed(stage.job.items.values()) if entry.state in FINAL_STATES), None)
        failed = last is not None and last.state is ItemState.FAILED and last.key == key
        redone = failed or any(before.being_redone(name) and not before.is_shut(name) for name in before.job.items)
        if redone or not (self._final_due(stage, trigger, number, key) if final else self._due(stage, trigger, number)):
            self._not_due[stage.name] = tables
            return False
        if not self._has_inputs(stage, items):
            return False
        self._tried[stage.name] = number
        self._start(stage, items, digest, final)
        return True

    def _has_inputs(self, stage: Stage, items: list[str]) -> bool:
        """Return True when all files that a round over `items` reads are there; says so when they are not, or are there again."""
        problem = f"round-inputs:{stage.name}"
        gone = without_inputs(self.tables.root, stage, items)
        if gone and not self.tables.problems.is_open(problem):
            self.recovery.restore()
            gone = without_inputs(self.tables.root, stage, gone)
        if not gone:
            self.tables.problems.close(problem)
        elif not self.tables.problems.is_open(problem):
            sentence = (
                f"{stage.title} is not repeated: {len(gone)} of the {len(items)} results of {stage.gathered.title} that it is made "
                f"from have lost files. What it has published stays."
            )
            self.tables.problems.open(problem, sentence)
            self.recovery.tell()
        return not gone

    def _follow(self, stage: Stage, before: Stage) -> bool:
        """Start the round of `stage` that goes with the newest one of the aggregate `before`, or with one that was cut short.

        One that is older than what `stage` has published is passed over: it would take the place of something newer.
        """
        order = list(before.job.items)
        rounds = {
            entry.name: entry for entry in before.job.items.values() if entry.state is ItemState.DONE and entry.result
        }
        published = [entry.name for entry in stage.job.items.values() if entry.result is not None]
        newest = max((order.index(name) for name in published if name in order), default=-1)
        cut_short = [entry.name for entry in stage.job.items.values() if entry.state is ItemState.WAITING]
        for name in (name for name in (*cut_short, *list(rounds)[-1:]) if name in rounds):
            if order.index(name) < newest:
                continue
            key = stage.settings_key() + hashlib.sha256(rounds[name].key.encode()).hexdigest()[:12]
            entry = stage.entry(name)
            if entry is not None and entry.state in FINAL_STATES and stage.is_round_of(entry, key):
                continue
            if not self._has_inputs(stage, [name]):
                continue
            result = rounds[name].result
            self.tables.add_round(stage, name)
            self.dispatcher.submit_round_about(stage, name, key, final=bool(result and result["values"].get("final")))
            return True
        return False

    def _due(self, stage: Stage, trigger: Increments, number: int) -> bool:
        if any(entry.state is ItemState.WAITING for entry in stage.job.items.values()):
            return number > 0  # a round that was cut short, or whose parameters have changed
        start, step = (int(getattr(stage.parameters, name)) for name in (trigger.start, trigger.step))
        rounds = [entry for entry in stage.job.items.values() if entry.state is ItemState.DONE and entry.result]
        taken = _count(rounds[-1], trigger.done) if rounds else 0
        lost = max(0, min(taken - number, self._held_back(stage, trigger)))
        if rounds:
            taken = min(taken, number - self._fresh(stage, trigger, rounds[-1]))
        last = next(reversed(stage.job.items.values()), None)
        if last is not None and last.state is ItemState.FAILED:
            taken = max(taken, self._tried.get(stage.name, 0))
        return number >= start and number - taken + lost >= ((step or start) if rounds or taken else 1)

    def _may_be_due(self, stage: Stage, trigger: Increments) -> bool:
        """Return False where it is clear, without asking of each item whether it may be used, that too little is there or new for a round.

        All results are counted, so no more than that can be used. Where a gate may be shut, this says nothing.
        """
        entries = stage.gathered.job.items.values()
        cut_short = any(entry.state is ItemState.WAITING for entry in stage.job.items.values())
        if cut_short or not all(shuts_nothing(one.job) for one in stage.gathered.line):
            return True
        start, step = (int(getattr(stage.parameters, name)) for name in (trigger.start, trigger.step))
        there = sum(_count(entry, trigger.counts) for entry in entries)
        rounds = [entry for entry in stage.job.items.values() if entry.state is ItemState.DONE and entry.result]
        if there < start or not rounds:
            return there >= start
        later = _later(rounds[-1])
        fresh = sum(_count(entry, trigger.counts) for entry in entries if later(entry))
        return max(there - _count(rounds[-1], trigger.done), fresh) >= (step or start)

    def _held_back(self, stage: Stage, trigger: Increments) -> int:
        """Return how many gates hold back: only these may be lost to a round, and not what is still to be made again."""
        before = stage.gathered
        shut = [entry for entry in before.job.items.values() if before.is_shut(entry.name)]
        return sum(_count(entry, trigger.counts) for entry in shut)

    def _fresh(self, stage: Stage, trigger: Increments, last: ItemEntry) -> int:
        """Return how many were made after the `last` round began: new ones, and those that were made again."""
        later = _later(last)
        return sum(_count(entry, trigger.counts) for entry in _finished(stage.gathered) if later(entry))

    def _final_due(self, stage: Stage, trigger: Increments, number: int, key: str) -> bool:
        last = next((entry for entry in reversed(stage.job.items.values()) if entry.state is ItemState.DONE), None)
        if last is not None and stage.is_round_of(last, key) and last.result and last.result["values"].get("final"):
            return False
        if number >= trigger.fewest:
            return True
        if trigger.too_few:
            sentence = trigger.too_few.format(number=number)
            self.tables.problems.remark(Remark(f"{stage.name}-too-few", sentence, severity="info"))
        return False

    def _start(self, stage: Stage, items: list[str], digest: str, final: bool) -> None:
        unfinished = next((entry.name for entry in stage.job.items.values() if entry.state is ItemState.WAITING), None)
        name = unfinished or f"round{len(stage.job.items) + 1:03d}"
        self.tables.add_round(stage, name)
        self.dispatcher.submit_round(stage, name, items, digest, final=final)


def _finished(stage: Stage) -> list[ItemEntry]:
    """Return what a stage has to give on: results that are not being made again, and that no gate holds back."""
    entries = stage.job.items.values()
    return [entry for entry in entries if counts_as_done(stage.job, entry) and stage.usable(entry.name)]


def _later(last: ItemEntry) -> Callable[[ItemEntry], bool]:
    """Return what tells whether a result was made after the round `last` had begun."""
    if last.made_from >= 0:
        return lambda entry: entry.finished > last.made_from
    begin = last.changed - last.seconds  # of a journal that does not say what the round was made from
    return lambda entry: entry.changed > begin


def _count(entry: ItemEntry, metric: str) -> int:
    return int((entry.result or {"metrics": {}})["metrics"].get(metric, 0))
