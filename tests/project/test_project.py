import copy
import errno
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import ProjectBusyError, ProjectError
from beamside.project import index_file
from beamside.project.fold import FORMAT, apply_item_record
from beamside.project.index import Index
from beamside.project.index_file import file_system_type, index_path, remove_index
from beamside.project.journal import damage_sentences
from beamside.project.problems import fold_problems, open_problems
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ALLOWED, FINAL_STATES, ItemState, JobEntry


def add_job(writer: ProjectWriter, name: str = "MotionCorr/job002") -> str:
    writer.create_job(name, "motion", {"patches_x": 5}, {})
    return name


def finish(writer: ProjectWriter, job: str, item: str, total: float) -> None:
    for state in (ItemState.WAITING, ItemState.QUEUED, ItemState.RUNNING):
        writer.item(job, item, state)
    writer.item(job, item, ItemState.DONE, key="k", result={"metrics": {"motion_total": total}}, seconds=1.5)


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path)) as writer:
        finish(writer, add_job(writer), "raw/a", 4.0)
        before = writer.state
    assert Project(tmp_path).load() == before


def test_there_is_one_writer(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path)):
        assert Project(tmp_path).writer_process() is not None
        with pytest.raises(ProjectBusyError, match=f"process {os.getpid()}"):
            ProjectWriter(Project(tmp_path))
    assert Project(tmp_path).writer_process() is None


def _hold(root: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with ProjectWriter(Project(root)) as writer:
        add_job(writer)
        ready.set()
        time.sleep(60)


def test_a_project_where_nobody_can_write_is_told_in_a_sentence(tmp_path: Path) -> None:
    project = Project(tmp_path / "p")
    project.root.mkdir()
    project.private.write_text("a file, where nothing can be made")
    with pytest.raises(
        ProjectError, match=r"The project .*/p cannot be written \((Not a directory|File exists)\): ask"
    ):
        ProjectWriter(project)


def test_a_writer_that_was_killed_blocks_nobody(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(ProjectBusyError):
        ProjectWriter(Project(tmp_path))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with ProjectWriter(Project(tmp_path)) as writer:
        assert list(writer.state.jobs) == ["MotionCorr/job002"]


def test_impossible_transitions_are_refused_and_not_written(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path)) as writer:
        job = add_job(writer)
        with pytest.raises(ProjectError, match="cannot go from nothing to done"):
            writer.item(job, "raw/a", ItemState.DONE)
    assert Project(tmp_path).load().jobs[job].items == {}


def test_a_record_that_could_not_be_written_has_changed_nothing_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project) as writer:
        job = add_job(writer)
        finish(writer, job, "raw/a", 4.0)
        writer.note("info", "all is well")
        before = copy.deepcopy(writer.state)

        def full(_descriptor: int, _data: bytes) -> int:
            raise OSError(28, "No space left on device")

        changes: tuple[Callable[[], object], ...] = (
            lambda: writer.item(job, "raw/a", ItemState.WAITING),
            lambda: writer.item(job, "raw/b", ItemState.WAITING),
            lambda: writer.set_status(job, "Failed"),
            lambda: writer.set_parameters(job, {}),
            lambda: writer.create_job("CtfFind/job003", "ctf", {}, {}),
            lambda: writer.settings({"name": "other"}),
            lambda: writer.note("info", "more"),
        )
        with monkeypatch.context() as patched:
            patched.setattr("beamside.project.journal.os.write", full)
            for change in changes:
                with pytest.raises(ProjectError, match="No space left"):
                    change()
                assert writer.state == before == project.load()
        for change in changes:
            change()
        assert writer.state == project.load()


