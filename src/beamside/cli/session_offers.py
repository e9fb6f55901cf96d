"""``beamside session offers`` and ``take``: newer versions of what a job uses for all its items, and what it costs to take them."""

from __future__ import annotations

import click

from beamside.cli.session_set import show_costs
from beamside.cli.telling import ask_to_go_on, named, tell, tell_how_to_go_on, warn, with_project
from beamside.flow.known_projects import find_project
from beamside.flow.offers import chosen, offers_in, use_of
from beamside.flow.opening import open_stages
from beamside.flow.stages import Stage
from beamside.flow.stored_settings import load_settings
from beamside.project.project import Project


@click.command("offers")
@click.argument("project", required=False)
def offers(project: str | None) -> None:
    """Show what jobs use for all their items, whether a newer version is there, and what would be computed again to take it."""
    stages = _stages(find_project(project).require())
    offered = {(one.stage.label, one.port): one for one in offers_in(stages)}
    for stage in stages:
        for port in stage.suppliers:
            offer = offered.get((stage.label, port))
            more = " It was declined before." if offer is not None and offer.declined else ""
            click.echo(f"{stage.label}: {use_of(stage, port) if offer is None else offer.sentence()}{more}")
    if not offered:
        click.echo("Nothing is offered.")


@click.command("take")
@click.argument("project", required=False)
@click.option(
    "--job",
    default="",
    help="The job that is to take it, by its label or name; without it, the only one with an offer.",
)
@click.option("--decline", is_flag=True, help="Stay with what is used; what is offered now is not offered again.")
@click.option("--yes", is_flag=True, help="Do not ask, whatever is computed again.")
def take(project: str | None, job: str, decline: bool, yes: bool) -> None:
    """Let a job take the newer version of what it uses for all its items, such as picking references.

    What would be computed again is shown before, and what it took.

    \b
    Example:
      beamside session take run1 --job by_references
    """
    found = named(project).require()
    offer = chosen(offers_in(_stages(found)), job)
    if not decline:
        click.echo(f"{offer.stage.title} takes what was made in {offer.version.item} of {offer.version.job}.")
        show_costs(offer.costs)
        if offer.costs and not yes:
            ask_to_go_on(f"the session {found.root} has results that were made with what is used")
    runs = found.writer_process() is not None
    fields = {"job": offer.stage.label, "identity": offer.version.identity, **({"decline": True} if decline else {})}
    if outcome := tell(found, "take", fields):
        click.echo(outcome.sentence)
        if not runs and not decline:
            tell_how_to_go_on(found)


offers.help = with_project(offers.help or "", other=True)
take.help = with_project(take.help or "")


def _stages(project: Project) -> list[Stage]:
    return open_stages(load_settings(project, warn), project.load())
