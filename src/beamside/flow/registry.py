"""Which sessions this user has started, so that they can be named without their path."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from beamside.errors import ConfigError
from beamside.formats.atomic import atomic_path
from beamside.project.project import Project


def registry_directory() -> Path:
    """Return the directory of the registry: one small file for each project."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "beamside" / "sessions"


def register(project: Project) -> None:
    """Remember a project."""
    directory = registry_directory()
    directory.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(project.root).encode()).hexdigest()[:16]
    with atomic_path(directory / name) as temporary:
        temporary.write_text(str(project.root))


def known_projects() -> list[Project]:
    """Return the projects that are still there, the one used last first."""
    directory = registry_directory()
    if not directory.is_dir():
        return []
    files = sorted(directory.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [project for project in (Project(Path(file.read_text().strip())) for file in files) if project.exists]


def find_project(name: str | None) -> Project:
    """Return the project that a user means: a path, ``group/name``, ``name``, or nothing for the one here or the only one known.

    Raises ConfigError when there is none or more than one.
    """
    if name is None:
        here = Project(Path.cwd())
        if here.exists:
            return here
        known = known_projects()
        if len(known) == 1:
            return known[0]
        raise ConfigError(_which(known) if known else "No session is known; give its folder, <target>/<group>/<name>.")
    path = Project(Path(name).expanduser())
    if path.exists:
        return path
    wanted = Path(name).parts
    matching = [project for project in known_projects() if project.root.parts[-len(wanted) :] == wanted]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ConfigError(_which(matching))
    raise ConfigError(f"There is no session {name!r}; `beamside session list` shows those that are known.")


def _which(projects: list[Project]) -> str:
    return "There are several sessions; name the one that you mean: " + ", ".join(
        str(project.root) for project in projects
    )
