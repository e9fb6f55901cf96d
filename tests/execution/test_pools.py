"""Workers in two pools: who gets what, and what happens when the GPUs' workers are lost. The pools are made up, but for the last test."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from beamside.errors import ConfigError
from beamside.execution import pools
from beamside.execution.capacity import Capacity, capacity_of, workers_per_gpu
from beamside.execution.executors import WorkersLostError
from beamside.execution.gpus import PINS, VISIBLE, Gpu, NoGpuError, take_device
from beamside.execution.pools import HasGpus, InlineWorker, LocalPools, start_executor
from beamside.execution.settings import ExecutionSettings

TWO = (Gpu(0, "RTX A", 24.0, "0"), Gpu(1, "RTX B", 12.0, "1"))


class Pool:
    """Notes what it is asked."""

    def __init__(self, workers: int, make_engine: Any = None) -> None:
        self.workers, self.make_engine = workers, make_engine
        self.trouble = self.broken = ""
        self.asked: list[str] = []

    def submit(self, function: Callable[..., Any], *args: Any, **more: Any) -> Future[Any]:
        if self.broken:
            raise WorkersLostError(self.broken)
        future: Future[Any] = Future()
        future.set_result(function(*args, **more))
        self.asked.append("submit")
        return future

    def restart(self, reason: str) -> None:
        self.asked.append(reason)

    def cpu_seconds(self) -> float:
        return 2.5

    def shutdown(self, wait: bool, *, cancel_futures: bool = False) -> None:
        self.asked.append("shutdown")


def made(*gpus: Gpu, per_gpu: int = 2) -> Any:
    return LocalPools(ExecutionSettings(workers=5), gpus, per_gpu, make=Pool)  # type: ignore[arg-type]


def test_each_gpu_has_workers_of_its_own_besides_the_others() -> None:
    found = made(*TWO)
    assert (found.cpu.workers, found.gpu.workers) == (5, 4)
    assert found.gpu.make_engine.keywords == {"environment": {PINS: "0=0,1=1,0=0,1=1"}}
    assert (found.capacity().workers, found.capacity().gpu_workers, found.capacity().gpu) == (5, 4, "cuda")
    assert made().gpu is None
    assert made().capacity().gpu_workers == 0


def test_work_goes_to_the_pool_that_it_is_for() -> None:
    found = made(*TWO)
    assert found.submit(pow, 2, 3).result() == 8
    assert found.submit_to_gpu(pow, 2, 4).result() == 16
    assert (found.cpu.asked, found.gpu.asked) == (["submit"], ["submit"])
    found.restart("again")
    found.shutdown()
    assert found.cpu.asked == found.gpu.asked == ["submit", "again", "shutdown"]
    assert found.cpu_seconds() == 5.0


def test_when_the_workers_of_the_gpus_are_given_up_the_others_go_on() -> None:
    found = made(*TWO)
    found.gpu.trouble = "no module"
    assert (found.trouble, found.broken) == ("no module", "")
    found.gpu.broken = "They were lost 6 times."
    assert found.trouble == "Everything is computed on the CPU: They were lost 6 times."
    assert found.broken == ""
    assert found.capacity().gpu_workers == 0
    with pytest.raises(RuntimeError, match="given up"):
        found.submit_to_gpu(pow, 2, 3)
    assert found.submit(pow, 2, 3).result() == 8
    found.cpu.broken = "none is left"
    assert found.broken == "none is left"


def test_the_others_end_when_the_workers_of_the_gpus_cannot_be_started() -> None:
    started: list[Pool] = []

    def make(workers: int, make_engine: Any = None) -> Pool:
        if make_engine is not None:
            raise WorkersLostError("no")
        started.append(Pool(workers))
        return started[-1]

    with pytest.raises(WorkersLostError):
        LocalPools(ExecutionSettings(workers=5), TWO, make=make)  # type: ignore[arg-type]
    assert started[0].asked == ["shutdown"]


def test_memory_is_planned_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamside.execution.settings.available_cores", lambda: 100)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 31e9}))
    assert ExecutionSettings(memory=3).worker_count() == 10
    assert ExecutionSettings(memory=3).worker_count(4) == 6
    assert ExecutionSettings(memory=3).worker_count(40) == 1


@pytest.mark.parametrize(
    ("wanted", "given", "expected"), [(4.0, 0, 2), (6.0, 0, 2), (6.1, 0, 1), (100.0, 0, 1), (100.0, 3, 3)]
)
def test_a_gpu_has_two_workers_where_its_memory_suffices(wanted: float, given: int, expected: int) -> None:
    assert workers_per_gpu(TWO, ExecutionSettings(gpu_workers=given), wanted) == expected


@pytest.mark.parametrize(
    ("cores", "memory", "places"), [(0, 0.0, 1), (1, 3.0, 1), (3, 0.0, 2), (0, 6.1, 3), (16, 0.0, 4), (0, 1e3, 4)]
)
def test_a_task_counts_for_as_many_workers_as_it_takes_the_cores_and_the_memory_of(
    cores: int, memory: float, places: int
) -> None:
    capacity = Capacity(4, 8, 3.0)
    assert capacity.threads() == 2
    assert capacity.places(cores=cores, memory=memory) == places


def test_an_executor_that_says_nothing_has_what_is_planned() -> None:
    found = capacity_of(Pool(3), ExecutionSettings(workers=7, memory=2.0))  # type: ignore[arg-type]
    assert (found.workers, found.memory, found.gpu_workers) == (7, 2.0, 0)


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., InlineWorker]:
    def start(gpus: tuple[Gpu, ...], device: str, gpu_memory: float) -> InlineWorker:
        def find() -> tuple[Gpu, ...]:
            if not gpus:
                raise NoGpuError("there is none")
            return gpus

        monkeypatch.setattr("beamside.execution.gpus.find_gpus", find)
        found = start_executor(ExecutionSettings(executor="inline", device=device), gpu_memory)
        assert isinstance(found, InlineWorker)
        found.shutdown()
        return found

    return start


def test_gpus_are_used_when_some_work_gains_by_them(inline: Callable[..., InlineWorker]) -> None:
    assert inline(TWO, "auto", 4.0).capacity().gpu == "cuda:0"
    assert inline(TWO, "cuda:1", 4.0).capacity().gpu == "cuda:1"
    assert inline(TWO, "cuda", 0.0).capacity().gpu_workers == 0
    assert inline(TWO, "cpu", 4.0).capacity().gpu_workers == 0
    assert inline((), "auto", 4.0).capacity().gpu_workers == 0


@pytest.mark.parametrize("gpu_memory", [0.0, 4.0])
def test_a_gpu_that_is_asked_for_has_to_be_there(inline: Callable[..., InlineWorker], gpu_memory: float) -> None:
    with pytest.raises(ConfigError, match="--device cuda cannot be had: there is none"):
        inline((), "cuda", gpu_memory)


def test_executors_that_have_gpus_are_known_as_such() -> None:
    assert isinstance(made(), HasGpus)
    assert not isinstance(Pool(1), HasGpus)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_worker_processes_are_pinned_to_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    found = LocalPools(ExecutionSettings(workers=1), (Gpu(4, "a card", 24.0, "GPU of (mine)"),), 1)
    try:
        assert found.submit_to_gpu(take_device, "cuda").result() == ("cuda", "cuda:4")
        assert found.submit_to_gpu(os.getenv, VISIBLE).result() == "GPU of (mine)"
        assert found.submit(take_device, "cuda").result() == ("cuda", "cuda"), "it has no GPU"
        assert found.submit(os.getenv, VISIBLE).result() is None
    finally:
        found.shutdown(wait=False)
    assert found.capacity() == Capacity(1, pools.available_cores(), 3.0, 1)
