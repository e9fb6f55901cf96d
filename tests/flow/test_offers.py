"""One thing for all items of a job, taken from a round of another: the first is used, newer ones are offered, and nothing is redone unasked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.errors import ConfigError, ProjectError
from beamside.flow import workflow
from beamside.flow.cost import results_of
from beamside.flow.offers import Offers, offers_in
from beamside.jobs import registry
from beamside.jobs.base import Metric
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.jobs.triggers import Group
from beamside.project.records import ItemState

SHAPE = ItemKind("shape", "Shapes", files={"shape": "what to look for"}, counted="shapes")

JOBS: dict[str, Any] = {
    "import": {"type": "import"},
    "first": {"type": "first", "inputs": {"movies": "import.movies"}},
    "seek": {"type": "seek", "inputs": {"things": "first.things", "shape": "select.shape"}},
    "recut": {"type": "third", "inputs": {"things": "seek.things"}},
    "later": {"type": "class2d", "inputs": {"things": "recut.things"}},
    "second": {"type": "second", "inputs": {"things": "first.things"}},
    "third": {"type": "third", "inputs": {"things": "second.things"}},
    "class2d": {"type": "class2d", "inputs": {"things": "third.things"}},
    "select": {"type": "select", "inputs": {"things": "class2d.things"}},
}
"""The second part stands before the first in the file, and follows it."""


class Run:
    """A project whose rounds of selection give a shape that a test says."""

    def __init__(self, toy: ModuleType, folder: Path) -> None:
        self.toy, self.shape = toy, "round"
        self.made = toy.Toy(folder, **{"class2d.class_min": 10, "later.class_min": 10})
        self.done: Counter[str] = Counter()
        self.open()

    def open(self) -> None:
        self.offers = Offers(self.made.tables)
        self.made.dispatcher.places.workers = 8

    def kill(self) -> None:
        self.made.reopen()
        self.open()

    def begin(self) -> None:
        """What a session's loop does at each turn."""
        self.offers.consider()
        self.made.rounds.consider(final=False)
        self.made.dispatcher.fill()

    def finish(self, number: int = 0) -> None:
        """Let a worker end; a selection writes over the shape of the one before."""
        task, _ = self.made.hands.tasks[number]
        self.done[f"{task['label']} {task['round_name'] or task['items'][0][0][4:]}"] += 1
        outcome = self.toy.result_of(task)
        if task["label"] == "select" and self.shape:
            path = self.made.project.root / task["job"] / "shape.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.shape)
            outcome["result"]["outputs"] = {"shape": f"{task['job']}/shape.txt"}
            outcome["result"]["metrics"] |= {"shapes": 1.0, "size": float(len(self.shape))}
        if task["label"] == "seek":
            given = task["shared"]["shape"]["outputs"]["shape"]
            outcome["result"]["values"]["with"] = (self.made.project.root / given).read_text()
        self.made.finish(number, outcome)

    def work_off(self) -> Counter[str]:
        """Do all that can be done; returns what was."""
        before = Counter(self.done)
        self.begin()
        while self.made.hands.tasks:
            self.finish()
            self.begin()
        return self.done - before

    def round(self, shape: str, *items: str) -> Counter[str]:
        """Let more items come, and with them a round that gives a shape."""
        self.shape = shape
        self.made.arrive(*items)
        return self.work_off()

    def offered(self) -> list[tuple[str, str]]:
        return [(one.stage.label, one.version.item) for one in offers_in(self.made.tables.stages) if not one.declined]

    def with_(self) -> dict[str, str]:
        """With what each item was looked for."""
        entries = self.made.stage("seek").job.items.values()
        return {entry.name[4:]: entry.result["values"]["with"] for entry in entries if entry.result is not None}

    def rejected(self) -> set[tuple[str, str]]:
        """What a person holds back, by job and item."""
        words = [(stage.label, stage.job.words) for stage in self.made.tables.stages]
        return {(label, name[4:]) for label, said in words for name, word in said.items() if word == "reject"}

    def told(self) -> list[str]:
        problems = self.made.writer.state.problems.values()
        return [entry.sentence for entry in problems if entry.open and entry.key.startswith(("offer:", "shared:"))]


