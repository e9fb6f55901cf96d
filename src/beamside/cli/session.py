"""``beamside session``: start, watch and control sessions."""

from __future__ import annotations

import inspect
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource
from rich.table import Table

from beamside.cli.options import SectionedCommand, session_options, value_text
from beamside.cli.output import console
from beamside.cli.resolution import resolve_session
from beamside.cli.session_settings import changed_settings, keep_origins, print_settings, with_origins
from beamside.config import COMMAND_LINE, expanded
from beamside.errors import ConfigError, ProjectError
from beamside.flow import control
from beamside.flow.gain_answers import answer_questions, no_question
from beamside.flow.gain_case import answered, outcome_words, present_records, question_of
from beamside.flow.missing import Recompute
from beamside.flow.registry import find_project, known_projects
from beamside.flow.retry import retry_ended
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

OUTPUT_HELP = "Write it there instead of into the project, which may be someone else's."

PROJECT_HELP = (
    "PROJECT is a session's folder, <group>/<name>, or <name>; without it, the one here or the only one known."
)


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
        click.echo(f"beamside: {warning}", err=True)
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


def _warn(sentence: str) -> None:
    click.echo(f"beamside: {sentence}", err=True)


def _stay(project: Project) -> None:
    from beamside.cli.progress import Watching
    from beamside.cli.run_session import configure_log, run_session

    configure_log(project.log)
    with Watching(project):
        state = run_session(load_settings(project))
    ended = "is " + state if state == WAITS_FOR_ANSWER else "has " + state
    click.echo(f"The session {project.root} {ended}. Its report: {project.report}")


