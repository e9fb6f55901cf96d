"""What workers tell of their tasks reaches the session, whatever happens to the files in which they tell it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.execution import whereabouts
from beamside.execution.executors import LocalWorkers
from beamside.execution.whereabouts import Listener, Said, TaskName, Where, here, say, telling

TASK = TaskName("MotionCorr/job002", "raw/m1", 1)
THERE = Where("node7", 4711, "cuda:1")


def test_what_a_worker_tells_is_heard_once_and_in_order(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "workers")
    assert listener.news() == []
    with telling(str(tmp_path / "workers"), TASK, here()):
        assert listener.news() == [Said(TASK, Where(os.uname().nodename, os.getpid()), begins=True)]
    assert [said.begins for said in listener.news()] == [False]
    assert listener.news() == []


def test_a_task_that_fails_has_ended_too(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    with pytest.raises(ValueError, match="odd"), telling(str(tmp_path), TASK, THERE):
        raise ValueError("odd")
    assert [(said.where, said.begins) for said in listener.news()] == [(THERE, True), (THERE, False)]


def test_workers_on_several_hosts_with_the_same_number_have_files_of_their_own(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    for host in ("a", "b/c"):
        say(tmp_path, TASK, Where(host, 7), begins=True)
    assert [said.where.host for said in listener.news()] == ["a", "b/c"]


def test_without_a_folder_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with telling("", TASK, THERE):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_session_has_left_is_removed(tmp_path: Path) -> None:
    say(tmp_path, TASK, THERE, begins=True)
    assert Listener(tmp_path).news() == []
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_heard_when_it_is_whole(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    say(tmp_path, TASK, THERE, begins=True)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert listener.news() == []
    path.write_bytes(whole)
    assert [said.task for said in listener.news()] == [TASK]


def test_a_line_that_a_full_disk_has_cut_short_does_not_hide_the_next(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    say(tmp_path, TASK, THERE, begins=True)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    say(tmp_path, TASK, THERE, begins=False)
    assert [said.begins for said in listener.news()] == [False]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_worker_that_cannot_write_works_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_args: Any) -> int:
        raise OSError(number, os.strerror(number))

    listener = Listener(tmp_path)
    monkeypatch.setattr(whereabouts.os, "write", refuse)
    with telling(str(tmp_path), TASK, THERE):
        done = True
    monkeypatch.undo()
    assert done
    assert listener.news() == []


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "workers")
    say(tmp_path / "workers", TASK, THERE, begins=True)
    (listener.folder / f"node7-4711{whereabouts.SUFFIX}").unlink()
    listener.folder.rmdir()
    assert listener.news() == []
    say(tmp_path / "workers", TASK, THERE, begins=False)
    assert [said.begins for said in listener.news()] == [False]


def test_a_file_that_was_replaced_or_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    for _ in range(3):
        say(tmp_path, TASK, THERE, begins=True)
    assert len(listener.news()) == 3
    [path] = tmp_path.iterdir()
    path.write_bytes(b"")
    say(tmp_path, TASK, THERE, begins=False)
    assert [said.begins for said in listener.news()] == [False]


def test_what_is_longer_than_a_look_is_read_in_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener(tmp_path)
    for number in range(5):
        say(tmp_path, TaskName(TASK.job, TASK.item, number), THERE, begins=True)
    monkeypatch.setattr(whereabouts, "LOOK_BYTES", 250)
    looks = [[said.task.number for said in listener.news()] for _ in range(6)]
    assert [number for look in looks for number in look] == [0, 1, 2, 3, 4]
    assert max(map(len, looks)) < 5


def test_a_line_that_is_longer_than_any_look_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "LOOK_BYTES", 250)
    listener = Listener(tmp_path)
    (tmp_path / f"node7-4711{whereabouts.SUFFIX}").write_bytes(b"x" * 1000)
    say(tmp_path, TASK, THERE, begins=True)
    assert [said.task for _ in range(8) for said in listener.news()] == [TASK]


def test_what_is_no_plain_file_is_left_alone(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    os.mkfifo(tmp_path / f"a-1{whereabouts.SUFFIX}")
    (tmp_path / f"b-1{whereabouts.SUFFIX}").mkdir()
    (tmp_path / f"c-1{whereabouts.SUFFIX}").symlink_to("/dev/zero")
    say(tmp_path, TASK, THERE, begins=True)
    assert [said.task for said in listener.news()] == [TASK]


lines = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda value: str(value).encode(), st.recursive(st.none() | st.integers() | st.text(), st.lists)),
    st.sampled_from([b'{"begins": 1, "job": "a"}', b"[" * 5000, b'{"task": 1e999}', b"null", b"{}"]),
)


@settings(deadline=None)
@given(st.lists(lines, max_size=6))
def test_whatever_stands_in_the_files_what_a_worker_tells_after_it_is_heard(garbage: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        listener = Listener(Path(folder))
        path = Path(folder) / f"node7-4711{whereabouts.SUFFIX}"
        for line in garbage:
            with path.open("ab") as stream:
                stream.write(line)
            listener.news()
        say(Path(folder), TASK, THERE, begins=True)
        assert listener.news()[-1:] == [Said(TASK, THERE, begins=True)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_workers_of_this_machine_tell_from_processes_of_their_own(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    workers = LocalWorkers(1)
    try:
        worker = workers.submit(os.getpid).result()
        where = workers.submit(here).result()
        workers.submit(say, tmp_path, TASK, where, begins=True).result()
    finally:
        workers.shutdown(wait=False)
    assert worker != os.getpid()
    assert listener.news() == [Said(TASK, Where(os.uname().nodename, worker), begins=True)]
