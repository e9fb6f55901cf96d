"""Workers of this machine in two pools: some compute on the CPU, and each GPU has some of its own.

So a GPU has never more work than its memory is planned for, and what gains nothing by a GPU never waits for one. When the workers of the GPUs are
given up, the others go on with all work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, runtime_checkable

from beamside.execution.capacity import Capacity, workers_per_gpu
from beamside.execution.engine import Engine
from beamside.execution.executors import LocalWorkers, WorkersLostError
from beamside.execution.gpus import PINS, Gpu, chosen_gpus, pins
from beamside.execution.settings import ExecutionSettings, available_cores


@runtime_checkable
class HasGpus(Protocol):
    """An executor that can be asked to do something where a GPU is."""

    def submit_to_gpu(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(*args)`` in a worker that has a GPU."""


class InlineWorker(ThreadPoolExecutor):
    """One worker inside this process, on the first of `gpus` where a task gains by one."""

    def __init__(self, settings: ExecutionSettings, gpus: Sequence[Gpu] = ()) -> None:
        super().__init__(max_workers=1, thread_name_prefix="inline-worker")
        self._capacity = Capacity(1, available_cores(), settings.memory)
        if gpus:
            self._capacity = Capacity(1, available_cores(), settings.memory, 1, gpus[0].device)

    def capacity(self) -> Capacity:
        """Return what there is."""
        return self._capacity

    def submit_to_gpu(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(*args)`` in the worker."""
        return self.submit(function, *args)


class LocalPools(Executor):
    """Worker processes of this machine; those of the GPUs are in a pool of their own."""

    def __init__(
        self,
        settings: ExecutionSettings,
        gpus: Sequence[Gpu] = (),
        per_gpu: int = 1,
        *,
        make: Callable[..., LocalWorkers] = LocalWorkers,
    ) -> None:
        """Start them.

        Parameters
        ----------
        settings : how many, and how much memory each has
        gpus : those that are used
        per_gpu : workers for each
        make : makes a pool of so many workers
        """
        on_gpus = per_gpu * len(gpus)
        workers = settings.worker_count(on_gpus)
        self._capacity = Capacity(workers, available_cores(), settings.memory, on_gpus)
        self.cpu = make(workers)
        self.gpu: LocalWorkers | None = None
        if gpus:
            try:
                self.gpu = make(on_gpus, make_engine=partial(Engine, environment={PINS: pins(gpus, on_gpus)}))
            except BaseException:
                self.cpu.shutdown(wait=False)
                raise

    @property
    def trouble(self) -> str:
        """What is wrong with the workers now, in words."""
        if self.gpu is not None and self.gpu.broken:
            return self.cpu.trouble or f"Everything is computed on the CPU: {self.gpu.broken}"
        return self.cpu.trouble or (self.gpu.trouble if self.gpu is not None else "")

    @property
    def broken(self) -> str:
        """Why no worker is left; "" when some are."""
        return self.cpu.broken

    def capacity(self) -> Capacity:
        """Return what there is; without GPUs when their workers are given up."""
        if self.gpu is None or self.gpu.broken:
            return Capacity(self._capacity.workers, self._capacity.cores, self._capacity.memory)
        return self._capacity

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``function(*args, **kwargs)`` in a worker that computes on the CPU."""
        return self.cpu.submit(function, *args, **kwargs)

    def submit_to_gpu(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(*args)`` in a worker that has a GPU."""
        if self.gpu is None:
            raise RuntimeError("there are no workers with a GPU")
        try:
            return self.gpu.submit(function, *args)
        except WorkersLostError as error:  # the others are there, so it does not end the session
            raise RuntimeError(f"the workers with a GPU are given up: {error}") from error

    def restart(self, reason: str) -> None:
        """Start all workers anew."""
        for pool in self._pools():
            pool.restart(reason)

    def cpu_seconds(self) -> float:
        """Return the processor time that the workers have used."""
        return sum(pool.cpu_seconds() for pool in self._pools())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all workers."""
        for pool in self._pools():
            pool.shutdown(wait, cancel_futures=cancel_futures)

    def _pools(self) -> list[LocalWorkers]:
        return [pool for pool in (self.cpu, self.gpu) if pool is not None]


def start_executor(settings: ExecutionSettings, gpu_memory: float = 0.0) -> Executor:
    """Start the executor that `settings` ask for.

    Parameters
    ----------
    settings : of the session
    gpu_memory : GB of a GPU's memory that its largest task wants; 0 when no task gains by a GPU, so that none is looked for

    Raises
    ------
    ConfigError
        A GPU is asked for, and is not there.
    """
    asked = settings.device not in ("auto", "cpu")
    found = chosen_gpus(settings.device) if gpu_memory or asked else ()
    gpus = found if gpu_memory else ()
    if settings.executor == "inline":
        return InlineWorker(settings, gpus)
    return LocalPools(settings, gpus, workers_per_gpu(gpus, settings, gpu_memory))
