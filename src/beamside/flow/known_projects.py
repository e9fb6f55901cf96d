"""Which sessions this user has started, so that they can be named without their path."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Away:
    """A project that is known and cannot be reached: why, and the file that has to be removed for it to be forgotten."""

    project: Project
    why: str
    entry: Path

    @property
    def sentence(self) -> str:
        """What is said of it."""
        return (
            f"{self.project.root} cannot be reached ({self.why}): is its disk mounted? If it was moved or deleted, "
            f"remove {self.entry}, and it is listed no more."
        )


def known_projects() -> list[Project]:
    """Return the projects that are still there, the one used last first."""
    return [project for project, _ in _entries() if _reached(project) is True]


def away_projects() -> list[Away]:
    """Return the projects that cannot be reached, the one used last first; those that were deleted from a folder that is there are forgotten."""
    found = ((project, _reached(project), entry) for project, entry in _entries())
    return [Away(project, reached, entry) for project, reached, entry in found if isinstance(reached, str)]


def _entries() -> list[tuple[Project, Path]]:
    directory = registry_directory()
    found: list[tuple[float, Project, Path]] = []
    with suppress(OSError):  # a registry that is not there, or may not be read, knows nothing
        for file in directory.glob("[!.]*") if directory else ():
            with suppress(OSError, ValueError):
                if text := file.read_bytes().strip():
                    found.append((file.stat().st_mtime, Project(Path(os.fsdecode(text))), file))
    return [(project, file) for _, project, file in sorted(found, key=lambda one: one[0], reverse=True)]


def _reached(project: Project) -> bool | str:
    """Tell whether a project is there; where its disk seems to be away, why."""
    target = project.root.parent.parent
    try:
        if project.exists:
            return True
        if not target.is_dir():
            return f"there is no folder {target}"
        return False if any(target.iterdir()) else f"the folder {target} is empty"  # as the place of a mount is
    except OSError as error:
        return str(error.strerror)
    except ValueError:  # what no path can be
        return False


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
    for away in away_projects():
        if wanted and away.project.root.parts[-len(wanted) :] == wanted:
            raise ConfigError(f"The session {away.sentence}")
    raise ConfigError(f"There is no session {name!r}; `beamside session list` shows those that are known.")


def _which(projects: list[Project]) -> str:
    return "There are several sessions; name the one that you mean: " + ", ".join(
        str(project.root) for project in projects
    )
