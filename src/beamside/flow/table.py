"""The tables of a session: its stages with their items, and every transition an item can make."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from beamside.acquisition.reports import ImportedFile, LookReport, Remark
from beamside.flow.again import DoneAgain
from beamside.flow.gate import GateState, counts_as_done, gate_revision
from beamside.flow.opening import open_jobs
from beamside.flow.optics import TOLD, text_of
from beamside.flow.problems import Problems
from beamside.flow.retries import pause_after
from beamside.flow.rules import rules_in
from beamside.flow.set_aside import SET_ASIDE, displaced, name_of
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import FileImported
from beamside.flow.stages import Stage, followers
from beamside.jobs.base import Result
from beamside.project.project import ProjectWriter
from beamside.project.records import (
    FINAL_STATES,
    IN_FLIGHT_STATES,
    ItemEntry,
    ItemState,
)

log = logging.getLogger(__name__)

INPUTS_CHANGED = "inputs or parameters changed"

PLACES = 3
"""So many values, at least, are in the keys of what was taken in: earlier projects have these for every kind of source."""


def _intake_key(told_apart: Sequence[str], sha256: str, values: Mapping[str, Any], problem: str = "") -> str:
    own = [values.get(name, "") for name in told_apart]
    own += [""] * (PLACES - len(own))
    return hashlib.sha256(json.dumps([sha256, *own, problem]).encode()).hexdigest()[:20]


class Tables:
    """All stages of a session. Every change goes to the journal first."""

    def __init__(
        self,
        settings: SessionSettings,
        writer: ProjectWriter,
        problems: Problems | None = None,
        *,
        new_for_deleted: bool = False,
    ) -> None:
        """Open the project's jobs; with `new_for_deleted`, make new ones for those that RELION has deleted."""
        self.settings, self.writer = settings, writer
        self.root = writer.project.root
        self.problems = problems if problems is not None else Problems(writer)
        self.changed: set[str] = set()
        self.again = DoneAgain()
        self._late_metadata: dict[str, Mapping[str, Any]] = {}
        self._gates: dict[str, GateState] = {}
        self._came_behind: dict[str, None] = {}
        self.stages = open_jobs(settings, writer, new_for_deleted=new_for_deleted)

    def stage(self, name: str) -> Stage:
        """Return the stage with this label."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def source(self) -> Stage:
        """The stage that has what acquisition takes in."""
        return next(stage for stage in self.stages if stage.is_source)

    @property
    def processing(self) -> list[Stage]:
        """All other stages."""
        return [stage for stage in self.stages if not stage.is_source]

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
            for name in list(stage.job.items):
                self._go_on(stage, name)

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
            if not any(stage.is_shut(name) for stage in self.stages):
                self._came_behind.pop(name, None)

    def _go_on(self, stage: Stage, name: str) -> None:
        """Let the next stages have an item, or know that it does not come, as the stage says that has it."""
        entry = stage.entry(name)
        if counts_as_done(stage.job, entry):
            self._advance(stage, name)
        elif entry is not None and entry.state is ItemState.REJECTED:
            self._give_up_after(stage, name, entry.state)
        self._consider_groups(stage)

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

    def redo(self, stage: Stage, name: str, reason: str) -> None:
        """Let a finished item be done again, unless an earlier stage has given it up."""
        if not stage.job_type.aggregate and stage.cannot_come(name):
            return
        if (entry := stage.entry(name)) is not None and entry.state not in FINAL_STATES:
            return
        self._record(stage, name, ItemState.WAITING, attempt=0, reason=reason)
        stage.waiting[name] = None
        self.again.add(stage, name, reason)

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

    # -- acquisition ------------------------------------------------------------------------------------------------

    def intake_done(self, event: FileImported) -> None:
        """A file is in the project; one that was known already, with the same content and the same values that tell it apart, changes nothing."""
        stage, taken = self.source, event.file
        key = self._intake_key(taken.sha256, event.values, event.problem)
        entry = stage.entry(taken.name)
        if entry is not None and entry.key == key and entry.state in FINAL_STATES:
            self.intake_metadata(taken)
            return
        if (other := displaced(taken.name, taken.source, stage.job)) is not None:
            self._set_aside(*other)
        if entry is None or entry.state in FINAL_STATES:
            self._record(
                stage,
                taken.name,
                ItemState.WAITING,
                reason="" if entry is None else "the file, or what belongs to it, changed",
            )
        if stage.job.items[taken.name].state is ItemState.WAITING:
            self._record(stage, taken.name, ItemState.QUEUED, attempt=1)
        if event.problem:
            self._finish(stage, taken.name, ItemState.FAILED, key=key, reason=event.problem)
            return
        metadata = max(self._late_metadata.pop(taken.name, {}), taken.metadata, key=len)
        values = {"sha256": taken.sha256, "source": taken.source, "metadata": dict(metadata), **event.values}
        result = {
            "metrics": {"gigabytes": taken.size / 1e9, "megabytes_per_second": taken.bytes_per_second / 1e6},
            "outputs": event.outputs,
            "values": values,
            "rejected": "",
        }
        self._finish(stage, taken.name, ItemState.DONE, key=key, result=result, seconds=taken.seconds)

    def intake_metadata(self, taken: ImportedFile) -> None:
        """More is known of a file than when it was taken in, as its microscope's record came later: its optics may be others now."""
        stage, name, metadata = self.source, taken.name, dict(taken.metadata)
        entry = stage.entry(name)
        if entry is None or entry.state is not ItemState.DONE or entry.result is None:
            self._late_metadata[name] = metadata  # news of the file itself follows
            return
        if entry.result["values"].get("metadata") == metadata or entry.result["values"].get("sha256") != taken.sha256:
            return
        result = {**entry.result, "values": {**entry.result["values"], "metadata": metadata}}
        self._intake_again(name, entry.key, result, "more is known of the file")
        for other in self.processing:
            if other.first is self.source:  # also those whose inputs stay as they are
                self._consider(other, name)

    def _intake_again(self, name: str, key: str, result: Mapping[str, Any], reason: str) -> None:
        """Record something else of a file that is in the project."""
        stage = self.source
        self._record(stage, name, ItemState.WAITING, reason=reason)
        self._record(stage, name, ItemState.QUEUED, attempt=1)
        self._finish(stage, name, ItemState.DONE, key=key, result=result, seconds=stage.job.items[name].seconds)

    def taken_in(self) -> dict[str, ItemEntry]:
        """Return the files that are in the project with what was made of them, by path."""
        role = self.settings.source_kind.role
        return {
            entry.result["outputs"][role]: entry
            for entry in self.source.job.items.values()
            if entry.state is ItemState.DONE and entry.result is not None and role in entry.result["outputs"]
        }

    def intake_again(self, name: str, values: Mapping[str, Any], reason: str) -> None:
        """Other values hold now for a file that was given on; nothing happens when they are of the same item."""
        stage = self.source
        entry = stage.job.items[name]
        assert entry.result is not None
        key = self._intake_key(values["sha256"], values)
        if key == entry.key:
            return
        result = {**entry.result, "values": dict(values)}
        self._record(stage, name, ItemState.WAITING, reason=reason)
        self._record(stage, name, ItemState.QUEUED, attempt=1)
        self._finish(stage, name, ItemState.DONE, key=key, result=result, seconds=entry.seconds)

    def intake_waits(self, event: FileImported, reason: str) -> None:
        """A file is in the project, and waits until something is settled; one that was processed before stays as it is."""
        stage, name = self.source, event.file.name
        if stage.entry(name) is None:
            self._record(stage, name, ItemState.WAITING, reason=reason)

    def _intake_key(self, sha256: str, values: Mapping[str, Any], problem: str = "") -> str:
        return _intake_key(self.settings.source_kind.told_apart, sha256, values, problem)

    def intake_set_aside(self, report: LookReport) -> None:
        """Files that were tried often enough; they are tried again when they change."""
        for aside in report.set_aside:
            self._set_aside(name_of(aside.source, self.source.job), aside.source, aside.reason)

    def _set_aside(self, name: str, source: str, reason: str) -> None:
        stage = self.source
        entry = stage.entry(name)
        if entry is None:
            self._record(stage, name, ItemState.WAITING)
        elif entry.state is not ItemState.WAITING:
            if entry.reason == reason:
                return
            self._record(stage, name, ItemState.WAITING, reason="the file changed")
        self._finish(stage, name, ItemState.FAILED, key=SET_ASIDE + source, reason=reason)

    # -- processing -------------------------------------------------------------------------------------------------

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

    # -- inside -----------------------------------------------------------------------------------------------------

    def _record(self, stage: Stage, name: str, state: ItemState, **details: Any) -> None:
        self.writer.item(stage.job.name, name, state, **details)
        self.changed.add(stage.name)
        self._touch_groups(stage, name)

    def _finish(self, stage: Stage, name: str, state: ItemState, **details: Any) -> None:
        self._record(stage, name, state, **details)
        stage.not_before.pop(name, None)
        self.again.discard(stage, name)
        if stage.is_source and stage.item_optics.groups:
            told = len(stage.item_optics.overlaps)
            stage.optics_of(name)
            if len(stage.item_optics.overlaps) != told:
                self.problems.hold(TOLD, stage.item_optics.troubles(final=False))
        if stage.is_shut(name):
            self._came_behind[name] = None
        if counts_as_done(stage.job, stage.entry(name)):
            self._advance(stage, name)
        else:
            self._give_up_after(stage, name, state)
        if stage.job.rules:  # another result may let through what further jobs have not begun with
            for other in self.stages:
                if stage in other.before:
                    self._go_on(other, name)
        self._consider_groups(stage)

    def _advance(self, stage: Stage, name: str) -> None:
        """Let the next stages have an item that is done here."""
        if not stage.is_source and not stage.job_type.aggregate and stage.is_out_of_date(name):
            return
        for follower in followers(self.stages, stage):
            self._consider(follower, name)

    def _consider(self, stage: Stage, name: str) -> None:
        """Let a stage have an item of which something that it is made from has changed."""
        entry = stage.entry(name)
        if entry is None:
            if stage.may_begin(name):
                self._record(stage, name, ItemState.WAITING)
                stage.waiting[name] = None
        elif entry.state in FINAL_STATES and stage.is_out_of_date(name):
            self.redo(stage, name, "inputs changed")

    # -- groups -----------------------------------------------------------------------------------------------------

    def _fed_by(self, stage: Stage | None) -> Iterator[Stage]:
        """Yield the stages that take groups of items of `stage`, or all that take groups."""
        for other in self.stages:
            if other.groups is not None and (stage is None or stage in other.gathered.line):
                yield other

    def _touch_groups(self, stage: Stage | None, name: str) -> None:
        for other in self._fed_by(stage):
            if other.groups is not None:
                other.groups.touch(name)

    def _consider_groups(self, stage: Stage) -> None:
        """Look at the groups of which something has changed."""
        for other in self._fed_by(stage):
            for name in other.groups.take_changed() if other.groups is not None else ():
                self._consider_group(other, name)

    def _consider_group(self, stage: Stage, name: str) -> None:
        entry = stage.entry(name)
        if entry is None:
            self._consider(stage, name)
        elif stage.cannot_come(name):
            self._give_up_group(stage, entry)
        elif entry.state in FINAL_STATES:
            self._consider(stage, name)
            self._go_on(stage, name)

    def _give_up_group(self, stage: Stage, entry: ItemEntry) -> None:
        """Nothing is left of which a group could be made. A result that it has stays while its members may come back; nothing uses it."""
        assert stage.groups is not None
        if entry.state is ItemState.DONE and not stage.groups.members(entry.name):
            self._record(stage, entry.name, ItemState.WAITING, attempt=0)
            self._record(stage, entry.name, ItemState.QUEUED)
            self._finish(stage, entry.name, ItemState.REJECTED, key="", reason="nothing belongs to it any more")
        elif entry.state is ItemState.WAITING:
            stage.waiting.pop(entry.name, None)
            self._finish(stage, entry.name, ItemState.FAILED, key="", reason="nothing of it could be used")
        elif entry.state in FINAL_STATES:
            self._give_up_after(stage, entry.name, ItemState.FAILED)

    def _give_up_after(self, stage: Stage, name: str, state: ItemState, reason: str = "") -> None:
        """Items of later stages that wait for one that was given up cannot be done, also where a stage between has a result from before."""
        reason = reason or f"{stage.title} was {state.value}"
        for follower in followers(self.stages, stage):
            entry = follower.entry(name)
            if not follower.cannot_come(name):  # it can do without what was given up here
                self._consider(follower, name)
            elif entry is not None and entry.state is ItemState.WAITING:
                self._finish(follower, name, ItemState.FAILED, key="", reason=reason)
                follower.waiting.pop(name, None)
            elif entry is not None and entry.state is ItemState.DONE:
                self._give_up_after(follower, name, state, reason)


def not_awaited(entry: ItemEntry, task: int) -> str:
    """Say why the outcome of a task changes nothing."""
    if entry.task != task:
        return f"the outcome of task {task} comes late and is left out: the item has since been given out again, as task {entry.task}"
    return f"task {task} has an outcome already, or was given up; a further one is left out, and the item stays {entry.state.value}"


def files_not_there(root: Path, outputs: Mapping[str, str]) -> list[str]:
    """Return the files of a result that this process does not see, as on another machine a worker may have seen other disks."""
    return [path for path in outputs.values() if not os.path.isfile(os.path.join(root, path))]
