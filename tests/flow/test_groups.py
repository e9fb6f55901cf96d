"""Items that belong together are one item of a job: when it is made, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.flow import workflow
from beamside.flow.cost import cost_in
from beamside.jobs import registry
from beamside.jobs.base import JobType
from beamside.jobs.ports import Input, Output
from beamside.jobs.triggers import Group
from beamside.parameters import ParameterModel, parameter
from beamside.project.records import ItemState

FAILURE = {"result": None, "reason": "nothing there", "permanent": True, "log": "", "seconds": 0.0}


class SquareParameters(ParameterModel):
    """When a square is complete, and something that changes its result."""

    square_size: int = parameter(0, "How many exposures a square has.", ge=0)
    square_quiet: float = parameter(0.0, "Minutes.", ge=0)
    square_limit: int = parameter(1, "A limit.")


@pytest.fixture
def squares(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import, `first` and `second`; `squares` of all with the same letter; and `after`, which takes each square."""

    class Squares(toy.Step):  # type: ignore[misc, name-defined]
        name, title, Parameters = "squares", "Squares", SquareParameters
        inputs, outputs = (Input("things", toy.THING, takes="all"),), (Output("things", toy.THING),)
        trigger = Group(expected="square_size", quiet="square_quiet")

        def group_of(self, name: str, values: Mapping[str, Any], parameters: Any) -> str:
            stem = name.rpartition("/")[2]
            return "" if stem.startswith("x") else f"squares/{stem[0]}"

    class After(toy.Step):  # type: ignore[misc, name-defined]
        name, title = "after", "After"
        inputs = (Input("things", toy.THING),)

    types: tuple[type[JobType], ...] = (Squares, After)
    for kind in types:
        monkeypatch.setitem(registry.BUILT_IN, kind.name, kind)
    jobs: dict[str, Any] = {
        "import": {"type": "import"},
        "first": {"type": "first", "inputs": {"movies": "import.movies"}},
        "second": {"type": "second", "inputs": {"things": "first.things"}},
        "squares": {"type": "squares", "inputs": {"things": "second.things"}},
        "after": {"type": "after", "inputs": {"things": "squares.things"}},
    }
    monkeypatch.setitem(workflow.SHIPPED, "movies", {"jobs": jobs})
    return toy


class Work:
    """A toy project, and what was made of which members."""

    def __init__(self, toy: ModuleType, folder: Path, **values: Any) -> None:
        self.toy, self.made, self.rounds = toy, toy.Toy(folder, **values), list[tuple[str, list[str], dict[str, str]]]()

    def off(self, keep: str = "") -> list[tuple[str, list[str], dict[str, str]]]:
        """Do all that can be done, but not the tasks of the item `keep`; return what squares were made, of what."""
        self.rounds = []
        while True:
            self.made.dispatcher.fill()
            tasks = [task for task, _ in self.made.hands.tasks]
            number = next((number for number, task in enumerate(tasks) if task["items"][0][0] != f"raw/{keep}"), None)
            if number is None:
                return self.rounds
            self.made.finish(number, self.outcome(tasks[number]))

    def outcome(self, task: Mapping[str, Any]) -> dict[str, Any] | None:
        members = [name[4:] for name, _ in task["items"]]
        values: dict[str, Any] = {"made_of": members}
        if task["label"] == "squares":
            self.rounds.append((task["group"], members, dict(task["left_out"])))
            assert all({"import", "first", "second"} == set(results) for _, results in task["items"])
            values["contents"] = [results["import"]["values"]["sha256"] for _, results in task["items"]]
        elif task["label"] != "after":
            return None
        else:
            [(_, results)] = task["items"]
            assert list(results) == ["squares"], "a square has no results of its members"
            values = dict(results["squares"]["values"])
        made = {"metrics": {}, "outputs": {}, "values": values, "rejected": "", "version": "1"}
        return {"result": made, "reason": "", "permanent": False, "log": "", "seconds": 1.0}

    def results(self) -> dict[str, dict[str, Any]]:
        """What the tables of the squares, and of what follows them, show."""
        return {
            label: {row.item.name: dict(row.result.values) for row in self.made.stage(label).rows()}
            for label in ("squares", "after")
        }

    def end(self) -> list[tuple[str, list[str], dict[str, str]]]:
        self.made.tables.set_source_ended(True)
        return self.off()


