"""The command that changes rules, and what other rules would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.flow.commands import Gate
from beamside.flow.gate import is_shut
from beamside.flow.preview import Preview, preview, preview_words
from beamside.flow.rules import all_rules, changed_rules
from beamside.flow.settings import SessionSettings
from beamside.flow.verdicts import give_word, meant


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    run = toy.Toy(tmp_path)
    for number in (1, 2, 3):
        run.arrive(f"m{number}", content=f"s{30 * number}")
    run.work_off()
    yield run
    run.writer.close()


class Holder:
    """Whoever holds the lease."""

    check = None

    def __init__(self, run: Any) -> None:
        self.run, self.writer = run, run.writer
        self.changes = 0

    @property
    def settings(self) -> SessionSettings:
        return self.run.settings  # type: ignore[no-any-return]

    def change(self, values: Mapping[str, Any]) -> Any:
        self.changes += 1
        self.settings.take_over(SessionSettings.from_flat({**self.settings.to_json(), **values}))


def with_rules(run: Any, *rules: str) -> SessionSettings:
    return SessionSettings.from_flat({**run.settings.to_json(), "gate": rules})


def test_the_command_may_be_carried_out_twice(run: Any) -> None:
    holder: Any = Holder(run)
    command = Gate(add=("first.score > 40",))
    assert command.carry_out(holder, "ana") == "The rules are: first.score > 40 %."
    assert command.carry_out(holder, "ana") == "The session has these rules already."
    command = Gate(remove=("first.score",), add=("second.score > 40",))
    assert command.carry_out(holder, "ana") == "The rules are: second.score > 40 %."
    assert command.carry_out(holder, "ana") == "The session has these rules already."
    assert Gate(remove=("second.score>40",)).carry_out(holder, "ana") == "There are no rules now."
    assert holder.changes == 3
    with pytest.raises(ConfigError, match="no metric"):
        Gate(add=("first.scor < 3",)).carry_out(holder, "ana")


def test_a_rule_that_is_not_there_is_told_with_those_that_are(run: Any) -> None:
    now = with_rules(run, "first.score > 40")
    with pytest.raises(ConfigError, match=r"none of the session's rules; they are: first\.score > 40 %\."):
        changed_rules(now, (), ("first.score > 50",))
    assert changed_rules(now, ("second.score<9",), ("first.score > 40 %",)) == ("second.score < 9 %",)
    assert all_rules(now) == [("first.score > 40 %", "--gate")]


def looked_at(run: Any, *rules: str) -> Preview:
    return preview(with_rules(run, *rules), run.project.load())


def test_a_preview_tells_what_is_held_back_and_what_comes_back(run: Any) -> None:
    found = looked_at(run, "first.score > 40", "second.score < 80")
    assert [(gate.title, gate.results, gate.held, gate.opened) for gate in found.gates] == [
        ("First step", 3, ("raw/m1",), ()),
        ("Second step", 3, ("raw/m3",), ()),
    ]
    run.writer.rules(run.stage("first").job.name, run.stage("first").job.rules)
    run.settings.take_over(with_rules(run, "first.score > 80"))
    run.tables.take_parameters()
    run.arrive("m4", content="s70")
    run.work_off()
    found = looked_at(run)
    assert [(gate.held, gate.opened, gate.to_process) for gate in found.gates] == [
        ((), ("raw/m1", "raw/m2", "raw/m4"), 1)
    ]
    assert not looked_at(run, "first.score > 80"), "nothing changes"


def test_a_preview_leaves_out_what_a_person_has_spoken_of(run: Any) -> None:
    give_word(run.writer, "accept", ["raw/m1"], "first", "ana")
    give_word(run.writer, "reject", ["raw/m3"], "first", "ana")
    assert not looked_at(run, "first.score > 40")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.sets(st.sampled_from(["first.score > 40", "second.score > 70", "third.score < 50"])),
    after=st.sets(st.sampled_from(["first.score > 80", "second.score > 40", "third.score < 50"])),
    words=st.dictionaries(st.sampled_from(["m1", "m2", "m3"]), st.sampled_from(["accept", "reject", "none"])),
)
def test_what_a_preview_says_is_what_happens(
    run: Any, before: set[str], after: set[str], words: dict[str, Any]
) -> None:
    run.settings.take_over(with_rules(run, *before))
    run.tables.take_parameters()
    for name, word in words.items():
        give_word(run.writer, word, [f"raw/{name}"], "second", "ana")

    def gate_of(stage: Any) -> set[str]:
        return {name for name in stage.job.items if is_shut(stage.job, name)}

    stages = [stage for stage in run.tables.stages if not stage.job_type.aggregate]
    was = {stage.title: gate_of(stage) for stage in stages}
    said = {gate.title: gate for gate in looked_at(run, *after).gates}
    run.settings.take_over(with_rules(run, *after))
    run.tables.take_parameters()
    for stage in stages:
        now = gate_of(stage)
        gate = said.get(stage.title)
        assert set(gate.held if gate else ()) == now - was[stage.title]
        assert set(gate.opened if gate else ()) == was[stage.title] - now
    for name in words:
        give_word(run.writer, "none", [f"raw/{name}"], "second", "ana")


def test_a_preview_of_a_word_knows_what_the_job_itself_has_rejected(run: Any) -> None:
    run.arrive("m4", content="odd")
    run.work_off()
    state = run.project.load()
    about = meant(state, "accept", ["m4"], "")
    found = preview_words(run.settings, state, "accept", about)
    assert [(gate.title, gate.held, gate.opened, gate.to_process) for gate in found.gates] == [
        ("First step", (), ("raw/m4",), 1)
    ]
