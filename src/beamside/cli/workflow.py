"""``beamside workflow``: which workflows there are, what one has, and whether a file can be used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.table import Table

from beamside.cli.options import value_text
from beamside.cli.output import console
from beamside.cli.telling import warn
from beamside.flow.settings import sections
from beamside.flow.workflow import find_workflow, known_workflows, read_workflow, unusable_workflows
from beamside.jobs.base import Metric
from beamside.jobs.registry import job_types, unusable


@click.group()
def workflow() -> None:
    """List, show and check workflows: which jobs a session has, and how they are connected."""


@workflow.command("list")
def list_workflows() -> None:
    """List the workflows that are known by name, and the job types of which others can be made."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("description", overflow="fold")
    for name, content in known_workflows().items():
        table.add_row(name, str(content.get("description") or content.get("title", "")))
    console().print(table)
    kinds = Table(box=None, pad_edge=False, title="Job types", title_justify="left")
    for heading in ("name", "title", "takes", "gives"):
        kinds.add_column(heading, overflow="fold")
    for kind in job_types().values():
        takes = ", ".join(
            f"{port.name}{' (optional)' if port.optional else ''}: {port.kind.name}" for port in kind.inputs
        )
        gives = ", ".join(f"{port.name}: {port.kind.name}" for port in kind.outputs)
        kinds.add_row(kind.name, kind.title, takes or "what comes from the source", gives or "-")
    console().print()
    console().print(kinds)
    for sentence in (*unusable_workflows().values(), *unusable()):
        warn(sentence)


@workflow.command("show")
@click.argument("name_or_file", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON, to begin a file of your own.")
def show(name_or_file: str, as_json: bool) -> None:
    """Show the jobs of a workflow, how they are connected, which options a session with it has, and what its jobs measure, as rules name it."""
    found = find_workflow(name_or_file)
    if as_json:
        click.echo(json.dumps(found.content, indent=2, ensure_ascii=False))
        return
    click.echo(f"{found.title}: {found.description}" if found.description else found.title)
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "type", "made from", "set by the workflow"):
        table.add_column(heading, overflow="fold")
    for job in found.jobs:
        inputs = ", ".join(f"{port}: {label}.{output}" for port, (label, output) in job.inputs.items())
        values = ", ".join(f"{name} {value_text(value)}" for name, value in job.parameters.items())
        table.add_row(job.label, job.type.name, inputs or "what comes from the source", values)
    console().print(table)
    if found.gates:
        click.echo(f"rules: {'; '.join(found.gates)}")
    labels = {job.label for job in found.jobs}
    _print_by_job(
        "options", {one.key: [info.flag for info in one.infos()] for one in sections(found) if one.key in labels}
    )
    _print_by_job(
        "measured", {job.label: [_measured(job.label, metric) for metric in job.type.metrics] for job in found.jobs}
    )


def _measured(label: str, metric: Metric) -> str:
    return f"{label}.{metric.name}{f' ({metric.unit})' if metric.unit else ''}"


def _print_by_job(heading: str, lines: Mapping[str, Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("job", no_wrap=True)
    table.add_column(heading, overflow="fold")
    for label, words in lines.items():
        if words:
            table.add_row(label, (" " if heading == "options" else ", ").join(words))
    console().print()
    console().print(table)


@workflow.command("check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
def check(files: tuple[Path, ...]) -> None:
    """Check workflow files; the first fault is named with its line."""
    for path in files:
        found = read_workflow(path)
        sections(found)
        number = len(found.jobs)
        click.echo(
            f"{path} is right: {number} {'job' if number == 1 else 'jobs'} ({', '.join(job.label for job in found.jobs)})."
        )
