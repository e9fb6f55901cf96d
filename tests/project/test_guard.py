"""Only the user whose session it is can steer it, also where a group may write to results."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamside.errors import ProjectError
from beamside.flow import control
from beamside.flow.start import session_command
from beamside.project import guard as guard_module
from beamside.project.guard import guard
from beamside.project.project import Project, ProjectWriter


@pytest.fixture
def group_may_write() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("group_may_write")
def test_a_group_cannot_write_to_what_steers_a_session(tmp_path: Path) -> None:
    project = Project(tmp_path / "lab/run1")
    control.send(project, "pause")
    with ProjectWriter(project) as writer:
        writer.session("started")
    found = [project.private, *(path for path in project.private.rglob("*") if path.parent != project.inbox)]
    assert {path.name for path in found} >= {".beamside", "inbox", "journal", "project.jsonl", "writer.lock"}
    assert [path for path in found if mode(path) & 0o022] == []
    assert mode(project.inbox) == 0o700
    assert mode(project.workers) == 0o755
    assert mode(project.root) == 0o775, "results may be the group's"


@pytest.mark.usefixtures("group_may_write")
def test_directories_that_were_wide_are_narrowed(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.inbox.mkdir(parents=True)
    project.private.chmod(0o2777)
    guard(project)
    assert (mode(project.private), mode(project.inbox)) == (0o2755, 0o700)


def test_a_command_that_another_user_left_is_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path)
    control.send(project, "stop")
    assert [message.name for message in control.receive(project)] == ["stop"]
    be_another_user(monkeypatch, new_files_of=os.getuid() + 1)
    assert control.receive(project) == []
    ((_, why),) = control.strangers(project)
    assert "not from the user" in why


def be_another_user(monkeypatch: pytest.MonkeyPatch, *, new_files_of: int) -> None:
    """Let this user be another one than the files are of; new ones become those of the user `new_files_of`."""
    monkeypatch.setattr(guard_module.os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(guard_module, "ADMINISTRATOR", -1)
    monkeypatch.setattr(guard_module, "_owner_of_new_files", lambda _directory: new_files_of)


def test_a_project_that_somebody_else_put_in_its_place_is_not_worked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    guard(project)
    be_another_user(monkeypatch, new_files_of=os.getuid() + 1)
    with pytest.raises(ProjectError, match="only that user can steer it"):
        guard(project)


def test_a_file_system_that_gives_all_files_to_one_user_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    control.send(project, "stop")
    be_another_user(monkeypatch, new_files_of=os.getuid())
    guard(project)
    assert [message.name for message in control.receive(project)] == ["stop"]


def test_another_users_session_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ProjectError, match="only that user can steer it"):
        guard(Project(tmp_path))


def test_a_file_in_a_project_is_not_taken_for_a_module_of_the_session(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("open('taken', 'w')\nraise SystemExit(9)\n")
    command = [*session_command(Project(tmp_path))[:-1], "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "taken").exists()