def test_a_revision_says_whether_a_job_s_tables_have_changed_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProjectWriter(Project(tmp_path)) as writer:
        name = add_job(writer)
        finish(writer, name, "raw/a", 4.0)
        job = writer.state.jobs[name]
        first = job.revision
        monkeypatch.setattr("beamside.project.project.time.time", lambda: 5.0)  # the clock steps back
        finish(writer, name, "raw/b", 5.0)
        assert job.revision > first
        assert job.items["raw/b"].finished > job.items["raw/a"].finished
        second = job.revision
        writer.item(name, "raw/c", ItemState.WAITING)
        assert job.revision == second, "nothing that a table shows has changed"
        writer.item(name, "raw/c", ItemState.FAILED)
        assert job.revision > second
    assert Project(tmp_path).load().jobs[name] == job, "the journal's order gives the same numbers"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(list(ItemState)), max_size=12))
def test_the_state_machine_allows_exactly_the_listed_transitions(states: list[ItemState]) -> None:
    job = JobEntry("A/job001", "a", {})
    current: ItemState | None = None
    for state in states:
        record = {"time": 0.0, "item": "x", "state": state.value}
        if state in ALLOWED[current]:
            current = apply_item_record(job, record).state
            assert current is state
        else:
            with pytest.raises(ProjectError):
                apply_item_record(job, record)
    assert (job.items["x"].state if current else None) is current


def test_an_old_result_stays_until_there_is_a_new_one(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path)) as writer:
        job = add_job(writer)
        finish(writer, job, "raw/a", 4.0)
        writer.item(job, "raw/a", ItemState.WAITING, reason="parameters changed")
        entry = writer.state.jobs[job].items["raw/a"]
        assert entry.result == {"metrics": {"motion_total": 4.0}}
        assert entry.reason == "parameters changed"


def test_the_story_of_an_item_has_every_transition(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path)) as writer:
        finish(writer, add_job(writer), "raw/a", 1.0)
    assert [record["state"] for _, record in Project(tmp_path).story("raw/a")] == [
        "waiting",
        "queued",
        "running",
        "done",
    ]


def test_the_index_says_the_same_as_the_journals(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path)) as writer:
        job = add_job(writer)
        index = Index(writer.project)
        for number in range(3):
            finish(writer, job, f"raw/{number}", float(number))
            index.catch_up()
        writer.item(job, "raw/bad", ItemState.WAITING)
        writer.item(job, "raw/bad", ItemState.FAILED, reason="no frames")
    index.catch_up()
    assert index.catch_up() == 0
    assert index.counts() == {job: {"done": 3, "failed": 1}}
    assert [value for _, _, value in index.metric(job, "motion_total")] == [0.0, 1.0, 2.0]
    assert index.problems() == [(job, "raw/bad", "failed", "no frames")]
    index.close()


def with_items(tmp_path: Path, *items: str) -> Project:
    project = Project(tmp_path / "project")
    with ProjectWriter(project) as writer:
        job = add_job(writer)
        for item in items:
            finish(writer, job, item, 1.0)
    return project


def indexed(project: Project, path: Path | None = None) -> dict[str, dict[str, int]]:
    index = Index(project, path)
    try:
        index.catch_up()
        return index.counts()
    finally:
        index.close()


def test_an_index_that_is_ahead_of_a_journal_is_made_anew_and_the_journal_is_believed(tmp_path: Path) -> None:
    project = with_items(tmp_path, "raw/a", "raw/b")
    journal = project.job_journal("MotionCorr/job002")
    assert indexed(project) == {"MotionCorr/job002": {"done": 2}}
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:20])  # the power went, and with it the end of the journal
    assert indexed(project) == {"MotionCorr/job002": {"done": 1}}
    with ProjectWriter(project) as writer:  # the index never saw the shorter one: what is there now is longer again
        indexed(project)
        for item in ("raw/x", "raw/y", "raw/z"):
            finish(writer, "MotionCorr/job002", item, 2.0)
    assert indexed(project) == {"MotionCorr/job002": {"done": 4}}
    journal.write_bytes(b"".join(lines))  # restored from a backup
    assert indexed(project) == {"MotionCorr/job002": {"done": 2}}
    journal.unlink()
    assert indexed(project) == {}


