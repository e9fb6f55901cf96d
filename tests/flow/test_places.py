"""How much is given to the workers at once: what tasks want, what the executor has, and what is done on GPUs. The GPUs are made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.execution.capacity import Capacity
from beamside.flow.dispatch import failure
from beamside.flow.places import GPU_FAULTS
from beamside.jobs.resources import Resources
from beamside.project.problems import open_problems
from beamside.project.records import ItemState

GPU = Resources(gpu_memory=4.0)


@pytest.fixture
def make(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function that opens a toy whose jobs want `resources`, with workers that say what they have."""
    made: list[Any] = []

    class Hands(toy.Hands):  # type: ignore[misc, name-defined]
        """Workers with GPUs."""

        def __init__(self, capacity: Capacity) -> None:
            super().__init__()
            self.has = capacity

        def capacity(self) -> Capacity:
            return self.has

        def submit_to_gpu(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
            assert args[0]["device"] == self.has.gpu
            return self.submit(function, *args)  # type: ignore[no-any-return]

    def open_(capacity: Capacity, **resources: Resources) -> Any:
        for kind in (toy.Step, toy.Second, toy.Third, toy.Gather, toy.Choose):
            monkeypatch.setattr(kind, "resources", resources.get(kind.name, Resources()))
        monkeypatch.setattr(toy, "Hands", lambda: Hands(capacity))
        made.append(toy.Toy(tmp_path))
        return made[-1]

    yield open_
    for run in made:
        run.writer.close()


def devices(run: Any) -> list[tuple[str, str]]:
    return [(task["type_name"], task["device"]) for task, _ in run.hands.tasks]


def told(run: Any) -> list[tuple[str, str]]:
    run.tables.problems.flush(force=True)
    return [(entry.severity, entry.text()) for entry in open_problems(run.writer.state.problems.values())]


def test_what_gains_by_a_gpu_is_done_on_one_and_waits_for_it_and_the_rest_is_not_held_up(make: Any) -> None:
    run = make(Capacity(2, 8, 3.0, gpu_workers=1), first=GPU)
    run.arrive("m1", "m2", "m3", "m4")
    run.dispatcher.fill()
    assert devices(run) == [("first", "cuda")] * 2, "one more than there are workers"
    run.finish()
    run.dispatcher.fill()
    assert devices(run) == [("first", "cuda"), ("second", "cpu"), ("first", "cuda")]
    run.work_off()
    assert run.states("m4") == ["done"] * 4


def test_a_round_is_done_on_a_gpu_when_it_gains_by_one(make: Any) -> None:
    run = make(Capacity(2, 8, 3.0, gpu_workers=1), class2d=GPU)
    run.arrive("m1")
    run.work_off()
    assert run.rounds.consider(final=True)
    assert devices(run) == [("class2d", "cuda")]


def test_keys_do_not_know_the_device(make: Any, tmp_path: Path) -> None:
    run = make(Capacity(1, 8, 3.0, gpu_workers=1), first=GPU)
    run.arrive("m1")
    run.work_off()
    key = run.entry("first", "m1").key
    run.settings.execution = run.settings.execution.model_copy(update={"device": "cpu"})
    assert run.stage("first").expected_key("raw/m1") == key
    run.reopen()
    run.dispatcher.fill()
    assert run.given() == []


def test_gpus_are_given_back_with_the_next_task(make: Any) -> None:
    run = make(Capacity(1, 8, 3.0, gpu_workers=1), first=GPU)
    run.settings.execution = run.settings.execution.model_copy(update={"device": "cpu"})
    run.arrive("m1")
    run.dispatcher.fill()
    assert devices(run) == [("first", "cpu")]


def test_when_the_gpus_are_lost_the_rest_is_done_on_the_cpu(make: Any) -> None:
    run = make(Capacity(1, 8, 3.0, gpu_workers=1), first=GPU)
    run.arrive("m1", "m2")
    run.dispatcher.fill()
    run.hands.has = replace(run.hands.has, gpu_workers=0)
    for _ in range(2):
        run.finish(0, RuntimeError("the workers were lost"))
    run.stage("first").not_before.clear()
    run.work_off()
    assert run.states("m1") == ["done"] * 4


def first_of(run: Any) -> int:
    """The place of the oldest task of the first step among those that were given out."""
    return next(number for number, (task, _) in enumerate(run.hands.tasks) if task["type_name"] == "first")


def on_gpu(run: Any, **fault: Any) -> dict[str, Any]:
    """What a task brings that was done, on a GPU or, because of a fault of that, on the CPU."""
    result = {"metrics": {}, "outputs": {}, "values": {"of": "a"}, "rejected": "", "version": "1"}
    where = {"host": "node1", "pid": 7, "device": "cpu" if fault else "cuda:0"}
    return {**failure("", permanent=False), "result": result, "where": where, "gpu_fault": fault}


def test_a_gpu_whose_memory_is_not_enough_is_told_and_used_on(make: Any) -> None:
    run = make(Capacity(1, 8, 3.0, gpu_workers=1), first=GPU)
    names = [f"m{number}" for number in range(GPU_FAULTS + 2)]
    run.arrive(*names)
    for _ in names:
        run.dispatcher.fill()
        first = first_of(run)
        assert run.hands.tasks[first][0]["device"] == "cuda"
        run.finish(
            first, on_gpu(run, sentence="cuda:0 of node1 could not do it, its memory is not enough", memory=True)
        )
    [(severity, text)] = told(run)
    assert severity == "info"
    assert "First step of raw/m0 was left to the CPU: cuda:0 of node1 could not do it, its memory" in text


def test_gpus_that_fail_again_and_again_are_used_no_more_until_the_next_session(make: Any) -> None:
    run = make(Capacity(1, 8, 3.0, gpu_workers=1), first=GPU)
    names = [f"m{number}" for number in range(2 * GPU_FAULTS + 2)]
    run.arrive(*names)
    fault = {"sentence": "cuda:0 of node1 could not do it, CUDA error: unspecified launch failure", "memory": False}
    outcomes = [fault] * (GPU_FAULTS - 1) + [{}] + [fault] * GPU_FAULTS
    for number, outcome in enumerate(outcomes):
        run.dispatcher.fill()
        first = first_of(run)
        assert run.hands.tasks[first][0]["device"] == "cuda", f"task {number}"
        run.finish(first, on_gpu(run, **outcome))
    sentences = [text for severity, text in told(run) if severity == "warning"]
    assert any("GPUs have failed 3 times in a row" in text and "nvidia-smi" in text for text in sentences)
    run.finish(first_of(run), on_gpu(run))  # one that was given out before
    run.dispatcher.fill()
    later = []
    while run.hands.tasks:
        later += [device for kind, device in devices(run) if kind == "first"]
        run.finish()
        run.dispatcher.fill()
    assert set(later) == {"cpu"}
    run.reopen()
    run.arrive("late")
    run.dispatcher.fill()
    assert ("first", "cuda") in devices(run)


def test_a_task_that_wants_much_takes_the_places_of_several_workers(make: Any) -> None:
    run = make(Capacity(4, 8, 3.0), first=Resources(memory=6.0))
    run.arrive("m1", "m2", "m3")
    run.dispatcher.fill()
    assert run.given() == [("first", "m1"), ("first", "m2")]
    assert run.hands.tasks[0][0]["threads"] == 4
    [(severity, text)] = told(run)
    assert (severity, "First step wants 6 GB and a worker is planned with 3 GB" in text) == ("info", True)
    assert "the places of 2 workers" in text


def test_smaller_tasks_do_not_take_the_places_of_a_large_one_for_ever(make: Any) -> None:
    run = make(Capacity(2, 4, 3.0), second=Resources(cores=4))
    run.arrive("m1", "m2", "m3", "m4")
    run.dispatcher.fill()
    assert [name for _, name in run.given()] == ["m1", "m2", "m3"]
    run.finish()
    run.dispatcher.fill()
    assert [kind for kind, _ in run.given()] == ["first", "first"], "the second step of m1 waits for both workers"
    run.finish()
    run.finish()
    run.dispatcher.fill()
    assert run.given() == [("second", "m1")]
    assert run.hands.tasks[0][0]["threads"] == 4
    run.work_off()
    assert run.states("m4") == ["done"] * 4


def test_a_task_that_wants_more_than_there_is_is_done_alone_and_that_is_told(make: Any) -> None:
    run = make(Capacity(2, 4, 3.0), first=Resources(memory=100.0))
    run.arrive("m1", "m2")
    run.dispatcher.fill()
    assert run.given() == [("first", "m1")]
    [(severity, text)] = told(run)
    assert severity == "warning"
    assert "First step wants 100 GB, and the 2 workers of this machine are planned with 6 GB in all" in text
    run.work_off()
    assert run.states("m2") == ["done"] * 4


def test_threads_are_those_of_a_worker_of_half_the_machine_or_of_all(make: Any) -> None:
    run = make(Capacity(2, 8, 3.0), third=Resources(cores=3))
    places = run.dispatcher.places
    first, third, gather = (run.stage(name) for name in ("first", "third", "class2d"))
    assert places.threads(first) == 4
    assert places.threads(third) == 3
    assert (places.threads(gather, final=False), places.threads(gather, final=True)) == (4, 8)
    places.limit(1)
    assert places.threads(first) == 8


def test_the_state_of_the_tables_is_that_of_plain_workers(make: Any, toy: ModuleType, tmp_path: Path) -> None:
    run = make(Capacity(3, 8, 3.0, gpu_workers=2), first=GPU, second=Resources(memory=7.0))
    run.arrive("m1", "m2", "m3")
    run.work_off()
    plain = toy.Toy(tmp_path / "plain")
    plain.arrive("m1", "m2", "m3")
    plain.work_off()
    assert run.table() == plain.table()
    assert run.entry("third", "m3").state is ItemState.DONE
    plain.writer.close()
