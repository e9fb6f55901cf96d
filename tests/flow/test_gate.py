"""Gates: what a person holds back is in no table and goes no further, and comes back without anything computed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.flow.verdicts import give_word
from beamside.project.records import Word


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    run = toy.Toy(tmp_path, class_min=20, class_increment=20)
    yield run
    run.writer.close()


def say(run: Any, word: Word, item: str, job: str) -> None:
    give_word(run.writer, word, [f"raw/{item}"], job, "ana")


def shown(run: Any, job: str) -> list[str]:
    return [row.item.name[4:] for row in run.stage(job).rows()]


def consider(run: Any, *, final: bool = False) -> list[list[str]]:
    """The items of the rounds of the first aggregate that a look gives out; what is given out is worked off."""
    run.rounds.consider(final=final)
    made = [
        [name[4:] for name in task["members"]["names"]] for task, _ in run.hands.tasks if task["type_name"] == "class2d"
    ]
    run.work_off()
    return made


def test_what_is_held_back_is_in_no_table_and_returns_without_being_computed(run: Any) -> None:
    run.arrive("m1", "m2")
    run.work_off()
    before, revisions = run.table(), [stage.revisions() for stage in run.tables.stages]
    say(run, "reject", "m1", "second")
    assert [shown(run, job) for job in ("first", "second", "third")] == [["m1", "m2"], ["m2"], ["m2"]]
    changed = [stage.revisions() != old for stage, old in zip(run.tables.stages, revisions, strict=True)]
    assert changed[:4] == [False, False, True, True], "tables are written again from the gate on"
    run.work_off()
    say(run, "none", "m1", "second")
    run.dispatcher.fill()
    assert run.given() == []
    assert shown(run, "third") == ["m1", "m2"]
    assert run.table() == before


def test_a_gate_that_is_shut_on_what_is_under_way_lets_it_end_and_go_no_further(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    say(run, "reject", "m1", "first")
    run.work_off()
    assert run.states("m1") == ["done", "done"]
    assert all(stage.settled() for stage in run.tables.stages)
    run.reopen()
    run.work_off()
    assert run.states("m1") == ["done", "done"]
    say(run, "accept", "m1", "first")
    run.work_off()
    assert run.states("m1") == ["done"] * 4


def test_what_waits_behind_a_shut_gate_does_not_keep_a_session_from_its_end(run: Any) -> None:
    run.arrive("m1")
    say(run, "reject", "m1", "import")
    run.work_off()
    assert run.states("m1") == ["done", "waiting"]
    assert len(run.stage("first").waiting) == 1
    assert run.stage("first").to_do() == 0
    assert all(stage.settled() for stage in run.tables.stages)


def test_a_person_may_accept_what_a_job_rejected_and_take_that_back(run: Any) -> None:
    run.arrive("m1", content="odd")
    run.work_off()
    assert run.states("m1") == ["done", "rejected"]
    say(run, "accept", "m1", "first")
    run.work_off()
    assert run.states("m1") == ["done", "rejected", "done", "done"]
    assert shown(run, "third") == shown(run, "first") == ["m1"]
    say(run, "none", "m1", "first")
    run.work_off()
    assert shown(run, "third") == shown(run, "first") == []
    say(run, "accept", "m1", "first")
    run.dispatcher.fill()
    assert run.given() == []
    assert shown(run, "third") == ["m1"]


def test_what_waits_is_given_up_when_an_accepted_item_is_so_no_longer(run: Any) -> None:
    run.arrive("m1", content="odd")
    run.work_off()
    say(run, "accept", "m1", "first")
    run.tables.take_gates()
    assert run.states("m1") == ["done", "rejected", "waiting"]
    say(run, "none", "m1", "first")
    run.reopen()
    run.work_off()
    assert run.states("m1") == ["done", "rejected", "failed"]
    say(run, "accept", "m1", "first")
    run.work_off()
    assert run.states("m1") == ["done", "rejected", "done", "done"]


def test_a_round_is_made_without_what_is_held_back_and_again_when_enough_is_lost_or_comes_back(run: Any) -> None:
    names = ["m1", "m2", "m3", "m4"]
    run.arrive(*names)
    run.work_off()
    assert consider(run) == [names]
    consider(run)
    say(run, "reject", "m1", "second")
    assert consider(run) == [], "ten fewer are no increment"
    say(run, "reject", "m2", "second")
    assert consider(run) == [["m3", "m4"]]
    consider(run)
    assert consider(run) == []
    say(run, "none", "m1", "second")
    say(run, "none", "m2", "second")
    assert consider(run) == [names]


def test_the_last_round_is_made_again_when_a_gate_was_shut_after_it(run: Any) -> None:
    run.arrive("m1", "m2", "m3")
    run.work_off()
    assert consider(run, final=True) == [["m1", "m2", "m3"]]
    consider(run, final=True)
    say(run, "reject", "m3", "third")
    assert consider(run, final=True) == [["m1", "m2"]]
    consider(run, final=True)
    assert consider(run, final=True) == []


def test_a_held_back_item_that_is_out_of_date_keeps_no_round_from_beginning(run: Any) -> None:
    run.arrive("m1", "m2", "m3")
    run.work_off()
    say(run, "reject", "m1", "first")
    run.tables.redo(run.stage("second"), "raw/m1", "asked for")
    run.work_off()
    assert consider(run) == [["m2", "m3"]]


STEP = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(["accept", "reject", "none"]), st.sampled_from(["m1", "m2", "m3"])),
    st.tuples(st.sampled_from(["fill", "finish", "reopen"]), st.just(""), st.just("")),
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(STEP, max_size=14),
    jobs=st.lists(st.sampled_from(["import", "first", "second"]), min_size=14, max_size=14),
)
def test_whatever_was_said_meanwhile_the_end_is_as_without_a_gate(
    toy: ModuleType, steps: list[tuple[str, Any, str]], jobs: list[str]
) -> None:
    ends = []
    for said in ([], steps):
        with TemporaryDirectory() as folder:
            run = toy.Toy(Path(folder))
            run.arrive("m1", "m2")
            run.arrive("m3", content="odd")
            for (what, word, item), job in zip(said, jobs, strict=False):
                if what == "say" and run.stage(job).entry(f"raw/{item}") and (word, item) != ("accept", "m3"):
                    say(run, word, item, job)
                elif what == "fill":
                    run.dispatcher.fill()
                elif what == "finish" and run.hands.tasks:
                    run.finish()
                elif what == "reopen":
                    run.reopen()
            for job, item in list(run.writer.state.verdicts):
                give_word(run.writer, "none", [item], job, "ana")
            run.work_off()
            tables = [{row.item.name for row in stage.rows()} for stage in run.tables.stages]
            ends.append((run.table(), tables))
            run.writer.close()
    assert ends[0] == ends[1]


def test_what_came_behind_a_gate_that_was_shut_and_opened_between_two_looks_goes_on(run: Any) -> None:
    run.arrive("m1")
    run.dispatcher.fill()
    say(run, "reject", "m1", "first")
    run.finish()
    say(run, "none", "m1", "first")
    run.work_off()
    assert run.states("m1") == ["done"] * 4
