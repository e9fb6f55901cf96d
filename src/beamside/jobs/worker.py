"""The worker's side of a task: everything in and out is plain JSON, and no exception gets out."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from beamside.errors import BeamsideError, ConfigError, InputError, NotReadyError, ProcessingError, in_words
from beamside.execution.gpu_faults import FAULT_TYPES, NOT_ENOUGH, gpu_fault
from beamside.execution.gpus import take_device
from beamside.execution.orphans import end_with_session
from beamside.execution.whereabouts import TaskName, here, telling
from beamside.jobs.base import Item, ItemGroup, JobType, Optics, Result, Workspace
from beamside.jobs.loading import load_work
from beamside.jobs.members import Members, items_of
from beamside.jobs.ports import Given, Wiring, linked
from beamside.jobs.registry import job_type

PERMANENT = (ConfigError, InputError, ProcessingError)
"""Errors that another attempt at the same inputs would only repeat."""


TaskItem = tuple[str, Mapping[str, Any]]
"""An item's name, and its results as JSON by the label of the job."""


@dataclass(frozen=True)
class Task:
    """One piece of work for a worker: one item, or all items of a round or of a group.

    Attributes
    ----------
    type_name, label, job : of the job
    wiring : how the jobs that it is made from are connected, by label
    optics : of the item; of a round, the session's own
    items : each with its results by the label of the job; empty for a round over all items
    shared : results of what is the same for all items, by port
    members : of a round over all items, the content of `Members`: which they are, and where their results are read
    device : what to compute on: "cpu", "cuda" (the GPU that the worker has), or "cuda:1"
    number : how often the item or round was given out
    told_in : the folder where workers tell what they begin and end; "" for none
    group, left_out : of items that belong together, the group's name, and which members it is without and why
    """

    type_name: str
    label: str
    root: str
    job: str
    parameters: Mapping[str, Any]
    optics: Mapping[str, Any]
    items: Sequence[TaskItem]
    wiring: Wiring
    session: tuple[int, float, str, str, str] = (0, 0.0, "", "", "")
    threads: int = 1
    round_name: str = ""
    final: bool = False
    members: Mapping[str, Any] = field(default_factory=dict)
    shared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    device: str = "cpu"
    number: int = 0
    told_in: str = ""
    group: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> TaskName:
        """What tells it from all other tasks of the project."""
        return TaskName(self.job, self.round_name or self.group or self.items[0][0], self.number)


@dataclass(frozen=True)
class Outcome:
    """What became of a task: a result, or why there is none and whether another attempt makes sense; and `where` it was done.

    `gpu_fault` says what a GPU could not do, so that it was done on the CPU, and whether it was for want of memory; empty when all was well.
    """

    result: Mapping[str, Any] | None
    reason: str = ""
    permanent: bool = False
    log: str = ""
    seconds: float = 0.0
    where: Mapping[str, Any] = field(default_factory=dict)
    gpu_fault: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Course:
    """How a task goes: on which device it is done, as people call that, and what a GPU could not do."""

    device: str = "cpu"
    gpu_fault: dict[str, Any] = field(default_factory=dict)

    def run(
        self, work: Callable[[str], dict[str, Any]], asked: str, told: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, Any]:
        """Do `work` on the device that is asked for, and what a GPU cannot do on the CPU; whenever it begins, it is `told`."""
        device, self.device = take_device(asked)
        if device != "cpu":
            with told():
                try:
                    return work(device)
                except FAULT_TYPES as error:
                    if not (fault := gpu_fault(error)):
                        raise
            sentence = f"{self.device} of {here().host} could not do it, {fault}"
            self.gpu_fault = {"sentence": sentence, "memory": fault == NOT_ENOUGH}
            self.device = "cpu"
            _free_gpu()
        with told():
            return work("cpu")


def _free_gpu() -> None:
    """Give back what a task that failed has left on the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        with suppress(RuntimeError):  # of a GPU that is out of order
            torch.cuda.empty_cache()


def run_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a task given as the dictionary of a `Task`; return the dictionary of an `Outcome`."""
    given = Task(**task)
    return reported(
        lambda device: _work(given, device), given.session, given.told_in, given.identity, device=given.device
    )