@pytest.fixture
def seeking(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    class Choose(toy.Choose):  # type: ignore[misc, name-defined]
        outputs = (Output("things", toy.THING), Output("shape", SHAPE))
        metrics = (Metric("size", "Size"),)

    class Measured(toy.Gather):  # type: ignore[misc, name-defined]
        metrics = (Metric("size", "Size"),)

    class Seek(toy.Second):  # type: ignore[misc, name-defined]
        name, title = "seek", "Seeking"
        inputs = (Input("things", toy.THING), Input("shape", SHAPE, takes="one", optional=True, reads=("shape",)))

    for kind in (Choose, Seek, Measured):
        monkeypatch.setitem(registry.BUILT_IN, kind.name, kind)
    monkeypatch.setitem(workflow.SHIPPED, "movies", {"jobs": JOBS})
    return toy


@pytest.fixture
def run(seeking: ModuleType, tmp_path: Path) -> Run:
    return Run(seeking, tmp_path)


def items(done: Counter[str], *jobs: str) -> dict[str, int]:
    """How often items were done in these jobs, without rounds."""
    return {name: number for name, number in done.items() if name.split()[0] in jobs}


def test_the_second_part_begins_when_the_first_has_given_what_it_needs(run: Run) -> None:
    run.made.arrive("a")
    run.begin()
    run.finish()
    run.begin()
    seek = run.made.stage("seek")
    assert run.made.given() == [("second", "a")], "nothing to look for yet"
    assert list(seek.waiting) == ["raw/a"]
    assert seek.settled(), "a session that has no more to do must end"
    assert not seek.is_ready("raw/a")
    assert not seek.cannot_come("raw/a")
    assert run.told() == ["Seeking begins when Choosing has given shapes."]
    done = run.work_off()
    assert items(done, "seek", "recut") == {"seek a": 1, "recut a": 1}
    assert run.with_() == {"a": "round"}
    assert (run.told(), run.offered()) == ([], [])
    assert items(run.round("round", "b"), "seek", "recut") == {"seek b": 1, "recut b": 1}


def test_a_newer_one_is_offered_and_redoes_nothing_until_it_is_taken(run: Run) -> None:
    run.round("round", "a", "b")
    done = run.round("square", "c")
    assert items(done, "first", "second", "third", "seek", "recut") == {
        f"{job} c": 1 for job in ("first", "second", "third", "seek", "recut")
    }
    assert run.with_() == dict.fromkeys("abc", "round"), (
        "the shape that was there first, though its file is another by now"
    )
    [offer] = offers_in(run.made.tables.stages)
    assert run.offered() == [("seek", "round003")]
    assert {cost.title: cost.results for cost in offer.costs} == {"Seeking": 3, "Third step (recut)": 3}
    [sentence] = run.told()
    assert "3 results of Seeking and 3 results of Third step (recut)" in sentence
    said = run.offers.answer("seek", offer.version.identity, "ana", decline=False)
    assert said.startswith("Seeking takes what was made in round003. 6 results are")
    done = run.work_off()
    again = items(done, "first", "second", "third", "seek", "recut")
    assert again == {f"{job} {name}": 1 for job in ("seek", "recut") for name in "abc"}
    assert sum(again.values()) == results_of(offer.costs)
    assert run.with_() == dict.fromkeys("abc", "square")
    assert (run.told(), run.offered()) == ([], [])


def test_the_rounds_over_what_is_made_again_take_it_in(run: Run) -> None:
    run.round("round", "a", "b")
    rounds = len(run.made.stage("later").job.items)
    run.round("square", "c")
    run.offers.answer("", "", "ana", decline=False)
    run.begin()
    assert ("class2d", f"round{rounds + 2:03d}") not in run.made.given(), "it waits until all are there again"
    run.work_off()
    assert run.made.stage("later").newest_round().made_from == run.made.stage("recut").job.revision


def test_what_was_declined_is_not_offered_again_and_can_still_be_taken(run: Run) -> None:
    run.round("round", "a")
    run.round("square", "b")
    assert "stays with what it has" in run.offers.answer("seek", "", "ana", decline=True)
    assert (run.told(), run.offered()) == ([], [])
    run.kill()
    run.work_off()
    assert (run.told(), run.offered()) == ([], [])
    assert run.with_() == dict.fromkeys("ab", "round")
    run.offers.answer("seek", "", "ana", decline=False)
    run.work_off()
    assert run.with_() == dict.fromkeys("ab", "square")


def test_a_newer_one_takes_the_place_of_what_was_offered_or_declined(run: Run) -> None:
    run.round("round", "a")
    run.round("square", "b")
    first = offers_in(run.made.tables.stages)[0].version
    run.round("oval", "c")
    assert run.offered() == [("seek", "round003")]
    with pytest.raises(ProjectError, match="another by now"):
        run.offers.answer("seek", first.identity, "ana", decline=False)
    assert not (run.made.project.root / first.result["outputs"]["shape"]).exists(), "nobody can take it any more"
    run.offers.answer("seek", "", "ana", decline=True)
    run.round("star", "d")
    assert run.offered() == [("seek", "round004")]


def test_the_same_content_is_no_newer_version(run: Run) -> None:
    run.round("round", "a")
    run.round("square", "b")
    run.round("square", "c")
    assert run.offered() == [("seek", "round002")]
    run.round("round", "d")
    assert (run.offered(), run.told()) == ([], []), "what is used is the newest again"


def test_a_round_that_gives_none_is_waited_over(run: Run) -> None:
    assert items(run.round("", "a"), "seek") == {}
    assert items(run.round("round", "b"), "seek") == {"seek a": 1, "seek b": 1}
    run.round("", "c")
    assert run.offered() == []


def test_a_round_that_a_person_rejects_is_not_offered(run: Run) -> None:
    run.round("round", "a")
    run.shape = "square"
    run.made.arrive("b")
    select = run.made.stage("select")
    while "raw/b" not in run.made.stage("third").job.items or select.newest_round().name == "round001":
        run.begin()
        run.finish()
    run.made.writer.verdict(select.job.name, "round002", "reject", "ana")
    run.work_off()
    assert run.offered() == []
    run.made.writer.verdict(select.job.name, "round002", "none", "ana")
    run.work_off()
    assert run.offered() == [("seek", "round002")]
    run.made.writer.verdict(select.job.name, "round002", "reject", "ana")
    run.work_off()
    assert (run.offered(), run.told()) == ([], [])


def test_a_rule_says_which_rounds_are_good_enough(seeking: ModuleType, tmp_path: Path) -> None:
    run = Run(seeking, tmp_path)
    run.made.settings = seeking.settings_in(
        tmp_path, **{"class2d.class_min": 10, "later.class_min": 10, "gate": ("select.size > 5",)}
    )
    run.kill()
    assert items(run.round("round", "a"), "seek") == {}, "round is too short a word"
    assert items(run.round("square", "b"), "seek") == {"seek a": 1, "seek b": 1}
    assert run.with_() == dict.fromkeys("ab", "square")
    with pytest.raises(ConfigError, match="a round cannot be held back"):
        seeking.settings_in(tmp_path, gate=("later.size > 5",))


def test_nothing_is_taken_where_nothing_is_offered(run: Run) -> None:
    run.round("round", "a")
    for job in ("", "seek", "third"):
        with pytest.raises(ProjectError, match="Nothing is offered"):
            run.offers.answer(job, "", "ana", decline=False)


def test_after_a_kill_between_the_answer_and_the_redoing_it_is_redone(run: Run) -> None:
    run.round("round", "a", "b")
    run.round("square", "c")
    [offer] = offers_in(run.made.tables.stages)
    run.made.writer.version(offer.stage.job.name, "shape", "used", offer.version, "ana")
    run.kill()
    assert items(run.work_off(), "seek", "recut") == {f"{job} {name}": 1 for job in ("seek", "recut") for name in "abc"}
    assert run.with_() == dict.fromkeys("abc", "square")


@pytest.mark.parametrize("what", ["copying", "recording"])
@pytest.mark.parametrize("first", [True, False])
def test_a_disk_that_is_full_or_a_death_while_a_version_is_kept_loses_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, what: str, first: bool
) -> None:
    if not first:
        run.round("round", "a")

    def fails(*_given: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        if what == "copying":
            broken.setattr("beamside.flow.offers.replace_file", fails)
        else:
            broken.setattr(run.made.writer, "version", fails)
        with pytest.raises(OSError, match="No space"):
            run.round("square", "b")
        with pytest.raises(OSError, match="No space"):
            run.offers.consider()  # it is tried again, and the session goes on meanwhile
    run.kill()
    run.work_off()
    assert run.offered() == ([] if first else [("seek", "round002")])
    assert set(run.with_().values()) == {"square" if first else "round"}


def test_what_was_in_hand_when_another_was_taken_is_done_with_that(run: Run) -> None:
    run.round("round", "a")
    run.round("square", "b")
    run.made.arrive("c")
    while ("seek", "c") not in run.made.given():
        run.begin()
        run.finish()
        run.begin()
    run.offers.answer("seek", "", "ana", decline=False)
    run.work_off()
    assert run.with_() == dict.fromkeys("abc", "square")
    assert run.made.stage("seek").stale() == []


def test_a_copy_that_was_lost_is_told_and_used_again_when_it_is_back(run: Run) -> None:
    run.round("round", "a")
    [version] = run.made.stage("seek").job.shared.values()
    path = run.made.project.root / version.result["outputs"]["shape"]
    path.unlink()
    run.round("round", "b")
    entry = run.made.entry("seek", "b")
    assert entry.state is ItemState.FAILED
    assert f"{version.result['outputs']['shape']} is not in the project any more" in entry.reason
    path.write_text("round")
    run.made.tables.retry_failed()
    run.work_off()
    assert run.with_() == dict.fromkeys("ab", "round")


def test_the_last_round_is_made_when_all_is_there_and_nothing_is_said_before(run: Run) -> None:
    run.made.settings.jobs["class2d"] = run.made.settings.jobs["class2d"].model_copy(update={"class_min": 1000})
    run.made.tables.take_parameters()
    run.made.arrive("a")
    run.work_off()
    assert run.made.stage("select").job.items == {}
    assert run.made.rounds.consider(final=True)
    run.work_off()
    assert run.with_() == {"a": "round"}
    while run.made.rounds.consider(final=True):
        run.work_off()
    later = run.made.stage("later").newest_round()
    assert (later.result["metrics"]["classified"], later.result["values"]["final"]) == (10.0, True)
    assert not any("too few" in entry.sentence for entry in run.made.writer.state.problems.values())


def test_where_the_first_part_gives_nothing_the_session_can_end(run: Run) -> None:
    run.round("", "a")
    assert all(stage.settled() for stage in run.made.tables.stages)
    while run.made.rounds.consider(final=True):
        run.work_off()
    assert run.made.stage("later").job.items == {}
    assert run.told() == ["Seeking begins when Choosing has given shapes."]


def test_groups_of_what_would_be_redone_are_in_the_cost(
    seeking: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Pairs(seeking.Step):  # type: ignore[misc, name-defined]
        name, title, trigger = "pairs", "Pairing", Group()
        inputs, outputs = (Input("things", seeking.THING, takes="all"),), (Output("things", seeking.THING),)

        def group_of(self, name: str, values: Mapping[str, Any], parameters: Any) -> str:
            return f"pairs/{name[-2]}"

    monkeypatch.setitem(registry.BUILT_IN, "pairs", Pairs)
    jobs = {**JOBS, "pairs": {"type": "pairs", "inputs": {"things": "recut.things"}}}
    monkeypatch.setitem(workflow.SHIPPED, "movies", {"jobs": jobs})
    run = Run(seeking, tmp_path)
    run.round("round", "a1", "a2", "b1")
    run.round("square", "b2")
    run.made.tables.set_source_ended(True)
    run.work_off()
    [offer] = offers_in(run.made.tables.stages)
    costs = {cost.title: cost.results for cost in offer.costs}
    assert costs == {"Seeking": 4, "Third step (recut)": 4, "Pairing": 2}
    before = Counter(run.done)
    run.offers.answer("seek", "", "ana", decline=False)
    run.work_off()
    redone = Counter(name.split()[0] for name in (run.done - before).elements())
    assert (redone["seek"], redone["recut"], redone["pairs"]) == (4, 4, 2)


def test_the_thing_may_come_from_a_job_that_makes_one_of_each_item(
    seeking: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Make(seeking.Second):  # type: ignore[misc, name-defined]
        name, outputs = "make", (Output("shape", SHAPE),)

    monkeypatch.setitem(registry.BUILT_IN, "make", Make)
    inputs = {"things": "first.things", "shape": "make.shape"}
    jobs = {
        **{label: JOBS[label] for label in ("import", "first")},
        "make": {"type": "make", "inputs": {"things": "first.things"}},
        "seek": {"type": "seek", "inputs": inputs},
    }
    monkeypatch.setitem(workflow.SHIPPED, "movies", {"jobs": jobs})
    made = seeking.Toy(tmp_path)
    offers = Offers(made.tables)

    def work_off() -> None:
        offers.consider()
        made.dispatcher.fill()
        while made.hands.tasks:
            task, _ = made.hands.tasks[0]
            outcome = seeking.result_of(task)
            if task["label"] == "make":
                name = task["items"][0][0][4:]
                (made.project.root / f"{name}.txt").write_text(f"shape of {name}")
                outcome["result"]["outputs"] = {"shape": f"{name}.txt"}
            made.finish(0, outcome)
            offers.consider()
            made.dispatcher.fill()

    made.arrive("a")
    work_off()
    made.arrive("b")
    work_off()
    [used] = made.stage("seek").job.shared.values()
    assert used.item == "raw/a"
    assert [one.version.item for one in offers_in(made.tables.stages)] == ["raw/b"]
    made.writer.verdict(made.stage("make").job.name, "raw/b", "reject", "ana")
    work_off()
    assert offers_in(made.tables.stages) == []
    assert {made.entry("seek", name).state for name in "ab"} == {ItemState.DONE}


@pytest.mark.parametrize("wrong", ["circle", "kind"])
def test_what_cannot_be_connected_is_refused(seeking: ModuleType, wrong: str) -> None:
    jobs = {label: {**job, "inputs": dict(job.get("inputs", {}))} for label, job in JOBS.items()}
    if wrong == "circle":
        jobs["third"]["inputs"]["things"] = "seek.things"
    else:
        jobs["seek"]["inputs"]["shape"] = "select.things"
    with pytest.raises(
        workflow.ConfigError, match="circle" if wrong == "circle" else "takes shapes, and select.things"
    ):
        workflow.parse_workflow({"jobs": jobs}, name="wrong")


def test_a_job_that_takes_all_items_has_one_input(seeking: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(seeking.Gather):  # type: ignore[misc, name-defined]
        name = "two"
        inputs = (Input("one", seeking.THING, takes="all"), Input("other", seeking.THING, takes="all"))

    monkeypatch.setitem(registry.BUILT_IN, "two", Two)
    jobs = {**JOBS, "both": {"type": "two", "inputs": {"one": "third.things", "other": "recut.things"}}}
    with pytest.raises(workflow.ConfigError, match="one and other are too many"):
        workflow.parse_workflow({"jobs": jobs}, name="wrong")


moves = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.sampled_from("abcdef")),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.just("shape"), st.sampled_from(["", "round", "square", "oval"])),
        st.tuples(st.sampled_from(["take", "decline", "kill", "begin", "lose"]), st.just(0)),
        st.tuples(
            st.just("say"),
            st.tuples(
                st.sampled_from(["first", "second", "seek", "recut", "select"]),
                st.sampled_from("abcdef"),
                st.sampled_from(["reject", "none"]),
            ),
        ),
    ),
    max_size=40,
)


