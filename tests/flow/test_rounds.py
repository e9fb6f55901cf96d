"""When rounds over all items begin, and what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.flow.dispatch import failure
from beamside.jobs.class2d import Classification2d


@pytest.fixture
def run(toy: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """Each item has ten particles; a first round is due at 20, further ones each 20."""
    run = toy.Toy(tmp_path, class_min=20, class_increment=20)
    yield run
    run.writer.close()


def consider(run: Any, *, final: bool = False) -> list[tuple[str, str]]:
    """What a look at the rounds gives out."""
    before = len(run.hands.tasks)
    run.rounds.consider(final=final)
    return run.given()[before:]


def rounds(run: Any, job: str = "class2d") -> dict[str, list[str]]:
    """The rounds that are done, each with its items."""
    items = run.stage(job).job.items.values()
    return {entry.name: [name[4:] for name in entry.result["values"]["of"]] for entry in items if entry.result}


def test_a_round_is_due_at_a_number_of_particles_and_at_each_further_increment(run: Any) -> None:
    run.arrive("m1")
    run.work_off()
    assert consider(run) == []
    run.arrive("m2")
    run.work_off()
    assert consider(run) == [("class2d", "round001")]
    assert consider(run) == [], "while one is under way, none begins"
    run.arrive("m3")
    run.finish()
    run.work_off()
    assert consider(run) == [("select", "round001")]
    run.work_off()
    assert consider(run) == [], "10 more are no increment"
    run.arrive("m4")
    run.work_off()
    assert consider(run) == [("class2d", "round002")]
    run.work_off()
    assert rounds(run) == {"round001": ["m1", "m2"], "round002": ["m1", "m2", "m3", "m4"]}


def test_what_was_not_due_is_not_looked_at_again_before_a_table_changes(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.arrive("m1")
    run.work_off()
    looks = []
    monkeypatch.setattr(run.rounds, "_due", lambda *_: bool(looks.append(1)))
    assert [consider(run) for _ in range(5)] == [[]] * 5
    assert len(looks) == 1
    run.arrive("m2")
    run.work_off()
    assert consider(run) == []
    assert len(looks) == 2


def test_the_last_round_is_made_once_over_all_and_again_only_over_others(run: Any) -> None:
    run.arrive("m1", "m2", "m3")
    run.work_off()
    for expected in ([("class2d", "round001")], [("select", "round001")], [], []):
        assert consider(run, final=True) == expected
        run.work_off()
    run.arrive("m4")
    run.work_off()
    assert consider(run, final=True) == [("class2d", "round002")]
    run.work_off()
    assert rounds(run)["round002"] == ["m1", "m2", "m3", "m4"]


def test_too_few_particles_make_no_last_round_and_that_is_said(run: Any) -> None:
    assert consider(run, final=True) == []
    run.tables.problems.flush(force=True)
    said = [problem.sentence for problem in run.writer.state.problems.values()]
    assert said == ["0 particles are too few for 2D classification; it was not run."]
    assert Classification2d.trigger.fewest > 0


def test_no_round_begins_while_results_are_made_again(run: Any) -> None:
    run.arrive("m1", "m2")
    run.work_off()
    run.tables.redo(run.stage("second"), "raw/m1", "asked for")
    assert consider(run) == [], "a round without it would be smaller"
    run.work_off()
    assert consider(run) == [("class2d", "round001")]


def test_items_that_were_given_up_are_not_in_a_round(run: Any) -> None:
    run.arrive("m1", "m2", "m3")
    run.arrive("m4", content="bad")
    run.work_off()
    assert consider(run) == [("class2d", "round001")]
    run.work_off()
    assert rounds(run) == {"round001": ["m1", "m2", "m3"]}


def test_a_round_that_failed_is_not_tried_with_the_same_particles_but_when_asked(run: Any) -> None:
    run.arrive("m1", "m2")
    run.work_off()
    consider(run)
    run.finish(0, failure("no classes"))
    assert consider(run) == []
    run.tables.retry_failed()
    assert consider(run) == [("class2d", "round001")]
    run.work_off()
    assert rounds(run) == {"round001": ["m1", "m2"]}


def test_a_round_that_was_cut_short_is_begun_again_by_the_next_session(run: Any) -> None:
    run.arrive("m1", "m2")
    run.work_off()
    assert consider(run) == [("class2d", "round001")]
    run.reopen()
    assert consider(run) == [("class2d", "round001")]
    run.work_off()
    assert list(rounds(run)) == ["round001"]


def test_a_selection_follows_the_newest_round_and_says_what_it_was_made_from(run: Any) -> None:
    run.arrive("m1", "m2")
    run.work_off()
    for _ in range(2):
        consider(run)
        run.work_off()
    run.arrive("m3", "m4")
    run.work_off()
    for _ in range(2):
        consider(run)
        run.work_off()
    assert list(rounds(run, "select")) == ["round001", "round002"]
    first, second = run.stage("class2d").job.items.values()
    assert 0 < first.made_from < second.made_from