def reported(
    work: Callable[[str], dict[str, Any]],
    session: tuple[int, float, str, str, str],
    told_in: str,
    identity: TaskName,
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    """Do `work` for a session, tell in a folder what is begun and ended, and return the dictionary of an `Outcome`, whatever is raised.

    Parameters
    ----------
    work : does it on a device, as torch calls that, and returns the result as JSON
    session : how this process knows its session, as `end_with_session` takes it; of the process number 0 it is not watched
    told_in, identity : the folder; "" for none. And what the task is called there
    device : as a `Task` has it; what a GPU cannot do is done on the CPU
    """
    started, course = time.perf_counter(), Course()
    try:
        if session[0]:
            end_with_session(*session)
        result = course.run(work, device, lambda: telling(told_in, identity, here(course.device)))
    except NotReadyError as error:
        outcome = Outcome(None, str(error))
    except BeamsideError as error:
        outcome = Outcome(None, str(error), permanent=isinstance(error, PERMANENT))
    except MemoryError:
        outcome = Outcome(None, "Not enough memory; use fewer workers (--workers) or a machine with more memory.")
    except Exception as error:
        outcome = Outcome(None, in_words(error), log=traceback.format_exc())
    else:
        outcome = Outcome(result)
    return {
        **asdict(outcome),
        "where": asdict(here(course.device)),
        "gpu_fault": course.gpu_fault,
        "seconds": time.perf_counter() - started,
    }


def _work(task: Task, device: str) -> dict[str, Any]:
    kind = job_type(task.type_name)
    parameters = kind.Parameters(**task.parameters)
    others = {name: Optics.from_text(text) for name, text in task.members.get("optics", {}).items()}
    workspace = Workspace(Path(task.root), task.job, Optics(**task.optics), task.threads, device, others)
    items = items_in(task)
    work = load_work(kind)
    _limit_threads(task.threads)
    if kind.aggregate:
        result = work(items, parameters, workspace, round_name=task.round_name, final=task.final)
    elif kind.grouping:
        result = work(ItemGroup(task.group, items, task.left_out), parameters, workspace)
    else:
        result = work(items[0], parameters, workspace)
    plain = plain_result(kind, result)
    check_contract(kind, result, items)
    check_files(kind, result, workspace.root)
    return {**plain, "version": kind.version}


def items_in(task: Task) -> list[Item]:
    """Return the items of a task with what they are made from; raises NotReadyError when the results of a round are not as they were."""
    if task.members:
        items = items_of(Members(**task.members), Path(task.root), task.wiring)
    else:
        items = [item_of(name, results, task.wiring, task.label) for name, results in task.items]
    shared = {port: Given(Result.from_json(result)) for port, result in task.shared.items()}
    return [replace(item, shared=shared) for item in items] if shared else items


def item_of(name: str, results: Mapping[str, Any], wiring: Wiring, label: str) -> Item:
    """Return an item for the job `label`, from its results as JSON."""
    return Item(name, linked({job: Result.from_json(result) for job, result in results.items()}, wiring, label))


def plain_result(kind: JobType, result: Result) -> dict[str, Any]:
    """Return a result as the journal will have it; raises ConfigError when the work gave something else, or what JSON does not know."""
    owner = f"The result of the job type {kind.name!r}"
    if not isinstance(result, Result):
        raise ConfigError(
            f"{owner} is of type {type(result).__name__}; the function {kind.work!r} must return a Result."
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(result.to_json()))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{owner} cannot be kept as JSON: {error}; use numbers, text, lists and dictionaries."
        ) from error
    return plain


def check_contract(kind: JobType, result: Result, items: Sequence[Item]) -> None:
    """Raise ConfigError when a result lacks what everything of the kind that the job type gives must have; one that was rejected may lack it."""
    if result.rejected:
        return
    given = Given(result, items[0].inputs if items and not (kind.aggregate or kind.grouping) else {})
    for output in kind.outputs:
        if lacking := output.kind.lacks(given):
            raise ConfigError(
                f"The result of the job type {kind.name!r} cannot be used: as {output.kind.name!r} it must have {' and '.join(lacking)}."
            )


def check_files(kind: JobType, result: Result, root: Path) -> None:
    """Raise ConfigError when a file that a result names is not there, as a plain file in the project at `root`.

    A result without its files would be found to be gone, and the item made again, as often as it is made.
    """
    for role, path in kind.written_by_work(result.outputs).items():
        relative = Path(path)
        if relative.is_absolute() or ".." in relative.parts:
            fault = "which is not a path in the project"
        elif not (root / relative).is_file():
            fault = "and there is no such file"
        else:
            continue
        raise ConfigError(
            f"The job type {kind.name!r} says that it wrote {path!r} as {role!r}, {fault}; tell whoever provides the job type."
        )


def _limit_threads(threads: int) -> None:
    """Let the work use so many threads. Work without torch need not wait for it; one that loads it later finds the variable."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
