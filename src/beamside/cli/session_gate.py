"""``beamside session gate``: rules on what jobs measure, after what they would hold back was shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from beamside.cli.telling import PROJECT_HELP, ask_to_go_on, named, tell, tell_what_waits, warn
from beamside.config import nearest
from beamside.errors import ConfigError
from beamside.flow.changing import with_values
from beamside.flow.known_projects import find_project
from beamside.flow.preview import GateChange, Preview, preview, preview_words
from beamside.flow.rules import all_rules, changed_rules
from beamside.flow.settings import SessionSettings
from beamside.flow.stored_settings import load_settings
from beamside.flow.verdicts import meant
from beamside.project.project import Project
from beamside.project.records import Word

SHOWN = 5
"""So many items are named; the others are counted."""


class GateGroup(click.Group):
    """The subcommands; one that is none is told with the nearest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; a rule in its place is most likely meant to be added."""
        if args and args[0] not in self.commands:
            near = nearest(args[0], self.commands)
            hint = f"did you mean {near!r}?" if near else "to have a rule: beamside session gate add RULE"
            raise ConfigError(f"'session gate' has no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


@click.group("gate", cls=GateGroup)
def gate() -> None:
    """Rules on what jobs measure: results that break one are held back, and nothing is computed again.

    A rule is a metric, a comparison and a number in the unit in which the metric is shown, such as 'ctf.ctf_resolution < 6'; quote it, as < means
    something else to the shell. 'beamside workflow show' has what the jobs of a workflow measure. What 'session accept' and 'session reject' say wins
    over rules.
    """


_SESSION = click.option(
    "--session", "project", help=PROJECT_HELP.replace("PROJECT is a session's", "The session's").format(other="")
)
_RULES = click.argument("rules", nargs=-1, required=True, metavar="RULE...")


@gate.command("list")
@click.argument("project", required=False)
@click.option("--session", "again", help="The same as PROJECT.")
def list_(project: str | None, again: str | None) -> None:
    """Show the rules of a session, and how many results each holds back."""
    found = find_project(project or again).require()
    settings = load_settings(found, warn)
    rules = all_rules(settings)
    if not rules:
        click.echo("There are no rules.")
    state = found.load() if rules else None
    for text, flag in rules:
        broken = 0
        for job in state.jobs.values() if state is not None else ():
            own = [rule for rule in job.rules if rule.text == text]
            entries = [entry for entry in job.items.values() if entry.result is not None and own]
            broken += sum(not own[0].allows((entry.result or {})["metrics"]) for entry in entries)
        click.echo(f"{text}   ({broken} {'result breaks' if broken == 1 else 'results break'} it; {flag})")


@gate.command("preview")
@_RULES
@_SESSION
def preview_(rules: tuple[str, ...], project: str | None) -> None:
    """Show what rules would hold back besides what is held back now. Nothing is changed."""
    found = find_project(project).require()
    settings = load_settings(found, warn)
    show_preview(_preview(found, settings, changed_rules(settings, rules, ())))


@gate.command("add")
@_RULES
@_SESSION
@click.option("--yes", is_flag=True, help="Do not ask, whatever is held back.")
def add(rules: tuple[str, ...], project: str | None, yes: bool) -> None:
    """Have rules besides those that there are. What they hold back is shown before."""
    _change(named(project).require(), add=rules, yes=yes)


@gate.command("remove")
@_RULES
@_SESSION
@click.option("--yes", is_flag=True, help="Do not ask, whatever is let through.")
def remove(rules: tuple[str, ...], project: str | None, yes: bool) -> None:
    """Have rules no more: as 'list' shows them, or all that are on a metric. What they held back is used again."""
    _change(named(project).require(), remove=rules, yes=yes)


def _change(project: Project, *, add: Sequence[str] = (), remove: Sequence[str] = (), yes: bool) -> None:
    settings = load_settings(project, warn)
    rules = changed_rules(settings, add, remove)
    if rules == settings.session.gate:
        click.echo(f"The session {project.root} has these rules already.")
        return
    found = _preview(project, settings, rules)
    show_preview(found)
    if found and not yes:
        ask_to_go_on(f"what the session {project.root} uses would change as shown", "do that")
    runs = project.writer_process() is not None
    if outcome := tell(project, "gate", {"add": list(add), "remove": list(remove)}):
        click.echo(outcome.sentence)
        if not runs:
            tell_what_waits(project)


def with_preview(command: click.Command) -> click.Command:
    """Return the command that gives a person's word with an option to look first at what that changes."""
    told = command.callback
    assert told is not None

    def callback(preview_only: bool, **given: Any) -> None:
        if not preview_only:
            told(**given)
            return
        project = find_project(given["project"]).require()
        state, undo = project.load(), bool(given["undo"])
        word: Word = "none" if undo else "accept" if command.name == "accept" else "reject"
        about = meant(state, word, given["items"], given["job"] or "")
        show_preview(preview_words(load_settings(project, warn), state, word, about))

    command.callback = callback
    look = "Show what that would hold back or let through, and change nothing."
    command.params.append(click.Option(["--preview", "preview_only"], is_flag=True, help=look))
    return command


def _preview(project: Project, settings: SessionSettings, rules: Sequence[str]) -> Preview:
    return preview(with_values(settings, {"gate": list(rules)}), project.load())


def show_preview(found: Preview) -> None:
    """Show what rules would do."""
    if not found:
        click.echo("No result so far is held back or let through by this.")
    for change in found.gates:
        for line in _lines(change):
            click.echo(line)
    for title, number in found.again:
        click.echo(
            f"{title}: {number} {'result is' if number == 1 else 'results are'} made again, of what is let through"
        )
    for count in found.counts:
        more = count.after - count.before
        click.echo(f"{count.what} ({count.title}): {count.after} instead of {count.before} ({more:+})")


def _lines(change: GateChange) -> list[str]:
    lines = []
    of = f"of {change.results} {'result' if change.results == 1 else 'results'}"
    if change.held:
        verb = "is" if len(change.held) == 1 else "are"
        lines.append(f"{change.title}: {len(change.held)} {of} {verb} held back: {_names(change.held)}")
    if change.opened:
        verb = "is" if len(change.opened) == 1 else "are"
        later = f"; {change.to_process} still to be processed further" if change.to_process else ""
        lines.append(f"{change.title}: {len(change.opened)} {of} {verb} let through: {_names(change.opened)}{later}")
    return lines


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