@pytest.mark.parametrize("damage", ["not a database", "a page", "no tables", "empty", "gone", "of another version"])
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: str) -> None:
    project = with_items(tmp_path, *(f"raw/{number:04d}" for number in range(40)))
    counts = indexed(project)
    path = index_path(project)
    content = bytearray(path.read_bytes())
    if damage == "not a database":
        path.write_text("not a database at all" * 100)
    elif damage == "a page":
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "gone":
        remove_index(project)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE item" if damage == "no tables" else "PRAGMA user_version = 99")
        connection.close()
    assert indexed(project) == counts


def test_an_index_that_was_replaced_while_it_was_open_is_opened_anew(tmp_path: Path) -> None:
    project = with_items(tmp_path, "raw/a")
    index = Index(project)
    index.catch_up()
    remove_index(project)
    indexed(project)
    with ProjectWriter(project) as writer:
        finish(writer, "MotionCorr/job002", "raw/b", 1.0)
    index.catch_up()
    index.close()
    with sqlite3.connect(f"file:{index_path(project)}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT COUNT(*) FROM item").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("cache", ["writable", "not writable"])
def test_a_visitor_who_may_not_write_reads_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    """Root may write anywhere, so that a place cannot be written is said by the one who opens it."""
    project = with_items(tmp_path, "raw/a")
    indexed(project)
    with ProjectWriter(project) as writer:
        finish(writer, "MotionCorr/job002", "raw/b", 1.0)  # newer than the owner's index
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = index_file.connect

    def connect(path: Path) -> sqlite3.Connection:
        if path.is_relative_to(project.root):
            return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, isolation_level=None)
        if cache == "not writable" and path.is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    before = {path: path.read_bytes() for path in project.private.rglob("*") if path.is_file()}
    monkeypatch.setattr("beamside.project.index.connect", connect)
    assert indexed(project) == {"MotionCorr/job002": {"done": 2}}
    assert {path: path.read_bytes() for path in project.private.rglob("*") if path.is_file()} == before
    assert (tmp_path / "cache").exists() == (cache == "writable")


def test_a_damaged_line_is_passed_over_and_told_and_its_items_can_be_finished(tmp_path: Path) -> None:
    project = with_items(tmp_path, "raw/a", "raw/b")
    journal = project.job_journal("MotionCorr/job002")
    lines = journal.read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace('"state":"done"', '"stat\0":"do', 1)  # the result of raw/a
    lines[4] = "{}\n"  # that raw/b waits
    journal.write_text("".join(lines))
    state = project.load()
    assert {name: entry.state for name, entry in state.jobs["MotionCorr/job002"].items.items()} == {
        "raw/a": ItemState.RUNNING,
        "raw/b": ItemState.DONE,
    }
    assert len(state.damage) == 2
    [sentence] = damage_sentences(state.damage).values()
    assert str(journal) in sentence
    assert "in 2 lines" in sentence
    with ProjectWriter(project) as writer:
        writer.item("MotionCorr/job002", "raw/a", ItemState.WAITING)
        finish_again = (ItemState.QUEUED, ItemState.RUNNING, ItemState.DONE)
        for step in finish_again:
            writer.item("MotionCorr/job002", "raw/a", step)
        assert writer.state == project.load()
    index = Index(project)
    index.catch_up()
    assert index.counts() == {"MotionCorr/job002": {"done": 2}}
    assert [problem.sentence for problem in open_problems(fold_problems(index.events("problem")).values())] == [
        sentence
    ]
    index.close()


def test_a_project_whose_jobs_are_lost_is_not_written_to(tmp_path: Path) -> None:
    project = with_items(tmp_path, "raw/a")
    with ProjectWriter(project) as writer:
        writer.set_status("MotionCorr/job002", "Succeeded")
    text = project.project_journal.read_text()
    project.project_journal.write_text(text.replace('{"time', '{"tim\0', 2).replace('{"tim\0', '{"time', 1))
    with pytest.raises(ProjectError, match=r"job002 .* restore that file from a backup"):
        ProjectWriter(project)
    assert project.writer_process() is None
    assert indexed(project) == {}


