"""When aggregates run.

2D classification runs at a number of particles, at each further increment, and once more over all at the end. An aggregate that follows another one,
as class selection does, runs after each of its rounds.

What a round has published stays until one over complete inputs takes its place: no round begins while results of before are being made again, or
while files that it would read are gone. A smaller selection would follow, and the classes of later rounds would begin from it.
"""

from __future__ import annotations

import hashlib

from beamside.acquisition.arrivals import Remark
from beamside.flow.dispatch import Dispatcher
from beamside.flow.missing import without_inputs
from beamside.flow.recovery import Recovery
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.flow.table import Tables
from beamside.project.records import FINAL_STATES, ItemEntry, ItemState

FEWEST_PARTICLES_PER_CLASS = 5
"""With fewer particles a classification says nothing, and none is run at the end."""


class Rounds:
    """Starts rounds of the aggregate stages."""

    def __init__(self, settings: SessionSettings, tables: Tables, recovery: Recovery, dispatcher: Dispatcher) -> None:
        self.settings, self.tables, self.recovery, self.dispatcher = settings, tables, recovery, dispatcher
        self._tried = 0
        self._not_due: dict[str, tuple[int, ...]] = {}

    def consider(self, *, final: bool) -> bool:
        """Start a round where one is due; returns True while one is due or running."""
        return any([self._consider(stage, final) for stage in self.tables.stages if stage.job_type.aggregate])  # noqa: C419 - all must be looked at

    def _consider(self, stage: Stage, final: bool) -> bool:
        assert stage.upstream is not None
        if stage.in_flight:
            return True
        if stage.deleted:
            return False
        if stage.upstream.job_type.aggregate:
            return self._follow(stage, stage.upstream)
        return self._classify(stage, stage.upstream, final)

    def _classify(self, stage: Stage, before: Stage, final: bool) -> bool:
        """Start a round over all items of the stage `before`, where one is due and its inputs are complete."""
        tables = (*before.revisions(), stage.job.records, final)
        if self._not_due.get(stage.name) == tables:
            return False  # as when all items were looked at last
        done = [entry for entry in before.job.items.values() if entry.state is ItemState.DONE and entry.result]
        items = [entry.name for entry in done if before.usable(entry.name)]
        particles = sum(int(entry.result["metrics"]["extracted"]) for entry in done if entry.result)
        key = self._key(stage, items)
        last = next((entry for entry in reversed(stage.job.items.values()) if entry.state in FINAL_STATES), None)
        failed = last is not None and last.state is ItemState.FAILED and last.key == key
        redone = failed or any(before.being_redone(name) for name in before.job.items)
        if redone or not (self._final_due(stage, particles, key) if final else self._due(stage, particles)):
            self._not_due[stage.name] = tables
            return False
        if not self._has_inputs(stage, items):
            return False
        self._tried = particles
        self._start(stage, items, key, final)
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
            assert stage.upstream is not None
            sentence = (
                f"{stage.job_type.title} is not repeated: {len(gone)} of the {len(items)} results of {stage.upstream.job_type.title} that it is made "
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
            self.dispatcher.submit_round(stage, name, [name], key, final=bool(result and result["values"].get("final")))
            return True
        return False

    def _due(self, stage: Stage, particles: int) -> bool:
        if any(entry.state is ItemState.WAITING for entry in stage.job.items.values()):
            return particles > 0  # a round that was cut short, or whose parameters have changed
        parameters = stage.parameters.model_dump()
        rounds = [entry for entry in stage.job.items.values() if entry.state is ItemState.DONE and entry.result]
        increment = parameters["class_increment"] or parameters["class_min"]
        classified = int(rounds[-1].result["metrics"]["classified"]) if rounds and rounds[-1].result else 0
        if rounds:
            classified = min(classified, particles - self._fresh(stage, rounds[-1]))
        last = next(reversed(stage.job.items.values()), None)
        if last is not None and last.state is ItemState.FAILED:
            classified = max(classified, self._tried)
        return particles >= parameters["class_min"] and particles - classified >= (
            increment if rounds or classified else 1
        )

    def _fresh(self, stage: Stage, last: ItemEntry) -> int:
        """Return how many of the particles were extracted after the `last` round began: new ones, and those that were extracted again."""
        assert stage.upstream is not None
        begin = last.changed - last.seconds  # of a journal that does not say what the round was made from

        def later(entry: ItemEntry) -> bool:
            return entry.finished > last.made_from if last.made_from >= 0 else entry.changed > begin

        return sum(
            int(entry.result["metrics"]["extracted"])
            for entry in stage.upstream.job.items.values()
            if entry.state is ItemState.DONE and entry.result and later(entry)
        )

    def _final_due(self, stage: Stage, particles: int, key: str) -> bool:
        last = next((entry for entry in reversed(stage.job.items.values()) if entry.state is ItemState.DONE), None)
        if last is not None and stage.is_round_of(last, key) and last.result and last.result["values"].get("final"):
            return False
        fewest = FEWEST_PARTICLES_PER_CLASS * 2
        if particles >= fewest:
            return True
        sentence = f"{particles} particles are too few for 2D classification; it was not run."
        self.tables.problems.remark(Remark(f"{stage.name}-too-few", sentence, severity="info"))
        return False

    def _start(self, stage: Stage, items: list[str], key: str, final: bool) -> None:
        unfinished = next((entry.name for entry in stage.job.items.values() if entry.state is ItemState.WAITING), None)
        name = unfinished or f"round{len(stage.job.items) + 1:03d}"
        self.tables.add_round(stage, name)
        self.dispatcher.submit_round(stage, name, items, key, final=final)

    def _key(self, stage: Stage, items: list[str]) -> str:
        assert stage.upstream is not None
        digest = hashlib.sha256()
        for name in items:
            digest.update(f"{name}:{stage.upstream.job.items[name].key}\n".encode())
        return stage.settings_key() + digest.hexdigest()[:12]
