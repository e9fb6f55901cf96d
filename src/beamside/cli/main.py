"""``beamside``: the command line's top."""

from __future__ import annotations

from pathlib import Path

import click

import beamside
from beamside.cli.demo import demo
from beamside.cli.init import init
from beamside.cli.project import project
from beamside.cli.root import SentenceGroup
from beamside.cli.session import session
from beamside.cli.session_looks import OUTPUT_HELP, write_report_now
from beamside.cli.workflow import workflow
from beamside.flow.known_projects import find_project


@click.group(cls=SentenceGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(beamside.__version__, prog_name="beamside", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of errors.")
def main() -> None:
    """Live processing of electron microscope movies.

    Movies become verified raw data, corrected micrographs, particles, 2D classes and a report, in a project that RELION opens.

    \b
    See it work:           beamside demo
    Process your data:     beamside session start --help
    Set up a microscope:   beamside init
    """


@main.command("report")
@click.argument("project", metavar="PROJECT")
@click.option("--quiet", is_flag=True, help="Do not print its path.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help=OUTPUT_HELP)
def report(project: str, quiet: bool, output: Path | None) -> None:
    """Write a project's report, an HTML file."""
    write_report_now(find_project(project), output, quiet=quiet)


for _command in (demo, session, workflow, init, project):
    main.add_command(_command)

if __name__ == "__main__":
    main()
