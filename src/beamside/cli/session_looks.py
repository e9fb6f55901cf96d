"""``beamside session status|list|logs|report|show-config``: looking at sessions, which changes nothing and is for all."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from beamside.cli.output import console
from beamside.cli.session_settings import print_settings, with_origins
from beamside.cli.telling import warn
from beamside.config import expanded
from beamside.errors import ConfigError, ProjectError
from beamside.flow.known_projects import away_projects, find_project, known_projects
from beamside.flow.stored_settings import load_settings
from beamside.project.project import Project

OUTPUT_HELP = "Write it there instead of into the project, which may be someone else's."


@click.command("status")
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


@click.command("list")
@click.option(
    "--target", default=None, metavar="DIRECTORY", help="List the sessions below this directory, whoever started them."
)
@click.option("--running", is_flag=True, help="Only those that are running.")
def list_(target: str | None, running: bool) -> None:
    """List the sessions that this user has started, the last one first."""
    from beamside.cli.progress import list_rows

    rows, problems = list_rows(_projects_below(target) if target else known_projects(), running=running)
    if not (target or running):
        for away in away_projects():
            name = f"{away.project.root.parent.name}/{away.project.root.name}"
            rows.append([escape(name), "[yellow]away[/yellow]", "", "", escape(str(away.project.root))])
            problems.append(away.sentence)
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


@click.command("logs")
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


@click.command("report")
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


@click.command("show-config")
@click.argument("project", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def show_config(project: str | None, as_json: bool) -> None:
    """Show a session's settings, and where each value came from.

    To see what a command line would give without starting anything, use 'beamside session start --show ...'.
    """
    found = find_project(project)
    settings = with_origins(found, load_settings(found, warn).flat())
    if as_json:
        shown = {name: {"value": setting.value, "origin": setting.origin} for name, setting in settings.items()}
        click.echo(json.dumps(shown, indent=1, default=str))
    else:
        click.echo(f"{found.root}\n")
        print_settings(settings)
