"""Workers: work that is done elsewhere, workers that die, sessions that die."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from beamside.execution.connection import UNCONNECTED_SECONDS, Connection
from beamside.execution.engine import pool_command, put_scripts_on_path, remove_left_directories
from beamside.execution.executors import LocalWorkers, WorkersLostError
from beamside.execution.orphans import process_created
from beamside.execution.pools import start_executor
from beamside.execution.settings import ExecutionSettings, available_cores

SESSION_THAT_IS_KILLED = """
import os, signal, sys, time
from beamside.execution.executors import LocalWorkers
if __name__ == "__main__":
    workers = LocalWorkers(2)
    while sys.argv[1] == "idle" and not workers._engine.connected():
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def tagged(tag: str) -> list[str]:
    """Return the command lines of the processes that have inherited `tag` in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if tag in Path(f"/proc/{process.pid}/environ").read_text(errors="replace").split("\0"):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_workers_do_the_work_and_a_worker_that_dies_costs_only_its_task() -> None:
    workers = LocalWorkers(1)
    try:
        assert workers.submit(pow, 2, 10).result() == 1024
        lost = workers.submit(os._exit, 3)
        with pytest.raises(Exception, match=r"(?i)worker|lost|exit"):
            lost.result()
        assert workers.submit(pow, 3, 2).result() == 9
    finally:
        workers.shutdown(wait=False)


def kill_part(workers: LocalWorkers, part: str) -> None:
    engine = workers._engine
    if part == "interchange":
        assert engine._executor.interchange_proc is not None
        engine._executor.interchange_proc.kill()
    for group in engine.pool_groups() if part == "helper" else ():
        spawned = [process for process in psutil.process_iter() if in_group(process, group) and is_spawned(process)]
        min(spawned, key=lambda process: process.create_time()).kill()  # the pool starts it before its workers


def in_group(process: psutil.Process, group: int) -> bool:
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        return os.getpgid(process.pid) == group
    return False


def is_spawned(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


def submit_often(workers: LocalWorkers) -> None:
    for _ in range(150):
        workers.submit(abs, -1)
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("part", ["interchange", "helper"])
def test_when_a_part_that_drives_the_workers_dies_it_is_started_again_and_its_workers_end(part: str) -> None:
    workers = LocalWorkers(1)
    try:
        worker = workers.submit(os.getpid).result()
        lost = workers.submit(timeit.timeit, "time.sleep(600)", "import time", number=1)
        groups = workers._engine.pool_groups()
        kill_part(workers, part)
        with pytest.raises(Exception, match=r"(?i)lost|loss"):
            lost.result()
        assert workers.submit(pow, 3, 2).result() == 9
        assert process_created(worker) == 0
        for group in groups:
            with pytest.raises(ProcessLookupError):
                os.killpg(group, 0)
    finally:
        workers.shutdown(wait=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_workers_that_die_again_and_again_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamside.execution.executors.RESTARTS", 0)
    workers = LocalWorkers(1)
    try:
        kill_part(workers, "interchange")
        with pytest.raises(WorkersLostError, match="not started again"):
            submit_often(workers)
    finally:
        workers.shutdown(wait=False)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["while its workers start", "idle"])
def test_nothing_is_left_when_a_session_is_killed_and_another_one_tidies_up(tmp_path: Path, when: str) -> None:
    program = tmp_path / "session.py"
    program.write_text(SESSION_THAT_IS_KILLED)
    tag = f"BEAMSIDE_TEST_TAG={tmp_path.name}"
    environment = {**os.environ, **dict([tag.split("=")])}
    finished = subprocess.run([sys.executable, str(program), when], check=False, env=environment)
    assert finished.returncode == -9
    remove_left_directories()
    while tagged(tag):  # as long as it takes on a busy machine; a test that hangs is ended by pytest's own timeout
        time.sleep(0.1)


class MadeUpEngine:
    """An engine whose workers come or not; what was submitted stays."""

    made: ClassVar[list["MadeUpEngine"]] = []
    here: ClassVar[bool | None] = False

    def __init__(self, _workers: int) -> None:
        self.submitted: list[Future[Any]] = []
        self.pools, self.killed = 1, False
        self.made.append(self)

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self.submitted.append(Future())
        return self.submitted[-1]

    def alive(self) -> bool:
        return True

    def connected(self) -> bool | None:
        return self.here

    def pools_started(self) -> int:
        return self.pools

    def last_words(self) -> str:
        return "No module named parsl"

    def kill(self) -> None:
        self.killed = True
        for future in self.submitted:
            future.set_exception(RuntimeError("killed"))

    shutdown = kill


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalWorkers]:
    monkeypatch.setattr("beamside.execution.executors.WATCH_SECONDS", 1e6)  # the tests look themselves
    monkeypatch.setattr(MadeUpEngine, "made", [])
    workers = LocalWorkers(1, make_engine=MadeUpEngine)  # type: ignore[arg-type]
    yield workers
    workers._end.set()


def look(workers: LocalWorkers, times: int) -> None:
    """Look so often, each time after another pool of workers has ended at once."""
    for _ in range(times):
        if workers.broken:
            return
        workers._look_at_connection()
        MadeUpEngine.made[-1].pools += 1


def test_workers_that_cannot_start_are_told_with_their_words_and_given_up(made_up: LocalWorkers) -> None:
    future = made_up.submit(pow, 2, 2)
    look(made_up, 2)
    assert made_up.trouble == ""
    look(made_up, 3)
    assert "cannot be started: No module named parsl" in made_up.trouble
    look(made_up, 3)
    assert len(MadeUpEngine.made) == 2
    assert MadeUpEngine.made[0].killed
    assert len(MadeUpEngine.made[1].submitted) == 1, "nobody can have begun with it: it is given to the next ones"
    assert not future.done()
    look(made_up, 20)
    assert "No module named parsl" in made_up.broken
    with pytest.raises(WorkersLostError, match="3 attempts"):
        future.result()
    with pytest.raises(WorkersLostError):
        made_up.submit(pow, 2, 2)


def test_workers_that_come_after_all_are_no_trouble(made_up: LocalWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    look(made_up, 4)
    assert made_up.trouble
    monkeypatch.setattr(MadeUpEngine, "here", True)
    look(made_up, 1)
    assert made_up.trouble == ""
    assert len(MadeUpEngine.made) == 1


def test_what_drives_the_workers_and_does_not_answer_is_replaced(
    made_up: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpEngine, "here", True)
    look(made_up, 1)
    future = made_up.submit(pow, 2, 2)
    monkeypatch.setattr(MadeUpEngine, "here", None)
    look(made_up, 1)
    assert len(MadeUpEngine.made) == 2
    with pytest.raises(WorkersLostError, match="all workers were lost"):
        future.result()


@pytest.mark.parametrize("times", [1, 2])
def test_an_engine_that_could_not_be_started_is_tried_again(
    times: int, made_up: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = fail_to_start(made_up, times, monkeypatch)
    made_up.restart("killed")
    assert (made_up.broken, failures) == ("", [])
    assert len(MadeUpEngine.made) == 2


def test_an_engine_that_cannot_be_started_is_given_up_with_the_reason(
    made_up: LocalWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_to_start(made_up, 99, monkeypatch)
    made_up.restart("killed")
    with pytest.raises(WorkersLostError, match=r"could not be started in 3 attempts \(OSError: no room\)"):
        made_up.submit(pow, 2, 2)


def fail_to_start(workers: LocalWorkers, times: int, monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    monkeypatch.setattr("beamside.execution.executors.AGAIN_SECONDS", 0.0)
    failures = [OSError("no room") for _ in range(times)]

    def make(number: int) -> MadeUpEngine:
        if failures:
            raise failures.pop()
        return MadeUpEngine(number)

    monkeypatch.setattr(workers, "_make_engine", make)
    return failures


def test_workers_that_start_slowly_have_their_time() -> None:
    connection = Connection(since=100.0)
    assert connection.look(100 + UNCONNECTED_SECONDS, False, 1) == ""
    assert connection.look(101 + UNCONNECTED_SECONDS, False, 1) == "failed"
    assert connection.look(500, True, 1) == ""
    assert connection.look(501, False, 3) == "", "a pool that ended is started again"


def test_the_pool_is_started_with_this_python_wherever_it_is() -> None:
    command = pool_command("process_worker_pool.py {debug} --block_id={{block_id}}", ["/a {b}/python", "-m", "pool"])
    filled = command.format(debug="-d").format(block_id=3)
    assert shlex.split(filled) == ["/a {b}/python", "-m", "pool", "-d", "--block_id=3"]


def test_the_scripts_of_this_python_are_found_without_activating_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    put_scripts_on_path()
    put_scripts_on_path()
    assert os.environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin:/bin"


def test_no_more_workers_than_cores_or_memory_allow() -> None:
    assert 1 <= ExecutionSettings().worker_count() <= available_cores()
    assert ExecutionSettings(memory=1000).worker_count() == 1
    assert ExecutionSettings(workers=7).worker_count() == 7
    assert ExecutionSettings(executor="inline", workers=7).worker_count() == 1


def test_a_process_that_is_not_there_has_no_beginning() -> None:
    assert process_created(os.getpid()) > 0
    assert process_created(2**22 + 1) == 0.0


def test_the_inline_executor_works_in_this_process() -> None:
    executor = start_executor(ExecutionSettings(executor="inline"))
    assert executor.submit(os.getpid).result() == os.getpid()
    executor.shutdown()
