"""The states of what a check settles: whatever workers bring, and in whatever order, each task counts once, and nothing asked is done unasked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from beamside.errors import TransitionError
from beamside.flow.check_items import CheckItems
from beamside.flow.dispatch import failure
from beamside.flow.retries import LONGEST_SECONDS, RETRY_SECONDS, pause_after
from beamside.jobs.errands import Errand
from beamside.project.records import IN_FLIGHT_STATES, ItemState

FOUND: dict[str, Any] = {"result": {"says": "settled"}, "reason": "", "permanent": False, "log": "", "seconds": 0.1}
ASKS: dict[str, Any] = {**FOUND, "result": {"says": "asks"}}
LOST, UNFIT = failure("the worker was lost", permanent=False), failure("it does not fit")


class Questions:
    """A check of which every item is settled by what a worker finds, or by a person's answer."""

    def __init__(self, items: CheckItems) -> None:
        self.items = items
        self.heard: list[tuple[str, str]] = []

    def wanted(self, name: str) -> Errand | None:
        return None if self.items.state(name) is ItemState.DONE else Errand("nowhere:nothing", "A test", {})

    def found(self, name: str, result: Mapping[str, Any]) -> None:
        self.heard.append((name, str(result["says"])))
        self.items.rest(name, ItemState.ASKED if result["says"] == "asks" else ItemState.DONE)

    def spoiled(self, name: str, reason: str, *, permanent: bool) -> None:
        self.heard.append((name, reason))
        if permanent:
            self.items.rest(name, ItemState.FAILED, reason)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.items = CheckItems("gain", "Gain reference", clock=lambda: self.now)
        self.check = Questions(self.items)
        self.hands: list[tuple[str, int]] = []
        self.over: list[tuple[str, int]] = []
        self.not_before: dict[str, float] = {}
        for name in ("a", "b"):
            self.items.add(name)

    @rule(seconds=st.sampled_from([1.0, 6.0, 100.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def give_out(self) -> None:
        for name in self.items.ready():
            if self.check.wanted(name) is not None:
                assert self.now >= self.not_before.get(name, 0.0), "not before its pause is over"
                self.hands.append((name, self.items.queued(name)))

    @precondition(lambda self: self.hands)
    @rule(data=st.data())
    def a_worker_begins(self, data: st.DataObject) -> None:
        name, _ = data.draw(st.sampled_from(self.hands))
        if self.items.state(name) is ItemState.QUEUED:
            self.items.running(name)

    @precondition(lambda self: self.hands)
    @rule(data=st.data(), outcome=st.sampled_from([FOUND, ASKS, LOST, UNFIT]))
    def a_worker_is_done(self, data: st.DataObject, outcome: dict[str, Any]) -> None:
        name, task = self.hands.pop(data.draw(st.integers(0, len(self.hands) - 1)))
        heard, entry = len(self.check.heard), self.items.entries[name]
        attempt = entry.attempt
        self.items.outcome(self.check, name, task, outcome)
        assert len(self.check.heard) == heard + 1
        self.over.append((name, task))
        if outcome["result"] is None:
            self.not_before[name] = self.now + pause_after(attempt)
        else:
            self.not_before.pop(name, None)
            assert entry.attempt == 0

    @precondition(lambda self: self.over)
    @rule(data=st.data(), outcome=st.sampled_from([FOUND, ASKS, LOST, UNFIT]))
    def an_outcome_comes_again(self, data: st.DataObject, outcome: dict[str, Any]) -> None:
        name, task = data.draw(st.sampled_from(self.over))
        before = (self.items.state(name), len(self.check.heard))
        self.items.outcome(self.check, name, task, outcome)
        assert (self.items.state(name), len(self.check.heard)) == before

    @rule(name=st.sampled_from(["a", "b"]))
    def a_person_answers(self, name: str) -> None:
        self.items.rest(name, ItemState.DONE) if self.items.state(name) is ItemState.ASKED else None

    @rule(name=st.sampled_from(["a", "b"]))
    def a_person_retries(self, name: str) -> None:
        self.items.again(name)
        self.not_before.pop(name, None)

    @rule(name=st.sampled_from(["a", "b"]))
    def something_else_came(self, name: str) -> None:
        """Also of an item that a worker has: then the outcome says how it goes on."""
        before = self.items.state(name)
        if before is not ItemState.FAILED:
            self.items.rest(name, ItemState.WAITING)
        assert (name in self.items.in_flight) == (self.items.state(name) in IN_FLIGHT_STATES)

    @invariant()
    def each_item_is_in_one_hand_at_most(self) -> None:
        names = [name for name, _ in self.hands]
        assert sorted(names) == sorted(self.items.in_flight)
        assert {name for name in self.items.entries if self.items.state(name) in IN_FLIGHT_STATES} == set(names)

    @invariant()
    def what_is_asked_or_failed_is_not_given_out(self) -> None:
        for name in self.items.ready():
            assert self.items.state(name) in (ItemState.WAITING, ItemState.DONE)
        assert all(bool(self.items.has_given_up(name)) == (self.items.state(name) is ItemState.FAILED) for name in "ab")

    def teardown(self) -> None:
        """When workers work, nothing is given up and everything is answered, all is settled in the end."""
        for name, task in self.hands:
            self.items.outcome(self.check, name, task, FOUND)
        self.hands.clear()
        for name in self.items.entries:
            self.a_person_retries(name)
            self.a_person_answers(name)
        self.give_out()
        for name, task in self.hands:
            self.items.outcome(self.check, name, task, FOUND)
        assert {entry.state for entry in self.items.entries.values()} == {ItemState.DONE}


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)


def test_an_impossible_transition_names_the_item() -> None:
    items = CheckItems("gain", "Gain reference")
    items.add("a")
    with pytest.raises(TransitionError, match="Gain reference: a cannot go from waiting to running"):
        items.running("a")


def test_what_a_check_stumbles_over_is_tried_again_after_a_pause() -> None:
    now = [0.0]
    items = CheckItems("gain", "Gain reference", clock=lambda: now[0])
    items.add("a")

    class Stumbles(Questions):
        def found(self, name: str, result: Mapping[str, Any]) -> None:
            raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        items.outcome(Stumbles(items), "a", items.queued("a"), FOUND)
    assert items.ready() == []
    now[0] = RETRY_SECONDS
    assert items.ready() == ["a"]


def test_pauses_double_up_to_the_longest() -> None:
    assert [pause_after(attempt) for attempt in (1, 2, 3, 7, 10_000)] == [
        RETRY_SECONDS,
        2 * RETRY_SECONDS,
        4 * RETRY_SECONDS,
        LONGEST_SECONDS,
        LONGEST_SECONDS,
    ]