@pytest.mark.parametrize("which", ["MotionCorr-job002.jsonl", "project.jsonl"])
def test_a_project_that_has_lost_a_journal_is_not_begun_anew_without_a_word(tmp_path: Path, which: str) -> None:
    project = with_items(tmp_path, "raw/a")
    with ProjectWriter(project) as writer:
        writer.set_status("MotionCorr/job002", "Succeeded")
    (project.journals / which).unlink()
    with pytest.raises(ProjectError, match=rf"{which} is missing.*restore it from a backup"):
        ProjectWriter(project)
    (project.journals / which).touch()
    with ProjectWriter(project) as writer:
        assert not any(job.items for job in writer.state.jobs.values())


def test_a_project_of_a_newer_format_is_refused_and_one_of_the_first_is_taken_over(tmp_path: Path) -> None:
    project = with_items(tmp_path, "raw/a")
    text = project.project_journal.read_text()
    project.project_journal.write_text(text.replace(f'"format":{FORMAT}', f'"format":{FORMAT + 1}'))
    for read in (project.load, lambda: ProjectWriter(project), lambda: indexed(project)):
        with pytest.raises(ProjectError, match="newer version of Beamside"):
            read()
    project.project_journal.write_text(text.replace(f'"format":{FORMAT}', '"format":1'))
    assert project.load().format == 1
    with ProjectWriter(project):
        pass
    assert project.load().format == FORMAT
    assert project.project_journal.read_text().count('"event":"format"') == 1


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_where_files_cannot_be_locked_nobody_is_said_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    project = with_items(tmp_path, "raw/a")

    def refuse(_descriptor: int, _what: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("beamside.project.lease.fcntl.flock", refuse)
    assert project.writer_process() is None
    with pytest.raises(ProjectError, match="must support file locks"):
        ProjectWriter(project)


def test_copies_of_a_project_have_indexes_of_their_own_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamside.project.index_file.file_system_type", lambda _path: "nfs4")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = with_items(tmp_path, "raw/a")
    shutil.copytree(project.root, tmp_path / "copy")
    assert index_path(Project(tmp_path / "copy")) != index_path(project)


def _open_index(root: Path, start: "multiprocessing.synchronize.Event") -> None:
    start.wait(30)
    Index(Project(root)).catch_up()


def test_several_processes_may_make_the_index_at_once(tmp_path: Path) -> None:
    with ProjectWriter(Project(tmp_path)) as writer:
        finish(writer, add_job(writer), "raw/a", 1.0)
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    processes = [context.Process(target=_open_index, args=(tmp_path, start)) for _ in range(4)]
    for process in processes:
        process.start()
    time.sleep(1.0)
    start.set()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]


def test_the_index_is_not_kept_on_a_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "project")
    with ProjectWriter(project):
        pass
    assert index_path(project).parent == project.private
    monkeypatch.setattr("beamside.project.index_file.file_system_type", lambda _path: "nfs4")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert index_path(project).is_relative_to(tmp_path / "cache")


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:1 / / rw - ext4 /dev/root rw\n"
        f"30 22 0:40 / {tmp_path}/mé\\040share rw,relatime shared:1 - nfs4 server:/x rw\n"
    )
    share = tmp_path / "mé share"
    share.mkdir()
    assert file_system_type(share / "a", mounts) == "nfs4"
    assert file_system_type(tmp_path, mounts) == "ext4"


def test_final_states_are_left_only_for_waiting() -> None:
    for state in FINAL_STATES - {ItemState.REJECTED}:
        assert ALLOWED[state] == {ItemState.WAITING}
    assert ALLOWED[ItemState.REJECTED] == {ItemState.WAITING, ItemState.DONE}, "of what is a rule now"
