"""``beamside init``: write an example of the facility's configuration."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from beamside.config import FILE_NAME
from beamside.errors import ConfigError
from beamside.formats.atomic import atomic_path


@click.command()
@click.argument("path", default=FILE_NAME, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: Path, force: bool) -> None:
    """Write a commented beamside.toml.

    It goes to PATH, a file or directory; by default to beamside.toml here.
    """
    path = path / FILE_NAME if path.is_dir() else path
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already: edit it, give another path, or overwrite it with --force")
    with atomic_path(path) as temporary:
        temporary.write_text(example_text(), encoding="utf-8")
    click.echo(f"{path} was written; edit it, then: beamside session start --profile krios.k3 --name <session>")


def example_text() -> str:
    """Return the commented example."""
    return files("beamside.cli").joinpath("example.toml").read_text(encoding="utf-8")
