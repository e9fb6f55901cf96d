"""Executors: all of them are ``concurrent.futures.Executor``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from beamside.errors import BeamsideError
from beamside.execution.connection import Connection
from beamside.execution.engine import Engine

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.0
"""Time between two looks at whether the engine lives."""

CONNECTION_SECONDS = 5.0
"""Time between two looks at whether the workers are there."""

RESTARTS, RESTARTS_WITHIN = 5, 600.0
"""An engine that dies more often than this, in so many seconds, is not started again: something is wrong with the machine."""

STARTS = 3
"""So many engines in a row whose workers never came are enough to know that they cannot be started."""


AGAIN_SECONDS = 2.0
"""Pause before another attempt to start an engine."""


class WorkersLostError(BeamsideError):
    """All worker processes were lost, with what they had in hand."""


class LocalWorkers(Executor):
    """Worker processes on this machine. When what drives them dies, it is started again, and only what was in hand is lost.

    `trouble` says, for people, what is wrong with the workers now; `broken` that they are given up. Both are "" when all is well.
    """

    def __init__(self, workers: int, *, make_engine: Callable[[int], Engine] = Engine) -> None:
        self._workers, self._make_engine = workers, make_engine
        self._end = threading.Event()
        self._engine = self._made_engine()
        self._connection = Connection(time.monotonic())
        self._lock = threading.RLock()
        self._pending: dict[Future[Any], Callable[[Engine], Future[Any]]] = {}
        self._deaths: list[float] = []
        self._fruitless = 0
        self.trouble = self.broken = ""
        threading.Thread(target=self._watch, name="workers-watch", daemon=True).start()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``function(*args, **kwargs)`` in a worker.

        Raises WorkersLostError when the workers have died so often that they are not started again.
        """
        with self._lock:
            if self.broken:
                raise WorkersLostError(self.broken)
            future: Future[Any] = Future()
            self._give(future, lambda engine: engine.submit(function, *args, **kwargs))
            return future

    def restart(self, reason: str) -> None:
        """Start the workers anew; what they have in hand is lost."""
        with self._lock:
            if not self._end.is_set():
                self._replace_engine(reason)

    def cpu_seconds(self) -> float:
        """Return the processor time that the workers have used; it grows as long as they work."""
        with self._lock:
            return self._engine.cpu_seconds()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with ``wait=False`` also those that are busy."""
        if self._end.is_set():
            return
        if wait and not self.broken:
            self._engine.wait()
        self._end.set()
        with self._lock:
            self._engine.shutdown()

    def _give(self, future: Future[Any], call: Callable[[Engine], Future[Any]]) -> None:
        self._pending[future] = call
        engine = self._engine
        call(engine).add_done_callback(lambda inner: self._settle(future, inner, engine))

    def _settle(self, future: Future[Any], inner: Future[Any], engine: Engine) -> None:
        with self._lock:
            if future not in self._pending or engine is not self._engine:
                return  # it was given up, or given to another engine, when its own died
            del self._pending[future]
            self._connection.ever = True  # an answer has come
        error = inner.exception()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(inner.result())

    def _watch(self) -> None:
        next_look = 0.0
        while not self._end.wait(WATCH_SECONDS):
            with self._lock:
                if self._end.is_set():
                    return
                if not self._engine.alive():
                    self._replace_engine("the process that drives the workers has died")
                elif time.monotonic() >= next_look:
                    next_look = time.monotonic() + CONNECTION_SECONDS
                    self._look_at_connection()

    def _look_at_connection(self) -> None:
        connected = self._engine.connected()
        if connected is None:
            self._replace_engine("the process that drives the workers does not answer")
            return
        found = self._connection.look(time.monotonic(), connected, self._engine.pools_started())
        if connected:
            self.trouble, self._fruitless = "", 0
        elif found:
            words = self._engine.last_words() or "they end, or do not come, without a word"
            self.trouble = f"The worker processes cannot be started: {words}"
            if found == "failed":
                self._replace_engine(f"the workers do not come ({words})")

    def _replace_engine(self, reason: str) -> None:
        now = time.monotonic()
        self._deaths = [*(death for death in self._deaths if now - death < RESTARTS_WITHIN), now]
        began, words = self._connection.ever, self._engine.last_words()
        self._fruitless = 0 if began else self._fruitless + 1
        waiting, self._pending = self._pending, {}
        self._engine.kill()
        if self._fruitless >= STARTS:
            self.broken = f"The worker processes could not be started in {STARTS} attempts ({words or reason}); mend that, then resume the session."
        elif len(self._deaths) > RESTARTS:
            self.broken = (
                f"The worker processes were lost {RESTARTS + 1} times in {RESTARTS_WITHIN / 60:g} minutes and are not started again; "
                "look for what ends them (memory, limits of the system), then resume the session."
            )
        else:
            log.warning("%s; they are started again", reason)
            self._start_engine()
        if self.broken:
            self._end.set()
        elif not began:
            for future, call in waiting.items():  # no worker can have begun with it
                self._give(future, call)
            return
        for future in waiting:
            future.set_exception(WorkersLostError(self.broken or "all workers were lost and had to be started again"))

    def _start_engine(self) -> None:
        try:
            self._engine = self._made_engine()
            self._connection = Connection(time.monotonic())
        except WorkersLostError as error:
            self.broken = str(error)

    def _made_engine(self) -> Engine:
        """Return a new engine. What drives the workers may die, or find no room, while it starts: that says nothing about the next attempt."""
        for attempt in range(1, STARTS + 1):
            try:
                return self._make_engine(self._workers)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
                log.warning("the process that drives the workers could not be started (%s)", said)
                if attempt < STARTS and self._end.wait(AGAIN_SECONDS):
                    break
        raise WorkersLostError(
            f"The process that drives the workers could not be started in {STARTS} attempts ({said}): the session's log has its last words. "
            "Mend that, then resume the session."
        )
