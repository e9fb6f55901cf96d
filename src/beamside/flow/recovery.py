"""Going on with a project as it is found: what is gone is told, written or computed again where that is right, and left alone everywhere else."""

from __future__ import annotations

import logging

from beamside.acquisition.reports import Remark
from beamside.flow.again import AGAIN
from beamside.flow.former_sessions import died
from beamside.flow.missing import TOLD, Files, NotThere, WhatAgain, gone_results, survey, to_make_first
from beamside.flow.stages import Stage
from beamside.flow.table import Tables
from beamside.jobs.base import Result

log = logging.getLogger(__name__)


class Recovery:
    """Looks after the results of a session's tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.root, self.problems = tables, tables.root, tables.problems

    def begin(self) -> None:
        """Bring everything into order after whatever happened, and tell what there is to tell."""
        after_death = died(self.tables.writer.state.sessions)
        self.tables.recover()
        self.restore()
        if after_death:
            self._redo_lost()
        self.tell()

    def tell(self) -> None:
        """Tell which results lack files or are of earlier versions, and which jobs were deleted."""
        self._tell_results()
        self.tell_again()

    def tell_again(self) -> None:
        """Tell what is computed again now, and why; when that has come to an end, also what there still is to tell of the results."""
        if self.tables.again.changed:
            self.problems.hold(AGAIN, self.tables.again.troubles())
            self.tables.again.changed = False
            if not self.tables.again:
                self._tell_results()

    def _tell_results(self) -> None:
        found = survey(self.root, self.tables.stages)
        for prefix in TOLD:
            self.problems.hold(prefix, [trouble for trouble in found if trouble.key.startswith(prefix)])

    def restore(self) -> None:
        """Write the files again whose content the tables have."""
        files = Files(self.root)
        for stage in (stage for stage in self.tables.stages if not stage.gone):
            entries = [entry.result for entry in stage.job.items.values() if entry.result]
            lacking = [result for result in entries if not all(map(files.has, result["outputs"].values()))]
            results = [Result.from_json(result) for result in lacking]
            try:
                if number := stage.job_type.restore(results, stage.job.name, self.root):
                    log.info("%s: %d files that were gone were written again from the tables", stage.job.name, number)
            except OSError as error:
                log.warning("%s: files that are gone could not be written again: %s", stage.job.name, error)

    def recompute(self, what: WhatAgain) -> list[str]:
        """Let results be computed again because that was asked for; returns the jobs that RELION has deleted, of which nothing is.

        Those that cannot be, because the raw file is gone, stay as they are.
        """
        files, kept = Files(self.root), set[str]()
        for stage in self.tables.processing:
            if stage.deleted:
                continue
            reasons: dict[str, str] = {}
            if what in ("outdated", "all"):
                reasons = {
                    name: f"asked for: it was made by version {version} of the algorithm"
                    for name, version in stage.outdated().items()
                }
            if what in ("missing", "all"):
                reasons |= {gone.name: "asked for: files of its result are gone" for gone in gone_results(files, stage)}
            for name, reason in reasons.items():
                if not stage.job_type.aggregate and isinstance(
                    first := to_make_first(self.root, stage, name), NotThere
                ):
                    kept.add(first.path)
                else:
                    self.tables.redo(stage, name, reason)
        if kept:
            self.problems.remark(
                Remark(
                    "not-computed-again",
                    f"What was made from {min(kept)} cannot be computed again, and stays: the file is not in the project any more "
                    f"({len(kept)} such files).",
                )
            )
        self.tell()
        return [stage.job.name for stage in self.tables.stages if stage.gone]

    def inputs_ready(self, stage: Stage, name: str) -> bool:
        """Return True when the files that `stage` reads of an item are there; what is gone is made first, or the item is given up."""
        first = to_make_first(self.root, stage, name)
        if isinstance(first, NotThere):
            reason = f"{first.path} is not in the project any more: put it back, then try again with 'beamside session retry'"
            self.tables.give_up(stage, name, reason)
        elif first is not None:
            self.tables.redo(*first, f"a file that {stage.title} needs is gone")
        return first is None

    def _redo_lost(self) -> None:
        """Let results be computed again whose files a machine that failed did not bring to the disk any more."""
        files = Files(self.root)
        for stage in self.tables.processing:
            for gone in [] if stage.deleted else gone_results(files, stage):
                if gone.needed and not gone.cleaned:
                    self.tables.redo(
                        stage, gone.name, "the session before did not end in order, and files of its result are gone"
                    )
