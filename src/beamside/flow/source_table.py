"""The table of what acquisition takes in: files that are there, wait, were set aside, or get something else by the source's check."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from beamside.acquisition.reports import ImportedFile, LookReport
from beamside.flow.set_aside import SET_ASIDE, displaced, name_of
from beamside.flow.source_thread import FileImported
from beamside.flow.transitions import Transitions
from beamside.project.records import (
    FINAL_STATES,
    ItemEntry,
    ItemState,
)

PLACES = 3
"""So many values, at least, are in the keys of what was taken in: earlier projects have these for every kind of source."""


def _intake_key(told_apart: Sequence[str], sha256: str, values: Mapping[str, Any], problem: str = "") -> str:
    own = [values.get(name, "") for name in told_apart]
    own += [""] * (PLACES - len(own))
    return hashlib.sha256(json.dumps([sha256, *own, problem]).encode()).hexdigest()[:20]


class SourceTable(Transitions):
    """The stages of a session; here, what happens to the items of the first one."""

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
            "metrics": taken.measured,
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
