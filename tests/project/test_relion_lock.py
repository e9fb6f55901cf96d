"""RELION's lock: taken as RELION takes it, given back always, and not believed for ever."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from beamside.errors import ProjectBusyError, ProjectError
from beamside.project.relion_lock import LOCK_DIRECTORY, MESSAGE_FILE, RelionLock


def leave_lock(root: Path, message: str | None) -> Path:
    lock = root / LOCK_DIRECTORY
    lock.mkdir()
    if message is not None:
        (lock / MESSAGE_FILE).write_text(message)
    return lock


def finished_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_while_held_relions_directory_and_file_are_there(tmp_path: Path) -> None:
    with RelionLock(tmp_path):
        assert (tmp_path / ".relion_lock" / "lock_default_pipeline.star").read_text().startswith("beamside ")
    assert os.listdir(tmp_path) == []


def test_it_is_given_back_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), RelionLock(tmp_path):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_no_lock_that_seems_to_be_another_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _text: str) -> int:
        path.touch()  # a name needs no room
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(ProjectError, match="make room on the disk"), RelionLock(tmp_path):
            pass
    assert os.listdir(tmp_path) == []


def test_a_lock_of_another_program_is_waited_for_then_reported(tmp_path: Path) -> None:
    lock = leave_lock(tmp_path, None)
    with pytest.raises(ProjectBusyError, match="is held by a RELION program"), RelionLock(tmp_path, wait=0.2):
        pass
    assert lock.exists()


def test_the_lock_of_a_living_process_is_never_stale(tmp_path: Path) -> None:
    with RelionLock(tmp_path), pytest.raises(ProjectBusyError, match=str(os.getpid())), RelionLock(tmp_path, wait=0.2):
        pass


def test_the_lock_of_a_dead_process_of_this_computer_is_cleared_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leave_lock(tmp_path, f"beamside {socket.gethostname()} {finished_process()} 1000.00 abc\n")
    with RelionLock(tmp_path, wait=0):
        assert "left behind by beamside" in caplog.text
    assert os.listdir(tmp_path) == []


def test_a_process_number_that_was_given_out_again_is_not_the_holder(tmp_path: Path) -> None:
    leave_lock(tmp_path, f"beamside {socket.gethostname()} {os.getpid()} 1000.00 abc\n")
    with RelionLock(tmp_path, wait=0):
        pass


def test_a_dead_process_number_of_another_computer_says_nothing(tmp_path: Path) -> None:
    leave_lock(tmp_path, f"beamside elsewhere.example {finished_process()} 1000.00 abc\n")
    with pytest.raises(ProjectBusyError, match=r"elsewhere\.example"), RelionLock(tmp_path, wait=0.1):
        pass


def test_an_unchanged_lock_of_unknown_holder_goes_stale_over_several_attempts(tmp_path: Path) -> None:
    leave_lock(tmp_path, "lock message of a program that crashed")
    for _ in range(2):
        with pytest.raises(ProjectBusyError), RelionLock(tmp_path, wait=0.1, stale_after=30):
            pass
    with RelionLock(tmp_path, wait=0, stale_after=0.1):
        pass


def test_a_lock_that_changes_hands_is_not_stale(tmp_path: Path) -> None:
    lock = leave_lock(tmp_path, None)
    with pytest.raises(ProjectBusyError), RelionLock(tmp_path, wait=0):
        pass
    time.sleep(0.1)
    os.utime(lock, ns=(1, 1))
    with pytest.raises(ProjectBusyError), RelionLock(tmp_path, wait=0, stale_after=0.05):
        pass


def test_who_lost_the_lock_leaves_the_next_holders_alone(tmp_path: Path) -> None:
    message = tmp_path / LOCK_DIRECTORY / MESSAGE_FILE
    with RelionLock(tmp_path):
        message.write_text("another has it now")
    assert message.exists()


def test_only_one_at_a_time_gets_in(tmp_path: Path) -> None:
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(10):
            with RelionLock(tmp_path, wait=60, poll=0.001):
                before = count
                threading.Event().wait(0.001)
                count = before + 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 40


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot be made"), RelionLock(tmp_path / "gone"):
        pass