@pytest.fixture
def work(squares: ModuleType, tmp_path: Path) -> Work:
    return Work(squares, tmp_path)


def fresh(squares: ModuleType, folder: Path, contents: Mapping[str, str], **values: Any) -> dict[str, dict[str, Any]]:
    """What a session has that these files came to, and nothing else happened in."""
    other = Work(squares, folder, **values)
    for name, content in contents.items():
        other.made.arrive(name, content=content)
    other.off()
    other.end()
    return other.results()


def test_a_group_waits_for_the_end_of_the_source_and_is_made_of_all_its_members(work: Work) -> None:
    work.made.arrive("b1", "a2", "a1", "x1")
    assert work.off() == []
    assert work.made.stage("squares").settled(), "that more may come keeps no session from its end"
    assert work.end() == [("squares/b", ["b1"], {}), ("squares/a", ["a1", "a2"], {})]
    assert work.results()["after"]["squares/a"]["made_of"] == ["a1", "a2"]
    assert all(stage.settled() for stage in work.made.tables.stages)


def test_a_group_is_made_as_soon_as_it_has_as_many_members_as_belong_to_it(squares: ModuleType, tmp_path: Path) -> None:
    work = Work(squares, tmp_path, square_size=2)
    work.made.arrive("a1")
    assert work.off() == []
    work.made.arrive("a2")
    assert work.off() == [("squares/a", ["a1", "a2"], {})]


def test_a_group_is_made_when_nothing_more_has_come_for_long(squares: ModuleType, tmp_path: Path) -> None:
    work, now = Work(squares, tmp_path, square_quiet=10.0), [1000.0]
    work.made.stage("squares").groups.clock = lambda: now[0]
    work.made.arrive("a1")
    work.off()
    now[0] += 500
    work.made.arrive("a2")
    work.off()
    now[0] += 599
    assert work.off() == []
    now[0] += 1
    assert work.off() == [("squares/a", ["a1", "a2"], {})]


def test_a_member_that_is_still_processed_is_waited_for(work: Work) -> None:
    work.made.arrive("a1", "a2")
    work.made.tables.set_source_ended(True)
    assert work.off(keep="a2") == []
    assert work.off() == [("squares/a", ["a1", "a2"], {})]


def test_a_late_member_is_taken_in_and_the_old_result_stays_until_then(
    work: Work, squares: ModuleType, tmp_path: Path
) -> None:
    work.made.arrive("a1")
    work.off()
    work.end()
    old = work.results()
    work.made.tables.set_source_ended(False)
    work.made.arrive("a2")
    work.made.dispatcher.fill()
    assert work.results() == old
    assert work.off() == [("squares/a", ["a1", "a2"], {})]
    assert work.results() == fresh(squares, tmp_path / "fresh", {"a1": "a", "a2": "a"})


@pytest.mark.parametrize(("content", "why"), [("bad", "given up"), ("odd", "given up")])
def test_a_lost_member_is_told_and_the_group_is_made_without_it(work: Work, content: str, why: str) -> None:
    work.made.arrive("a1")
    work.made.arrive("a2", content=content)
    work.off()
    assert work.end() == [("squares/a", ["a1"], {"raw/a2": why})]


def test_a_group_of_which_nothing_is_left_fails_and_comes_back_with_its_members(work: Work) -> None:
    work.made.arrive("a1")
    work.off()
    work.made.writer.verdict(work.made.stage("first").job.name, "raw/a1", "reject", "somebody")
    work.off()
    assert work.end() == []
    assert work.results() == {"squares": {}, "after": {}}
    assert work.made.stage("squares").entry("squares/a").state is ItemState.FAILED
    work.made.writer.verdict(work.made.stage("first").job.name, "raw/a1", "none", "somebody")
    assert work.off() == [("squares/a", ["a1"], {})]


def test_a_member_that_comes_with_another_content_makes_the_group_anew(
    work: Work, squares: ModuleType, tmp_path: Path
) -> None:
    work.made.arrive("a1", "a2")
    work.off()
    work.end()
    work.made.arrive("a2", content="other")
    assert work.off() == [("squares/a", ["a1", "a2"], {})]
    assert work.results() == fresh(squares, tmp_path / "fresh", {"a1": "a", "a2": "other"})


