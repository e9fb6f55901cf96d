"""A workflow with branches: two jobs of one type on the same items, and what joins them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.flow import workflow
from beamside.flow.cost import cost_in
from beamside.flow.preview import Preview, preview
from beamside.flow.settings import SessionSettings
from beamside.flow.verdicts import give_word
from beamside.jobs import registry
from beamside.jobs.base import JobType
from beamside.jobs.ports import Input, Output
from beamside.jobs.worker import Task, items_in
from beamside.parameters import ParameterModel, parameter
from beamside.project.records import ItemState, Word


class LimitParameters(ParameterModel):
    """One parameter, and one that came later."""

    limit: int = parameter(1, "A limit.")


@pytest.fixture
def branches(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import, then `first`; `left` and `right` of one type beside each other; `both` of the two; and `aside`, which nothing follows."""

    class Choice(toy.Step):  # type: ignore[misc, name-defined]
        name, title, Parameters = "choice", "Choosing", LimitParameters
        inputs = (Input("things", toy.THING),)
        outputs = (Output("things", toy.THING),)

    class Both(toy.Step):  # type: ignore[misc, name-defined]
        name, title = "both", "Joining"
        inputs = (Input("one", toy.THING, optional=True), Input("two", toy.THING, optional=True))

    types: tuple[type[JobType], ...] = (Choice, Both)
    for kind in types:
        monkeypatch.setitem(registry.BUILT_IN, kind.name, kind)
    jobs: dict[str, Any] = {
        "import": {"type": "import"},
        "first": {"type": "first", "inputs": {"movies": "import.movies"}},
        "left": {"type": "choice", "inputs": {"things": "first.things"}},
        "right": {"type": "choice", "parameters": {"limit": 2}, "inputs": {"things": "first.things"}},
        "aside": {"type": "choice", "inputs": {"things": "first.things"}},
        "both": {"type": "both", "inputs": {"one": "left.things", "two": "right.things"}},
    }
    jobs["class2d"] = {"type": "class2d", "inputs": {"things": "both.things"}}
    monkeypatch.setitem(workflow.SHIPPED, "movies", {"jobs": jobs})
    return toy


FAILURE = {"result": None, "reason": "nothing there", "permanent": True, "log": "", "seconds": 0.0}


def finish(made: Any, label: str, outcome: Any = None) -> None:
    """Let the worker that has a task of the job `label` end."""
    made.dispatcher.fill()
    number = next(number for number, (task, _) in enumerate(made.hands.tasks) if task["label"] == label)
    made.finish(number, outcome)


def begun(branches: ModuleType, tmp_path: Any) -> Any:
    made = branches.Toy(tmp_path)
    made.dispatcher.places.workers = 8
    made.arrive("a")
    finish(made, "first")
    return made


def test_several_jobs_of_a_type_have_their_own_numbers_parameters_and_results(
    branches: ModuleType, tmp_path: Any
) -> None:
    made = begun(branches, tmp_path)
    made.work_off()
    left, right = made.stage("left"), made.stage("right")
    assert left.job.name != right.job.name
    assert (left.job.alias, right.job.alias) == ("left", "right")
    assert left.job.items["raw/a"].key != right.job.items["raw/a"].key
    assert (left.title, made.stage("both").title) == ("Choosing (left)", "Joining")
    assert made.stage("both").job.ports == {"one": f"{left.job.name}.things", "two": f"{right.job.name}.things"}


def test_what_joins_two_branches_waits_for_both(branches: ModuleType, tmp_path: Any) -> None:
    made = begun(branches, tmp_path)
    finish(made, "left")
    made.dispatcher.fill()
    assert "both" not in [task["label"] for task, _ in made.hands.tasks]
    finish(made, "right")
    made.dispatcher.fill()
    [task] = [task for task, _ in made.hands.tasks if task["label"] == "both"]
    assert task["wiring"]["both"] == {"one": "left", "two": "right"}
    assert {"left", "right"} <= task["items"][0][1].keys()


