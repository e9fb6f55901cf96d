"""``beamside session set``: other settings for a session that exists, after what they cost was shown."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from beamside.cli.options import SectionedCommand, by_parameter, click_options, declared_parameters, value_text
from beamside.cli.resolution import absolute, validated
from beamside.cli.session_gate import show_preview
from beamside.cli.session_settings import change_origins
from beamside.cli.telling import ask_to_go_on, named, tell, tell_how_to_go_on, tell_what_waits, warn, with_project
from beamside.config import COMMAND_LINE, DEFAULT, Setting
from beamside.errors import BeamsideError, ConfigError
from beamside.flow.changing import IDENTITY, Change, changes_between, check_running, with_values
from beamside.flow.cost import Cost, cost_in
from beamside.flow.preview import Preview, preview
from beamside.flow.rules import rules_in
from beamside.flow.settings import SessionSettings, with_rules_of
from beamside.flow.stored_settings import load_settings
from beamside.flow.workflow import STANDARD, Workflow, find_workflow
from beamside.monitor.report_text import duration


class SetCommand(SectionedCommand):
    """A command with the options of the workflow that the session which is named has."""

    def workflow_in(self, words: Sequence[str]) -> Workflow:
        """Return the workflow of the first session that is named among the words, or of the one here; where there is none, that is said later."""
        for word in [*(word for word in words if not word.startswith("-")), None]:
            with contextlib.suppress(BeamsideError):
                return load_settings(named(word).require(), lambda _sentence: None).workflow
        return find_workflow(STANDARD)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, without those that say which session it is."""
        return [parameter for parameter in super().get_params(ctx) if parameter.name not in IDENTITY]


@click.command("set", cls=SetCommand)
@click.argument("project", required=False)
@click.option("--yes", is_flag=True, help="Do not ask, whatever is computed again.")
def set_(project: str | None, yes: bool, **given: Any) -> None:
    """Change settings of a session. What would be computed again is shown before, and what it took.

    A session that runs goes on with them; what is being processed meanwhile is processed again when it depends on them. What is about the source
    or the camera, such as --data, can be changed only while no session runs. Of a session that does not run, the next 'resume' has the new settings.

    \b
    Example:
      beamside session set run1 --binning 2 --max-defocus 40000
    """
    found = named(project).require()
    values = {name: value for name, value in by_parameter(given).items() if value is not None and value != ()}
    if not values:
        raise ConfigError("no setting is given, so there is nothing to change: --help shows them all")
    before = load_settings(found, warn)
    now = _with(before, values)
    changes = changes_between(before, now)
    if not changes:
        click.echo(f"The session {found.root} has these settings already.")
        return
    if runs := found.writer_process() is not None:
        check_running(changes)
    costs = cost_in(now, found.load())
    held = preview(now, found.load()) if rules_in(now) != rules_in(before) else Preview()
    _show(changes, costs, some=bool(held.again))
    if held:
        show_preview(held)
    if costs and not yes:
        ask_to_go_on(f"the session {found.root} has results for the present settings")
    elif held and not yes:
        ask_to_go_on(f"what the session {found.root} uses would change as shown", "do that")
    if outcome := tell(found, "set", {"values": {change.name: change.now for change in changes}}):
        change_origins(found, [change.name for change in changes])
        click.echo(outcome.sentence)
        if not runs:
            only_rules = with_rules_of(now, before).to_json() == now.to_json()
            (tell_what_waits if only_rules else tell_how_to_go_on)(found)


set_.params += click_options()
set_.help = with_project(set_.help or "")


def _with(settings: SessionSettings, values: Mapping[str, Any]) -> SessionSettings:
    """Return settings with what was given; what is wrong is said in the words of `start`."""
    all_ = {name: Setting(value, DEFAULT) for name, value in settings.flat().items()}
    if foreign := [name for name in values if name not in all_]:
        flags = [declared_parameters()[name].info.flag for name in foreign]
        raise ConfigError(f"{' and '.join(flags)}: no job of this session has that; --help shows what there is")
    given = {name: absolute(name, Setting(value, COMMAND_LINE)) for name, value in values.items()}
    flat = validated({**all_, **given}, settings.workflow).to_json()
    return with_values(settings, {name: flat[name] for name in given})


def _show(changes: Sequence[Change], costs: Sequence[Cost], *, some: bool) -> None:
    """Show what changes and what it costs; with `some`, what is computed again all the same is told by others."""
    for change in changes:
        click.echo(f"{change.flag}: {value_text(change.before) or '-'} -> {value_text(change.now) or '-'}")
    if costs or not some:
        show_costs(costs)


def show_costs(costs: Sequence[Cost]) -> None:
    """Show which results would be computed again, and what they took."""
    if not costs:
        click.echo("Nothing is computed again.")
        return
    click.echo("This is computed again:")
    for cost in costs:
        results = "1 result" if cost.results == 1 else f"{cost.results} results"
        click.echo(f"  {cost.title}: {results}, which took {duration(cost.seconds)} of the workers' time")
