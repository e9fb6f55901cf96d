"""A person's word on items: recorded for what is meant, kept, taken back, and never half."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import ProjectError
from beamside.flow.asking import ask
from beamside.flow.verdicts import give_word
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState, Word

MOTION, CTF = "MotionCorr/job002", "CtfFind/job003"


def make(project: Project) -> None:
    """Two jobs; the CTF of "raw/grid1/b" was rejected by a rule, and "raw/grid2/b" has come no further than the first one."""
    with ProjectWriter(project) as writer:
        writer.create_job(MOTION, "motion", {}, {})
        writer.create_job(CTF, "ctf", {}, {"micrographs": f"{MOTION}.micrographs"})
        for job, item, state in (
            (MOTION, "raw/grid1/a", ItemState.DONE),
            (MOTION, "raw/grid1/b", ItemState.DONE),
            (MOTION, "raw/grid2/b", ItemState.DONE),
            (CTF, "raw/grid1/a", ItemState.DONE),
            (CTF, "raw/grid1/b", ItemState.REJECTED),
        ):
            writer.item(job, item, ItemState.WAITING)
            writer.item(job, item, ItemState.QUEUED)
            writer.item(job, item, state, result={"metrics": {}, "outputs": {}, "values": {}})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = Project(tmp_path)
    make(found)
    return found


def words(project: Project) -> dict[tuple[str, str], str]:
    return {about: record["word"] for about, record in project.load().verdicts.items()}


def give(project: Project, word: Word, *items: str, job: str = "", who: str = "ana") -> None:
    with ProjectWriter(project) as writer:
        give_word(writer, word, items, job, who)


def test_what_is_rejected_is_rejected_where_it_begins(project: Project) -> None:
    give(project, "reject", "raw/grid1/a")
    ((about, record),) = project.load().verdicts.items()
    assert about == (MOTION, "raw/grid1/a")
    assert {name: record[name] for name in ("item", "job", "word", "who")} == {
        "item": "raw/grid1/a",
        "job": MOTION,
        "word": "reject",
        "who": "ana",
    }
    assert record["time"] > 0


def test_what_is_accepted_is_accepted_where_it_is_held_back(project: Project) -> None:
    give(project, "accept", "grid1/b")
    assert words(project) == {(CTF, "raw/grid1/b"): "accept"}
    with pytest.raises(ProjectError, match=r"Nothing holds raw/grid1/a back.*--job"):
        give(project, "accept", "raw/grid1/a")
    give(project, "reject", "raw/grid1/a")
    give(project, "accept", "raw/grid1/a")
    assert words(project)[MOTION, "raw/grid1/a"] == "accept"


@pytest.mark.parametrize("job", [CTF, "job003", "ctf"])
def test_a_job_is_meant_by_its_name_its_number_or_its_type(project: Project, job: str) -> None:
    give(project, "reject", "raw/grid1/a", job=job)
    assert words(project) == {(CTF, "raw/grid1/a"): "reject"}


@pytest.mark.parametrize("name", ["raw/grid1/a", "grid1/a", "a", "a.mrc", "raw/grid1/a.tiff"])
def test_an_item_is_meant_by_the_end_of_its_path(project: Project, name: str) -> None:
    give(project, "reject", name)
    assert words(project) == {(MOTION, "raw/grid1/a"): "reject"}


@pytest.mark.parametrize(
    ("items", "job", "sentence"),
    [
        (["b"], "", "may be any of 2 items, such as raw/grid1/b and raw/grid2/b"),
        (["raw/grid1/a", "c"], "", "There is no item 'c'"),
        (["raw/grid2/b"], "ctf", f"There is no item 'raw/grid2/b' in {CTF}"),
        (["raw/grid1/a"], "pick", "There is no job 'pick'; the project's jobs: motion"),
    ],
)
def test_what_means_nothing_is_refused_and_nothing_of_it_is_recorded(
    project: Project, items: Sequence[str], job: str, sentence: str
) -> None:
    with pytest.raises(ProjectError, match=sentence):
        give(project, "reject", *items, job=job)
    assert words(project) == {}


def test_a_word_is_taken_back_once(project: Project) -> None:
    give(project, "reject", "a")
    give(project, "none", "a")
    assert words(project) == {}
    with pytest.raises(ProjectError, match="Nobody has given a word on raw/grid1/a"):
        give(project, "none", "a")


def test_the_command_is_answered_with_what_it_has_recorded_though_no_session_runs(project: Project) -> None:
    outcome = ask(project, "reject", {"items": ["grid1/a", "grid1/b"]}, seconds=0.0)
    assert outcome is not None
    assert (outcome.kind, outcome.sentence) == ("done", f"{MOTION}: 2 items are rejected.")
    outcome = ask(project, "reject", {"items": ["a"], "undo": True}, seconds=0.0)
    assert outcome is not None
    assert outcome.sentence == f"{MOTION}: raw/grid1/a is judged by the rules again."
    assert words(project) == {(MOTION, "raw/grid1/b"): "reject"}
    outcome = ask(project, "accept", {"items": ["nothing"]}, seconds=0.0)
    assert outcome is not None
    assert outcome.kind == "refused"


ABOUT = st.sampled_from([(job, item) for job in (MOTION, CTF) for item in ("raw/grid1/a", "raw/grid1/b")])


@settings(max_examples=60, deadline=None)
@given(said=st.lists(st.tuples(ABOUT, st.sampled_from(["accept", "reject", "none"])), max_size=12))
def test_the_newest_word_holds_and_what_is_so_already_is_not_recorded_again(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[tuple[str, str], Word]]
) -> None:
    project, expected, changes = Project(tmp_path_factory.mktemp("project")), dict[tuple[str, str], str](), 0
    make(project)
    with ProjectWriter(project) as writer:
        for (job, item), word in said:
            changes += expected.get((job, item), "none") != word
            expected[job, item] = word
            give_word(writer, word, [item], job, "ana")
    assert words(project) == {about: word for about, word in expected.items() if word != "none"}
    assert project.project_journal.read_text().count('"event":"verdict"') == changes


def test_a_round_is_neither_accepted_nor_rejected(project: Project) -> None:
    with ProjectWriter(project) as writer:
        writer.create_job("Class2D/job009", "class2d", {}, {}, label="class2d")
        for state in (ItemState.WAITING, ItemState.QUEUED, ItemState.DONE):
            writer.item("Class2D/job009", "round001", state)
        for word in ("accept", "reject"):
            with pytest.raises(ProjectError, match=r"round001 of Class2D/job009 \(2D classification\) is a round"):
                give_word(writer, word, ["round001"], "class2d", "ana")
        assert not writer.state.verdicts
        writer.verdict("Class2D/job009", "round001", "reject", "ana")  # an earlier version took such words
        give_word(writer, "none", ["round001"], "", "ana")
        assert not writer.state.verdicts
