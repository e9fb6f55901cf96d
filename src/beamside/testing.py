"""For the tests of job types: run the work on one item as a worker does, make types and workflows known without a package, and run small sessions.

::

    result = run_item(Ice(), {"limit": 2.0}, {"micrographs": Result(outputs={"micrograph": "m1.mrc"})}, root=tmp_path)
    assert result.metrics["ice"] < 2
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from beamside.errors import ConfigError, ProcessingError
from beamside.flow import retries
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.workflow import SHIPPED
from beamside.jobs.base import JobType, Optics, Result
from beamside.jobs.ports import Given
from beamside.jobs.registry import BUILT_IN
from beamside.jobs.worker import Task, run_task
from beamside.project.project import Project
from beamside.project.records import ProjectState

OPTICS = Optics(pixel_size=1.0, voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1, dose_per_frame=1.0)
"""What the work is told where a test does not say."""

Inputs = Mapping[str, Given | Result]
"""What each port gives: a result, or one with what it was made from; see `given`."""


def given(result: Result, **inputs: Given | Result) -> Given:
    """Return `result` as what a port gives, made from what the ports `inputs` of its own job gave."""
    return Given(result, {port: _as_given(one) for port, one in inputs.items()})


def _as_given(one: Given | Result) -> Given:
    return one if isinstance(one, Given) else Given(one)


def run_item(
    job_type: JobType | type[JobType],
    parameters: Mapping[str, Any] | None = None,
    inputs: Inputs | None = None,
    *,
    root: Path,
    name: str = "raw/m1",
    optics: Optics = OPTICS,
) -> Result:
    """Do the work of a job type on one item in this process, as a worker does; return its result as later jobs get it.

    Everything goes in and out as JSON. What the ports are given and what the result has are checked against the kinds of items that the job type
    declares, and files that the result names must be there. A job that follows rounds gets the item as a round.

    Parameters
    ----------
    parameters : those that differ from the defaults
    inputs : what each port gives
    root : directory of the project; paths in results are relative to it
    name : the item's name, which is its path without extension

    Raises
    ------
    ConfigError
        when a port is not given what it takes
    ProcessingError
        when there is no result; the message is the sentence that a session shows, and a note has the traceback where there is one
    """
    return run_items(job_type, parameters, {name: inputs or {}}, root=root, optics=optics)


def run_items(
    job_type: JobType | type[JobType],
    parameters: Mapping[str, Any] | None,
    items: Mapping[str, Inputs],
    *,
    root: Path,
    round_name: str = "round001",
    final: bool = False,
    optics: Optics = OPTICS,
) -> Result:
    """Do the work of a job type that works in rounds, on `items`: the inputs of each by its name; see `run_item`.

    ``round_name`` is the name of the round, and ``final`` tells that it is the last round.
    """
    return _run(job_type, parameters, items, root, optics, {"round_name": round_name, "final": final})


def run_group(
    job_type: JobType | type[JobType],
    parameters: Mapping[str, Any] | None,
    items: Mapping[str, Inputs],
    *,
    root: Path,
    name: str = "groups/g1",
    left_out: Mapping[str, str] | None = None,
    optics: Optics = OPTICS,
) -> Result:
    """Do the work of a job type that takes groups, on the group `name` with these members: the inputs of each by its name; see `run_item`.

    ``left_out`` are members that it is without, each with why.
    """
    more = {"group": name, "left_out": dict(left_out or {})}
    return _run(job_type, parameters, items, root, optics, more)


def _run(
    job_type: JobType | type[JobType],
    parameters: Mapping[str, Any] | None,
    items: Mapping[str, Inputs],
    root: Path,
    optics: Optics,
    more: Mapping[str, Any],
) -> Result:
    kind = job_type() if isinstance(job_type, type) else job_type
    label, wiring, results = kind.name, dict[str, dict[str, str]](), list[tuple[str, dict[str, Any]]]()
    shared: dict[str, Any] = {}
    for name, inputs in items.items():
        ports = {port: _as_given(one) for port, one in inputs.items()}
        _check_inputs(kind, ports)
        for port in [port.name for port in kind.inputs if port.takes == "one" and port.name in ports]:
            shared[port] = ports.pop(port).result.to_json()
        wires, found = _unlinked(ports, label)
        wiring |= wires
        results.append((name, found))
    task = Task(
        kind.name,
        label,
        str(root),
        f"{kind.directory}/job001",
        dict(parameters or {}),
        asdict(optics),
        results,
        wiring,
        shared=shared,
        **more,
    )
    with known_job_types(type(kind)):
        outcome = run_task(_through_json(asdict(task), f"What the job type {kind.name!r} is given"))
    if outcome["result"] is None:
        error = ProcessingError(outcome["reason"])
        if outcome["log"]:
            error.add_note(outcome["log"])
        raise error
    return Result.from_json(outcome["result"])


def _check_inputs(kind: JobType, inputs: Mapping[str, Given]) -> None:
    ports = {port.name: port for port in kind.inputs}
    for name, one in inputs.items():
        if name not in ports:
            raise ConfigError(f"The job type {kind.name!r} has no input {name!r}: it has {', '.join(ports) or 'none'}.")
        if lacking := ports[name].kind.lacks(one):
            raise ConfigError(
                f"Input {name!r} of the job type {kind.name!r} takes {ports[name].kind.name!r}, "
                f"and what it is given lacks {' and '.join(lacking)}."
            )
    for port in kind.inputs:
        if port.name not in inputs and not port.optional:
            raise ConfigError(f"The job type {kind.name!r} needs its input {port.name!r}; give a result for it.")


def _unlinked(inputs: Mapping[str, Given], label: str) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """Return the wiring and the results as JSON, by label, from which a worker makes `inputs` again; the labels are made up from the ports."""
    wiring: dict[str, dict[str, str]] = {}
    results: dict[str, Any] = {}
    labels: dict[int, str] = {}

    def add(ports: Mapping[str, Given], owner: str) -> None:
        wiring[owner] = {}
        for port, one in ports.items():
            if id(one) not in labels:
                labels[id(one)] = f"{owner}.{port}"
                results[labels[id(one)]] = one.result.to_json()
                add(one.inputs, labels[id(one)])
            wiring[owner][port] = labels[id(one)]

    add(inputs, label)
    return wiring, results


def _through_json(content: Mapping[str, Any], what: str) -> Any:
    try:
        return json.loads(json.dumps(content))
    except (TypeError, ValueError) as error:
        raise ProcessingError(
            f"{what} cannot be kept as JSON: {error}; use numbers, text, lists and dictionaries."
        ) from error


@contextmanager
def known_job_types(*types: type[JobType]) -> Iterator[None]:
    """Let `types` be known by their names, also in the place of others, as if they came with Beamside; only in this process."""
    with _with_items(BUILT_IN, {kind.name: kind for kind in types}):
        yield


@contextmanager
def known_workflow(name: str, content: Mapping[str, Any]) -> Iterator[None]:
    """Let a workflow be known by its name, as if it came with Beamside; only in this process."""
    with _with_items(SHIPPED, {name: content}):
        yield


@contextmanager
def _with_items(known: MutableMapping[str, Any], items: Mapping[str, Any]) -> Iterator[None]:
    before = dict(known)
    known.update(items)
    try:
        yield
    finally:
        known.clear()
        known.update(before)


def run_session(workflow: str | Mapping[str, Any], files: Sequence[Path], root: Path, **settings: Any) -> ProjectState:
    """Run a session over `files` in this process until all is done, and return what its project knows then; see `project_in`.

    Job types that no installed package has are made known with `known_job_types` around it.

    Parameters
    ----------
    workflow : its name, or its content
    files : what is at the source
    root : an empty folder, or that of an earlier call, whose session goes on
    settings : of the session, by name

    Raises
    ------
    ProcessingError
        when the session did not come to its end
    """
    usual = {
        "target": root / "target",
        "group": "tests",
        "name": "session",
        "workflow": workflow,
        "data": tuple(str(file) for file in files),
        "pixel_size": OPTICS.pixel_size,
        "voltage": OPTICS.voltage,
        "poll_seconds": 0.05,
        "settle_seconds": 0.0,
        "executor": "inline",
        "attempts": 2,
    }
    with patch.dict(os.environ, {"XDG_STATE_HOME": str(root / "state")}), patch.object(retries, "RETRY_SECONDS", 0.01):
        ended = Session(SessionSettings.from_flat({**usual, **settings}), until_empty=True).run()
    if ended != "finished":
        raise ProcessingError(f"The session in {project_in(root).root} is {ended}, and not finished.")
    return project_in(root).load()


def project_in(root: Path) -> Project:
    """Return the project that `run_session` makes in the folder `root`."""
    return Project(root / "target" / "tests" / "session")
