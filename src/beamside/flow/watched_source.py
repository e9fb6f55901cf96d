"""A source that is watched: what appears there is taken in, prepared, compared with the settings, and given to the tables once its check lets it."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest
from beamside.acquisition.reports import ImportedFile, LookReport, Remark
from beamside.flow.checks import Check, Surroundings
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import FileImported, ImportFailed, SourceSeen, SourceThread
from beamside.flow.sources import METADATA, check, comparison, preparation
from beamside.flow.steps import Steps
from beamside.flow.waiting import for_the_source

EMPTY_LOOKS = 3
"""So many looks without anything new, after being asked to finish, say that the source has no more: one may have begun before."""

CLOSE_SECONDS = 60.0
"""How long, at most, it is waited for a file that is being taken when the session ends."""


class WatchedSource:
    """The source of a session, of the kind that its workflow takes in."""

    def __init__(self) -> None:
        self._last_arrival = time.monotonic()
        self._empty_looks = 0
        self._last_look: LookReport | None = None
        self._thread: SourceThread | None = None
        self.waiting = 0

    @property
    def doing(self) -> tuple[str, float]:
        """What holds up new files now, and since when."""
        return self._thread.doing if self._thread is not None else ("", 0.0)

    def check(self, around: Surroundings) -> Check:
        """Return what the kind of source names."""
        return check(around.settings.source_kind, around)

    def begin(self, around: Surroundings, check: Check, events: queue.Queue[Any], steps: Steps) -> None:
        """Begin to look, in a thread."""
        self.settings, self.tables, self.problems = around.settings, around.tables, around.problems
        self._check, self._steps = check, steps
        kind, project, writer = self.settings.source_kind, around.tables.writer.project, around.tables.writer
        self._compare = comparison(kind)
        job = self.tables.source.job.name
        prepare = preparation(kind, project.root, job, self.settings, writer.state.findings.values())
        intake = Intake(self.settings.acquisition, project.raw, Manifest(project.root), kind=kind)
        self._thread = SourceThread(intake, prepare, events, self.settings.acquisition.poll_seconds)
        self._thread.start()

    def take(self, event: Any) -> None:
        """Take what the thread tells."""
        if isinstance(event, FileImported):
            self._last_arrival = time.monotonic()
            self.problems.close("destination")
            self._check.take(event)
            self._steps.run("the comparison with metadata", partial(self._compare_metadata, event.file), None)
        elif isinstance(event, ImportFailed):
            if event.full:
                self.problems.open("destination", event.reason, "error")
            else:
                self.problems.remark(Remark("not-taken", event.reason, event.source, severity="info"))
        elif isinstance(event, SourceSeen):
            self._looked(event.report)

    def instead(self, event: Any, reason: str) -> tuple[str, Callable[[], None]] | None:
        """Of a file that was taken in and could not be given on, its item fails."""
        if not isinstance(event, FileImported):
            return None
        failed = FileImported(event.file, {}, {}, reason)
        return f"the arrival of {event.file.name}", partial(self.tables.intake_done, failed)

    def pause(self, paused: bool) -> None:
        """Nothing is taken in while it is paused."""
        if self._thread is not None and paused:
            self._thread.paused.set()
        elif self._thread is not None:
            self._thread.paused.clear()

    def retry(self, *, all_: bool = True) -> None:
        """Try again what could not be taken in or prepared."""
        if self._thread is not None:
            self._thread.retry(all_=all_)

    def take_settings(self, settings: SessionSettings) -> None:
        """Prepare what comes from now on with other settings."""
        if self._thread is not None:
            self._thread.prepare.take_settings(settings)

    def look_anew(self) -> None:
        """Look some more times before it is said that there is no more."""
        self._empty_looks = 0

    def is_empty(self) -> bool:
        """Tell whether some looks in a row have found nothing."""
        return self._empty_looks >= EMPTY_LOOKS

    def is_idle(self) -> bool:
        """Tell whether no file has come for as long as the settings say."""
        idle = self.settings.session.idle_minutes
        return bool(idle) and time.monotonic() - self._last_arrival > idle * 60

    def waits(self, *, finishing: bool) -> str:
        """Return what it waits for."""
        return for_the_source(self._last_look, self.settings.acquisition.data, finishing)

    def end(self) -> None:
        """Look no more."""
        if self._thread is not None:
            self._thread.end.set()

    def close(self) -> None:
        """Wait for what is being taken in."""
        self.end()
        if self._thread is not None:
            self._thread.join(timeout=CLOSE_SECONDS)

    def _compare_metadata(self, taken: ImportedFile) -> None:
        remarks = list(self._compare(self.settings, taken))
        self.problems.withdraw(METADATA, taken.name, but=[remark.subject for remark in remarks])
        for remark in remarks:
            self.problems.remark(remark)

    def _looked(self, report: LookReport) -> None:
        # A source that cannot be read is not an empty one, unless there never was anything in it.
        unreadable = not report.complete and bool(self.tables.source.job.items)
        there = report.new or report.waiting or report.taking or report.to_remove or unreadable
        self._empty_looks = 0 if there else self._empty_looks + 1
        self.waiting, self._last_look = len(report.waiting), report
        if not self._empty_looks:
            self.tables.set_source_ended(False)
        self.tables.intake_set_aside(report)
        for sidecar in report.sidecars:
            self.tables.intake_metadata(sidecar.file)
            self._steps.run("the comparison with metadata", partial(self._compare_metadata, sidecar.file), None)
        self.problems.hold("look:", report.standing)
        for remark in report.remarks:
            self.problems.remark(remark)
