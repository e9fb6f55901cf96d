"""What a scheduler that runs can be told: the part of it that carries out commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from beamside.flow.changing import Changed, changes_between, check_running, with_values
from beamside.flow.checks import Check
from beamside.flow.commands import ForHolder, ForSession
from beamside.flow.dispatch import Dispatcher
from beamside.flow.missing import WhatAgain
from beamside.flow.offers import Offers
from beamside.flow.problems import Problems
from beamside.flow.projection import Projection
from beamside.flow.recovery import Recovery
from beamside.flow.settings import SessionSettings
from beamside.flow.source import Source
from beamside.flow.sources import METADATA
from beamside.flow.space import SpaceWatch
from beamside.flow.steps import ENDING
from beamside.flow.stored_settings import store_settings
from beamside.flow.table import Tables
from beamside.project.project import Project, ProjectWriter


class Steering:
    """Holds a project's lease, and is told what to do with it.

    Attributes
    ----------
    state : "running", "paused" or "stopping"
    finishing : whether it ends when there is no more to do
    """

    writer: ProjectWriter
    problems: Problems
    space: SpaceWatch
    tables: Tables
    recovery: Recovery
    offers: Offers
    projection: Projection
    dispatcher: Dispatcher
    check: Check

    def __init__(
        self,
        settings: SessionSettings,
        source: Source,
        write_report: Callable[[Project, bool], None] | None,
        until_empty: bool,
    ) -> None:
        self.settings, self.source = settings, source
        self.project = Project(settings.root)
        self.state = "running"
        self.finishing = until_empty
        self._write_report = write_report or (lambda _project, _final: None)
        self._last_report = time.monotonic()

    def ask(self, command: ForSession | ForHolder, who: str) -> str:
        """Do what a command says, for the person `who`, and say what that means."""
        return command.carry_out(self, who)

    def set_state(self, state: str) -> None:
        """Be "running" or "paused"."""
        if state != self.state:
            self.state = state
            self.writer.session({"running": "resumed"}.get(state, state))
        self.let_arrive()

    def finish(self) -> None:
        """Process what is there, then end."""
        self.finishing = True
        self.source.look_anew()
        self.set_state("running")
        self.writer.session("finishing")

    def stop(self) -> None:
        """End now."""
        self.state = "stopping"

    def retry(self) -> int:
        """Let everything that has failed be tried again; returns how many results that are."""
        number = self.tables.retry_failed()
        self.check.retry()
        self.source.retry()
        return number

    def recompute(self, what: WhatAgain) -> list[str]:
        """Let results be computed again; returns the jobs that RELION has deleted, which stay as they are."""
        self.source.look_anew()
        return self.recovery.recompute(what)

    def answer_offer(self, job: str, identity: str, who: str, *, decline: bool) -> str:
        """Let a job take what is offered to it, or stay with what it has; returns the sentence of what that means."""
        self.source.look_anew()
        return self.offers.answer(job, identity, who, decline=decline)

    def change(self, values: Mapping[str, Any]) -> Changed:
        """Go on with other values of settings: what depends on them is computed again, and what is in flight when it comes."""
        new = with_values(self.settings, values)
        changes = changes_between(self.settings, new)
        check_running(changes)
        if not changes:
            return Changed((), 0)
        store_settings(self.project, new)
        self.writer.settings(new.to_json())
        workers = new.execution.workers != self.settings.execution.workers
        self.settings.take_over(new)
        self.problems.forget(METADATA)  # they compare with what was given before
        self.source.look_anew()
        again = self.tables.take_parameters()
        self.source.take_settings(new)
        self.space.wanted = new.execution.min_free_space
        later = ""
        others = self.dispatcher.places.capacity().gpu_workers
        if workers and not self.dispatcher.limit(new.execution.worker_count(others)):
            later = f"The session was started with {self.dispatcher.places.workers}; more are started when it is stopped and resumed."
        self.projection.write_options()
        return Changed(changes, again, later=later)

    def report(self, *, final: bool = False) -> None:
        """Write the report now."""
        self._last_report = time.monotonic()
        try:
            self._write_report(self.project, final)
        except ENDING:
            raise
        except Exception as error:
            self.problems.open("report", f"The report could not be written: {error}")
        else:
            self.problems.close("report")

    def let_arrive(self) -> None:
        """Nothing is taken in while the session is paused or the disk is full."""
        self.source.pause(self.state == "paused" or self.space.full)
