"""Everything that a project can be told, declared once: the inbox, the command line and other ways of asking are made from these declarations.

A command has a name, fields that are checked, and says who can carry it out: a running session, or whoever holds the project's lease. It is
written to the inbox first and answered in the journal, and only then is it gone. After a death in between it is carried out again, so doing it
twice does no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, Protocol, get_args

from pydantic import ValidationError

from beamside.acquisition.kinds import BUILT_IN, installed, source_kind
from beamside.config import nearest
from beamside.errors import ConfigError
from beamside.flow.changing import Changed
from beamside.flow.checks import Check
from beamside.flow.missing import WhatAgain
from beamside.flow.rules import changed_rules
from beamside.flow.settings import SessionSettings
from beamside.flow.verdicts import give_word
from beamside.jobs.loading import load_function
from beamside.parameters import ParameterModel, parameter
from beamside.project.project import ProjectWriter
from beamside.project.records import Word

log = logging.getLogger(__name__)

Left = Literal["ended", "done", "kept", "kept if unfinished"]
"""What becomes of a command that a session did not see before it ended, when the next one begins: it was about the one that has ended; beginning
is what it asked for; it is carried out all the same; or only when the session before neither finished nor was stopped."""


class Holder(Protocol):
    """Whoever holds the project's lease: the session that runs, or somebody who takes the lease for a moment."""

    writer: ProjectWriter

    @property
    def settings(self) -> SessionSettings:
        """The settings that the project's session has."""

    @property
    def check(self) -> Check | None:
        """What settles something about the source before items flow; None where no session runs."""

    def retry(self) -> int:
        """Let everything that has failed be tried again; returns how many results that are."""

    def recompute(self, what: WhatAgain) -> Sequence[str]:
        """Let results be computed again; returns the jobs that RELION has deleted, which stay as they are."""

    def answer_offer(self, job: str, identity: str, who: str, *, decline: bool) -> str:
        """Let a job take what is offered to it, or stay with what it has; returns the sentence of what that means."""

    def change(self, values: Mapping[str, Any]) -> Changed:
        """Have other values of settings, by parameter name; what depends on them is computed again."""


class RunningSession(Holder, Protocol):
    """A session that runs."""

    def set_state(self, state: str) -> None:
        """Be "running" or "paused"."""

    def finish(self) -> None:
        """Process what is there, then end."""

    def stop(self) -> None:
        """End now."""

    def report(self) -> None:
        """Write the report now."""


class Command(ParameterModel):
    """What a project can be told. Its fields are declared as parameters are, its description is the command line's help.

    Attributes
    ----------
    name : how it is called in the inbox and on the command line
    done : the sentence of its answer, when there is no more to say
    """

    name: ClassVar[str]
    done: ClassVar[str] = ""


class ForSession(Command):
    """A command about the session that runs.

    Attributes
    ----------
    left : what becomes of it when the session ends before it has seen it
    met_by_end : whether it asks for what has happened when the session ends
    """

    left: ClassVar[Left] = "ended"
    met_by_end: ClassVar[bool] = False

    def carry_out(self, session: RunningSession, who: str) -> str:
        """Do it, for the person `who`, and return the sentence of the answer; raises BeamsideError when it cannot be done."""
        raise NotImplementedError


