"""What later movies, or a later reference, say against a decision is asked; nothing that was corrected changes until a person has answered."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from beamside.camera.gain.case import Case, Seen, answered, look_due, present_records, question_of, way_of, way_of_movie
from beamside.camera.gain.check import GainCheck
from beamside.camera.gain.sums import file_hash
from beamside.cli.telling import told
from beamside.errors import ProjectError
from beamside.flow import control
from beamside.flow.asking import ask as tell
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.formats.orientation import Orientation
from beamside.formats.star import read_star
from beamside.monitor.report import write_report
from beamside.monitor.status import read_status
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]


def run(settings: SessionSettings, end: str = "finished") -> Project:
    assert Session(settings, until_empty=True).run() == end
    return Project(settings.root)


def gains(project: Project) -> dict[str, str]:
    """The digest of the prepared reference that each movie was corrected with, "" for none; the file has that content."""
    found = project.load().job_of_type("import")
    assert found is not None
    used = {}
    for name, entry in found.items.items():
        assert entry.result is not None
        values = entry.result["values"]
        used[name.removeprefix("raw/").removesuffix("_fractions")] = values.get("gain_sha256", "")
        if "gain" in values:
            assert file_hash(project.root / values["gain"]) == values["gain_sha256"]
    return used


def corrected_again(project: Project, before: int) -> list[str]:
    """The movies that motion correction ran on since there were `before` lines of calls."""
    calls = (project.root / "calls.txt").read_text().splitlines()[before:]
    return sorted(
        line.split()[1].removeprefix("raw/").removesuffix("_fractions") for line in calls if line.startswith("motion")
    )


def calls(project: Project) -> int:
    return len((project.root / "calls.txt").read_text().splitlines())


def ask(settings: SessionSettings, *words: str) -> str:
    result = CliRunner().invoke(
        told("gain"), [str(settings.root), *words], catch_exceptions=False, standalone_mode=False
    )
    return result.output


@pytest.fixture
def started(
    light_workflow: None, camera: Any, session_settings: Settings
) -> tuple[SessionSettings, Project, dict[str, str]]:
    """A session with ten raw movies, whose reference was found to be multiplied by."""
    for index in range(10):
        camera.movie(f"m{index:02d}", 60)
    settings = session_settings(gain=camera.reference(Orientation()))
    project = run(settings)
    return settings, project, gains(project)


def test_movies_that_come_corrected_among_raw_ones_are_named_and_only_they_are_done_again(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    for index in range(10, 16):
        camera.movie(f"m{index:02d}", 60, corrected=index in (11, 14))
    run(settings, "waiting for an answer")
    used = gains(project)
    assert len(set(used.values())) == 1, "until it is answered, all movies of a session are processed alike"
    assert first.items() <= used.items()
    status = read_status(project)
    (question,) = status.questions
    assert status.state == "waiting for an answer"
    named = r"2 of the 1[2-6] newest movies \(m11_fractions.tiff, m14_fractions.tiff\)"
    assert re.search(named, question), "how many come between two looks is a matter of chance"
    assert "So far 16 movies were corrected with it" in question
    assert "m11_fractions.tiff" in write_report(project).read_text()
    before = calls(project)
    assert "resume" in ask(settings, "--redo")
    run(settings)
    assert {name for name, digest in gains(project).items() if not digest} == {"m11", "m14"}
    options = read_star(project.root / "MotionCorr/job002/job.star")["joboptions_values"]
    values = dict(zip(options.column("rlnJobOptionVariable"), options.column("rlnJobOptionValue"), strict=True))
    assert values["fn_gain_ref"] == f"Import/job001/gain_{first['m00'][:12]}.mrc", (
        "RELION has one for all: that of most"
    )
    assert corrected_again(project, before) == ["m11", "m14"]
    assert read_status(project).questions == ()


def test_movies_that_lose_their_reference_under_way_are_looked_at_for_whether_they_need_one(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, project, _ = started
    for index in range(10, 16):
        camera.movie(f"m{index:02d}", 60, corrected=index in (11, 14))
    run(settings, "waiting for an answer")
    desk, settle_again = [], GainCheck._settle_again

    def settled(self: GainCheck, case: Case) -> None:
        settle_again(self, case)
        desk.append(sorted(movie for watched in self.needs.shapes.values() for movie in watched.movies))

    monkeypatch.setattr(GainCheck, "_settle_again", settled)
    control.send(project, "gain", {"redo": True})
    run(settings)
    assert desk[-1] == [f"raw/m{index}_fractions.tiff" for index in (11, 14)], "although they were given on with it"


def test_when_all_newer_movies_are_corrected_earlier_ones_stay_and_later_ones_follow(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    for index in range(10, 40):
        camera.movie(f"m{index:02d}", 60, corrected=True)
    run(settings, "waiting for an answer")
    question = read_status(project).questions[0]
    assert "(m10_fractions.tiff to m39_fractions.tiff)" in question, (
        "each movie is looked at once some are not as the others"
    )
    ask(settings, "--redo")
    camera.movie("m40", 60, corrected=True)
    run(settings)
    used = gains(project)
    assert first.items() <= used.items()
    assert {used[f"m{index}"] for index in range(10, 41)} == {""}


def test_a_session_that_died_goes_on_looking_where_it_was(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, _ = started
    for index in range(10, 16):
        camera.movie(f"m{index:02d}", 60, corrected=index in (11, 14))
    run(settings, "waiting for an answer")
    ask(settings, "--redo")
    with ProjectWriter(project) as writer:  # as it was before the last movies were looked at
        ((key, found),) = writer.state.findings.items()
        (corrected,) = found["sets"]
        earlier = [{**corrected, "movies": [movie for movie in corrected["movies"] if "m11" in movie]}]
        writer.finding(key, {**found, "sets": earlier, "looked_at": 12})
    run(settings)
    assert {name for name, digest in gains(project).items() if not digest} == {"m11", "m14"}


def test_movies_that_were_processed_and_not_looked_at_when_a_session_died_are_looked_at_by_the_next(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, project, _ = started
    for index in range(10, 16):
        camera.movie(f"m{index:02d}", 60, corrected=index == 11)
    with monkeypatch.context() as context:
        context.setattr("beamside.camera.gain.check.next_look", lambda case, closing: None)
        run(settings)
    run(settings, "waiting for an answer")
    assert "(m11_fractions.tiff)" in read_status(project).questions[0]


def test_raw_movies_among_those_that_were_corrected_already_are_found_too(
    light_workflow: None, camera: Any, session_settings: Settings
) -> None:
    for index in range(10):
        camera.movie(f"m{index:02d}", 60, corrected=True)
    settings = session_settings(gain=camera.reference(Orientation(180, "none")))
    project = run(settings, "waiting for an answer")
    ask(settings, "--none")
    run(settings)
    assert set(gains(project).values()) == {""}
    for index in range(10, 24):
        camera.movie(f"m{index:02d}", 60, corrected=index < 18)
    run(settings, "waiting for an answer")
    (question,) = read_status(project).questions
    assert "shows in" in question
    assert "So far 24 movies were processed without it" in question
    ask(settings, "--redo")
    run(settings)
    assert sorted(name for name, digest in gains(project).items() if digest) == [f"m{index}" for index in range(18, 24)]


def test_what_was_kept_is_not_asked_again(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    for index in range(10, 16):
        camera.movie(f"m{index:02d}", 60, corrected=index == 11)
    run(settings, "waiting for an answer")
    ask(settings, "--keep")
    before = calls(project)
    run(settings)
    for index in range(16, 32):
        camera.movie(f"m{index:02d}", 60, corrected=index == 25)
    run(settings)
    assert corrected_again(project, before) == [f"m{index}" for index in range(16, 32)]
    assert set(gains(project).values()) == set(first.values())
    with pytest.raises(ProjectError, match="asks nothing about its gain reference"):
        ask(settings, "--keep")


def test_another_orientation_from_some_movie_on_is_asked_with_what_it_costs(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    for index in range(10, 34):
        camera.movie(f"m{index:02d}", 60, turned=True)
    run(settings, "waiting for an answer")
    (question,) = read_status(project).questions
    assert "flipped up-down; frames are multiplied by it" in question
    assert "(m10_fractions.tiff to m33_fractions.tiff)" in question
    assert (
        "So far 34 movies were corrected with it (in the orientation of its file; frames are multiplied by it)"
        in question
    )
    ask(settings, "--redo")
    before = calls(project)
    run(settings)
    used = gains(project)
    assert first.items() <= used.items(), "movies that fit what was decided are not touched"
    assert corrected_again(project, before) == [f"m{index}" for index in range(10, 34)]
    assert len({used[f"m{index}"] for index in range(10, 34)} | set(first.values())) == 2


def test_another_content_at_the_path_of_the_reference_is_asked_about(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    camera.reference(Orientation(), response=camera.response * 1.0001)
    camera.movie("m10", 60)
    run(settings, "waiting for an answer")
    (question,) = read_status(project).questions
    assert "gain.mrc has changed" in question
    assert "So far 10 movies were corrected with the one of before" in question
    assert set(gains(project).values()) == set(first.values()), "also the new movie: nothing changes unasked"
    ask(settings, "--redo")
    run(settings)
    (digest,) = set(gains(project).values())
    assert digest not in first.values()
    assert (project.root / f"Import/job001/gain_{first['m00'][:12]}.mrc").exists(), (
        "what micrographs were corrected with stays"
    )
    run(settings)
    assert set(gains(project).values()) == {digest}


def test_a_changed_reference_that_is_not_to_be_used_stays_out(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    camera.reference(Orientation(), response=camera.response * 1.0001)
    run(settings, "waiting for an answer")
    ask(settings, "--keep")
    camera.movie("m10", 60)
    run(settings)
    assert set(gains(project).values()) == set(first.values())


def test_a_session_goes_on_when_the_reference_is_gone_from_its_place(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    camera.gain.unlink()
    camera.movie("m10", 60)
    run(settings)
    assert set(gains(project).values()) == set(first.values())


def test_a_project_of_an_earlier_version_keeps_the_file_that_its_micrographs_name(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, first = started
    job = project.root / "Import/job001"
    (name,) = (path.name for path in job.glob("gain_[0-9a-f]*.mrc") if "reference" not in path.name)
    shutil.move(job / name, job / "gain.mrc")
    (copy,) = job.glob("gain_reference_*.mrc")
    shutil.move(copy, job / "gain_reference.mrc")
    for journal in project.private.rglob("*.jsonl"):
        journal.write_text(journal.read_text().replace(name, "gain.mrc").replace('"copy"', '"old"'))
    camera.movie("m10", 60)
    run(settings)
    assert set(gains(project).values()) == set(first.values())
    assert not list(job.glob(name))
    assert file_hash(job / "gain.mrc") == first["m00"]


def test_movies_that_are_known_to_be_corrected_stay_so_with_another_reference(
    started: tuple[SessionSettings, Project, dict[str, str]], camera: Any
) -> None:
    settings, project, _ = started
    for index in range(10, 16):
        camera.movie(f"m{index:02d}", 60, corrected=index == 11)
    run(settings, "waiting for an answer")
    assert "It is done as the question says. 1 movie is processed again." in ask(settings, "--redo")
    camera.reference(Orientation(), response=camera.response * 1.0001)
    run(settings, "waiting for an answer")
    ask(settings, "--redo")
    run(settings)
    used = gains(project)
    assert used["m11"] == ""
    assert len(set(used.values())) == 2


def test_the_reference_itself_and_single_images_do_not_vote() -> None:
    case = Case((8, 8), 0, {}, "copy", "digest")
    case.movies = {"ref": Seen(4, "digest"), "sum": Seen(1, "a"), "m1": Seen(4, "b"), "m2": Seen(4, "c")}
    assert case.voters() == ["m1", "m2"]
    case.add("ref2", Seen(4, "digest"))
    case.add("m3", Seen(4, "d"))
    case.add("m2", Seen(4, "c"))
    assert case.voters() == ["m1", "m2", "m3"]
    case.digest = "b"
    assert case.voters() == ["ref", "m2", "ref2", "m3"], "with another reference, others vote"


def test_of_very_many_movies_each_is_looked_at_once_to_know_who_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Seen] = []
    monkeypatch.setattr("beamside.camera.gain.case.can_tell", lambda seen, _reference="": not looked.append(seen))
    case = Case((8, 8), 0, {}, "copy", "digest")
    for number in range(50):
        case.add(f"m{number}", Seen(4, str(number)))
        assert len(case.voters()) == number + 1
    assert len(looked) == 50


def test_it_is_looked_at_again_over_the_whole_session() -> None:
    looks, number = [], 1
    while number < 1500:
        number = look_due(number)
        looks.append(number)
    assert looks == [12, 24, 48, 96, 192, 384, 584, 784, 984, 1184, 1384, 1584]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one answer"),
        (["--keep", "--redo"], "give one answer"),
        (["--none", "--rotate", "90"], "give one answer"),
    ],
)
def test_an_answer_says_one_thing(words: list[str], message: str) -> None:
    result = CliRunner().invoke(told("gain"), ["anything", *words])
    assert result.exit_code != 0
    assert message in result.output or message in str(result.exception)


WAYS = st.tuples(
    st.sampled_from([0, 90, 180, 270]),
    st.sampled_from(["none", "up-down"]),
    st.sampled_from(["multiply", "divide", "none"]),
)
MOVIES = [f"m{index}" for index in range(6)]


@example(
    [
        ((0, "none", "none"), "newer", 2, True),
        ((0, "none", "multiply"), "newer", 2, True),
        ((0, "none", "none"), "some", 0, True),
    ],
    (0, "none", "multiply"),
)
@given(st.lists(st.tuples(WAYS, st.sampled_from(["all", "newer", "some"]), st.integers(0, 5), st.booleans())), WAYS)
def test_an_answer_changes_what_the_question_named_and_nothing_else(
    doubts: list[tuple[tuple[int, str, str], str, int, bool]], start: tuple[int, str, str]
) -> None:
    names = ("rotate", "flip", "use")
    record: dict[str, Any] = {
        "state": "decided",
        **dict(zip(names, start, strict=True)),
        "sentence": "",
        "shape": [1, 1],
    }
    record["reference"] = "gain.mrc"
    for way, scope, at, redo in doubts:
        if way == way_of(record):
            continue
        concerned = MOVIES[at:] if scope == "newer" else MOVIES[at : at + 1]
        before = {movie: way_of_movie(record, movie) for movie in MOVIES}
        doubt = {**dict(zip(names, way, strict=True)), "scope": scope, "movies": concerned, "before": MOVIES[:at]}
        asking = {**record, "doubt": {**doubt, "signature": "s", "sentence": "?"}}
        assert question_of(asking) == "?"
        after = answered(asking, {"redo": True} if redo else {"keep": True})
        assert after is not None
        assert question_of(after) == ""
        assert present_records([after], "gain.mrc") == [after]
        canonical = Orientation(way[0], way[1]).canonical()  # type: ignore[arg-type]
        same = {way, (canonical.rotate, canonical.flip, way[2])}
        for movie in MOVIES:
            if not redo or (scope != "all" and movie not in concerned):
                assert way_of_movie(after, movie) == before[movie]
            elif scope != "newer" or before[movie] == way_of(record):
                assert way_of_movie(after, movie) in same
        record = after


def test_answers_to_a_session_that_does_not_run_are_recorded_once(
    started: tuple[SessionSettings, Project, dict[str, str]],
) -> None:
    _, project, _ = started
    outcome = tell(project, "gain", {"redo": True})
    assert outcome is not None
    assert outcome.kind == "refused"
    assert [state for state in states(project) if state is not ItemState.DONE] == []


def states(project: Project) -> list[ItemState]:
    found = project.load().job_of_type("motion")
    assert found is not None
    return [entry.state for entry in found.items.values()]
