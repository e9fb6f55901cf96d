"""Executors: all of them are ``concurrent.futures.Executor``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from beamside.errors import BeamsideError
from beamside.execution.engine import Engine
from beamside.execution.settings import ExecutionSettings

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
"""Time between two looks at whether the engine lives."""

RESTARTS, RESTARTS_WITHIN = 5, 600.0
"""An engine that dies more often than this, in so many seconds, is not started again: something is wrong with the machine."""


class WorkersLostError(BeamsideError):
    """All worker processes were lost, with what they had in hand."""


def start_executor(settings: ExecutionSettings) -> Executor:
    """Start the executor that `settings` ask for."""
    if settings.executor == "inline":
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix="inline-worker")
    return LocalWorkers(settings.worker_count())


class LocalWorkers(Executor):
    """Worker processes on this machine. When what drives them dies, it is started again, and only what was in hand is lost."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._engine = Engine(workers)
        self._lock = threading.RLock()
        self._pending: set[Future[Any]] = set()
        self._deaths: list[float] = []
        self._broken = ""
        self._end = threading.Event()
        threading.Thread(target=self._watch, name="workers-watch", daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``function(*args, **kwargs)`` in a worker.

        Raises WorkersLostError when the workers have died so often that they are not started again.
        """
        with self._lock:
            if self._broken:
                raise WorkersLostError(self._broken)
            future: Future[Any] = Future()
            self._pending.add(future)
            self._engine.submit(function, *args, **kwargs).add_done_callback(lambda inner: self._settle(future, inner))
            return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with ``wait=False`` also those that are busy."""
        if self._end.is_set():
            return
        if wait and not self._broken:
            self._engine.wait()
        self._end.set()
        with self._lock:
            self._engine.shutdown()

    def _settle(self, future: Future[Any], inner: Future[Any]) -> None:
        with self._lock:
            if future not in self._pending:
                return  # it was given up when the engine died
            self._pending.discard(future)
        error = inner.exception()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(inner.result())

    def _watch(self) -> None:
        while not self._end.wait(WATCH_SECONDS):
            if not self._engine.alive():
                self._replace_engine()

    def _replace_engine(self) -> None:
        with self._lock:
            if self._end.is_set():
                return
            now = time.monotonic()
            self._deaths = [*(death for death in self._deaths if now - death < RESTARTS_WITHIN), now]
            often = len(self._deaths) > RESTARTS
            self._engine.kill()
            lost, self._pending = self._pending, set()
            if often:
                self._broken = (
                    f"The worker processes were lost {RESTARTS + 1} times in {RESTARTS_WITHIN / 60:g} minutes and are not started again; "
                    "look for what ends them (memory, limits of the system), then resume the session."
                )
                self._end.set()
            else:
                log.warning("the process that drives the workers has died; it is started again")
                try:
                    self._engine = Engine(self._workers)
                except Exception as error:
                    self._broken = f"The worker processes cannot be started again ({type(error).__name__}: {error})."
                    self._end.set()
        for future in lost:
            future.set_exception(WorkersLostError("all workers were lost and had to be started again"))
