"""The worker's side of a task: everything in and out is plain JSON, and no exception gets out."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from beamside.errors import BeamsideError, ConfigError, InputError, NotReadyError, ProcessingError
from beamside.execution.orphans import end_with_session
from beamside.jobs.base import Item, JobType, Optics, Result, Workspace
from beamside.jobs.loading import load_work
from beamside.jobs.registry import additional_types, workflow

PERMANENT = (ConfigError, InputError, ProcessingError)
"""Errors that another attempt at the same inputs would only repeat."""


@dataclass(frozen=True)
class Task:
    """One piece of work for a worker: one item, or all items of an aggregate's round."""

    mode: str
    type_name: str
    root: str
    job: str
    parameters: Mapping[str, Any]
    optics: Mapping[str, float]
    items: Sequence[tuple[str, Mapping[str, Any]]]
    session: tuple[int, float] = (0, 0.0)
    threads: int = 1
    round_name: str = ""
    final: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a task: a result, or why there is none and whether another attempt makes sense."""

    result: Mapping[str, Any] | None
    reason: str = ""
    permanent: bool = False
    log: str = ""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)


def run_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a task given as the dictionary of a `Task`; return the dictionary of an `Outcome`."""
    started = time.perf_counter()
    try:
        result = _run(Task(**task))
    except NotReadyError as error:
        outcome = Outcome(None, str(error))
    except BeamsideError as error:
        outcome = Outcome(None, str(error), permanent=isinstance(error, PERMANENT))
    except MemoryError:
        outcome = Outcome(None, "Not enough memory; use fewer workers (--workers) or a machine with more memory.")
    except OSError as error:
        outcome = Outcome(
            None, f"{error.strerror or error} ({error.filename or 'no file named'})", log=traceback.format_exc()
        )
    except Exception as error:
        outcome = Outcome(None, f"{type(error).__name__}: {error}", log=traceback.format_exc())
    else:
        outcome = Outcome(result)
    return {**asdict(outcome), "seconds": time.perf_counter() - started}


def _run(task: Task) -> dict[str, Any]:
    if task.session[0]:
        end_with_session(*task.session)
    _limit_threads(task.threads)
    job_type = find_type(task.mode, task.type_name)
    parameters = job_type.Parameters(**task.parameters)
    workspace = Workspace(Path(task.root), task.job, Optics(**task.optics), task.threads)
    items = [
        Item(name, {kind: Result.from_json(result) for kind, result in results.items()}) for name, results in task.items
    ]
    work = load_work(job_type)
    if job_type.aggregate:
        result = work(items, parameters, workspace, round_name=task.round_name, final=task.final)
    else:
        result = work(items[0], parameters, workspace)
    return {**result.to_json(), "version": job_type.version}


def find_type(mode: str, name: str) -> JobType:
    """Return the job type `name` of the workflow `mode`, or the installed one of that name."""
    for job_type in workflow(mode):
        if job_type.name == name:
            return job_type
    if name in additional_types():
        return additional_types()[name]
    raise ConfigError(f"There is no job type {name!r}; is the package that provides it installed here?")


def _limit_threads(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