def test_a_member_that_is_made_again_alike_leaves_the_group_as_it_is(work: Work) -> None:
    work.made.arrive("a1", "a2")
    work.off()
    work.end()
    work.made.tables.redo(work.made.stage("second"), "raw/a1", "its file was lost")
    assert work.off() == []


@pytest.mark.parametrize("label", ["import", "first", "second"])
def test_a_member_that_a_person_takes_out_and_puts_back(
    work: Work, squares: ModuleType, tmp_path: Path, label: str
) -> None:
    work.made.arrive("a1", "a2")
    work.off()
    work.end()
    whole = work.results()
    job = work.made.stage(label).job.name
    work.made.writer.verdict(job, "raw/a1", "reject", "somebody")
    assert work.off() == [("squares/a", ["a2"], {"raw/a1": "taken out"})]
    assert work.results()["after"]["squares/a"]["made_of"] == ["a2"]
    work.made.writer.verdict(job, "raw/a1", "none", "somebody")
    assert work.off() == [("squares/a", ["a1", "a2"], {})]
    assert work.results() == whole == fresh(squares, tmp_path / "fresh", {"a1": "a", "a2": "a"})


def test_a_whole_group_can_be_taken_out_too(work: Work) -> None:
    work.made.arrive("a1", "b1")
    work.off()
    work.end()
    work.made.writer.verdict(work.made.stage("squares").job.name, "squares/a", "reject", "somebody")
    assert work.off() == []
    assert list(work.results()["after"]) == ["squares/b"]


def test_nothing_is_computed_again_after_a_kill(work: Work) -> None:
    work.made.arrive("a1", "a2", "b1")
    work.off()
    work.end()
    before = work.made.table()
    work.made.reopen()
    assert work.off() == []
    assert work.made.table() == before


def test_a_kill_while_a_group_is_made_makes_it_again(work: Work) -> None:
    work.made.arrive("a1", "a2")
    work.off()
    work.made.tables.set_source_ended(True)
    work.made.dispatcher.fill()
    work.made.reopen()
    assert work.off() == [("squares/a", ["a1", "a2"], {})], "it was complete before"


def test_what_was_made_of_which_members_is_in_the_journal(work: Work) -> None:
    work.made.arrive("a2", "a1")
    work.off()
    work.end()
    entry = work.made.project.load().job_labelled("squares").items["squares/a"]
    assert entry.members == ("raw/a1", "raw/a2")


def test_the_cost_of_a_change_tells_the_groups(work: Work, squares: ModuleType, tmp_path: Path) -> None:
    work.made.arrive("a1", "a2", "b1")
    work.off()
    work.end()
    changed = squares.settings_in(tmp_path, square_limit=2)
    assert [(cost.title, cost.results) for cost in cost_in(changed, work.made.project.load())] == [
        ("Squares", 2),
        ("After", 2),
    ]
    work.made.settings.take_over(changed)
    assert work.made.tables.take_parameters() == 4
    assert [name for name, _, _ in work.off()] == ["squares/a", "squares/b"]
    assert work.made.stage("after").stale() == []


def test_a_file_of_a_member_that_is_gone_is_made_again_first(
    work: Work, monkeypatch: pytest.MonkeyPatch, squares: ModuleType
) -> None:
    kind = registry.BUILT_IN["squares"]
    monkeypatch.setattr(kind, "inputs", (Input("things", squares.THING, takes="all", reads=("image",)),))
    made = work.made
    root = made.project.root

    def with_image(task: Mapping[str, Any]) -> dict[str, Any]:
        outcome = squares.result_of(task)
        path = root / f"{task['items'][0][0]}.{task['label']}"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        outcome["result"]["outputs"] = {"image": path.relative_to(root).as_posix()}
        return dict(outcome)

    usual = work.outcome
    monkeypatch.setattr(work, "outcome", lambda task: usual(task) or with_image(task))
    made.arrive("a1", "a2")
    work.off()
    (root / "raw/a1.second").unlink()
    assert work.end() == [("squares/a", ["a1", "a2"], {})]
    assert (root / "raw/a1.second").exists()