@pytest.mark.parametrize("order", [("left", "right"), ("right", "left")])
def test_what_one_branch_has_given_up_is_joined_without_it_whichever_comes_first(
    branches: ModuleType, tmp_path: Any, order: tuple[str, str]
) -> None:
    made = begun(branches, tmp_path)
    for label in order:
        finish(made, label, FAILURE if label == "left" else None)
    made.dispatcher.fill()
    [task] = [task for task, _ in made.hands.tasks if task["label"] == "both"]
    assert "left" not in task["items"][0][1]
    made.work_off()
    assert made.stage("both").usable("raw/a")
    key = made.stage("both").job.items["raw/a"].key
    made.tables.retry_failed()
    made.work_off()
    assert made.stage("both").job.items["raw/a"].key != key, "with the other branch, it is another result"
    assert made.stage("both").stale() == []


def test_what_all_branches_have_given_up_is_given_up(branches: ModuleType, tmp_path: Any) -> None:
    made = begun(branches, tmp_path)
    finish(made, "left", FAILURE)
    finish(made, "right", FAILURE)
    made.work_off()
    entry = made.stage("both").entry("raw/a")
    assert entry is None or entry.state is ItemState.FAILED
    assert all(stage.settled() for stage in made.tables.stages)


def test_another_parameter_of_a_job_that_nothing_follows_recomputes_nothing_else(
    branches: ModuleType, tmp_path: Any
) -> None:
    made = begun(branches, tmp_path)
    made.work_off()
    state = made.writer.state
    other = branches.settings_in(tmp_path, **{"aside.limit": 5})
    assert {cost.title: cost.results for cost in cost_in(other, state)} == {"Choosing (aside)": 1}
    other = branches.settings_in(tmp_path, **{"left.limit": 5})
    assert {cost.title: cost.results for cost in cost_in(other, state)} == {"Choosing (left)": 1, "Joining": 1}


def test_a_project_with_branches_goes_on_after_its_process_was_killed(branches: ModuleType, tmp_path: Any) -> None:
    made = begun(branches, tmp_path)
    finish(made, "left")
    made.reopen()
    made.work_off()
    before = made.table()
    made.reopen()
    made.work_off()
    assert made.table() == before
    assert made.stage("both").usable("raw/a")


def hold_back(made: Any, job: str, word: str = "reject") -> None:
    give_word(made.writer, cast(Word, word), ["raw/a"], job, "ana")


def tasks(made: Any) -> list[tuple[str, list[str]]]:
    """What the workers have: the job, and the results that it is given."""
    made.dispatcher.fill()
    return [(task["label"], sorted(task["items"][0][1])) for task, _ in made.hands.tasks]


def test_what_a_gate_holds_back_of_one_branch_is_joined_without_it_and_again_with_it_when_it_opens(
    branches: ModuleType, tmp_path: Any
) -> None:
    made = begun(branches, tmp_path)
    finish(made, "left")
    hold_back(made, "left")
    finish(made, "right")
    assert ("both", ["first", "import", "right"]) in tasks(made)
    made.work_off()
    both = made.stage("both")
    assert both.usable("raw/a")
    assert [row.item.name for row in both.rows()] == ["raw/a"]
    alone = both.job.items["raw/a"].key
    assert both.stale() == []
    made.reopen()
    assert tasks(made) == []
    hold_back(made, "left", "none")
    assert tasks(made) == [("both", ["first", "import", "left", "right"])]
    made.work_off()
    assert made.stage("both").job.items["raw/a"].key != alone
    undisturbed = begun(branches, tmp_path / "other")
    undisturbed.work_off()
    assert made.table() == undisturbed.table()


def test_a_gate_that_changes_while_what_it_joins_is_made_leads_to_the_same_end(
    branches: ModuleType, tmp_path: Any
) -> None:
    made = begun(branches, tmp_path)
    finish(made, "left")
    finish(made, "right")
    made.dispatcher.fill()
    hold_back(made, "left")
    made.work_off()
    assert made.stage("both").rows()[0].item.inputs.keys() == {"two"}
    hold_back(made, "left", "none")
    made.work_off()
    undisturbed = begun(branches, tmp_path / "other")
    undisturbed.work_off()
    assert made.table() == undisturbed.table()


def test_what_all_branches_hold_back_waits_and_keeps_nothing_from_its_end(branches: ModuleType, tmp_path: Any) -> None:
    made = begun(branches, tmp_path)
    finish(made, "left")
    finish(made, "right", FAILURE)
    hold_back(made, "left")
    made.work_off()
    assert made.stage("both").to_do() == 0
    assert all(stage.settled() for stage in made.tables.stages)
    hold_back(made, "left", "none")
    made.work_off()
    assert made.stage("both").usable("raw/a")


