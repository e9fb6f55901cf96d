"""``beamside session``: start and end sessions; what they can be told and looked at is beside this."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any, get_args

import click

from beamside.cli.options import SectionedCommand, session_options, value_text
from beamside.cli.resolution import resolve_session
from beamside.cli.session_gate import gate, with_preview
from beamside.cli.session_looks import list_, logs, report, show_config, status
from beamside.cli.session_offers import offers, take
from beamside.cli.session_set import set_
from beamside.cli.session_settings import changed_settings, keep_origins, print_settings
from beamside.cli.telling import named, running, tell, told, wait_until_ended, warn, with_project
from beamside.config import COMMAND_LINE
from beamside.errors import ConfigError, ProjectError
from beamside.flow.asking import ask
from beamside.flow.commands import of_sources
from beamside.flow.control import send
from beamside.flow.missing import WhatAgain
from beamside.flow.settings import SessionSettings
from beamside.flow.start import (
    adopt_files,
    prepare,
    recompute_cost,
    session_command,
    start_background,
    state_of_results,
)
from beamside.flow.stored_settings import load_settings
from beamside.project.project import Project
from beamside.project.records import WAITS_FOR_ANSWER

STOP_SECONDS = 120.0
"""How long `stop` waits for a session to end."""


@click.group()
def session() -> None:
    """Start, watch and control sessions."""


@session.command("start", cls=SectionedCommand)
@click.option("--foreground", is_flag=True, help="Stay and show progress; Ctrl-C stops the session.")
@click.option(
    "--recompute", is_flag=True, help="For a session that exists: compute again what the changed settings affect."
)
@click.option("--show", is_flag=True, help="Show the settings and where each comes from, and start nothing.")
def start(foreground: bool, recompute: bool, show: bool, profile: str, config: str | None, **given: Any) -> None:
    """Start a session: watch a camera's folder and process what appears there.

    It goes on in the background after this command has returned. Data and results land in <target>/<group>/<name>.

    \b
    Example:
      beamside session start --data '/camera/run1/**/*_fractions.tiff' --gain gain.mrc \\
          --pixel-size 1.08 --voltage 300 --dose 1.0 --target out --name run1 --particle-diameter 100:160
    """
    resolved = resolve_session(given, profile=profile, config=config)
    if show:
        print_settings(resolved.origins)
        return
    project = Project(resolved.settings.root)
    resolved = replace(resolved, settings=adopt_files(resolved.settings))
    _check_recompute(resolved.settings, project, recompute)
    warnings = prepare(resolved.settings)
    keep_origins(project, resolved)
    if resolved.origins["data"].origin != COMMAND_LINE:
        click.echo(f"Data: {value_text(resolved.settings.acquisition.data)} ({resolved.origins['data'].origin})")
    for warning in warnings:
        warn(warning)
    (_stay if foreground else _leave)(project)


session_options(start)


def _check_recompute(settings: SessionSettings, project: Project, recompute: bool) -> None:
    """Say what changed settings cost, and go on only when that was asked for."""
    cost = recompute_cost(settings)
    if cost and not recompute and project.writer_process() is None:
        listed = ", ".join(
            f"{title} of {number} {'item' if number == 1 else 'items'}" for title, number in cost.items()
        )
        changed = changed_settings(settings, project)
        which = f" ({'; '.join(changed)})" if changed else ""
        raise ConfigError(
            f"the session {project.root} has results for other settings{which}; with these, {listed} would be computed again: "
            "add --recompute to do that, give another --name, or continue it as it was with 'beamside session resume'"
        )


def _leave(project: Project) -> None:
    process = start_background(project, session_command(project))
    name = shlex.quote(str(project.root))
    click.echo(f"The session {project.root} runs in the background (process {process}).")
    click.echo(f"  watch   beamside session status --watch {name}")
    click.echo(f"  stop    beamside session stop {name}")
    click.echo(f"  report  {project.report}")


def _stay(project: Project) -> None:
    from beamside.cli.progress import Watching
    from beamside.cli.run_session import configure_log, run_session

    configure_log(project.log)
    with Watching(project):
        state = run_session(load_settings(project))
    ended = "is " + state if state == WAITS_FOR_ANSWER else "has " + state
    click.echo(f"The session {project.root} {ended}. Its report: {project.report}")


@session.command("resume")
@click.argument("project", required=False)
@click.option("--foreground", is_flag=True, help="Stay and show progress; Ctrl-C stops the session.")
@click.option(
    "--recompute",
    type=click.Choice(get_args(WhatAgain)),
    help="Also compute again: 'missing', results whose files were cleaned or lost; 'outdated', those of earlier versions of the algorithms; "
    "or 'all'.",
)
def resume(project: str | None, foreground: bool, recompute: str | None) -> None:
    """Go on with a paused session, or continue one that was stopped or has died, exactly where it was.

    Nothing that is done is computed again, unless its own inputs have changed: results of earlier versions of Beamside stay valid, and files that
    were cleaned in RELION stay away. Both are listed; --recompute computes them again.
    """
    found = named(project)
    if found.writer_process() is not None:
        if recompute and (answer := ask(found, "recompute", {"what": recompute})):
            click.echo(answer.sentence)
        outcome = ask(found, "resume")
        if outcome is None or outcome.kind != "ended":
            waits = "" if outcome else " as soon as it has time to read this"
            click.echo(f"The session {found.root} goes on{waits}.")
            return
        wait_until_ended(found, STOP_SECONDS)  # it was ending; then it is continued like any other
    settings = load_settings(found, warn)
    for warning in prepare(settings):
        warn(warning)
    if recompute:
        send(found, "recompute", {"what": recompute})
    else:
        for trouble in state_of_results(found, settings):
            click.echo(trouble.sentence)
    (_stay if foreground else _leave)(found)


@session.command("stop")
@click.argument("project", required=False)
@click.option(
    "--finish", is_flag=True, help="Process everything that is there first, with the last round of classification."
)
@click.option("--no-wait", is_flag=True, help="Return at once.")
def stop(project: str | None, finish: bool, no_wait: bool) -> None:
    """End a session. Nothing is lost, and 'resume' continues it."""
    found = running(project)
    if no_wait:
        send(found, "finish" if finish else "stop")
        click.echo(f"The session {found.root} was told to {'finish' if finish else 'stop'}.")
        return
    if finish:
        tell(found, "finish")
    else:
        send(found, "stop")
    if finish:
        from beamside.cli.progress import follow

        follow(found)
    elif not wait_until_ended(found, STOP_SECONDS):
        raise ProjectError(f"the session {found.root} has not ended after {STOP_SECONDS:g} s: see {found.log}")
    click.echo(f"The session {found.root} has ended.")


for _command in (status, logs, report, show_config):
    _command.help = with_project(_command.help or "", other=True)
for _command in (resume, stop):
    _command.help = with_project(_command.help or "")
pause, retry, accept, reject = map(told, ("pause", "retry", "accept", "reject"))
for _command in (
    status,
    list_,
    logs,
    report,
    show_config,
    pause,
    retry,
    *map(told, of_sources()),
    set_,
    gate,
    with_preview(accept),
    with_preview(reject),
    offers,
    take,
):
    session.add_command(_command)