@given(moves)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_all_items_end_with_what_is_used(
    seeking: ModuleType, tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, Any]]
) -> None:
    run = Run(seeking, tmp_path_factory.mktemp("any"))
    arrived: dict[str, None] = {}
    for move, what in done:
        used = {port: version.identity for port, version in run.made.stage("seek").job.shared.items()}
        if move == "arrive" and what not in arrived:
            arrived[what] = None
            run.made.arrive(what)
        elif move == "finish" and run.made.hands.tasks:
            run.finish(what % len(run.made.hands.tasks))
        elif move == "shape":
            run.shape = what
        elif move in ("take", "decline") and run.offered():
            run.offers.answer("seek", "", "ana", decline=move == "decline")
        elif move == "kill":
            run.kill()
        elif move == "begin":
            run.begin()
        elif move == "lose" and run.made.hands.tasks:
            run.made.finish(0, RuntimeError("the worker was lost"))
            for stage in run.made.tables.stages:
                stage.not_before.clear()
        elif move == "say":
            label, name, word = what
            item = f"round00{'abcdef'.index(name) + 1}" if label == "select" else f"raw/{name}"
            run.made.writer.verdict(run.made.stage(label).job.name, item, word, "ana")
        now = {port: version.identity for port, version in run.made.stage("seek").job.shared.items()}
        assert move == "take" or not used or now == used, "nothing else is used unasked"
    run.made.tables.retry_failed()
    run.work_off()
    shared = run.made.stage("seek").job.shared
    rejected = {name for label, name in run.rejected() if label == "first"}
    if "shape" in shared:
        used_shape = (run.made.project.root / shared["shape"].result["outputs"]["shape"]).read_text()
        assert set(run.with_().values()) <= {used_shape}
        assert set(run.with_()) >= arrived.keys() - rejected
        shown = {row.item.name[4:] for row in run.made.stage("recut").rows()}
        assert shown == arrived.keys() - {name for label, name in run.rejected() if label in ("first", "seek", "recut")}
    else:
        assert run.with_() == {}
    assert all(stage.stale() == [] and stage.settled() for stage in run.made.tables.stages)
    others = items(run.done, "first", "second", "third")
    kills = sum(move in ("kill", "lose") for move, _ in done)
    assert sum(others.values()) <= 3 * len(arrived) + kills * 8, "only what was in hand at a kill is done twice"
    run.made.writer.close()
