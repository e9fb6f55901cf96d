"""Questions about a gain reference and their answers: only what a question offers is an answer, and it changes what the question named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beamside.acquisition.gain_choice import Asked, choose
from beamside.camera.gain.account import accounts
from beamside.camera.gain.answers import no_question
from beamside.camera.gain.case import answered, done_again, is_offered, outcome_words, question_of, way_of_movie
from beamside.camera.gain.giving_on import given_on
from beamside.camera.gain.worker import _plain
from beamside.formats.orientation import Orientation
from beamside.imaging.gain.orientation import Match, Verdict
from beamside.project.records import ItemEntry, ItemState, JobEntry, ProjectState

NAMES = ("rotate", "flip", "use")
MOVIES = [f"m{index}" for index in range(8)]
WAYS = st.tuples(
    st.sampled_from([0, 90, 180, 270]),
    st.sampled_from(["none", "up-down", "left-right"]),
    st.sampled_from(["multiply", "divide", "none"]),
)


def way(rotate: int, flip: str, use: str) -> dict[str, Any]:
    return {"rotate": rotate, "flip": flip, "use": use}


def canonical(one: tuple[int, str, str]) -> tuple[int, str, str]:
    orientation = Orientation(one[0], one[1]).canonical()  # type: ignore[arg-type]
    return orientation.rotate, orientation.flip, one[2]


class Questions(RuleBasedStateMachine):
    """One record as it goes from question to question, with whatever people say."""

    @initialize(offers=st.lists(WAYS, min_size=1, max_size=3), any_way=st.booleans())
    def begin(self, offers: list[tuple[int, str, str]], any_way: bool) -> None:
        self.record: dict[str, Any] = {
            "state": "asked",
            **way(0, "none", "multiply"),
            "sentence": "How?",
            "shape": [8, 8],
            "reference": "gain.mrc",
            "offers": [list(one) for one in offers],
            "any_way": any_way,
        }
        self.answered_doubts: list[str] = []

    def _ways(self) -> dict[str, tuple[int, str, str]]:
        return {movie: way_of_movie(self.record, movie) for movie in MOVIES}

    @rule(said=WAYS)
    def a_way_is_said(self, said: tuple[int, str, str]) -> None:
        after = answered(self.record, way(*said))
        asked = self.record["state"] == "asked"
        offered = [tuple(one) for one in self.record.get("offers", ())]
        if said[2] == "none":
            fits = any(use == "none" for _, _, use in offered)
        else:
            fits = self.record["any_way"] or canonical(said) in map(canonical, offered)
        assert (after is not None) == (asked and fits)
        if after is None:
            return
        assert question_of(after) == ""
        assert {way_of_movie(after, movie) for movie in MOVIES} == {canonical(said)}
        self.record = after

    @rule(word=st.sampled_from(["keep", "redo"]))
    def a_word_is_said(self, word: str) -> None:
        before, doubt = self._ways(), self.record.get("doubt")
        after = answered(self.record, {word: True})
        assert (after is not None) == (doubt is not None)
        if after is None or doubt is None:
            return
        assert question_of(after) == ""
        assert after["asked_last"]["answer"] == word
        now = {movie: way_of_movie(after, movie) for movie in MOVIES}
        again = [movie for movie in MOVIES if now[movie] != before[movie]]
        assert done_again(self.record, after, MOVIES) == len(again)
        assert again == [] or word == "redo"
        if doubt["scope"] != "all":
            assert set(again) <= set(doubt["movies"]), "no movie changes that the question did not name"
        if word == "redo":
            assert all(canonical(now[movie]) == canonical(tuple(doubt[name] for name in NAMES)) for movie in again)
        self.answered_doubts.append(doubt["signature"])
        self.record = after

    @precondition(lambda self: self.record["state"] == "decided" and not self.record.get("doubt"))
    @rule(other=WAYS, scope=st.sampled_from(["all", "newer", "some"]), at=st.integers(0, len(MOVIES) - 1))
    def movies_contradict(self, other: tuple[int, str, str], scope: str, at: int) -> None:
        if canonical(other) == canonical(way_of_movie(self.record, "another")):
            return
        concerned = MOVIES[at:] if scope == "newer" else MOVIES[at : at + 2]
        self.record = {
            **self.record,
            "doubt": {
                **way(*other),
                "scope": scope,
                "movies": concerned,
                "before": MOVIES[:at],
                "signature": f"{scope}:{other}:{at}",
                "sentence": "Really?",
            },
        }

    @invariant()
    def a_movie_is_in_one_set_at_most(self) -> None:
        named = [movie for one in self.record.get("sets", ()) for movie in one["movies"]]
        assert len(named) == len(set(named))

    @invariant()
    def what_was_answered_is_remembered(self) -> None:
        known = list(self.record.get("answered", ()))
        assert all(signature in known for signature in self.answered_doubts)
        assert self.record["state"] == "asked" or "use" in self.record

    @invariant()
    def nothing_is_an_answer_where_nothing_is_asked(self) -> None:
        if not question_of(self.record):
            assert not any(
                is_offered(self.record, said) for said in ({"keep": True}, {"redo": True}, way(0, "none", "none"))
            )


TestQuestions = Questions.TestCase
TestQuestions.settings = settings(deadline=None, max_examples=60, stateful_step_count=20)


def matches(slope: float) -> tuple[Match, ...]:
    best = Match(Orientation(90, "none"), slope, 0.01)
    return (best, Match(Orientation(), 0.02, 0.01))


@pytest.mark.parametrize(
    ("kind", "asked", "yes", "no"),
    [
        (
            "clear",
            Asked(0, "none"),
            [way(90, "none", "multiply"), way(0, "none", "multiply")],
            [way(180, "none", "multiply"), way(0, "none", "none")],
        ),
        ("absent", Asked(), [way(0, "none", "none"), way(270, "up-down", "divide")], []),
        ("unsure", Asked(), [way(270, "none", "divide")], [way(0, "none", "none")]),
    ],
)
def test_a_question_accepts_what_its_sentence_says(
    kind: Any, asked: Asked, yes: list[dict[str, Any]], no: list[dict[str, Any]]
) -> None:
    verdict = Verdict(kind, matches(-1.0 if kind == "clear" else 0.01), 30.0, 0.05, 0.0)
    choice = choose(verdict, asked, default="multiply", movies=16, last=True, reference="gain.mrc", command="answer")
    record = _plain(choice)
    assert record["state"] == "asked"
    for said in yes:
        assert is_offered(record, said), said
    for said in (*no, {"keep": True}, {"redo": True}):
        assert not is_offered(record, said), said
    for rotate, flip, use in record["offers"]:
        typed = "--none" if use == "none" else f"--rotate {rotate} --flip {flip} --mode {use}"
        assert f"answer {typed}" in record["sentence"], "what is offered stands there to be typed"


def test_a_question_of_an_earlier_version_takes_any_way() -> None:
    record = {"state": "asked", "sentence": "?", **way(0, "none", "multiply")}
    assert is_offered(record, way(0, "none", "none"))
    assert not is_offered(record, {"redo": True})


def test_a_doubt_takes_no_other_way() -> None:
    record = {
        "state": "decided",
        "sentence": "",
        **way(0, "none", "multiply"),
        "doubt": {"sentence": "?", "signature": "s"},
    }
    assert answered(record, way(0, "none", "none")) is None
    assert "none" not in no_question("gain.mrc", other=True).split()


def test_the_answer_says_how_many_movies_it_concerns() -> None:
    record = {"sentence": "It is used."}
    assert outcome_words(record, {"keep": True}, 5) == "All stays as it is."
    assert outcome_words(record, {"redo": True}, 1) == "It is done as the question says. 1 movie is processed again."
    assert outcome_words(record, way(0, "none", "none"), 3) == "It is used. 3 movies are processed again."
    assert outcome_words(record, way(0, "none", "none"), 0) == "It is used."
    assert done_again(record, {"replaced_by": "new"}, ["a", "b"]) == 2


def test_movies_that_were_given_on_are_those_of_the_newest_import_and_of_one_shape() -> None:
    def entry(name: str, state: ItemState, shape: list[int]) -> ItemEntry:
        return ItemEntry(name, state, result={"outputs": {"movie": f"{name}.tiff"}, "values": {"shape": shape}})

    older, newer, motion = (
        JobEntry(name, "import", {}) for name in ("Import/job001", "Import/job008", "Motion/job002")
    )
    older.items = {"a": entry("a", ItemState.DONE, [8, 8])}
    newer.items = {
        "a": entry("a", ItemState.DONE, [8, 8]),
        "b": entry("b", ItemState.WAITING, [8, 8]),
        "c": entry("c", ItemState.DONE, [4, 8]),
        "d": entry("d", ItemState.DONE, [8, 8]),
    }
    motion.items = {"a": ItemEntry("a", ItemState.DONE, result={"outputs": {"micrograph": "a.mrc"}, "values": {}})}
    state = ProjectState(jobs={job.name: job for job in (older, newer, motion)})
    assert given_on(state, (8, 8)) == ["a.tiff", "d.tiff"]
    assert given_on(ProjectState(), (8, 8)) == []


EVIDENCE = {
    "kind": "absent",
    "margin": 3.0,
    "pattern": 0.05,
    "matches": [],
    "movies": 2,
    "counts_per_pixel": 9.0,
    "picture": "check.png",
}
REFUSED = {
    "state": "decided",
    "by": "person",
    **way(0, "none", "none"),
    "sentence": "Not used.",
    "shape": [8, 8],
    "reference": "/g/gain.mrc",
    "evidence": EVIDENCE,
}
NEEDED = {
    "state": "needed",
    "sentence": "They need one.",
    "shape": [8, 8],
    "reference": "",
    "evidence": {"movies": 2, "counts_per_pixel": 9.0, "strength": 0.05, "limit": 0.001, "picture": "needed.png"},
}


def test_beside_a_reference_that_was_refused_stands_what_the_movies_show_without_one() -> None:
    refused, needed = accounts([REFUSED, NEEDED], {"gain": "/g/gain.mrc"})
    assert [path for _, path in refused.pictures] == ["check.png"]
    assert [path for _, path in needed.pictures] == ["needed.png"]
    assert needed.urgent
    assert len(accounts([{**REFUSED, "use": "multiply"}, NEEDED], {"gain": "/g/gain.mrc"})) == 1
    assert [one.sentence for one in accounts([REFUSED, NEEDED], {"gain": ""})] == ["They need one."]


def test_the_picture_of_a_doubt_stays_when_it_was_answered() -> None:
    last = {
        "sentence": "3 are odd. So far 9 were corrected. To leave it so, type: x",
        "answer": "keep",
        "picture": "doubt.png",
    }
    (account,) = accounts([{**REFUSED, "use": "multiply", "asked_last": last}], {"gain": "/g/gain.mrc"})
    assert [path for _, path in account.pictures] == ["check.png", "doubt.png"]
    assert ("Asked last", "3 are odd. Answered: keep") in account.facts
