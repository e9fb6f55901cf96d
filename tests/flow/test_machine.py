"""Whatever happens to the tables of a workflow, they end as those of a session in which nothing happened.

The workflow has a branch, two jobs of one type, a job that joins, one that takes groups, one that follows those, and rounds over what was joined.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.flow import workflow
from beamside.jobs import registry
from beamside.jobs.base import JobType
from beamside.jobs.ports import Input, Output
from beamside.jobs.triggers import Group
from beamside.parameters import ParameterModel, parameter

NAMES = ("a1", "a2", "b1")
CONTENTS = ("good", "other", "bad_left", "bad_right", "odd_first", "bad_first")
JOBS = ("import", "first", "left", "right", "both", "squares", "after")


class LimitParameters(ParameterModel):
    """What changes a result."""

    limit: int = parameter(1, "A limit.")


class SquareParameters(LimitParameters):
    """When a square is complete, and what changes its result."""

    square_size: int = parameter(2, "How many exposures a square has.", ge=0)


@pytest.fixture
def branched(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    class First(toy.Step):  # type: ignore[misc, name-defined]
        Parameters = LimitParameters

    class Choice(toy.Step):  # type: ignore[misc, name-defined]
        name, title, Parameters = "choice", "Choosing", LimitParameters
        inputs = (Input("things", toy.THING),)

    class Both(toy.Step):  # type: ignore[misc, name-defined]
        name, title = "both", "Joining"
        inputs = (Input("one", toy.THING, optional=True), Input("two", toy.THING, optional=True))

    class Squares(toy.Step):  # type: ignore[misc, name-defined]
        name, title, Parameters = "squares", "Squares", SquareParameters
        inputs, outputs = (Input("things", toy.THING, takes="all"),), (Output("things", toy.THING),)
        trigger = Group(expected="square_size")

        def group_of(self, name: str, values: Mapping[str, Any], parameters: Any) -> str:
            return f"squares/{name.rpartition('/')[2][0]}"

    types: tuple[type[JobType], ...] = (First, Choice, Both, Squares)
    for kind in types:
        monkeypatch.setitem(registry.BUILT_IN, kind.name, kind)
    jobs: dict[str, Any] = {
        "import": {"type": "import"},
        "first": {"type": "first", "inputs": {"movies": "import.movies"}},
        "left": {"type": "choice", "inputs": {"things": "first.things"}},
        "right": {"type": "choice", "inputs": {"things": "first.things"}},
        "both": {"type": "both", "inputs": {"one": "left.things", "two": "right.things"}},
        "squares": {"type": "squares", "inputs": {"things": "left.things"}},
        "after": {"type": "choice", "inputs": {"things": "squares.things"}},
        "class2d": {"type": "class2d", "inputs": {"things": "both.things"}},
        "select": {"type": "select", "inputs": {"things": "class2d.things"}},
    }
    monkeypatch.setitem(workflow.SHIPPED, "movies", {"jobs": jobs})
    return toy


def made_by(task: Mapping[str, Any], members: list[Any]) -> dict[str, Any]:
    """What a worker makes of a task: it tells all that the result depends on. The content of a file says what cannot be done with it."""
    label, contents = task["label"], json.dumps(members)
    outcome = {"result": None, "reason": "it is bad", "permanent": True, "log": "", "seconds": 1.0}
    if f"bad_{label}" in contents and not task["round_name"]:
        return outcome
    limits = {name: value for name, value in task["parameters"].items() if name == "limit"}
    left_out = task["left_out"] if task["group"] else {}
    text = json.dumps([label, limits, members, left_out], sort_keys=True)
    values = {"of": hashlib.sha256(text.encode()).hexdigest()[:8], "final": task["final"]}
    metrics = {"extracted": 10.0, "classified": 10.0 * len(members)}
    rejected = "it is odd" if f"odd_{label}" in contents and not task["round_name"] else ""
    made = {"metrics": metrics, "outputs": {}, "values": values, "rejected": rejected, "version": "1"}
    return {**outcome, "result": made, "reason": "", "permanent": False}


class Machine:
    """A toy project to which things happen."""

    def __init__(self, toy: ModuleType, folder: Path, limits: Mapping[str, int]) -> None:
        self.toy, self.folder = toy, folder
        self.limits = dict(limits)
        self.made = toy.Toy(folder, **self.limits)
        self.contents: dict[str, str] = {}
        self.words: dict[tuple[str, str], str] = {}

    def arrive(self, name: str, content: str) -> None:
        self.contents[name] = content
        self.made.arrive(name, content=content)

    def say(self, label: str, name: str, word: str) -> None:
        self.words[label, name] = word
        item = f"squares/{name[0]}" if label in ("squares", "after") else f"raw/{name}"
        self.made.writer.verdict(self.made.stage(label).job.name, item, word, "somebody")

    def change(self, label: str, limit: int) -> None:
        self.limits[f"{label}.limit"] = limit
        new = self.toy.settings_in(self.folder, **self.limits)
        self.made.settings.take_over(new)
        self.made.writer.settings(new.to_json())
        self.made.tables.take_parameters()

    def finish(self, number: int, *, lost: bool = False) -> None:
        """A worker ends, or is lost with what it had."""
        self.made.dispatcher.fill()
        if not self.made.hands.tasks:
            return
        number %= len(self.made.hands.tasks)
        task, _ = self.made.hands.tasks[number]
        if lost:
            self.made.finish(number, RuntimeError("the worker was lost"))
            for stage in self.made.tables.stages:
                stage.not_before.clear()  # the pause before another attempt is over
        else:
            self.made.finish(number, made_by(task, self.members(task)))

    def members(self, task: Mapping[str, Any]) -> list[Any]:
        """What a worker sees of the items that a task is about."""
        if task["members"]:
            names = sorted(task["members"]["names"])  # in the order in which they became ready
            before = self.made.stage(task["members"]["label"])
            return [[name, before.job.items[name].result["values"]["of"]] for name in names]
        seen = []
        for name, results in task["items"]:
            ports = task["wiring"][task["label"]].values()
            given = [(label, results[label]["values"]) for label in ports if label in results]
            seen.append([name, [(label, values.get("of") or values["sha256"]) for label, values in given]])
            if task["round_name"]:
                seen[-1][0] = ""  # rounds may have other numbers
        content = [results["import"]["values"]["sha256"] for _, results in task["items"] if "import" in results]
        return [seen, content]

    def kill(self) -> None:
        self.made.reopen()

    def off(self) -> None:
        self.made.dispatcher.fill()
        while self.made.hands.tasks:
            self.finish(0)
            self.made.dispatcher.fill()

    def round(self, *, final: bool = False) -> bool:
        return bool(self.made.rounds.consider(final=final))

    def end(self) -> dict[str, dict[str, Any]]:
        """Do what is left, to the end, and return what all tables show; of rounds, what the newest was made of."""
        self.made.tables.retry_failed()
        self.off()
        self.made.tables.set_source_ended(True)
        self.off()
        while self.round(final=True):
            self.off()
        stages = self.made.tables.stages
        assert all(stage.settled() for stage in stages)
        assert [stage.name for stage in stages if stage.stale()] == []
        shown = {
            stage.name: {row.item.name: row.result.values.get("of") for row in stage.rows()}
            for stage in stages
            if not stage.job_type.aggregate
        }
        rounds = self.made.stage("class2d").job.items.values()
        newest = [entry.result["values"]["of"] for entry in rounds if entry.result]
        return {**shown, "class2d": {"newest": newest[-1:] if shown["both"] else []}}


happenings = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from(NAMES), st.sampled_from(CONTENTS)),
    st.tuples(st.just("finish"), st.integers(0, 5)),
    st.tuples(st.just("finish"), st.integers(0, 5)),
    st.tuples(st.just("lose"), st.integers(0, 5)),
    st.tuples(st.just("off")),
    st.tuples(
        st.just("say"), st.sampled_from(JOBS), st.sampled_from(NAMES), st.sampled_from(("reject", "accept", "none"))
    ),
    st.tuples(st.just("change"), st.sampled_from(("first", "left", "right", "squares", "after")), st.integers(1, 2)),
    st.tuples(st.just("kill")),
    st.tuples(st.just("retry")),
    st.tuples(st.just("source"), st.booleans()),
    st.tuples(st.just("round")),
)


def happen(machine: Machine, what: str, *details: Any) -> None:
    match what:
        case "arrive":
            machine.arrive(*details)
        case "finish":
            machine.finish(*details)
        case "lose":
            machine.finish(*details, lost=True)
        case "off":
            machine.off()
        case "say":
            machine.say(*details)
        case "change":
            machine.change(*details)
        case "kill":
            machine.kill()
        case "retry":
            machine.made.tables.retry_failed()
        case "source":
            machine.made.tables.set_source_ended(*details)
        case "round":
            machine.round()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(things=st.lists(happenings, max_size=40))
def test_tables_end_as_those_of_a_session_in_which_nothing_happened(
    things: list[tuple[Any, ...]], branched: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("machine")
    limits = {"class_min": 20, "class_increment": 10}
    machine = Machine(branched, folder / "it", limits)
    for happening in things:
        happen(machine, *happening)
    ended = machine.end()

    undisturbed = Machine(branched, folder / "other", machine.limits)
    for (label, name), word in machine.words.items():
        undisturbed.say(label, name, word)
    for name, content in machine.contents.items():
        undisturbed.arrive(name, content)
    assert ended == undisturbed.end()
    machine.made.writer.close()
    undisturbed.made.writer.close()
