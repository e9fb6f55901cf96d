"""Telling sessions what to do: the commands of the command line that are made from the declared ones, and how their answers are shown."""

from __future__ import annotations

import inspect
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import click

from beamside.cli.options import help_text, metavar
from beamside.errors import ConfigError, ProjectError
from beamside.flow.asking import ask
from beamside.flow.commands import ForHolder, ForSession, command_of, declared
from beamside.flow.control import Outcome
from beamside.flow.known_projects import find_project
from beamside.parameters import ParameterInfo, describe
from beamside.project.project import Project

PROJECT_HELP = "PROJECT is a session's folder, <group>/<name>, or <name>; without it, the one here{other}."


def warn(sentence: str) -> None:
    """Show a sentence that is no result."""
    click.echo(f"beamside: {sentence}", err=True)


def named(project: str | None) -> Project:
    """Return the project to act on. What changes a session wants its name, or to be told in its folder: the only one known may be someone's else."""
    if project is None and not Project(Path.cwd()).exists:
        raise ConfigError("name the session: its folder, <group>/<name> or <name>, as 'beamside session list' shows it")
    return find_project(project)


def running(project: str | None) -> Project:
    """Return the project to act on, whose session must run."""
    found = named(project)
    if found.writer_process() is None:
        raise ProjectError(f"the session {found.root} is not running: 'beamside session resume' continues it")
    return found


def tell(project: Project, name: str, fields: Mapping[str, Any] | None = None) -> Outcome | None:
    """Tell a session something and wait for the outcome; returns None, and says so, when it has not come yet.

    Raises ProjectError when it will not be done, or the session ended before.
    """
    outcome = ask(project, name, fields)
    if outcome is None:
        click.echo(f"The session {project.root} is busy and has not answered yet; the command waits until it has time.")
    elif outcome.kind == "ended":
        raise ProjectError(
            f"the session {project.root} has ended in the meantime; 'beamside session resume' continues it"
        )
    elif outcome.kind == "refused":
        raise ProjectError(f"{project.root}: {outcome.sentence}")
    return outcome


def told(name: str) -> click.Command:
    """Return the command of the command line that is made from the declared one of this name."""
    kind = declared()[name]
    options = [_option(info) for info in describe(kind)]

    def callback(project: str | None, **given: Any) -> None:
        fields = {
            field: value for field, value in given.items() if value is not None and value is not False and value != ()
        }
        command_of(name, fields)  # what is wrong with the words is said before what is wrong with the session
        _tell_and_show(named(project) if issubclass(kind, ForHolder) else running(project), kind, fields)

    text = inspect.getdoc(kind) or ""
    if any(
        isinstance(option, click.Argument) for option in options
    ):  # of two lists of words nobody knows where one ends
        which = PROJECT_HELP.replace("PROJECT is a session's", "The session's").format(other="")
        return click.Command(
            name, callback=callback, params=[*options, click.Option(["--session", "project"], help=which)], help=text
        )
    argument = click.Argument(["project"], required=False)
    return click.Command(name, callback=callback, params=[argument, *options], help=with_project(text))


def with_project(text: str, *, other: bool = False) -> str:
    """Return a command's help with what PROJECT is; with `other`, it may also be the only one known."""
    return f"{inspect.cleandoc(text)}\n\n{PROJECT_HELP.format(other=' or the only one known' if other else '')}"


def _tell_and_show(project: Project, kind: type[ForSession] | type[ForHolder], fields: Mapping[str, Any]) -> None:
    runs = project.require().writer_process() is not None
    if outcome := tell(project, kind.name, fields):
        click.echo(outcome.sentence)
    if not runs and issubclass(kind, ForHolder):
        (tell_what_waits if kind.at_once else tell_how_to_go_on)(project)


def tell_how_to_go_on(project: Project) -> None:
    """Say what makes that count which was done while no session runs."""
    click.echo(f"It counts when the session goes on: beamside session resume {shlex.quote(str(project.root))}")


def ask_to_go_on(why: str, what: str = "compute them again") -> None:
    """Ask a person; where there is none, say `why` that would be needed, and how to do `what`."""
    if not sys.stdin.isatty():
        raise ConfigError(f"{why}: add --yes to {what}")
    click.confirm("Go on?", abort=True)


def tell_what_waits(project: Project) -> None:
    """Say what follows a change of a gate that was made while no session runs."""
    resume = f"beamside session resume {shlex.quote(str(project.root))}"
    click.echo(
        f"The tables are written so; what is let through is processed further when the session goes on: {resume}"
    )


def _option(info: ParameterInfo) -> click.Parameter:
    annotation = info.field.annotation
    if get_origin(annotation) is tuple:
        return click.Argument(
            [info.name],
            nargs=-1,
            required=info.field.is_required(),
            metavar=info.name.upper().removesuffix("S") + "...",
        )
    if annotation is bool:
        return click.Option([info.flag, info.name], is_flag=True, help=info.field.description)
    choices = [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is not None else []
    kind = click.Choice(choices) if choices else None
    return click.Option(
        [info.flag, info.name], type=kind, metavar=None if choices else metavar(annotation), help=help_text(info)
    )


def wait_until_ended(project: Project, timeout: float) -> bool:
    """Wait until no process writes to `project`; False when one still does after `timeout` seconds."""
    end = time.monotonic() + timeout
    while project.writer_process() is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
