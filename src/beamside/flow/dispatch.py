"""Giving work to the executor: what is ready, the last stages first, never more than the workers can soon begin with."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, replace
from typing import Any

from beamside.errors import in_words
from beamside.execution.orphans import session_mark
from beamside.execution.pools import HasGpus
from beamside.execution.whereabouts import Listener, Where
from beamside.flow.check_items import CheckItems
from beamside.flow.checks import Check
from beamside.flow.places import Given, Places, memory_troubles
from beamside.flow.recovery import Recovery
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.flow.steps import ENDING
from beamside.flow.table import Tables
from beamside.jobs.errands import Errand, run_errand
from beamside.jobs.members import Members
from beamside.jobs.worker import Task, run_task
from beamside.project.records import ItemState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AtWork:
    """A worker has a task in hand, since so many monotonic seconds of this process."""

    stage: Stage | CheckItems
    name: str
    where: Where
    since: float


@dataclass(frozen=True)
class Finished:
    """A worker is done with a task of a job, or of a check, in whatever way."""

    stage: Stage | CheckItems
    name: str
    key: str
    task: int
    future: Future[dict[str, Any]]


class Dispatcher:
    """Keeps the executor busy."""

    def __init__(
        self,
        settings: SessionSettings,
        tables: Tables,
        recovery: Recovery,
        executor: Executor,
        events: queue.Queue[Any],
        check: Check | None = None,
    ) -> None:
        self.settings, self.tables, self.recovery = settings, tables, recovery
        self.executor, self.events, self.check = executor, events, check
        self.places = Places(settings, executor)
        self.at_work: dict[tuple[str, str], AtWork] = {}
        project = tables.writer.project
        self._session, self._told_in = session_mark(project.lease_path), project.workers
        self._listener = Listener(project.workers)
        self._tell_memory()

    def limit(self, workers: int) -> bool:
        """Let so many workers work from now on; returns False when fewer were started, which then all work."""
        enough = self.places.limit(workers)
        self._tell_memory()
        return enough

    def _tell_memory(self) -> None:
        self.tables.problems.hold("memory:", memory_troubles(self.tables.stages, self.places.capacity()))

    def fill(self) -> None:
        """Give out what is ready, the last stages first, in each the oldest first."""
        self.tables.take_gates()
        kept = set[bool]()
        for stage in reversed(self.tables.stages):
            if not stage.waiting or stage.is_source or stage.job_type.aggregate or stage.deleted:
                continue
            gpu = self.places.on_gpu(stage)
            for name in () if gpu in kept else self._ready(stage, self.places.free(gpu=gpu)):
                if not self.places.has_room(stage):
                    kept.add(gpu)  # what becomes free is kept for it: smaller tasks would take its places for ever
                    break
                if self.recovery.inputs_ready(stage, name):
                    self._submit_safely(stage, name)

    def fill_check(self) -> bool:
        """Give out what the check of the source wants, before all else, as others wait for it; returns whether there was anything."""
        given = False
        for name in self.check.items.ready() if self.check is not None else ():
            if self.places.free() <= 0:
                break
            if self.check is not None and (errand := self.check.wanted(name)) is not None:
                self._submit_errand(self.check.items, name, errand)
                given = True
        return given

    def submit_round(self, stage: Stage, name: str, items: list[str], digest: str, *, final: bool) -> None:
        """Give out a round over `items`, whose names and keys have this `digest`: it carries their names, and the worker reads their results."""
        before = stage.gathered
        members = Members(
            port=next(port for port, other in stage.upstreams.items() if other is before),
            label=before.label,
            names=items,
            digest=digest,
            journals={one.label: (one.job.name, self._journal_size(one)) for one in before.line},
            left_out=_left_out(stage, items),
            optics=before.other_optics(before.job.items[item] for item in items),
        )
        task = self._task(
            stage, [], self.places.threads(stage, final=final), round_name=name, final=final, members=vars(members)
        )
        self._submit(stage, name, stage.settings_key() + digest, task)

    def submit_round_about(self, stage: Stage, name: str, key: str, *, final: bool) -> None:
        """Give out the round of an aggregate that is about a round of another one, of the same name."""
        items, threads = [(name, stage.results(name))], self.places.threads(stage, final=final)
        self._submit(stage, name, key, self._task(stage, items, threads, round_name=name, final=final))

    def _journal_size(self, stage: Stage) -> int:
        try:
            return self.tables.writer.project.job_journal(stage.job.name).stat().st_size
        except FileNotFoundError:  # a job without an item
            return 0

    def finished(self, event: Finished) -> None:
        """Take what a worker has brought."""
        self._forget(event.stage, event.name, event.task)
        try:
            outcome: Mapping[str, Any] = event.future.result()
        except Exception as error:
            outcome = failure(f"the worker was lost ({in_words(error)})", permanent=False)
        self.take_outcome(event, outcome)

    def take_outcome(self, event: Finished, outcome: Mapping[str, Any]) -> None:
        """Take what became of a task."""
        if not isinstance(event.stage, CheckItems):
            self.places.heard(event.stage, event.name, outcome, self.tables.problems)
            self.tables.outcome(event.stage, event.name, event.key, event.task, outcome)
        elif self.check is not None:
            event.stage.outcome(self.check, event.name, event.task, outcome)

    def listen(self) -> None:
        """Take what the workers say of the tasks that they have in hand; of any others it means nothing any more."""
        stages: dict[str, Stage | CheckItems] = {stage.job.name: stage for stage in self.tables.stages}
        if self.check is not None:
            stages[self.check.items.job] = self.check.items
        for said in self._listener.news():
            stage, name = stages.get(said.task.job), said.task.item
            entry = stage.entry(name) if stage is not None else None
            if stage is None or entry is None or not entry.has_in_hand(said.task.number):
                continue
            if not said.begins:
                self.at_work.pop((stage.name, name), None)
                continue
            self.at_work[stage.name, name] = AtWork(stage, name, said.where, time.monotonic())
            if entry.state is ItemState.QUEUED:
                if isinstance(stage, CheckItems):
                    stage.running(name)
                else:
                    self.tables.running(stage, name, asdict(said.where))

    def shown(self) -> list[dict[str, Any]]:
        """Return what the workers have in hand, the longest first, for status displays."""
        now = time.monotonic()
        return [
            {"title": one.stage.title, "item": one.name, "seconds": now - one.since, **asdict(one.where)}
            for one in sorted(self.at_work.values(), key=lambda one: one.since)
        ]

    def described(self, stage: Stage | CheckItems, name: str) -> str:
        """Return a task that was given out in words, with the worker that has it: "motion of raw/m1 (process 5 on node1, cuda:0)"."""
        found = self.at_work.get((stage.name, name))
        place = "" if found is None else f" ({found.where.text()})"
        return f"{stage.name} of {name}{place}"

    def _forget(self, table: Stage | CheckItems, name: str, number: int) -> None:
        if self.places.release(table.name, name, number):
            self.at_work.pop((table.name, name), None)

    def _ready(self, stage: Stage, limit: int) -> list[str]:
        found: list[str] = []
        now = time.monotonic()
        for name in stage.waiting:
            if len(found) >= limit:
                break
            if stage.not_before.get(name, 0.0) <= now and stage.is_ready(name):
                found.append(name)
        return found

    def _submit_safely(self, stage: Stage, name: str) -> None:
        """Give an item out; whatever that raises is a failure of this item, and the others go on."""
        try:
            self._submit_item(stage, name)
        except ENDING:
            raise
        except Exception as error:
            log.exception("%s of %s could not be given out", stage.name, name)
            self.tables.not_given_out(stage, name, f"it could not be given to a worker ({in_words(error)})")

    def _submit_item(self, stage: Stage, name: str) -> None:
        key = stage.key_made_now(name)
        more = {} if stage.groups is None else {"group": name, "left_out": stage.groups.left_out(name)}
        task = self._task(stage, stage.work_on(name), self.places.threads(stage), **more)
        self._submit(stage, name, key, task)

    def _task(self, stage: Stage, items: list[tuple[str, dict[str, Any]]], threads: int, **more: Any) -> Task:
        return Task(
            type_name=stage.job_type.name,
            label=stage.label,
            root=str(self.tables.writer.project.root),
            job=stage.job.name,
            parameters=stage.parameters.model_dump(mode="json"),
            optics=dict(vars(stage.optics if stage.job_type.aggregate else stage.optics_of(items[0][0]))),
            items=items,
            wiring=stage.wiring,
            shared={port: stage.job.shared[port].result for port in stage.suppliers},
            session=self._session,
            told_in=str(self._told_in),
            threads=threads,
            device=self.places.device(stage),
            **more,
        )

    def _submit(self, stage: Stage, name: str, key: str, task: Task) -> None:
        number = self.tables.queued(stage, name)
        given = self.places.given(stage, number, gpu=task.device != "cpu")
        self._hand_over(stage, name, key, given, run_task, replace(task, number=number))

    def _submit_errand(self, items: CheckItems, name: str, errand: Errand) -> None:
        number = items.queued(name)
        told = {"job": items.job, "item": name, "number": number, "told_in": str(self._told_in)}
        given = replace(errand, session=self._session, **told)  # type: ignore[arg-type]
        try:
            self._hand_over(items, name, "", Given(number), run_errand, given)
        except ENDING:
            raise
        except Exception as error:
            log.exception("%s of %s could not be given out", items.title, name)
            reason = f"it could not be given to a worker ({in_words(error)})"
            if self.check is not None:
                items.outcome(self.check, name, number, failure(reason, permanent=False))

    def _hand_over(
        self,
        table: Stage | CheckItems,
        name: str,
        key: str,
        given: Given,
        work: Callable[[Mapping[str, Any]], dict[str, Any]],
        task: Task | Errand,
    ) -> None:
        self.places.take(table.name, name, given)
        submit: Callable[..., Future[dict[str, Any]]] = self.executor.submit
        if given.gpu and isinstance(self.executor, HasGpus):
            submit = self.executor.submit_to_gpu
        try:
            future = submit(work, dict(vars(task)))  # not `asdict`, which copies all tables
        except BaseException:
            self._forget(table, name, given.number)
            raise
        future.add_done_callback(lambda done: self.events.put(Finished(table, name, key, given.number, done)))


def _left_out(stage: Stage, items: Sequence[str]) -> dict[str, list[str]]:
    """Return the labels of jobs that made the items of a round whose results are not used though there are some, by item."""
    line = stage.gathered.line
    if all(len(one.required) == len(one.upstreams) for one in line):
        return {}  # an item of which one was not used would not have come so far
    found = {}
    for name in items:
        used = stage.handed(name)
        there = [one.label for one in line if (entry := one.entry(name)) is not None and entry.result]
        if unused := [label for label in there if label not in used]:
            found[name] = unused
    return found


def failure(reason: str, *, permanent: bool = True) -> dict[str, Any]:
    """Return the outcome of a task that gave nothing; unless it is permanent, another attempt is made."""
    return {"result": None, "reason": reason, "permanent": permanent, "log": "", "seconds": 0.0}
