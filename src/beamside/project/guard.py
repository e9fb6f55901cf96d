"""Who may steer a session: only the user whose session it is.

Laboratories let a group write to what its members make (umask 002), and a project's results may be such files. What steers a session may not: whoever
can put a file into the inbox, or replace the settings or a journal, decides what the session's user does. All may read, as status and report do.
"""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from pathlib import Path

from beamside.errors import ProjectError
from beamside.project.project import Project

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
PRIVATE_FILE = 0o600
ADMINISTRATOR = 0


def guard(project: Project) -> None:
    """Make the directories of a project that steer its session, and take the right to write there from everybody else.

    Raises
    ------
    ProjectError
        when the project is another user's.
    """
    try:
        for directory in (project.private, project.journals, project.inbox, project.workers):
            directory.mkdir(parents=True, exist_ok=True)
            _narrow(directory, private=directory == project.inbox)
            if not is_trusted(directory):
                raise PermissionError(directory)
    except PermissionError as error:
        raise ProjectError(
            f"The session {project.root} is {_owner(project.private)}'s, and only that user can steer it; status and report are for all."
        ) from error


def is_trusted(path: Path) -> bool:
    """Tell whether a file or directory is this user's, or the system's administrator's; a file may also be that of its directory's owner.

    The administrator may work in anybody's project.
    """
    try:
        owner = path.lstat().st_uid
        if owner in (os.geteuid(), ADMINISTRATOR):
            return True
        if path.is_dir():
            return os.geteuid() == ADMINISTRATOR or owner == _owner_of_new_files(path)
        return owner == path.parent.lstat().st_uid and is_trusted(path.parent)
    except OSError:
        return False


@functools.cache
def _owner_of_new_files(directory: Path) -> int:
    """Return whose a file becomes that this process makes: some network file systems give all files to one user."""
    with tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_uid


def _narrow(directory: Path, *, private: bool) -> None:
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    narrow = mode & ~0o077 if private else mode & ~_OTHERS_WRITE
    if mode != narrow and status.st_uid == os.geteuid():
        directory.chmod(narrow)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (OSError, KeyError):
        return "another user"