@session.command("status")
@click.argument("project", required=False)
@click.option("--watch", is_flag=True, help="Keep showing it, until Ctrl-C or the session's end.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def status(project: str | None, watch: bool, as_json: bool) -> None:
    """Show what a session has done, does, and waits for.

    \b
    The exit code says whether the session needs a person:
      0  it does not
      2  the command itself failed
      3  the session has failed, is dead, or does not respond
      4  one of its problems is an error
      5  it waits for an answer
    """
    from beamside.cli.progress import exit_code, follow, print_status, status_json
    from beamside.monitor.results import status_now

    found = find_project(project)
    if watch:
        shown = follow(found)
    else:
        shown = status_now(found)
        if as_json:
            click.echo(status_json(shown))
        else:
            print_status(shown)
    click.get_current_context().exit(exit_code(shown))


@session.command("list")
@click.option(
    "--target", default=None, metavar="DIRECTORY", help="List the sessions below this directory, whoever started them."
)
@click.option("--running", is_flag=True, help="Only those that are running.")
def list_(target: str | None, running: bool) -> None:
    """List the sessions that this user has started, the last one first."""
    from beamside.cli.progress import list_rows

    rows, problems = list_rows(_projects_below(target) if target else known_projects(), running=running)
    if rows:
        table = Table(box=None, pad_edge=False)
        for heading in ("Session", "State", "Files", "Failed", "Folder"):
            table.add_column(heading, justify="right" if heading in ("Files", "Failed") else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console().print(table)
    else:
        click.echo("No session is running." if running else "No session is known.")
    for problem in problems:
        click.echo(f"beamside: {problem}", err=True)


def _projects_below(target: str) -> list[Project]:
    base = expanded(target)
    if not base.is_dir():
        raise ConfigError(f"the directory {base} does not exist: correct --target")
    return [Project(path.parent) for path in sorted(base.glob("*/*/.beamside")) if _is_project(path.parent)]


def _is_project(folder: Path) -> bool:
    try:
        return Project(folder).exists
    except OSError:  # a folder that may not be entered is listed, with that reason
        return True


@session.command("logs")
@click.argument("project", required=False)
@click.option(
    "-f", "--follow", "following", is_flag=True, help="Keep showing new lines, until Ctrl-C or the session's end."
)
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(min=0), help="Lines to begin with.")
def logs(project: str | None, following: bool, lines: int) -> None:
    """Show the session's log."""
    found = find_project(project)
    if not found.log.exists():
        raise ProjectError(f"{found.root} has no log: no session has run here in the background")
    with found.log.open(encoding="utf-8", errors="replace") as file:
        text = file.readlines()
        click.echo("".join(text[len(text) - min(lines, len(text)) :]), nl=False)
        while following:
            chunk = file.read()
            if chunk:
                click.echo(chunk, nl=False)
            elif found.writer_process() is None:
                return
            else:
                time.sleep(0.3)


def _named(project: str | None) -> Project:
    """Return the project to act on. What changes a session wants its name, or to be told in its folder: the only one known may be someone's else."""
    if project is None and not Project(Path.cwd()).exists:
        raise ConfigError("name the session: its folder, <group>/<name> or <name>, as 'beamside session list' shows it")
    return find_project(project)


def _running(project: str | None) -> Project:
    found = _named(project)
    if found.writer_process() is None:
        raise ProjectError(f"the session {found.root} is not running: 'beamside session resume' continues it")
    return found


@session.command("pause")
@click.argument("project", required=False)
def pause(project: str | None) -> None:
    """Start no new work; what is running is completed, and 'resume' goes on."""
    found = _running(project)
    if _ask(found, "pause"):
        click.echo(f"The session {found.root} pauses; 'beamside session resume' goes on.")


def _ask(project: Project, command: control.Command, details: Mapping[str, Any] | None = None) -> bool:
    """Ask a running session and wait for the outcome; returns False, and says so, when it has not come yet.

    Raises ProjectError when the session will not do it, or ended before.
    """
    outcome = control.ask(project, command, details)
    if outcome is None:
        click.echo(f"The session {project.root} is busy and has not answered yet; the command waits until it has time.")
    elif outcome.kind == "ended":
        raise ProjectError(
            f"the session {project.root} has ended in the meantime; 'beamside session resume' continues it"
        )
    elif outcome.kind == "refused":
        raise ProjectError(f"{project.root}: {outcome.sentence}")
    return outcome is not None


@session.command("resume")
@click.argument("project", required=False)
@click.option("--foreground", is_flag=True, help="Stay and show progress; Ctrl-C stops the session.")
@click.option(
    "--recompute",
    type=click.Choice(get_args(Recompute)),
    help="Also compute again: 'missing', results whose files were cleaned or lost; 'outdated', those of earlier versions of the algorithms; "
    "or 'all'.",
)
def resume(project: str | None, foreground: bool, recompute: str | None) -> None:
    """Go on with a paused session, or continue one that was stopped or has died, exactly where it was.

    Nothing that is done is computed again, unless its own inputs have changed: results of earlier versions of Beamside stay valid, and files that
    were cleaned in RELION stay away. Both are listed; --recompute computes them again.
    """
    found = _named(project)
    if found.writer_process() is not None:
        if recompute and (answer := control.ask(found, "recompute", {"what": recompute})):
            click.echo(answer.sentence)
        outcome = control.ask(found, "resume")
        if outcome is None or outcome.kind != "ended":
            waits = "" if outcome else " as soon as it has time to read this"
            click.echo(f"The session {found.root} goes on{waits}.")
            return
        wait_until_ended(found, STOP_SECONDS)  # it was ending; then it is continued like any other
    settings = load_settings(found, _warn)
    for warning in prepare(settings):
        click.echo(f"beamside: {warning}", err=True)
    if recompute:
        control.send(found, "recompute", {"what": recompute})
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
    found = _running(project)
    if no_wait:
        control.send(found, "finish" if finish else "stop")
        click.echo(f"The session {found.root} was told to {'finish' if finish else 'stop'}.")
        return
    if finish:
        _ask(found, "finish")
    else:
        control.send(found, "stop")
    if finish:
        from beamside.cli.progress import follow

        follow(found)
    elif not wait_until_ended(found, STOP_SECONDS):
        raise ProjectError(f"the session {found.root} has not ended after {STOP_SECONDS:g} s: see {found.log}")
    click.echo(f"The session {found.root} has ended.")


@session.command("retry")
@click.argument("project", required=False)
def retry(project: str | None) -> None:
    """Try again everything that has failed; of a session that does not run, when it goes on."""
    found = _named(project)
    if found.writer_process() is None:
        number = retry_ended(found, load_settings(found))
        what = "1 result that has failed is" if number == 1 else f"{number} results that have failed are"
        click.echo(f"{what} tried again, and files that could not be taken in, when the session goes on:")
        click.echo(f"  beamside session resume {shlex.quote(str(found.root))}")
    elif _ask(found, "retry"):
        click.echo(f"The session {found.root} tries again what has failed.")


@session.command("gain")
@click.argument("project", required=False)
@click.option(
    "--rotate",
    type=click.Choice(["0", "90", "180", "270"]),
    default="0",
    show_default=True,
    help="Rotation of the reference, in degrees clockwise (row 0 at the top).",
)
@click.option(
    "--flip",
    type=click.Choice(["none", "up-down", "left-right"]),
    default="none",
    show_default=True,
    help="Mirroring after the rotation.",
)
@click.option(
    "--mode",
    type=click.Choice(["multiply", "divide"]),
    default="multiply",
    show_default=True,
    help="Whether frames are multiplied or divided by the reference.",
)
@click.option(
    "--none", "unused", is_flag=True, help="Process the movies without it, because they are corrected already."
)
@click.option("--keep", is_flag=True, help="When asked about later movies or a later reference: change nothing.")
@click.option("--redo", is_flag=True, help="When asked about these: process again what the question names.")
@click.pass_context
def gain(
    ctx: click.Context,
    project: str | None,
    rotate: str,
    flip: str,
    mode: str,
    unused: bool,
    keep: bool,
    redo: bool,
) -> None:
    """Answer a session's question about its gain reference; 'status' shows the question and what to type."""
    ways = [
        name for name in ("rotate", "flip", "mode") if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
    ]
    if bool(ways) + unused + keep + redo != 1:
        raise click.UsageError(
            "give one answer: --rotate, --flip and --mode, or --none, or --keep, or --redo; 'beamside session status' shows what is asked"
        )
    details: dict[str, Any] = {"rotate": int(rotate), "flip": flip, "use": "none" if unused else mode}
    if keep or redo:
        details = {"keep" if keep else "redo": True}
    found = _named(project)
    state = found.require().load()
    reference = str(state.settings.get("gain") or "")
    records = present_records(state.gains.values(), reference)
    if all(answered(record, details) is None for record in records):
        other = any(question_of(record) for record in records)
        raise ProjectError(f"{found.root}: {no_question(reference, other)}")
    if found.writer_process() is not None:
        outcome = control.ask(found, "gain", details)
        if outcome is None or outcome.kind == "done":
            click.echo(f"The session {found.root} goes on with that" + ("." if outcome else " as soon as it has time."))
            return
        if outcome.kind == "refused":
            raise ProjectError(f"{found.root}: {outcome.sentence}")
        wait_until_ended(found, STOP_SECONDS)  # it ended without seeing the answer, which is recorded here then
    for record in answer_questions(found, details):
        click.echo(outcome_words(record, details))
    click.echo(f"Go on with: beamside session resume {shlex.quote(str(found.root))}")


@session.command("report")
@click.argument("project", required=False)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help=OUTPUT_HELP)
def report(project: str | None, output: Path | None) -> None:
    """Write the session's report now, and print its path."""
    write_report_now(find_project(project), output)


