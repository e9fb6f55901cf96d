"""Workers: work that is done elsewhere, workers that die, sessions that die."""

import contextlib
import os
import subprocess
import sys
import time
import timeit
from pathlib import Path

import psutil
import pytest

from beamside.execution.engine import put_scripts_on_path
from beamside.execution.executors import LocalWorkers, WorkersLostError, start_executor
from beamside.execution.orphans import end_with_session, process_created
from beamside.execution.settings import ExecutionSettings, available_cores

SESSION_THAT_IS_KILLED = """
import os, signal, sys
from beamside.execution.executors import LocalWorkers
from beamside.execution.orphans import end_with_session, process_created
if __name__ == "__main__":
    workers = LocalWorkers(1)
    me = os.getpid()
    print(workers.submit(os.getpid).result(), flush=True)
    workers.submit(end_with_session, me, process_created(me)).result()
    os.kill(me, signal.SIGKILL)
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
        assert workers.submit(pow, 2, 10).result(timeout=60) == 1024
        lost = workers.submit(os._exit, 3)
        with pytest.raises(Exception, match=r"(?i)worker|lost|exit"):
            lost.result(timeout=60)
        assert workers.submit(pow, 3, 2).result(timeout=60) == 9
    finally:
        workers.shutdown(wait=False)


def kill_part(workers: LocalWorkers, part: str) -> None:
    engine = workers._engine
    if part == "interchange":
        assert engine._executor.interchange_proc is not None
        engine._executor.interchange_proc.kill()
    for group in engine.pool_groups() if part == "pool" else ():
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == group and "process_worker_pool" in " ".join(process.cmdline()):
                    process.kill()


def submit_often(workers: LocalWorkers) -> None:
    for _ in range(150):
        workers.submit(abs, -1)
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("part", ["interchange", "pool"])
def test_when_a_part_that_drives_the_workers_dies_it_is_started_again_and_its_workers_end(part: str) -> None:
    workers = LocalWorkers(1)
    try:
        worker = workers.submit(os.getpid).result(timeout=60)
        workers.submit(end_with_session, os.getpid(), process_created(os.getpid())).result(timeout=60)
        lost = workers.submit(timeit.timeit, "time.sleep(600)", "import time", number=1)
        groups = workers._engine.pool_groups()
        kill_part(workers, part)
        with pytest.raises(Exception, match=r"(?i)lost|loss"):
            lost.result(timeout=90)
        assert workers.submit(pow, 3, 2).result(timeout=60) == 9
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
def test_nothing_is_left_when_a_session_is_killed(tmp_path: Path) -> None:
    program, output = tmp_path / "session.py", tmp_path / "worker"
    program.write_text(SESSION_THAT_IS_KILLED)
    tag = f"BEAMSIDE_TEST_TAG={tmp_path.name}"
    with output.open("w") as stream:
        environment = {**os.environ, **dict([tag.split("=")])}
        finished = subprocess.run(
            [sys.executable, str(program)], stdout=stream, timeout=120, check=False, env=environment
        )
    assert finished.returncode == -9
    assert output.read_text().strip().isdigit()
    deadline = time.monotonic() + 45
    while (left := tagged(tag)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


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
