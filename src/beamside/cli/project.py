"""``beamside project``: look after a project on disk."""

from __future__ import annotations

import shlex

import click

from beamside.errors import ProjectError
from beamside.flow.known_projects import find_project
from beamside.formats.printable import printable
from beamside.project.journal import damage_sentences


@click.group()
def project() -> None:
    """Look after a project on disk."""


@project.command("rebuild")
@click.argument("project", metavar="PROJECT")
def rebuild(project: str) -> None:
    """Make the STAR files, RELION's pipeline, the checksums and the index again.

    They are made from the journals. Results whose files are gone, such as a corrected micrograph, are counted;
    'beamside session resume --recompute missing' computes them again.
    """
    from beamside.acquisition.manifest import CHECKSUMS_NAME
    from beamside.flow.projection import rebuild as rebuild_projection

    found = find_project(project)
    rebuilt = rebuild_projection(found)
    click.echo(
        f"{found.root}: STAR files, default_pipeline.star, {CHECKSUMS_NAME} and an index of {rebuilt.records} records were made again."
    )
    if rebuilt.lost:
        command = f"beamside session resume {shlex.quote(str(found.root))} --recompute missing"
        click.echo(f"{rebuilt.lost} results lack files; '{command}' computes them again.")


@project.command("verify")
@click.argument("project", metavar="PROJECT")
def verify(project: str) -> None:
    """Compare every raw file with its checksum in the manifest, and read the journals."""
    from beamside.acquisition.manifest import verify_manifest

    found = find_project(project).require()
    damaged = [printable(sentence) for sentence in damage_sentences(found.load().damage).values()]
    problems = [printable(problem) for problem in verify_manifest(found.root)]
    for problem in (*damaged, *problems):
        click.echo(problem)
    wrong = [f"{len(problems)} raw files are not as they were recorded"] if problems else []
    wrong += [f"damaged journals: {len(damaged)}"] if damaged else []
    if wrong:
        raise ProjectError(f"{found.root}: {', and '.join(wrong)}")
    click.echo(f"{found.root}: all raw files are as they were recorded.")
