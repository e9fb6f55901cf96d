"""Worker processes of this machine, run by Parsl: warm, isolated, and replaced when they die.

Parsl's programs are started with this Python, and watch the session (see `beamside.execution.orphans`); the directory of its scripts is put on PATH
for what they start by name. Files go to a temporary directory of this user, whose name has no spaces. Parsl does not notice when its interchange, the
process between it and the workers, has died, nor that its workers never come; `alive` and `connected` tell.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

from beamside.execution.orphans import process_created
from beamside.execution.sockets import short_folder

SHUTDOWN_SECONDS, KILLED_SECONDS = 30.0, 5.0
"""How long an orderly end may take before the processes are killed, and how long what remains in this process may take then."""

ANSWER_SECONDS = 20.0
"""How long the interchange may take to say who is connected."""

STARTING_LOOK_MILLISECONDS = 200
"""Time between two looks at whether an interchange that starts is still there."""

WORDS_SHOWN = 300
"""So many characters of what a pool of workers said last are shown."""

SEND_AGAIN_SECONDS = 0.02
"""How often a task is offered to an interchange that is not there."""

DIRECTORY = "beamside-workers-"
"""How the names of temporary directories begin; the number of the process that made them follows."""

WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

log = logging.getLogger(__name__)


class GuardedQueue:
    """Parsl's queue of tasks to the interchange, used by one thread at a time.

    One thread of Parsl sends, and waits in that when the interchange is gone, while another may close the queue; its socket then ends the whole
    process (an assertion of libzmq).
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._refuses = self._closed = False

    def put(self, message: Any) -> None:
        """Send a task, as soon as the interchange is there.

        Raises
        ------
        RuntimeError
            when the queue takes no more.
        """
        import zmq

        while True:
            with self._lock:
                if self._refuses:
                    raise RuntimeError("the queue to the workers is closed")
                with contextlib.suppress(zmq.Again):
                    self._queue.zmq_socket.send_pyobj(message, zmq.NOBLOCK)
                    return
            time.sleep(SEND_AGAIN_SECONDS)

    def hang_up(self) -> None:
        """Take no more, and let what is still to be sent go when the queue is closed."""
        with self._lock:
            self._refuses = True
            if not self._closed:
                self._queue.zmq_socket.linger = 0

    def close(self) -> None:
        """Close the socket, once no thread sends."""
        with self._lock:
            self._refuses = True
            if not self._closed:
                self._closed = True
                self._queue.close()


class WatchedSocket:
    """The socket of Parsl's commands to its interchange while that starts: one that dies in this is not waited for.

    Parsl would wait for two minutes, and the session with it.
    """

    def __init__(self, socket: Any, ended: Callable[[], bool]) -> None:
        self._socket, self._ended = socket, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def poll(self, timeout: float, flags: int) -> int:
        """Wait for so many milliseconds, or until the interchange has ended; returns 0 then."""
        until = time.monotonic() + timeout / 1000
        while not (found := int(self._socket.poll(timeout=STARTING_LOOK_MILLISECONDS, flags=flags))):
            if self._ended() or time.monotonic() > until:
                return 0
        return found


def start_interchange(executor: Any, start: Callable[[], None]) -> None:
    """Start the interchange of Parsl's `executor` by its own `start`, which raises when that ends before it answers."""
    client = executor.command_client
    socket = client.zmq_socket
    client.zmq_socket = WatchedSocket(socket, lambda: executor.interchange_proc.poll() is not None)
    try:
        start()
    finally:
        client.zmq_socket = socket


