"""Carrying out commands where no session runs: somebody takes the project's lease for a moment, does what waits, and gives it back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from beamside.errors import BeamsideError
from beamside.flow.changing import Changed, changes_between, with_values
from beamside.flow.checks import Check
from beamside.flow.commands import ForHolder
from beamside.flow.cost import cost_in, results_of
from beamside.flow.inbox import Inbox
from beamside.flow.missing import WhatAgain
from beamside.flow.offers import Offers
from beamside.flow.projection import Projection
from beamside.flow.recovery import Recovery
from beamside.flow.rules import rules_in
from beamside.flow.settings import SessionSettings, with_rules_of
from beamside.flow.stored_settings import load_settings, settings_of, store_settings
from beamside.flow.table import Tables
from beamside.project.project import Project, ProjectWriter

log = logging.getLogger(__name__)


class Caretaker:
    """The holder of a lease who is no session: what he changes, the next session finds in the journal."""

    check: Check | None = None

    def __init__(self, writer: ProjectWriter) -> None:
        self.writer, self.gates_changed = writer, False

    @property
    def settings(self) -> SessionSettings:
        """The settings that the project's next session has."""
        return load_settings(self.writer.project)

    @cached_property
    def recovery(self) -> Recovery:
        """The project's tables, by the settings that its next session has."""
        return Recovery(Tables(load_settings(self.writer.project), self.writer))

    def ask(self, command: ForHolder, who: str) -> str:
        """Do what a command says, for the person `who`, and say what that means."""
        said = command.carry_out(self, who)
        self.gates_changed |= command.at_once
        return said

    def write_tables(self) -> None:
        """Write the tables without what is held back now; all other settings are those of the results, and not those of the next session.

        What cannot be written, the next session writes.
        """
        if not self.writer.state.settings:
            return
        try:
            had = settings_of(self.writer.project, self.writer.state.settings)
            tables = Tables(with_rules_of(self.settings, had), self.writer)
            Projection(tables.settings, self.writer, tables.stages).write_tables()
        except (BeamsideError, OSError) as error:
            log.warning("the tables could not be written now: %s", error)

    def retry(self) -> int:
        """Let everything that has failed wait again; what could not be taken in, the next session tries by itself."""
        return self.recovery.tables.retry_failed()

    def recompute(self, what: WhatAgain) -> list[str]:
        """Let results be computed again; returns the jobs that RELION has deleted, which stay as they are."""
        return self.recovery.recompute(what)

    def change(self, values: Mapping[str, Any]) -> Changed:
        """Leave other values of settings for the next session."""
        before = self.settings
        new = with_values(before, values)
        changes = changes_between(before, new)
        if changes:
            store_settings(self.writer.project, new)
            self.gates_changed |= rules_in(new) != rules_in(before)
            self.__dict__.pop("recovery", None)  # its tables have the settings of before
        return Changed(changes, results_of(cost_in(new, self.writer.state)), when=" when the session goes on")

    def answer_offer(self, job: str, identity: str, who: str, *, decline: bool) -> str:
        """Let a job take what is offered to it, or stay with what it has; returns the sentence of what that means."""
        return Offers(self.recovery.tables).answer(job, identity, who, decline=decline)


def carry_out_waiting(project: Project) -> None:
    """Carry out what waits in the inbox of a project whose session does not run. Raises ProjectBusyError when it does."""
    with ProjectWriter(project.require()) as writer:
        caretaker = Caretaker(writer)
        Inbox(writer).work_without_session(caretaker.ask)
        if caretaker.gates_changed:
            caretaker.write_tables()
