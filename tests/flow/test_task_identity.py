"""The outcome of a task counts once, and only while the task is the one that is awaited."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.flow.dispatch import failure
from beamside.project.fold import apply_item_record
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES, IN_FLIGHT_STATES, ItemState, JobEntry

ITEM = "raw/m1"


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    run = toy.Toy(tmp_path)
    yield run
    run.writer.close()


def made(of: str, **outputs: str) -> dict[str, Any]:
    result = {"metrics": {}, "outputs": outputs, "values": {"of": of}, "rejected": "", "version": "1"}
    return {"result": result, "reason": "", "permanent": False, "log": "", "seconds": 1.0}


def bring(run: Any, task: int, outcome: dict[str, Any]) -> None:
    stage = run.stage("first")
    run.tables.outcome(stage, ITEM, stage.expected_key(ITEM), task, outcome)


def records(run: Any) -> list[dict[str, Any]]:
    path = run.project.job_journal(run.stage("first").job.name)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_journal_says_which_task_an_item_was_given_out_as(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.finish()
    run.tables.redo(run.stage("first"), ITEM, "asked for")
    run.dispatcher.fill()
    queued = [(record["task"], record["attempt"]) for record in records(run) if record["state"] == "queued"]
    assert queued == [(1, 1), (2, 1)]


def test_numbers_of_tasks_go_on_in_the_next_session(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.reopen()
    run.dispatcher.fill()
    assert run.entry("first", "m1").task == 2
    assert Project(run.project.root).load().jobs == run.writer.state.jobs


def test_journals_that_name_no_task_are_counted() -> None:
    job = JobEntry("MotionCorr/job002", "motion", {})
    for state in ("waiting", "queued", "running", "waiting", "queued"):
        apply_item_record(job, {"time": 1.0, "item": ITEM, "state": state})
    assert job.items[ITEM].task == 2


def test_of_two_outcomes_the_first_counts(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    bring(run, 1, made("first"))
    before = records(run)
    with caplog.at_level(logging.WARNING):
        bring(run, 1, made("second"))
        bring(run, 1, failure("it broke"))
    assert records(run) == before
    assert run.entry("first", "m1").result["values"] == {"of": "first"}
    assert caplog.text.count("task 1 has an outcome already") == 2


def test_a_late_outcome_does_not_take_the_place_of_the_task_that_runs(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.tables.release_in_flight()
    run.stage("first").waiting[ITEM] = None
    run.dispatcher.fill()
    with caplog.at_level(logging.WARNING):
        run.finish(0)  # that of the task which was given up
    assert run.entry("first", "m1").state in IN_FLIGHT_STATES
    assert "task 1 comes late" in caplog.text
    assert "as task 2" in caplog.text
    assert run.dispatcher.places.free() == 1  # the present task is still counted as in the workers' hands
    run.finish(0)
    assert run.entry("first", "m1").state is ItemState.DONE


def test_a_late_failure_uses_up_no_attempt(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    bring(run, 1, failure("for a moment", permanent=False))
    run.stage("first").not_before.clear()
    run.dispatcher.fill()
    bring(run, 1, failure("for a moment", permanent=False))
    assert run.entry("first", "m1").state in IN_FLIGHT_STATES
    assert run.entry("first", "m1").attempt == 2


def test_an_outcome_whose_files_are_not_there_is_tried_again(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    bring(run, 1, made("a", table="MotionCorr/job002/m1.star"))
    entry = run.entry("first", "m1")
    assert (entry.state, entry.result) == (ItemState.WAITING, None)
    assert "MotionCorr/job002/m1.star" in entry.reason
    run.stage("first").not_before.clear()
    run.dispatcher.fill()
    path = run.project.root / "MotionCorr/job002/m1.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("there")
    bring(run, 2, made("a", table="MotionCorr/job002/m1.star"))
    assert run.entry("first", "m1").state is ItemState.DONE


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_outcomes_in_any_order_doubled_and_late_count_once(toy: ModuleType, data: st.DataObject) -> None:
    folder = Path(tempfile.mkdtemp())
    run = toy.Toy(folder)
    try:
        _bring_in_any_order(run, data)
    finally:
        run.writer.close()
        shutil.rmtree(folder)


def _bring_in_any_order(run: Any, data: st.DataObject) -> None:
    run.arrive("m1")
    stage, counted = run.stage("first"), set[int]()
    entry = stage.job.items[ITEM]
    for _ in range(data.draw(st.integers(1, 12))):
        step = data.draw(st.sampled_from(["give", "bring", "give up", "again"]))
        if step == "give":
            stage.not_before.clear()
            run.dispatcher.fill()
        elif step == "give up":
            run.tables.release_in_flight()
            if entry.state is ItemState.WAITING:
                stage.waiting[ITEM] = None
        elif step == "again":
            run.tables.redo(stage, ITEM, "asked for")
        elif entry.task:
            task = data.draw(st.integers(1, entry.task))
            fails = data.draw(st.sampled_from([None, True, False]))
            awaited = entry.state in IN_FLIGHT_STATES and entry.task == task
            before = records(run)
            bring(run, task, made(f"task {task}") if fails is None else failure("it broke", permanent=fails))
            assert (records(run) != before) == awaited
            if awaited:
                assert task not in counted
                counted.add(task)
                assert entry.state in FINAL_STATES or fails is False
                assert fails is not None or entry.result["values"] == {"of": f"task {task}"}
        assert (entry.state in IN_FLIGHT_STATES) == (ITEM in stage.in_flight)
