"""The tables of a session: its stages with their items, and every transition an item can make."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beamside.acquisition.reports import Remark
from beamside.flow.gate import GateState, gate_revision
from beamside.flow.optics import TOLD, text_of
from beamside.flow.retries import pause_after
from beamside.flow.rules import rules_in
from beamside.flow.source_table import SourceTable
from beamside.flow.stages import Stage, followers
from beamside.jobs.base import Result
from beamside.project.records import (
    FINAL_STATES,
    IN_FLIGHT_STATES,
    ItemEntry,
    ItemState,
)

log = logging.getLogger(__name__)

INPUTS_CHANGED = "inputs or parameters changed"


class Tables(SourceTable):
    """All stages of a session. Every change goes to the journal first."""

    def recover(self) -> None:
        """Bring the tables into order after whatever happened: what was in flight waits again, what is out of date too."""
        self.tell_optics()
        for stage in self.stages:
            self._leave_to_rules(stage)
            for entry in list(stage.job.items.values()):
                if entry.state in IN_FLIGHT_STATES:
                    self._record(
                        stage, entry.name, ItemState.WAITING, reason="the session ended while this was processed"
                    )
                if entry.state is ItemState.WAITING and not stage.job_type.aggregate and not stage.is_source:
                    stage.waiting[entry.name] = None
                    if entry.result is not None:
                        self.again.add(stage, entry.name, entry.reason)
                elif entry.state is ItemState.FAILED and stage.job_type.aggregate:
                    self._record(stage, entry.name, ItemState.WAITING, attempt=0, reason="a new session tries again")
            for name in stage.stale():
                self.redo(stage, name, INPUTS_CHANGED)
        for stage in self.stages:
            self._gates[stage.name] = GateState.of(stage.job)
            behind = [other.job.items for other in followers(self.stages, stage)]
            for entry in list(stage.job.items.values()):
                ended = [items[entry.name].state in FINAL_STATES if entry.name in items else False for items in behind]
                if entry.state is not ItemState.DONE or not all(ended):  # of all others it is known that they stay
                    self._go_on(stage, entry.name)
            self._consider_groups(stage)

    def tell_optics(self, *, final: bool = False) -> None:
        """Tell what there is to tell of the optics of all items."""
        for name in self.source.job.items:
            self.source.optics_of(name)
        self.problems.hold(TOLD, self.source.item_optics.troubles(final=final))

    def _leave_to_rules(self, stage: Stage) -> None:
        """Let rules decide on what an earlier version rejected by a limit: the results are there, and nothing is computed again."""
        for entry in list(stage.job.items.values()) if stage.job_type.limits else []:
            if entry.state is not ItemState.REJECTED or entry.result is None:
                continue
            if stage.job_type.rejected_by_limit(Result.from_json(entry.result)):
                kept = {**entry.result, "rejected": ""}
                self._record(stage, entry.name, ItemState.DONE, key=entry.key, result=kept, seconds=entry.seconds)

    def take_gates(self) -> None:
        """Go on with the items that rules, or a person's words, hold back or let through since this was asked last."""
        changed: dict[str, None] = {}
        for stage in self.stages:
            before = self._gates.get(stage.name, GateState(0, {}, ()))
            if before.revision != gate_revision(stage.job):
                changed |= dict.fromkeys(before.changed(stage.job))
                changed |= self._came_behind  # the gate may have been shut and opened again since
                self._gates[stage.name] = GateState.of(stage.job)
        for name in changed:
            self._touch_groups(None, name)
            for stage in self.stages:
                self._go_on(stage, name)
            for stage in self.stages:
                if name in stage.waiting:
                    self._tell_again(stage, name)
            if not any(stage.is_shut(name) for stage in self.stages):
                self._came_behind.pop(name, None)

    def _tell_again(self, stage: Stage, name: str) -> None:
        """Count what waits to be made again while no gate holds it back."""
        if stage.is_held_back(name):
            self.again.leave(stage, name)
        elif (entry := stage.entry(name)) is not None and entry.result is not None:
            self.again.add(stage, name, entry.reason)

    def take_parameters(self) -> int:
        """The settings have changed: what depends on them is done again, what is in flight when it comes; returns how many results wait for it."""
        again, rules, optics = 0, rules_in(self.settings), self.settings.optics.item_optics()
        for stage in self.stages:
            parameters = self.settings.jobs[stage.label]
            dumped = parameters.model_dump(mode="json")
            if stage.job.parameters != dumped:
                self.writer.set_parameters(stage.job.name, dumped)
            self.writer.rules(stage.job.name, rules.get(stage.label, ()))
            stage.take(parameters, optics)
        self.tell_optics()
        for stage in self.stages:
            for name in stage.stale():
                self.redo(stage, name, INPUTS_CHANGED)
                again += stage.job.items[name].state is ItemState.WAITING
            failed = [entry for entry in stage.job.items.values() if entry.state is ItemState.FAILED]
            for entry in failed if stage.job_type.aggregate else []:
                if not stage.settings_version(entry):
                    self._record(stage, entry.name, ItemState.WAITING, attempt=0, reason=INPUTS_CHANGED)
            self._consider_groups(stage)
        return again

    def set_source_ended(self, ended: bool) -> None:
        """Say whether the source has no more: groups that are not complete by any other rule are then."""
        for stage in self.stages:
            if stage.groups is not None and stage.groups.source_ended != ended:
                stage.groups.source_ended = ended
                for name in stage.groups.names() if ended else ():
                    self._consider_group(stage, name)

    def take_shared(self) -> int:
        """One thing for all items of a job is another now: what depends on it is done again; returns how many results wait for it."""
        again = 0
        for stage in self.stages:
            for name in stage.stale():
                self.redo(stage, name, INPUTS_CHANGED)
                again += stage.job.items[name].state is ItemState.WAITING
        return again

    def retry_failed(self) -> int:
        """Let every failed item be tried again, and every failed round; returns how many there are."""
        again = 0
        for stage in self.processing:
            for entry in list(stage.job.items.values()):
                if entry.state is ItemState.FAILED:
                    self.redo(stage, entry.name, "asked to try again")
                    again += entry.state is not ItemState.FAILED
        return again

    def give_up(self, stage: Stage, name: str, reason: str) -> None:
        """An item that waits cannot be done."""
        stage.waiting.pop(name, None)
        self._finish(stage, name, ItemState.FAILED, key="", reason=reason)

    def release_in_flight(self) -> None:
        """Put what is still being processed back to waiting: the session ends without it."""
        for stage in self.stages:
            for entry in list(stage.job.items.values()):
                if entry.state in IN_FLIGHT_STATES:
                    self._record(stage, entry.name, ItemState.WAITING, reason="the session was stopped")
            stage.in_flight.clear()

    def queued(self, stage: Stage, name: str) -> int:
        """An item is given to the executor; returns the number of this task of the item."""
        entry = stage.job.items[name]
        made_from = stage.gathered.job.revision if stage.job_type.aggregate else None
        members = None if stage.groups is None else stage.groups.used(name)
        attempt, task = entry.attempt + 1, entry.task + 1
        optics = "" if stage.job_type.aggregate else text_of(stage.optics_of(name))
        details = {"made_from": made_from, "task": task, "members": members, "optics": optics}
        self._record(stage, name, ItemState.QUEUED, attempt=attempt, **details)
        stage.waiting.pop(name, None)
        stage.in_flight.add(name)
        return task

    def running(self, stage: Stage, name: str, where: Mapping[str, Any]) -> None:
        """A worker has begun with an item."""
        self._record(stage, name, ItemState.RUNNING, where=where)

    def outcome(self, stage: Stage, name: str, key: str, task: int, outcome: Mapping[str, Any]) -> None:
        """Record what became of a task that a worker had.

        Of a task that was given up, or has an outcome already, nothing is taken: the first outcome of the present task counts.
        """
        entry = stage.job.items[name]
        done = {"seconds": float(outcome["seconds"]), "where": outcome.get("where")}
        if not entry.has_in_hand(task):
            log.warning("%s: %s: %s", stage.title, name, not_awaited(entry, task))
            if entry.state not in IN_FLIGHT_STATES:
                stage.in_flight.discard(name)
            return
        result = outcome["result"]
        if result is not None and (
            gone := files_not_there(self.root, stage.job_type.written_by_work(result["outputs"]))
        ):
            reason = f"what the worker says that it wrote is not there: {', '.join(gone)}"
            outcome, result = {**outcome, "result": None, "reason": reason, "permanent": False}, None
        if result is not None:
            rejected = result.get("rejected", "")
            state = ItemState.REJECTED if rejected else ItemState.DONE
            self._finish(stage, name, state, key=key, result=result, reason=rejected, **done)
            stage.in_flight.discard(name)
            self._warn(stage, name, result["values"].get("warnings", {}))
            if self._is_out_of_date(stage, name):
                self.redo(stage, name, "inputs changed while this was processed")
            return
        reason = outcome["reason"]
        log.warning("%s: %s: %s%s", stage.title, name, reason, "\n" + outcome["log"] if outcome["log"] else "")
        if outcome["permanent"] or entry.attempt >= self.settings.execution.item_attempts:
            self._finish(stage, name, ItemState.FAILED, key=key, reason=reason, **done)
            if self._is_out_of_date(stage, name):
                self.redo(stage, name, "inputs changed while this was processed")
        else:
            self._record(stage, name, ItemState.WAITING, reason=reason)
            stage.not_before[name] = time.monotonic() + pause_after(entry.attempt)
            stage.waiting[name] = None
        stage.in_flight.discard(name)

    def not_given_out(self, stage: Stage, name: str, reason: str) -> None:
        """An item could not be given to the executor: one that never was fails, another attempt at one that was is made later."""
        stage.waiting.pop(name, None)
        key, entry = stage.expected_key(name), stage.job.items[name]
        if entry.state in IN_FLIGHT_STATES:
            nothing = {"result": None, "reason": reason, "permanent": False, "log": "", "seconds": 0.0}
            self.outcome(stage, name, key, entry.task, nothing)
        else:
            log.warning("%s: %s: %s", stage.title, name, reason)
            self._finish(stage, name, ItemState.FAILED, key=key, reason=reason, seconds=0.0)

    def _is_out_of_date(self, stage: Stage, name: str) -> bool:
        """Tell whether the inputs or parameters of a result that has just come have changed since it was begun; of a round, the parameters."""
        if stage.job_type.aggregate:
            return not stage.settings_version(stage.job.items[name])
        return stage.is_out_of_date(name)

    def _warn(self, stage: Stage, name: str, warnings: Mapping[str, str]) -> None:
        """Tell what a result warns of, and no longer what an earlier one did: of the same item, or of the rounds before."""
        prefix = f"{stage.name}-"
        if stage.job_type.aggregate:
            self.problems.forget(prefix)
        else:
            self.problems.withdraw(prefix, name, but=[prefix + subject for subject in warnings])
        for subject, sentence in warnings.items():
            self.problems.remark(Remark(prefix + subject, sentence, name))

    def add_round(self, stage: Stage, name: str) -> None:
        """A round of an aggregate begins to exist, or is done again: what it follows is another one now."""
        entry = stage.entry(name)
        if entry is None:
            self._record(stage, name, ItemState.WAITING)
        elif entry.state in FINAL_STATES:
            self._record(stage, name, ItemState.WAITING, attempt=0, reason="inputs changed")


def not_awaited(entry: ItemEntry, task: int) -> str:
    """Say why the outcome of a task changes nothing."""
    if entry.task != task:
        return f"the outcome of task {task} comes late and is left out: the item has since been given out again, as task {entry.task}"
    return f"task {task} has an outcome already, or was given up; a further one is left out, and the item stays {entry.state.value}"


def files_not_there(root: Path, outputs: Mapping[str, str]) -> list[str]:
    """Return the files of a result that this process does not see, as on another machine a worker may have seen other disks."""
    return [path for path in outputs.values() if not os.path.isfile(os.path.join(root, path))]