class Engine:
    """One interchange with one pool of `workers` workers, which have the variables of `environment` besides those of this process."""

    def __init__(self, workers: int, environment: Mapping[str, str] | None = None) -> None:
        import parsl
        from parsl.concurrent import ParslPoolExecutor
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
        from parsl.launchers import SimpleLauncher
        from parsl.providers import LocalProvider

        put_scripts_on_path()
        session = [str(os.getpid()), repr(process_created(os.getpid()))]
        # -P: what lies in the directory where the session was started must not be taken for a module
        python = [sys.executable, "-P", "-m"]
        logging.getLogger("parsl").setLevel(logging.ERROR)
        remove_left_directories()
        self._directory = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY}{os.getpid()}-"))
        self._provider = LocalProvider(  # type: ignore[no-untyped-call]
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            launcher=SimpleLauncher(),
            worker_init=exports({**WORKER_ENVIRONMENT, **short_folder(), **(environment or {})}),
        )
        self._executor = HighThroughputExecutor(
            label="local",
            address="127.0.0.1",
            max_workers_per_node=workers,
            cores_per_worker=1e-6,
            heartbeat_period=5,
            heartbeat_threshold=30,
            # A pool of workers that dies is started again; Parsl's own handler would give up all work for good.
            block_error_handler=False,
            encrypted=True,
            interchange_launch_cmd=[*python, "beamside.execution.interchange", *session],
            launch_cmd=pool_command(DEFAULT_LAUNCH_CMD, [*python, "beamside.execution.pool", *session]),
            provider=self._provider,
            worker_logdir_root=str(self._directory),
            working_dir=str(self._directory),
        )
        config = Config(
            executors=[self._executor],
            run_dir=str(self._directory),
            retries=0,
            strategy="simple",
            initialize_logging=False,
            usage_tracking=0,
        )
        start = self._executor._start_local_interchange_process
        self._executor._start_local_interchange_process = functools.partial(start_interchange, self._executor, start)  # type: ignore[method-assign]
        try:
            self._kernel = parsl.DataFlowKernel(config)
        except BaseException:
            self._give_up_starting()
            raise
        self._outgoing = GuardedQueue(self._executor.outgoing_q)
        self._executor.outgoing_q = self._outgoing  # type: ignore[assignment]
        self._pool = ParslPoolExecutor(dfk=self._kernel)

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``function(*args, **kwargs)`` in a worker."""
        return self._pool.submit(function, *args, **kwargs)  # type: ignore[no-any-return, no-untyped-call]

    def alive(self) -> bool:
        """Return True while the interchange runs and takes tasks."""
        process = self._executor.interchange_proc
        return process is not None and process.poll() is None and not self._executor.bad_state_is_set

    def connected(self) -> bool | None:
        """Return whether a pool of workers is connected to the interchange; None when the interchange does not answer."""
        client = self._executor.command_client
        if not client._lock.acquire(timeout=ANSWER_SECONDS):
            return None  # another command waits for its answer all the time
        client._lock.release()
        try:
            managers = client.run("MANAGERS", timeout_s=ANSWER_SECONDS)  # type: ignore[no-untyped-call]
        except Exception as error:  # Parsl's errors here have no common base
            log.warning("the workers' interchange does not answer (%s: %s)", type(error).__name__, error)
            return None
        return any(manager["active"] and manager["worker_count"] for manager in managers)

    def pools_started(self) -> int:
        """Return how many pools of workers were started so far: another one whenever one has ended."""
        return len(self._provider.resources)

    def last_words(self) -> str:
        """Return what the pools of workers said last on standard error, in one line; "" when they said nothing."""
        said = [path.read_text(errors="replace") for path in sorted(self._directory.rglob("*.sh.err"), key=_modified)]
        lines = [line.strip() for text in said for line in text.splitlines() if line.strip()]
        return lines[-1][-WORDS_SHOWN:] if lines else ""

    def cpu_seconds(self) -> float:
        """Return the processor time of all processes of the pools, and of those that these have waited for."""
        groups, total = self.pool_groups(), 0.0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) in groups:
                    total += sum(process.cpu_times()[:4])
        return total

    def wait(self) -> None:
        """Wait until all tasks are done."""
        self._kernel.wait_for_current_tasks()

    def shutdown(self) -> None:
        """End the workers, also those that are busy; by force when that takes too long."""
        if self.alive():
            self._clean_up(SHUTDOWN_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill all processes of this engine, let Parsl end its threads, and remove the files."""
        interchange = self._executor.interchange_proc
        if interchange is not None:
            interchange.kill()
            interchange.wait()
        for group in self.pool_groups():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if not self._kernel.cleanup_called:
            self._hang_up()
            self._clean_up(KILLED_SECONDS)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _give_up_starting(self) -> None:
        interchange = getattr(self._executor, "interchange_proc", None)
        if interchange is not None:
            interchange.kill()
            interchange.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _hang_up(self) -> None:
        """Make Parsl expect nothing more of an interchange that is dead: its threads, and the end of this process, would wait for ever."""
        executor = self._executor
        executor.set_bad_state_and_fail_all(RuntimeError("the workers' interchange was lost"))
        self._outgoing.hang_up()
        executor.command_client.ok = False

    def _clean_up(self, seconds: float) -> None:
        ending = threading.Thread(target=self._kernel.cleanup, name="workers-end", daemon=True)
        ending.start()
        ending.join(seconds)
        if ending.is_alive():
            log.warning("Parsl has not ended in order after %g s; its processes are killed", seconds)

    def pool_groups(self) -> set[int]:
        """Return the process groups of the pools of workers that run: Parsl starts each in a group of its own, not as a child of this process."""
        groups = set()
        for resource in self._provider.resources.values():
            with contextlib.suppress(ProcessLookupError):
                if not resource["status"].terminal:
                    groups.add(os.getpgid(resource["remote_pid"]))
        return groups - {os.getpgid(0)}


def exports(environment: Mapping[str, str]) -> str:
    """Return the shell's command that sets these variables."""
    return shlex.join(["export", *(f"{name}={value}" for name, value in environment.items())])


def pool_command(parsls: str, ours: list[str]) -> str:
    """Return Parsl's template of the command that starts a pool of workers, with our program in the place of its script.

    Parsl fills the template in twice, so that braces in the path of this Python are doubled twice.
    """
    script, _, options = parsls.partition(" ")
    if not script.startswith("process_worker_pool"):
        raise RuntimeError(f"this version of Parsl starts its workers in an unknown way: {parsls}")
    return f"{shlex.join(ours).replace('{', '{{{{').replace('}', '}}}}')} {options}"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def put_scripts_on_path() -> None:
    """Put the directory of this Python's scripts first on PATH: a virtual environment that is not activated is not on it."""
    scripts = str(Path(sys.executable).parent)
    parts = os.environ.get("PATH", "").split(os.pathsep)
    if parts[0] != scripts:
        os.environ["PATH"] = os.pathsep.join([scripts, *(part for part in parts if part != scripts)])


def remove_left_directories() -> None:
    """Remove this user's temporary directories of processes that are no more: a killed one cannot."""
    for path in Path(tempfile.gettempdir()).glob(f"{DIRECTORY}*"):
        number = path.name.removeprefix(DIRECTORY).split("-")[0]
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.getuid() and not (number.isdigit() and psutil.pid_exists(int(number))):
                shutil.rmtree(path, ignore_errors=True)
