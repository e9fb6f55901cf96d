"""Which sessions this user has started, so that they can be named without their path."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from beamside.config import expanded
from beamside.errors import ConfigError
from beamside.formats.atomic import atomic_path
from beamside.project.project import Project


def registry_directory() -> Path | None:
    """Return the directory of the registry, with one small file for each project; None when this account has no home."""
    base = os.environ.get("XDG_STATE_HOME")
    try:
        state = Path(base) if base else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return state / "beamside" / "sessions"


def register(project: Project) -> str:
    """Remember a project; returns "", or a sentence when that cannot be done: the session runs without it."""
    directory = registry_directory()
    if directory is None:
        return _forgotten(project, "this account has no home directory")
    name = hashlib.sha256(os.fsencode(project.root)).hexdigest()[:16]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_path(directory / name) as temporary:
            temporary.write_bytes(os.fsencode(project.root))
    except OSError as error:
        return _forgotten(project, f"{error.filename or directory}: {error.strerror}")
    return ""


def _forgotten(project: Project, reason: str) -> str:
    return (
        f"The session is not listed by 'beamside session list' ({reason}): name it by its folder, {project.root}, "
        "or set XDG_STATE_HOME to a directory that you can write to."
    )


def known_projects() -> list[Project]:
    """Return the projects that are still there, the one used last first."""
    directory = registry_directory()
    found: list[tuple[float, Project]] = []
    with suppress(OSError):  # a registry that is not there, or may not be read, knows nothing
        for file in directory.glob("[!.]*") if directory else ():
            with suppress(OSError, ValueError):
                text = file.read_bytes().strip()
                project = Project(Path(os.fsdecode(text)))
                if text and project.exists:
                    found.append((file.stat().st_mtime, project))
    return [project for _, project in sorted(found, key=lambda pair: pair[0], reverse=True)]


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
    path = Project(expanded(name))
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
