"""Executors: all of them are ``concurrent.futures.Executor``.

Worker processes are Parsl's: warm, isolated, and replaced when they die. Parsl starts its programs by name, so the directory of this Python is put on
PATH; its files go to a temporary directory, whose name has no spaces.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from beamside.execution.settings import ExecutionSettings


def start_executor(settings: ExecutionSettings) -> Executor:
    """Start the executor that `settings` ask for."""
    if settings.executor == "inline":
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="inline-worker")
    return LocalWorkers(settings.worker_count())


class LocalWorkers(Executor):
    """Worker processes on this machine."""

    def __init__(self, workers: int) -> None:
        import parsl
        from parsl.concurrent import ParslPoolExecutor
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.launchers import SimpleLauncher
        from parsl.providers import LocalProvider

        put_scripts_on_path()
        logging.getLogger("parsl").setLevel(logging.ERROR)
        self._directory = Path(tempfile.mkdtemp(prefix="beamside-workers-"))
        engine = HighThroughputExecutor(
            label="local",
            address="127.0.0.1",
            max_workers_per_node=workers,
            cores_per_worker=1e-6,
            heartbeat_period=5,
            heartbeat_threshold=30,
            # A pool of workers that dies is started again; Parsl's own handler would give up all work for good.
            block_error_handler=False,
            interchange_launch_cmd=[sys.executable, "-m", "beamside.execution.interchange"],
            provider=LocalProvider(  # type: ignore[no-untyped-call]
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                launcher=SimpleLauncher(),
                worker_init="export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE",
            ),
            worker_logdir_root=str(self._directory),
            working_dir=str(self._directory),
        )
        config = Config(
            executors=[engine],
            run_dir=str(self._directory),
            retries=0,
            strategy="simple",
            initialize_logging=False,
            usage_tracking=0,
        )
        self._kernel: Any = parsl.DataFlowKernel(config)
        self._pool: Executor = ParslPoolExecutor(dfk=self._kernel)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``function(*args, **kwargs)`` in a worker."""
        return self._pool.submit(function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with ``wait=False`` also those that are busy."""
        if self._kernel is None:
            return
        if wait:
            self._kernel.wait_for_current_tasks()
        self._kernel.cleanup()
        self._kernel = None
        shutil.rmtree(self._directory, ignore_errors=True)


def put_scripts_on_path() -> None:
    """Put the directory of this Python's scripts first on PATH: a virtual environment that is not activated is not on it."""
    scripts = str(Path(sys.executable).parent)
    parts = os.environ.get("PATH", "").split(os.pathsep)
    if parts[0] != scripts:
        os.environ["PATH"] = os.pathsep.join([scripts, *(part for part in parts if part != scripts)])
