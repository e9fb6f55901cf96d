"""How much work the workers are given at once: by what a task wants, and what the executor has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from beamside.acquisition.remarks import Remark, Trouble
from beamside.execution.capacity import Capacity, HasCapacity, capacity_of
from beamside.flow.problems import Problems
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage

GPU_FAULTS = 3
"""After so many tasks that a GPU could not do, none done on one between them, the rest of the session is computed on the CPU."""


@dataclass(frozen=True)
class Given:
    """A task that was given out: its number, whether it is for a GPU, and for how many workers it counts."""

    number: int
    gpu: bool = False
    places: int = 1


class Places:
    """What the executor has, and what of it is taken by tasks that were given out."""

    def __init__(self, settings: SessionSettings, executor: Executor) -> None:
        self.settings = settings
        self._says = executor if isinstance(executor, HasCapacity) else None  # asked with every task, so looked at once
        self._planned = capacity_of(executor, settings.execution)
        self.workers = self.started = self._planned.workers
        self._given: dict[tuple[str, str], Given] = {}
        self._faults = 0

    def capacity(self) -> Capacity:
        """Return what there is for the session now."""
        found = self._planned if self._says is None else self._says.capacity()
        gpu_workers = found.gpu_workers if self.gpus_used else 0
        return replace(found, workers=self.workers, gpu_workers=gpu_workers)

    @property
    def gpus_used(self) -> bool:
        """Tell whether GPUs are used, where there are any."""
        return self.settings.execution.device != "cpu" and self._faults < GPU_FAULTS

    def limit(self, workers: int) -> bool:
        """Let so many workers work from now on; returns False when fewer were started, which then all work."""
        self.workers = min(workers, self.started)
        return workers <= self.started

    def on_gpu(self, stage: Stage) -> bool:
        """Tell whether tasks of a stage are done on a GPU now."""
        return stage.job_type.resources.gpu and self.capacity().gpu_workers > 0

    def device(self, stage: Stage) -> str:
        """Return what a task of a stage is told to compute on now."""
        return self.capacity().gpu if self.on_gpu(stage) else "cpu"

    def needed(self, stage: Stage) -> int:
        """Return for how many workers a task of a stage counts."""
        wants = stage.job_type.resources
        if not wants.cores and not wants.memory:
            return 1
        capacity = self.capacity()
        if self.on_gpu(stage):
            capacity = replace(capacity, workers=capacity.gpu_workers)
        return capacity.places(cores=wants.cores, memory=wants.memory)

    def free(self, *, gpu: bool = False) -> int:
        """Return how many more tasks may be given out: one more than there are workers, so that none waits for the loop.

        When not all workers are to work, a task too many would be begun by one of the others.
        """
        spare = gpu or self.workers == self.started
        return self._size(gpu=gpu) + spare - self._taken(gpu=gpu)

    def has_room(self, stage: Stage) -> bool:
        """Tell whether a task of a stage may be given out now. One that counts for several workers is not given out in advance."""
        gpu, places = self.on_gpu(stage), self.needed(stage)
        if places == 1:
            return self.free(gpu=gpu) > 0
        return self._taken(gpu=gpu) + places <= self._size(gpu=gpu)

    def threads(self, stage: Stage, *, final: bool | None = None) -> int:
        """Return how many threads a task of a stage may use; of a round, `final` says whether it is the last one."""
        wants, capacity = stage.job_type.resources, self.capacity()
        if wants.cores:
            return min(wants.cores, capacity.cores)
        if final is not None:
            return capacity.cores if final else max(1, capacity.cores // 2)
        return capacity.threads() * self.needed(stage)

    def given(self, stage: Stage, number: int, *, gpu: bool) -> Given:
        """Return what a task of a stage takes, which is done on a GPU or not."""
        return Given(number, gpu, self.needed(stage))

    def take(self, table: str, name: str, given: Given) -> None:
        """A task of a table is given out."""
        self._given[table, name] = given

    def release(self, table: str, name: str, number: int) -> bool:
        """A task is over; returns False when another one of the item has been given out since."""
        given = self._given.get((table, name))
        if given is None or given.number != number:
            return False
        del self._given[table, name]
        return True

    def heard(self, stage: Stage, name: str, outcome: Mapping[str, Any], problems: Problems) -> None:
        """Take what an outcome says of a GPU: what it could not do was done on the CPU, and people are told."""
        if fault := outcome.get("gpu_fault"):
            self._faults += not fault["memory"]
            subject = "gpu-memory" if fault["memory"] else "gpu-fault"
            sentence = f"{stage.title} of {name} was left to the CPU: {fault['sentence']}."
            problems.remark(Remark(subject, sentence, name, severity="info" if fault["memory"] else "warning"))
            if self._faults == GPU_FAULTS:
                sentence = (
                    f"GPUs have failed {GPU_FAULTS} times in a row ({fault['sentence']}): the rest of this session is computed on the CPU. "
                    "See what nvidia-smi says; stop and resume the session to use them again."
                )
                problems.open("gpu-given-up", sentence)
        elif self._faults < GPU_FAULTS and str(outcome.get("where", {}).get("device", "cpu")) != "cpu":
            self._faults = 0

    def _size(self, *, gpu: bool) -> int:
        return self.capacity().gpu_workers if gpu else self.workers

    def _taken(self, *, gpu: bool) -> int:
        return sum(given.places for given in self._given.values() if given.gpu == gpu)


def largest_gpu_memory(stages: Iterable[Stage]) -> float:
    """Return how much memory of a GPU, in GB, the largest task of these stages wants; 0 when none gains by a GPU."""
    return max((stage.job_type.resources.gpu_memory for stage in stages), default=0.0)


def memory_troubles(stages: Iterable[Stage], capacity: Capacity) -> list[Trouble]:
    """Return what there is to say of jobs that want more memory than a worker has."""
    troubles = []
    for stage in stages:
        wants, together = stage.job_type.resources.memory, capacity.memory * capacity.workers
        if wants <= capacity.memory:
            continue
        if wants <= together:
            sentence = (
                f"{stage.title} wants {wants:g} GB and a worker is planned with {capacity.memory:g} GB: each of its tasks takes the places of "
                f"{capacity.places(cores=0, memory=wants)} workers."
            )
        else:
            sentence = (
                f"{stage.title} wants {wants:g} GB, and the {capacity.workers} workers of this machine are planned with {together:g} GB in all: "
                "its tasks are given out one at a time, and may fail for want of memory. Use a machine with more memory."
            )
        troubles.append(Trouble(f"memory:{stage.name}", sentence, "info" if wants <= together else "warning"))
    return troubles
