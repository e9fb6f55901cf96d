"""What is given to workers, in which order, how much of it, and what becomes of what they bring."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.execution.executors import WorkersLostError
from beamside.execution.whereabouts import TaskName, Where, say
from beamside.flow.check_items import CheckItems
from beamside.flow.dispatch import failure
from beamside.jobs.errands import Errand
from beamside.jobs.worker import Task
from beamside.project.records import ItemState


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    run = toy.Toy(tmp_path)
    yield run
    run.writer.close()


def test_one_task_more_is_given_out_than_there_are_workers(run: Any) -> None:
    run.arrive("m1", "m2", "m3")
    run.dispatcher.fill()
    assert run.given() == [("first", "m1"), ("first", "m2")]
    assert run.dispatcher.places.free() == 0
    run.dispatcher.fill()
    assert len(run.given()) == 2


def test_the_oldest_item_is_brought_to_its_end_before_the_next_one_begins(run: Any) -> None:
    run.arrive("m1", "m2", "m3")
    order = []
    run.dispatcher.fill()
    while run.hands.tasks:
        order.append(run.given()[0])
        run.finish()
        run.dispatcher.fill()
    assert order[:4] == [("first", "m1"), ("first", "m2"), ("second", "m1"), ("second", "m2")]
    assert sorted(order) == sorted((job, item) for job in ("first", "second", "third") for item in ("m1", "m2", "m3"))
    assert order.index(("third", "m1")) < order.index(("second", "m3"))


def states(run: Any) -> list[str]:
    return [run.entry("first", name).state.value for name in ("m1", "m2")]


def test_what_a_worker_has_begun_with_is_running_and_the_rest_is_queued(run: Any) -> None:
    run.arrive("m1", "m2")
    run.dispatcher.fill()
    run.dispatcher.listen()
    assert states(run) == ["queued", "queued"]
    run.tell(1, device="cuda:0")
    assert states(run) == ["queued", "running"]
    [shown] = run.dispatcher.shown()
    assert shown["seconds"] >= 0
    assert {name: shown[name] for name in ("title", "item", "host", "pid", "device")} == {
        "title": "First step",
        "item": "raw/m2",
        "host": "node1",
        "pid": 7,
        "device": "cuda:0",
    }
    first, second = (run.dispatcher.described(run.stage("first"), f"raw/{name}") for name in ("m1", "m2"))
    assert (first, second) == ("first of raw/m1", "first of raw/m2 (process 7 on node1, cuda:0)")
    run.finish(1)
    assert states(run) == ["queued", "done"]
    assert run.dispatcher.shown() == []


def test_a_task_that_has_ended_is_in_no_hands_although_its_outcome_has_not_come(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.tell()
    run.tell(begins=False)
    assert run.dispatcher.shown() == []
    assert run.entry("first", "m1").state is ItemState.RUNNING
    run.finish()
    assert run.entry("first", "m1").state is ItemState.DONE


def test_a_task_that_begins_again_on_another_device_is_shown_there(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.tell(device="cuda:0")
    run.tell(device="cpu")
    assert [one["device"] for one in run.dispatcher.shown()] == ["cpu"]


def test_what_is_told_of_a_task_that_is_not_awaited_changes_nothing(run: Any) -> None:
    run.arrive("m1", "m2")
    run.dispatcher.fill()
    late = Task(**run.hands.tasks[0][0])
    run.finish(0, failure("it was lost", permanent=False))
    for task in (late.identity, TaskName("Nothing/job099", "raw/m1", 1), TaskName(late.job, "raw/m9", 1)):
        say(run.project.workers, task, Where("node1", 7), begins=True)
    run.dispatcher.listen()
    assert states(run) == ["waiting", "queued"]
    run.stage("first").not_before.clear()
    run.dispatcher.fill()
    say(run.project.workers, late.identity, Where("node1", 7), begins=True)
    run.dispatcher.listen()
    assert states(run) == ["queued", "queued"]
    assert run.dispatcher.shown() == []


def test_a_worker_that_was_lost_has_nothing_in_hand(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.tell()
    run.finish(0, RuntimeError("killed"))
    assert run.dispatcher.shown() == []
    assert run.entry("first", "m1").state is ItemState.WAITING


def test_the_story_of_an_item_says_where_it_was_worked_at(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.tell(pid=7, device="cuda:1")
    where = {"host": "node1", "pid": 7, "device": "cpu"}
    run.finish(0, {**done_first(), "where": where})
    told = [(record["state"], record.get("where")) for job, record in run.project.story("raw/m1") if "Motion" in job]
    assert told == [("waiting", None), ("queued", None), ("running", {**where, "device": "cuda:1"}), ("done", where)]
    run.reopen()
    assert run.entry("first", "m1").state is ItemState.DONE


def done_first() -> dict[str, Any]:
    result = {"metrics": {}, "outputs": {}, "values": {"of": "a"}, "rejected": "", "version": "1"}
    return {"result": result, "reason": "", "permanent": False, "log": "", "seconds": 1.0}


def test_a_task_says_all_that_a_worker_needs(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.finish()
    run.dispatcher.fill()
    [(task, _)] = run.hands.tasks
    assert pickle.loads(pickle.dumps(task)) == task
    assert (task["type_name"], task["job"], task["root"]) == (
        "second",
        run.stage("second").job.name,
        str(run.project.root),
    )
    [(name, results)] = task["items"]
    assert (name, list(results)) == ("raw/m1", ["import", "first"])
    assert results["first"]["values"] == {"of": "a"}
    assert task["optics"]["pixel_size"] == 1.0
    assert task["threads"] >= 1


def test_a_result_has_the_key_that_is_expected_of_it(run: Any) -> None:
    run.arrive("m1")
    run.work_off()
    for job in ("first", "second", "third"):
        assert run.entry(job, "m1").key == run.stage(job).expected_key("raw/m1") != ""
        assert run.stage(job).stale() == []


def test_a_result_of_inputs_that_have_changed_meanwhile_is_made_again(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    run.arrive("m1", content="b")
    run.finish()
    assert run.entry("first", "m1").state is ItemState.WAITING
    run.work_off()
    assert run.entry("third", "m1").result["values"] == {"of": "b"}


@pytest.mark.parametrize("fault", [failure("the disk was full", permanent=False), RuntimeError("killed")])
def test_a_passing_fault_is_tried_again_and_then_the_item_is_given_up_with_what_follows(run: Any, fault: Any) -> None:
    run.arrive("m1")
    for attempt in range(1, run.settings.execution.item_attempts + 1):
        run.dispatcher.fill()
        assert run.entry("first", "m1").attempt == attempt
        run.finish(0, fault)
    run.dispatcher.fill()
    assert run.given() == []
    assert run.entry("first", "m1").state is ItemState.FAILED
    assert ("the disk was full" in run.entry("first", "m1").reason) or (
        "worker was lost" in run.entry("first", "m1").reason
    )


def test_an_item_that_an_earlier_job_has_given_up_is_not_given_out(run: Any) -> None:
    run.arrive("m1", content="odd")
    run.arrive("m2", content="bad")
    run.work_off()
    assert run.states("m1") == ["done", "rejected"]
    assert run.states("m2") == ["done", "done", "failed"]
    assert [row.item.name for row in run.stage("first").rows()] == ["raw/m2"]


def test_a_failure_in_giving_out_fails_the_item_and_not_the_others(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run.arrive("m1", "m2")
    submit = run.hands.submit

    def fussy(function: Any, task: Any) -> Any:
        if task["items"][0][0] == "raw/m1":
            raise TypeError("cannot be sent")
        return submit(function, task)

    monkeypatch.setattr(run.hands, "submit", fussy)
    for _ in range(run.settings.execution.item_attempts):
        run.dispatcher.fill()
    assert run.entry("first", "m1").state is ItemState.FAILED
    assert "cannot be sent" in run.entry("first", "m1").reason
    run.work_off()
    assert run.states("m2") == ["done"] * 4


def test_workers_that_are_given_up_end_the_session(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run.arrive("m1")

    def lost(*_args: Any) -> Any:
        raise WorkersLostError("they do not come back")

    monkeypatch.setattr(run.hands, "submit", lost)
    with pytest.raises(WorkersLostError):
        run.dispatcher.fill()


def test_nothing_is_given_out_for_a_job_that_relion_has_deleted_or_for_those_after_it(run: Any) -> None:
    run.arrive("m1")
    run.stage("first").gone = True
    run.dispatcher.fill()
    assert run.given() == []
    run.stage("first").gone = False
    run.work_off()
    assert run.states("m1") == ["done"] * 4


class Asking:
    """A check of one item that wants one errand done."""

    def __init__(self) -> None:
        self.items = CheckItems("light", "Light")
        self.items.add("lamp")
        self.heard: list[str] = []

    def wanted(self, name: str) -> Errand | None:
        return Errand("nowhere:nothing", "A test", {"of": name}) if not self.heard else None

    def found(self, name: str, result: Any) -> None:
        self.heard.append(result["says"])
        self.items.rest(name, ItemState.ASKED)

    def spoiled(self, name: str, reason: str, *, permanent: bool) -> None:
        self.heard.append(reason)


def asking(run: Any) -> Asking:
    check = Asking()
    run.dispatcher.check = check
    return check


def test_what_a_check_wants_is_given_out_like_any_task_and_counts_among_them(run: Any) -> None:
    check = asking(run)
    run.arrive("m1", "m2")
    assert run.dispatcher.fill_check()
    run.dispatcher.fill()
    (errand, _), (task, _) = run.hands.tasks
    assert (errand["job"], errand["item"], errand["number"]) == ("light", "lamp", 1)
    assert errand["session"] == task["session"]
    assert errand["told_in"] == task["told_in"]
    assert run.dispatcher.places.free() == 0
    say(Path(errand["told_in"]), TaskName("light", "lamp", 1), Where("node1", 7), begins=True)
    run.dispatcher.listen()
    assert check.items.state("lamp") is ItemState.RUNNING
    assert [(one["title"], one["item"]) for one in run.dispatcher.shown()] == [("Light", "lamp")]
    assert run.dispatcher.described(check.items, "lamp") == "light of lamp (process 7 on node1, cpu)"
    run.finish(0, {**failure(""), "result": {"says": "which?"}})
    assert (check.heard, check.items.state("lamp")) == (["which?"], ItemState.ASKED)
    assert not run.dispatcher.fill_check()


def test_a_worker_that_is_lost_with_what_a_check_wants_spoils_one_attempt(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamside.flow.retries.RETRY_SECONDS", 60.0)
    check = asking(run)
    run.dispatcher.fill_check()
    run.finish(0, WorkersLostError("all workers were lost"))
    assert "the worker was lost" in check.heard[0]
    assert check.items.ready() == [], "it is tried again after a pause"


def test_what_cannot_be_handed_over_spoils_one_attempt(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check = asking(run)

    def refuse(*_args: Any) -> Any:
        raise ValueError("odd")

    monkeypatch.setattr(run.hands, "submit", refuse)
    run.dispatcher.fill_check()
    assert "it could not be given to a worker (ValueError: odd)" in check.heard[0]
    assert run.dispatcher.places.free() == 2
