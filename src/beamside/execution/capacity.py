"""What an executor has to give: workers, cores, memory and GPUs."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from beamside.execution.gpus import Gpu
from beamside.execution.settings import ExecutionSettings, available_cores

WORKERS_PER_GPU = 2


@dataclass(frozen=True)
class Capacity:
    """What an executor has.

    Attributes
    ----------
    workers : those that compute on the CPU
    cores : of the machine
    memory : GB that are planned for each worker
    gpu_workers : those that compute on a GPU
    gpu : what a task is to be told to compute on, to be done on a GPU
    """

    workers: int
    cores: int
    memory: float
    gpu_workers: int = 0
    gpu: str = "cuda"

    def threads(self) -> int:
        """Return how many cores a worker has for itself."""
        return max(1, self.cores // self.workers)

    def places(self, *, cores: int, memory: float) -> int:
        """Return for how many workers a task counts that wants so many cores and so much memory, 0 for what a worker has; at most for all."""
        by_cores = math.ceil(cores / self.threads())
        by_memory = math.ceil(memory / self.memory)
        return max(1, min(self.workers, max(by_cores, by_memory)))


@runtime_checkable
class HasCapacity(Protocol):
    """An executor that says what it has; a GPU may be lost while it runs."""

    def capacity(self) -> Capacity:
        """Return what there is now."""


def capacity_of(executor: Executor, settings: ExecutionSettings) -> Capacity:
    """Return what an executor has; of one that does not say it, what the settings plan."""
    if isinstance(executor, HasCapacity):
        return executor.capacity()
    return Capacity(settings.worker_count(), available_cores(), settings.memory)


def workers_per_gpu(gpus: tuple[Gpu, ...], settings: ExecutionSettings, wanted: float) -> int:
    """Return how many workers each GPU has, where a task wants so many GB of its memory: two, or one where that is not enough for two."""
    if settings.gpu_workers:
        return settings.gpu_workers
    least = min((gpu.memory for gpu in gpus), default=0.0)
    return WORKERS_PER_GPU if least >= WORKERS_PER_GPU * wanted else 1