@pytest.fixture
def longer_branch(branches: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """With `cut` between `left` and `both`."""
    jobs = cast(Any, workflow.SHIPPED["movies"])["jobs"]
    more = {
        "cut": {"type": "choice", "inputs": {"things": "left.things"}},
        "both": {"type": "both", "inputs": {"one": "cut.things", "two": "right.things"}},
    }
    monkeypatch.setitem(workflow.SHIPPED, "movies", {"jobs": {**jobs, **more}})
    return branches


def work_off_counted(made: Any, branches: ModuleType) -> None:
    """Do all that can be done; ten things are joined each time."""
    made.dispatcher.fill()
    while made.hands.tasks:
        task = made.hands.tasks[0][0]
        result = branches.result_of_round(task) if task["round_name"] else branches.result_of(task)
        if task["label"] == "both":
            result["result"]["metrics"] = {"extracted": 10.0}
        made.finish(0, result)
        made.dispatcher.fill()


def told_again(made: Any) -> list[str]:
    return [trouble.sentence for trouble in made.tables.again.troubles()]


@pytest.mark.parametrize("first", ["word", "redo"])
@pytest.mark.parametrize("killed", [False, True])
def test_what_a_gate_keeps_from_being_made_again_in_one_branch_keeps_no_round_from_beginning(
    longer_branch: ModuleType, tmp_path: Any, first: str, killed: bool
) -> None:
    made = begun(longer_branch, tmp_path)
    work_off_counted(made, longer_branch)
    assert made.rounds.consider(final=True)
    work_off_counted(made, longer_branch)
    before = made.table()
    if first == "word":
        hold_back(made, "left")
    made.tables.redo(made.stage("cut"), "raw/a", "asked for")
    if first == "redo":
        assert told_again(made) == ["Choosing (cut): 1 result is computed again (asked for)."]
        hold_back(made, "left")
    if killed:
        made.reopen()
    work_off_counted(made, longer_branch)
    assert told_again(made) == [], "nothing is made of it until the gate opens"
    assert made.stage("both").usable("raw/a")
    assert made.rounds.consider(final=True), "the particles are others now"
    work_off_counted(made, longer_branch)
    hold_back(made, "left", "none")
    made.tables.take_gates()
    assert "Choosing (cut): 1 result is computed again (asked for)." in told_again(made)
    assert not made.rounds.consider(final=True), "the branch is underway again"
    work_off_counted(made, longer_branch)
    assert told_again(made) == []
    assert {job: made.table()[job] for job in ("cut", "both")} == {job: before[job] for job in ("cut", "both")}


def test_a_round_over_what_was_joined_is_given_what_each_was_made_from(branches: ModuleType, tmp_path: Any) -> None:
    made = begun(branches, tmp_path)
    made.arrive("b")
    made.dispatcher.fill()
    while made.hands.tasks:
        task = made.hands.tasks[0][0]
        lost = task["label"] == "left" and task["items"][0][0] == "raw/b"
        result = {**branches.result_of(task), **(FAILURE if lost else {})}
        if not lost and task["label"] == "both":
            result["result"]["metrics"] = {"extracted": 10.0}
        made.finish(0, result)
        made.dispatcher.fill()
    assert made.rounds.consider(final=True)
    [task] = [task for task, _ in made.hands.tasks if task["label"] == "class2d"]
    given = {item.name: item.inputs["things"] for item in items_in(Task(**task))}
    assert set(given["raw/a"].inputs) == {"one", "two"}
    assert set(given["raw/b"].inputs) == {"two"}, "what has failed is not there"
    assert given["raw/b"].inputs["two"].inputs["things"].inputs["movies"].value("sha256") == "a"


@pytest.mark.parametrize("late", [False, True])
def test_what_a_gate_keeps_from_a_join_is_left_out_of_it_whenever_the_gate_is_shut(
    branches: ModuleType, tmp_path: Any, late: bool
) -> None:
    made = begun(branches, tmp_path)
    if late:
        made.work_off()
    made.writer.verdict(made.stage("left").job.name, "raw/a", "reject", "somebody")
    made.work_off()
    both = made.stage("both")
    assert "one" not in both.rows()[0].item.inputs
    without = both.job.items["raw/a"].key
    made.writer.verdict(made.stage("left").job.name, "raw/a", "none", "somebody")
    made.work_off()
    assert both.rows()[0].item.inputs.keys() == {"one", "two"}
    assert both.job.items["raw/a"].key != without


def test_a_join_of_which_a_gate_keeps_everything_is_as_before_when_it_opens(
    branches: ModuleType, tmp_path: Any
) -> None:
    made = begun(branches, tmp_path)
    made.work_off()
    before = made.table()["both"]
    for word in ("reject", "none"):
        for label in ("left", "right"):
            made.writer.verdict(made.stage(label).job.name, "raw/a", word, "somebody")
        made.dispatcher.fill()
        assert made.hands.tasks == [], "nothing is computed"
        assert len(made.stage("both").rows()) == (word == "none")
    assert made.table()["both"] == before


STEP = st.one_of(
    st.tuples(st.just("rule"), st.lists(st.sampled_from(["left.score > 50", "right.score < 50", "first.score > 30"]))),
    st.tuples(
        st.just("say"),
        st.tuples(
            st.sampled_from(["accept", "reject", "none"]),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["first", "left", "right", "both"]),
        ),
    ),
    st.tuples(st.just("fail"), st.sampled_from(["left", "right"])),
    st.tuples(st.sampled_from(["fill", "finish", "last", "reopen"]), st.none()),
)