class ForHolder(Command):
    """A command about the project: whoever holds the lease carries it out.

    Attributes
    ----------
    at_end : whether a session that is ending carries it out; the others are left to the next holder
    at_once : whether the tables follow it also when no session runs
    """

    at_end: ClassVar[bool] = False
    at_once: ClassVar[bool] = False

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it, for the person `who`, and return the sentence of the answer; raises BeamsideError when it cannot be done."""
        raise NotImplementedError


class Pause(ForSession):
    """Start no new work; what is running is completed, and 'resume' goes on."""

    name = "pause"
    done = "Nothing new is started, what is running is completed, and 'beamside session resume' goes on."

    def carry_out(self, session: RunningSession, who: str) -> str:
        """Do it."""
        session.set_state("paused")
        return self.done


class Resume(ForSession):
    """Go on with a paused session."""

    name = "resume"
    done = "The session goes on."
    left = "done"

    def carry_out(self, session: RunningSession, who: str) -> str:
        """Do it."""
        session.set_state("running")
        return self.done


class Finish(ForSession):
    """Process all that is there, then end."""

    name = "finish"
    done = "What is there is processed, then the session ends."
    left, met_by_end = "kept if unfinished", True

    def carry_out(self, session: RunningSession, who: str) -> str:
        """Do it."""
        session.finish()
        return self.done


class Stop(ForSession):
    """End now."""

    name = "stop"
    done = "The session ends."
    met_by_end = True

    def carry_out(self, session: RunningSession, who: str) -> str:
        """Do it."""
        session.stop()
        return self.done


class Report(ForSession):
    """Write the report now."""

    name = "report"
    done = "The report is being written."
    left = "kept"

    def carry_out(self, session: RunningSession, who: str) -> str:
        """Do it."""
        session.report()
        return self.done


class Retry(ForHolder):
    """Try again everything that has failed; of a session that does not run, when it goes on."""

    name = "retry"

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it."""
        number = holder.retry()
        if number == 0:
            return "No result has failed; files that could not be taken in are tried again."
        what = "1 result that has failed is" if number == 1 else f"{number} results that have failed are"
        return f"{what} tried again, and so are files that could not be taken in."


class Recompute(ForHolder):
    """Compute results again that are valid as they are."""

    name = "recompute"
    done = "What was asked for is computed again."

    what: WhatAgain = parameter(
        ...,
        "'missing': results whose files were cleaned or lost; 'outdated': those of earlier versions of the algorithms; 'all': both.",
    )

    @property
    def replaces_deleted(self) -> bool:
        """Whether new jobs are made, as a session begins, in place of those that RELION has deleted."""
        return self.what != "outdated"

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it."""
        gone = holder.recompute(self.what)
        if not gone or not self.replaces_deleted:
            return self.done
        return (
            f"{self.done} In place of {', '.join(gone)}, which RELION has deleted, new jobs are made when the session is stopped and "
            f"resumed with --recompute {self.what}."
        )


class Set(ForHolder):
    """Change settings. A session that runs goes on with them, and computes again what depends on them; otherwise the next one has them."""

    name = "set"

    values: dict[str, Any] = parameter(..., "The new values, by parameter name.", min_length=1)

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it."""
        done = holder.change(self.values)
        if not done.changes:
            return "The session has these settings already."
        sentence = f"{'; '.join(map(str, done.changes))}."
        if done.again:
            results = "1 result is" if done.again == 1 else f"{done.again} results are"
            sentence += f" {results} computed again{done.when}."
        return f"{sentence} {done.later}".rstrip()


