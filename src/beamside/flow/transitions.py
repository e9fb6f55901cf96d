"""Every transition that an item can make, and what follows from it for the stages after it and for groups. The journal comes first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from beamside.flow.again import DoneAgain
from beamside.flow.gate import GateState, counts_as_done
from beamside.flow.opening import open_jobs
from beamside.flow.optics import TOLD
from beamside.flow.problems import Problems
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage, followers
from beamside.project.project import ProjectWriter
from beamside.project.records import (
    FINAL_STATES,
    ItemEntry,
    ItemState,
)


class Transitions:
    """The stages of a session, and what follows when something is recorded of an item."""

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

    def redo(self, stage: Stage, name: str, reason: str) -> None:
        """Let a finished item be done again, unless an earlier stage has given it up."""
        if not stage.job_type.aggregate and stage.cannot_come(name):
            return
        if (entry := stage.entry(name)) is not None and entry.state not in FINAL_STATES:
            return
        self._record(stage, name, ItemState.WAITING, attempt=0, reason=reason)
        stage.waiting[name] = None
        self.again.add(stage, name, reason)

    def _go_on(self, stage: Stage, name: str) -> None:
        """Let the next stages have an item, or know that it does not come, as the stage says that has it."""
        entry = stage.entry(name)
        if counts_as_done(stage.job, entry):
            self._advance(stage, name)
        elif entry is not None and entry.state is ItemState.REJECTED:
            self._give_up_after(stage, name, entry.state)
        self._consider_groups(stage)

    def _record(self, stage: Stage, name: str, state: ItemState, **details: Any) -> None:
        self.writer.item(stage.job.name, name, state, **details)
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
