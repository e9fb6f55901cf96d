"""What a worker makes of what the work returns and raises: a plain result, or a sentence and whether another attempt makes sense."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import (
    ConfigError,
    CorruptFileError,
    GainError,
    InputError,
    JournalError,
    NotReadyError,
    ProcessingError,
    ProgramError,
)
from beamside.jobs.base import Item, ItemGroup, JobType, Optics, Result, Workspace
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.jobs.triggers import EachItem, Group, Trigger
from beamside.jobs.worker import Task, run_task
from beamside.parameters import ParameterModel, parameter
from beamside.testing import known_job_types

SIZED = ItemKind("sized", "Sized", values={"size": "px"})


class OddParameters(ParameterModel):
    most: int = parameter(3, "At most.", ge=1)


class Odd(JobType):
    """What it returns or raises is put into `doing` by each test."""

    name, title, directory, version = "odd", "Odd", "Odd", "7"
    inputs = (Input("before", SIZED, optional=True),)
    outputs = (Output("sized", SIZED),)
    trigger: Trigger = EachItem()
    work = f"{__name__}:work"
    Parameters = OddParameters


class OddGroup(Odd):
    name, trigger = "odd_group", Group()


doing: list[Callable[[Any, Any, Workspace], Any]] = []


def work(item: Any, parameters: Any, workspace: Workspace) -> Any:
    return doing[-1](item, parameters, workspace)


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    doing.clear()
    with known_job_types(Odd, OddGroup):
        yield


def done(root: Path, does: Callable[[Any, Any, Workspace], Any], kind: type[Odd] = Odd, **more: Any) -> dict[str, Any]:
    doing.append(does)
    given: dict[str, Any] = {"parameters": {}, "items": [("raw/m1", {})], "threads": 2, **more}
    optics = asdict(Optics(1.0, 300.0, 2.7, 0.1, 1.0))
    return run_task(asdict(Task(kind.name, "odd", str(root), "Odd/job004", optics=optics, wiring={"odd": {}}, **given)))


def raising(error: BaseException) -> Callable[[Any, Any, Workspace], Any]:
    def raise_it(*_: Any) -> Any:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "permanent", "logged"),
    [
        (InputError("The file a is of another kind."), True, False),
        (CorruptFileError("The file a is damaged."), True, False),
        (ConfigError("Give a."), True, False),
        (GainError("It does not fit."), True, False),
        (ProcessingError("There is nothing in it."), True, False),
        (NotReadyError("Not yet."), False, False),
        (ProgramError("Topaz was killed."), False, False),
        (JournalError("The disk is full."), False, False),
        (OSError(28, "No space left on device"), False, True),
        (ZeroDivisionError("division by zero"), False, True),
        (KeyError("defocus_u"), False, True),
        (RuntimeError(), False, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_what_another_attempt_would_repeat_is_for_good(
    tmp_path: Path, error: Exception, permanent: bool, logged: bool
) -> None:
    outcome = done(tmp_path, raising(error))
    assert outcome["result"] is None
    assert outcome["permanent"] is permanent
    assert outcome["reason"].strip(), "there is always a sentence"
    assert bool(outcome["log"]) is logged
    if logged:
        assert "raise_it" in outcome["log"], "whoever mends it sees where it was"
    else:
        assert outcome["reason"] == str(error)


def test_a_lack_of_memory_says_what_can_be_done(tmp_path: Path) -> None:
    outcome = done(tmp_path, raising(MemoryError()))
    assert "--workers" in outcome["reason"]
    assert not outcome["permanent"]


@pytest.mark.parametrize("returned", [None, {"metrics": {}}, (Result(),), Result])
def test_what_is_no_result_is_told_with_the_function_that_returned_it(tmp_path: Path, returned: Any) -> None:
    outcome = done(tmp_path, lambda *_: returned)
    assert outcome["permanent"]
    assert f"of type {type(returned).__name__}" in outcome["reason"]
    assert Odd.work in outcome["reason"]


@pytest.mark.parametrize(
    "result",
    [
        Result({"size": np.float32(3)}, values={"size": 4}),  # type: ignore[dict-item]
        Result(values={"size": np.int64(3)}),
        Result(values={"size": 3, "image": np.zeros(2)}),
        Result(values={"size": 3, "files": {"a"}}),
        Result(values={"size": 3, "path": Path("a")}),
        Result(values={"size": 3, ("a", "b"): 1}),  # type: ignore[dict-item]
    ],
    ids=str,
)
def test_what_the_journal_cannot_keep_fails_its_item_in_the_worker(tmp_path: Path, result: Result) -> None:
    """The session would find it out when it writes the record."""
    outcome = done(tmp_path, lambda *_: result)
    assert outcome["permanent"]
    assert "'odd' cannot be kept as JSON" in outcome["reason"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(st.text(), plain, max_size=3), st.dictionaries(st.text(), st.floats(allow_nan=False), max_size=3)
)
@settings(max_examples=40)
def test_a_result_is_what_the_journal_will_say_of_it(values: dict[str, Any], metrics: dict[str, float]) -> None:
    """So a session that goes on knows the same as one that has never ended."""
    outcome = done(Path(), lambda *_: Result(metrics, values={**values, "size": 3}))
    assert outcome["result"] == json.loads(json.dumps(outcome["result"]))
    assert outcome["result"]["version"] == Odd.version
    assert Result.from_json(outcome["result"]) == Result.from_json(json.loads(json.dumps(outcome["result"])))


def test_a_result_without_what_its_kind_must_have_is_refused_unless_it_was_rejected(tmp_path: Path) -> None:
    refused = done(tmp_path, lambda *_: Result())
    assert refused["permanent"]
    assert "it must have the value 'size' (px)" in refused["reason"]
    rejected = done(tmp_path, lambda *_: Result(rejected="there is nothing in it"))
    assert rejected["result"]["rejected"] == "there is nothing in it"


def test_what_it_was_made_from_counts_as_its_own_but_not_for_a_group(tmp_path: Path) -> None:
    made = {"items": [("raw/m1", {"first": Result(values={"size": 4}).to_json()})]}
    wiring = {"odd": {"before": "first"}, "first": {}}
    task = Task(
        "odd", "odd", str(tmp_path), "Odd/job004", {}, asdict(Optics(1.0, 300.0, 2.7, 0.1, 1.0)), made["items"], wiring
    )
    doing.append(lambda *_: Result())
    assert run_task(asdict(task))["result"] is not None
    grouped = run_task(asdict(task) | {"type_name": "odd_group", "group": "groups/g1"})
    assert "'size'" in grouped["reason"]


def test_the_work_is_told_its_parameters_threads_and_place(tmp_path: Path) -> None:
    told: list[Any] = []

    def look(item: Item, parameters: OddParameters, workspace: Workspace) -> Result:
        told.extend([item.name, parameters.most, workspace.threads, os.environ["OMP_NUM_THREADS"], workspace.device])
        told.append(workspace.relative(workspace.path(item, "_a.txt")))
        return Result(values={"size": 1})

    outcome = done(tmp_path, look, parameters={"most": 5})
    assert told == ["raw/m1", 5, 2, "2", "cpu", "Odd/job004/raw/m1_a.txt"]
    assert outcome["where"]["pid"] == os.getpid()


def test_a_group_is_given_with_its_members_and_what_it_is_without(tmp_path: Path) -> None:
    seen: list[ItemGroup] = []

    def look(group: ItemGroup, *_: Any) -> Result:
        seen.append(group)
        return Result(values={"size": len(group.items)})

    items = [("raw/m1", {}), ("raw/m2", {})]
    outcome = done(tmp_path, look, OddGroup, items=items, group="squares/g1", left_out={"raw/m3": "it failed"})
    assert outcome["result"]["values"] == {"size": 2}
    assert (seen[0].name, [item.name for item in seen[0].items]) == ("squares/g1", ["raw/m1", "raw/m2"])
    assert seen[0].left_out == {"raw/m3": "it failed"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"parameters": {"most": 0}}, "most"),
        ({"parameters": {"least": 1}}, "least"),
    ],
)
def test_parameters_that_cannot_be_are_told(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    outcome = done(tmp_path, lambda *_: Result(values={"size": 1}), **more)
    assert outcome["result"] is None
    assert says in outcome["reason"]


def test_a_job_type_that_is_not_installed_where_the_worker_is_is_named(tmp_path: Path) -> None:
    task = Task(
        "ice",
        "ice",
        str(tmp_path),
        "Ice/job004",
        {},
        asdict(Optics(1.0, 300.0, 2.7, 0.1, 1.0)),
        [("raw/m", {})],
        {"ice": {}},
    )
    outcome = run_task(asdict(task))
    assert outcome["permanent"]
    assert "no job type 'ice'" in outcome["reason"]