class Gate(ForHolder):
    """Change the rules on what jobs measure; results that break one are held back. Nothing is computed again because of it."""

    name = "gate"
    at_once = True

    add: tuple[str, ...] = parameter(
        (), "Rules to have besides those that there are, such as 'ctf.ctf_resolution < 6'."
    )
    remove: tuple[str, ...] = parameter(
        (), "Rules to have no more, as they are listed, or the metrics that they are on."
    )

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it."""
        before = holder.settings.session.gate
        now = changed_rules(holder.settings, self.add, self.remove, twice=True)
        if now == before:
            return "The session has these rules already."
        holder.change({"gate": list(now)})
        return f"The rules are: {'; '.join(now)}." if now else "There are no rules now."


class _Word(ForHolder):
    """A person's word on items."""

    at_end = at_once = True
    word: ClassVar[Word]

    items: tuple[str, ...] = parameter(..., "Items by name, or by the end of it that no other item has.", min_length=1)
    job: str = parameter(
        "",
        "The job in whose output they are meant, by its name, number, label or type; without it, where that makes sense.",
    )
    undo: bool = parameter(False, "Take back what was said of them.")

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it."""
        word: Word = "none" if self.undo else self.word
        given = give_word(holder.writer, word, self.items, self.job, who)
        is_, are = {"accept": ("is accepted", "are accepted"), "reject": ("is rejected", "are rejected")}.get(
            word, ("is judged by the rules again", "are judged by the rules again")
        )
        return " ".join(
            f"{job.name}: {names[0] + ' ' + is_ if len(names) == 1 else f'{len(names)} items {are}'}."
            for job, names in given
        )


class Accept(_Word):
    """Say that items of a job's output are to be used, whatever the rules say of them. Nothing is computed again because of it.

    Without --job, they are accepted in every job that holds them back.
    """

    name = "accept"
    word = "accept"


class Reject(_Word):
    """Say that items of a job's output are not to be used further, whatever the rules say of them. What was made of them stays on the disk.

    Without --job, they are rejected in the first job that has them, so nothing made from them is used.
    """

    name = "reject"
    word = "reject"


class Take(ForHolder):
    """Let a job take the newer version of what it uses for all its items, such as picking references; what depends on it is computed again."""

    name = "take"
    at_end = True

    job: str = parameter(
        "", "The job that is to take it, by its label or name; without it, the only one with an offer."
    )
    identity: str = parameter(
        "", "Which version is meant; without it, the one that is offered when the command is carried out."
    )
    decline: bool = parameter(False, "Stay with what is used; what is offered now is not offered again.")

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it."""
        return holder.answer_offer(self.job, self.identity, who, decline=self.decline)


EVERYWHERE: Mapping[str, type[ForSession] | type[ForHolder]] = {
    command.name: command
    for command in (Pause, Resume, Finish, Stop, Report, Retry, Recompute, Set, Gate, Accept, Reject, Take)
}
"""The commands that every project knows, by name."""


def of_sources() -> dict[str, type[ForSession] | type[ForHolder]]:
    """Return the commands that kinds of source bring, by name; those of a package that cannot be loaded are missing, and the log says why."""
    found: dict[str, type[ForSession] | type[ForHolder]] = {}
    for name in (*BUILT_IN, *installed()):
        try:
            kind = source_kind(name)
            brought: list[Any] = [load_function(named, f"The kind of source {name!r}") for named in kind.commands]
        except (
            Exception
        ) as error:  # a package of somebody else may do anything when it is imported; the other commands are there
            _warn_once(name, str(error))
            continue
        found |= {command.name: command for command in brought if command.name not in EVERYWHERE}
    return found


@cache
def _warn_once(name: str, error: str) -> None:
    """Say it once in a process: the commands are looked up again and again."""
    log.warning("the commands of the kind of source %r cannot be used: %s", name, error)


def declared() -> dict[str, type[ForSession] | type[ForHolder]]:
    """Return all commands by name."""
    return {**EVERYWHERE, **of_sources()}


def command_of(name: str, fields: Mapping[str, Any]) -> ForSession | ForHolder:
    """Return a command from its name and its fields; raises ConfigError, with a sentence, when there is none such."""
    kind = EVERYWHERE.get(name) or of_sources().get(name)
    if kind is None:
        known = list(declared())
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"the commands are {', '.join(known)}."
        raise ConfigError(f"There is no command {name!r}; {hint}")
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        wrong = "; ".join(_wrong(kind, dict(fields), details) for details in error.errors())
        raise ConfigError(f"The command {name!r} is not understood: {wrong}.") from error


def fields_of(command: Command) -> dict[str, Any]:
    """Return the fields of a command that were given, as JSON values."""
    return command.model_dump(mode="json", exclude_unset=True)


def _wrong(kind: type[Command], fields: dict[str, Any], details: Any) -> str:
    """Return what is wrong with one field, in words."""
    message: str = details["msg"].removeprefix("Value error, ").rstrip(".")
    message = message[:1].lower() + message[1:]
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    if details["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields) or "none"
        return f"it has no field {name!r} (its fields: {known})"
    if details["type"] == "missing":
        choices = get_args(kind.model_fields[name].annotation)
        return f"{name} is missing" + (f" ({' or '.join(map(repr, choices))})" if choices else "")
    return f"{name} is {fields[name]!r}: {message}"
