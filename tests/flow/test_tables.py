"""Whatever happens to the tables of a project, they are what the journals say, and end as those of an undisturbed run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from beamside.errors import TransitionError
from beamside.flow.dispatch import failure
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES, ItemState


def machine_of(toy: ModuleType) -> type[RuleBasedStateMachine]:
    names = st.sampled_from(["m1", "m2", "m3", "m4"])
    contents = st.sampled_from(["a", "b", "bad", "odd"])

    class Disturbed(RuleBasedStateMachine):
        """A run with everything that can happen to it."""

        @initialize()
        def begin(self) -> None:
            self.folder = Path(tempfile.mkdtemp())
            self.toy = toy.Toy(self.folder / "disturbed")
            self.arrived: dict[str, str] = {}

        @rule(name=names, content=contents)
        def a_file_comes_or_comes_again(self, name: str, content: str) -> None:
            self.arrived[name] = content
            self.toy.tables.intake_done(toy.taken(name, content))

        @rule()
        def work_is_given_out(self) -> None:
            self.toy.dispatcher.fill()

        def busy(self) -> bool:
            return bool(self.toy.hands.tasks)

        @precondition(busy)
        @rule(data=st.data())
        def a_worker_is_done(self, data: st.DataObject) -> None:
            self.toy.finish(data.draw(st.integers(0, len(self.toy.hands.tasks) - 1)))

        @precondition(busy)
        @rule(fault=st.sampled_from([failure("for a moment", permanent=False), RuntimeError("lost")]))
        def a_task_comes_to_nothing(self, fault: Any) -> None:
            self.toy.finish(0, fault)

        @rule(torn=st.booleans())
        def the_process_is_killed(self, torn: bool) -> None:
            if torn:
                for journal in self.toy.project.journals.glob("*job*.jsonl"):
                    with journal.open("ab") as stream:
                        stream.write(b'{"time":1.0,"item":"raw/m1","sta')
            self.toy.reopen()

        @rule()
        def the_session_is_stopped_and_resumed(self) -> None:
            self.toy.tables.release_in_flight()
            self.toy.reopen()

        @rule()
        def what_failed_is_tried_again(self) -> None:
            self.toy.tables.retry_failed()

        @rule(data=st.data())
        def a_result_is_asked_for_again(self, data: st.DataObject) -> None:
            stage = data.draw(st.sampled_from(self.toy.tables.stages[1:4]))
            done = [entry.name for entry in stage.job.items.values() if entry.state in FINAL_STATES]
            if done:
                self.toy.tables.redo(stage, data.draw(st.sampled_from(done)), "asked for")

        @invariant()
        def memory_is_what_the_journals_say(self) -> None:
            if hasattr(self, "toy"):
                assert Project(self.toy.project.root).load().jobs == self.toy.writer.state.jobs

        @invariant()
        def what_waits_is_known_to_wait(self) -> None:
            for stage in self.toy.tables.stages[1:4] if hasattr(self, "toy") else ():
                states = {entry.name: entry.state for entry in stage.job.items.values()}
                assert {name for name, state in states.items() if state is ItemState.WAITING} == set(stage.waiting)
                assert {
                    name for name in states if states[name] in (ItemState.QUEUED, ItemState.RUNNING)
                } == stage.in_flight

        def teardown(self) -> None:
            if not hasattr(self, "toy"):
                return
            while self.toy.hands.tasks:
                self.toy.finish()
            self.toy.work_off()
            self.toy.tables.retry_failed()
            self.toy.work_off()
            undisturbed = toy.Toy(self.folder / "undisturbed")
            for name, content in self.arrived.items():
                undisturbed.tables.intake_done(toy.taken(name, content))
            undisturbed.work_off()
            ends = self.toy.table(), undisturbed.table()
            shown = [
                [{row.item.name for row in stage.rows()} for stage in each.tables.stages]
                for each in (self.toy, undisturbed)
            ]
            for each in (self.toy, undisturbed):
                each.writer.close()
            shutil.rmtree(self.folder)
            assert settled(ends[0]) == settled(ends[1])
            assert shown[0] == shown[1]

    return Disturbed


def settled(table: dict[str, dict[str, tuple[ItemState, str, Any]]]) -> dict[str, list[Any]]:
    """How far each item has come, and with what: what a later job had of one that an earlier one has given up counts no more."""
    ends: dict[str, list[Any]] = {}
    for items in table.values():
        for item, (state, key, result) in items.items():
            so_far = ends.setdefault(item, [])
            if all(before is ItemState.DONE for before, *_ in so_far):
                so_far.append((state, key, result))
    return ends


def test_tables_end_as_those_of_an_undisturbed_run_whatever_happens(toy: ModuleType) -> None:
    run_state_machine_as_test(
        machine_of(toy),
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_a_transition_that_does_not_exist_is_refused_and_changes_nothing(toy: ModuleType, tmp_path: Path) -> None:
    tables = toy.Toy(tmp_path)
    tables.tables.intake_done(toy.taken("m1", "a"))
    before = tables.table()
    with pytest.raises(TransitionError, match=r"raw/m1 cannot go from waiting to done\. Its journal says: waiting \("):
        tables.writer.item(tables.stage("first").job.name, "raw/m1", ItemState.DONE)
    assert tables.table() == before
    tables.writer.close()