def write_report_now(project: Project, output: Path | None = None, *, quiet: bool = False) -> None:
    """Write the report of a project; its session need not run, and is not disturbed."""
    from beamside.monitor.report import write_report

    path = write_report(project.require(), output)
    if not quiet:
        click.echo(str(path))


@session.command("show-config")
@click.argument("project", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def show_config(project: str | None, as_json: bool) -> None:
    """Show a session's settings, and where each value came from.

    To see what a command line would give without starting anything, use 'beamside session start --show ...'.
    """
    found = find_project(project)
    settings = with_origins(found, load_settings(found, _warn).flat())
    if as_json:
        shown = {name: {"value": setting.value, "origin": setting.origin} for name, setting in settings.items()}
        click.echo(json.dumps(shown, indent=1, default=str))
    else:
        click.echo(f"{found.root}\n")
        print_settings(settings)


def wait_until_ended(project: Project, timeout: float) -> bool:
    """Wait until no process writes to `project`; False when one still does after `timeout` seconds."""
    end = time.monotonic() + timeout
    while project.writer_process() is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


for _command in (status, logs, report, show_config):
    _command.help = f"{inspect.cleandoc(_command.help or '')}\n\n{PROJECT_HELP.format(other=' or the only one known')}"
for _command in (pause, resume, stop, retry, gain):
    _command.help = f"{inspect.cleandoc(_command.help or '')}\n\n{PROJECT_HELP.format(other='')}"