def follow(made: Any, what: str, how: Any) -> None:
    running = [task["label"] for task, _ in made.hands.tasks]
    if what == "rule":
        new = SessionSettings.from_flat({**made.settings.to_json(), "gate": how})
        made.writer.settings(new.to_json())
        made.settings.take_over(new)
        made.tables.take_parameters()
    elif what == "say" and made.stage(how[2]).entry(f"raw/{how[1]}"):
        give_word(made.writer, how[0], [f"raw/{how[1]}"], how[2], "ana")
    elif what == "fail" and how in running:
        made.finish(running.index(how), FAILURE)
    elif what == "fill":
        made.dispatcher.fill()
    elif what in ("finish", "last") and running:
        made.finish(0 if what == "finish" else -1)
    elif what == "reopen":
        made.reopen()
        made.dispatcher.workers = 8


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=20))
def test_whatever_gates_there_were_before_what_joins_the_end_is_as_without(
    branches: ModuleType, steps: list[tuple[str, Any]]
) -> None:
    ends = []
    for said in ([], steps):
        with TemporaryDirectory() as folder:
            made = branches.Toy(Path(folder))
            made.dispatcher.workers = 8
            made.arrive("a", content="s40")
            made.arrive("b", content="s60")
            for what, how in said:
                follow(made, what, how)
                joined = {row.item.name for row in made.stage("both").rows()}
                for name in joined:  # never of what is held back, and never of nothing
                    assert not all(made.stage(side).is_shut(name) for side in ("left", "right"))
            for job, item in list(made.writer.state.verdicts):
                give_word(made.writer, "none", [item], job, "ana")
            follow(made, "rule", [])
            made.tables.retry_failed()
            made.work_off()
            rows = [{row.item.name for row in stage.rows()} for stage in made.tables.stages]
            assert all(stage.settled() for stage in made.tables.stages)
            ends.append((made.table(), rows))
            made.writer.close()
    assert ends[0] == ends[1]


def test_a_preview_tells_what_is_joined_again(branches: ModuleType, tmp_path: Any) -> None:
    made = branches.Toy(tmp_path)
    for name, score in (("a", 40), ("b", 60)):
        made.arrive(name, content=f"s{score}")
    made.work_off()

    def looked_at(*rules: str) -> Preview:
        return preview(SessionSettings.from_flat({**made.settings.to_json(), "gate": rules}), made.project.load())

    assert looked_at("left.score > 50").again == (("Joining", 1),)
    assert looked_at("first.score > 50").again == (), "without any of its inputs, it is held back as it is"
    assert looked_at("aside.score > 50").again == ()
    follow(made, "rule", ["left.score > 50"])
    assert tasks(made) == [("both", ["first", "import", "right"])]
    made.work_off()
    assert looked_at().again == (("Joining", 1),)
    made.writer.close()
