"""Settings of a session that exists get other values: what depends on them is computed again, once, and nothing else."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.flow import control
from beamside.flow.asking import ask
from beamside.flow.changing import changes_between, check_running, with_values
from beamside.flow.cost import cost_of
from beamside.flow.dispatch import Dispatcher
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.start import prepare
from beamside.flow.stored_settings import load_settings
from beamside.flow.table import Tables
from beamside.project.project import Project
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]
WriteMovie = Callable[..., Path]


def toy_jobs() -> ModuleType:
    """The jobs of `toy.py`, for a test that uses them for many examples."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(settings: SessionSettings) -> Project:
    assert Session(settings, until_empty=True).run() == "finished"
    return Project(settings.root)


def calls(project: Project) -> Counter[str]:
    """What was computed since this was asked last."""
    path = project.root / "calls.txt"
    found = Counter(
        path.read_text().replace("_fractions", "").replace("raw/", "").splitlines() if path.exists() else []
    )
    path.unlink(missing_ok=True)
    return found


def keys(project: Project) -> dict[str, dict[str, tuple[ItemState, str]]]:
    """State and key of every item; of rounds, of which there may be more, those of the newest."""
    found = {}
    for job in project.load().jobs.values():
        table = {entry.name: (entry.state, entry.key) for entry in job.items.values()}
        found[job.type_name] = {"newest": list(table.values())[-1]} if "round001" in table else table
    return found


def answers(project: Project) -> list[tuple[str, str]]:
    return [(record["outcome"], record["sentence"]) for record in project.load().commands.values()]


def when(monkeypatch: pytest.MonkeyPatch, due: Callable[[Session], bool], do: Callable[[], object]) -> None:
    """Do something once, in the loop of a session that runs, as soon as it is due."""
    loop, done = Session._take_events, list[bool]()

    def look(session: Session) -> None:
        if not done and due(session):
            done.append(True)
            do()
        loop(session)

    monkeypatch.setattr(Session, "_take_events", look)


@pytest.mark.usefixtures("light_workflow")
@pytest.mark.parametrize("value", [3, "3"])
def test_a_running_session_goes_on_with_other_parameters_as_if_it_had_begun_with_them(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: Any
) -> None:
    for name in ("a", "b", "c"):
        write_movie(name)
    settings = session_settings()
    prepare(settings)
    project = Project(settings.root)
    with monkeypatch.context() as patched:
        when(
            patched,
            lambda session: sum(bool(entry.result) for entry in session.tables.stages[2].job.items.values()) == 3,
            lambda: control.send(project, "set", {"values": {"patches_x": value}}),
        )
        run(settings)
    assert calls(project) == {f"{job} {name}": 2 for job in ("motion", "extract") for name in "abc"}
    ((kind, sentence),) = answers(project)
    assert kind == "done"
    assert sentence == "--patches-x is 3 (was 5). 6 results are computed again."
    state = project.load()
    assert state.settings["patches_x"] == 3
    assert next(job for job in state.jobs.values() if job.type_name == "motion").parameters["patches_x"] == 3
    assert load_settings(project).to_json()["patches_x"] == 3

    assert keys(project) == keys(run(session_settings(name="fresh", patches_x=3)))
    run(load_settings(project))
    assert calls(project) == {}, "the next session has them too, and nothing to do"


@pytest.mark.usefixtures("light_workflow")
def test_a_session_that_dies_while_it_changes_is_resumed_with_the_change_and_answers_once(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_movie(name)
    settings = session_settings()
    project = run(settings)
    calls(project)
    control.send(project, "set", {"values": {"patches_x": 3}})

    class Death(BaseException):
        """The process ends at once."""

    def die(_tables: Tables) -> int:
        raise Death

    with monkeypatch.context() as patched:
        patched.setattr(Tables, "take_parameters", die)
        with pytest.raises(Death):
            Session(settings, until_empty=True).run()
    assert len(control.receive(project)) == 1
    run(load_settings(project))
    assert calls(project) == {f"{job} {name}": 1 for job in ("motion", "extract") for name in "ab"}
    assert answers(project) == [("done", "The session has these settings already.")]


@pytest.mark.usefixtures("light_workflow")
def test_where_no_session_runs_the_next_one_has_the_change_and_its_cost_is_known_before(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for name in ("a", "b"):
        write_movie(name)
    settings = session_settings()
    prepare(settings)
    project = run(settings)
    calls(project)
    costs = cost_of(with_values(load_settings(project), {"classes": 7}))
    assert [(cost.title, cost.results) for cost in costs] == [("Gathering", 1)]
    assert costs[0].seconds == list(project.load().jobs["Class2D/job004"].items.values())[-1].seconds > 0
    outcome = ask(project, "set", {"values": {"classes": 7, "workers": 2}}, seconds=0.0)
    assert outcome is not None
    assert outcome.sentence == (
        "--classes is 7 (was 50); --workers is 2 (was 0). 1 result is computed again when the session goes on."
    )
    assert project.load().settings["classes"] == 50, "the journal says what sessions had"
    run(load_settings(project))
    assert calls(project) == {}
    assert project.load().settings["classes"] == 7
    assert keys(project) == keys(run(session_settings(name="fresh", classes=7)))


@pytest.mark.usefixtures("light_workflow")
def test_a_gain_reference_that_is_named_later_concerns_all_that_was_made_without_it(
    session_settings: Settings, write_movie: WriteMovie, tmp_path: Path
) -> None:
    write_movie("a")
    settings = session_settings(gain_check=False)
    prepare(settings)
    project = run(settings)
    calls(project)
    reference = tmp_path / "facility/references/camera/k3.tiff"  # not where other tests' sessions look for one
    reference.parent.mkdir(parents=True)
    tifffile.imwrite(reference, np.linspace(0.5, 1.5, 64 * 64, dtype=np.float32).reshape(64, 64))
    costs = cost_of(with_values(load_settings(project), {"gain": str(reference)}))
    assert [(cost.title, cost.results) for cost in costs] == [("Measuring", 1), ("Cutting", 1)]
    outcome = ask(project, "set", {"values": {"gain": str(reference)}}, seconds=0.0)
    assert outcome is not None
    assert "2 results are computed again when the session goes on" in outcome.sentence
    run(load_settings(project))
    assert calls(project) == {"motion a": 1, "extract a": 1}
    outcome = ask(project, "set", {"values": {"gain": str(tmp_path / "nothing.mrc")}}, seconds=0.0)
    assert outcome is not None
    assert outcome.kind == "refused"


REFUSED = [
    ({"patchesx": 3}, "There is no setting 'patchesx'; did you mean"),
    ({"name": "other"}, "--name says which session it is"),
    ({"patches_x": -3}, "--patches-x is -3: "),
    ({"voltage": "high"}, '--voltage is "high": '),
]


@pytest.mark.usefixtures("light_workflow")
@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_what_is_impossible_is_refused_and_changes_nothing(
    session_settings: Settings, write_movie: WriteMovie, values: dict[str, Any], sentence: str
) -> None:
    settings = session_settings()
    prepare(settings)
    control.send(Project(settings.root), "set", {"values": {**values, "cs": 2.0}})
    write_movie("a")
    project = run(settings)
    ((kind, said),) = answers(project)
    assert kind == "refused"
    assert sentence in said
    assert project.load().settings == settings.to_json()
    assert load_settings(project) == settings


def test_what_is_taken_at_the_start_is_refused_while_a_session_runs(session_settings: Settings) -> None:
    settings = session_settings()
    changed = with_values(settings, {"data": ["/elsewhere/*.tiff"], "gain_flip": "none", "cs": 2.0})
    with pytest.raises(ConfigError, match="--data and --gain-flip can be changed only while the session does not run"):
        check_running(changes_between(settings, changed))
    check_running(changes_between(settings, with_values(settings, {"cs": 2.0, "workers": 3, "idle_minutes": 5})))


class TestTables:
    """What is in the workers' hands while the settings change."""

    @pytest.fixture
    def toy_run(self, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        for job in (toy.Step, toy.Second, toy.Third, toy.Gather, toy.Choose):
            monkeypatch.setattr(job, "optics_used", ("voltage",) if job is toy.Second else ())
        found = toy.Toy(tmp_path, class_min=10)
        yield found
        found.writer.close()

    def change(self, run: Any, **values: Any) -> int:
        run.settings.take_over(with_values(run.settings, values))
        return int(run.tables.take_parameters())

    def test_what_is_in_flight_is_done_again_when_it_comes(self, toy_run: Any) -> None:
        toy_run.arrive("m1")
        toy_run.dispatcher.fill()
        toy_run.finish()
        toy_run.dispatcher.fill()
        assert toy_run.given() == [("second", "m1")]
        assert self.change(toy_run, voltage=200) == 0, "nothing is there that is done again"
        toy_run.finish()
        assert toy_run.states("m1") == ["done", "done", "waiting"]
        toy_run.work_off()
        assert toy_run.entry("first", "m1").attempt == 1
        for job in ("second", "third"):
            assert toy_run.entry(job, "m1").key == toy_run.stage(job).expected_key("raw/m1")

    def test_what_has_failed_is_tried_with_the_new_parameters(self, toy_run: Any) -> None:
        toy_run.arrive("m1", content="bad")
        toy_run.work_off()
        assert toy_run.entry("second", "m1").state is ItemState.FAILED
        assert self.change(toy_run, voltage=200) >= 1
        toy_run.dispatcher.fill()
        assert toy_run.given() == [("second", "m1")]

    @pytest.mark.parametrize("fails", [False, True])
    def test_a_round_in_flight_is_made_again_when_it_comes(self, toy_run: Any, fails: bool) -> None:
        toy_run.arrive("m1", "m2")
        toy_run.work_off()
        assert toy_run.rounds.consider(final=True)
        assert self.change(toy_run, classes=7) == 0
        failed = {"result": None, "reason": "no", "permanent": True, "log": "", "seconds": 1.0}
        toy_run.finish(0, failed if fails else None)
        rounds = toy_run.stage("class2d").job.items
        assert [entry.state for entry in rounds.values()] == [ItemState.WAITING]
        assert toy_run.rounds.consider(final=True)
        toy_run.finish()
        assert [entry.key[:8] for entry in rounds.values()] == [toy_run.stage("class2d").settings_key()]

    def test_a_round_is_looked_for_anew_when_the_rule_for_it_has_changed(self, toy_run: Any) -> None:
        self.change(toy_run, class_min=1000)
        toy_run.arrive("m1", "m2")
        toy_run.work_off()
        assert not toy_run.rounds.consider(final=False)
        self.change(toy_run, class_min=10)
        assert toy_run.rounds.consider(final=False)

    def test_a_change_and_back_is_no_change_for_what_was_not_begun_again(self, toy_run: Any) -> None:
        toy_run.arrive("m1")
        toy_run.work_off()
        key = toy_run.entry("second", "m1").key
        assert self.change(toy_run, voltage=200) == 2
        self.change(toy_run, voltage=300)
        toy_run.work_off()
        assert toy_run.entry("second", "m1").key == key


STEPS = (
    st.tuples(st.just("arrive"), st.sampled_from(["m1", "m2", "m3 bad", "m4 odd"]))
    | st.tuples(st.just("voltage"), st.sampled_from([200, 300]))
    | st.tuples(st.just("classes"), st.sampled_from([7, 50]))
    | st.tuples(st.sampled_from(["work", "round", "kill", "finish", "work off", "end"]), st.integers(0, 3))
)


@examples(max_examples=40, deadline=None)
@given(story=st.lists(STEPS, max_size=25))
def test_whatever_is_changed_when_the_end_is_that_of_a_session_that_began_with_it(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, Any]]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        toy = toy_jobs()
        toy.install(patched.setitem)
        patched.setattr("beamside.flow.retries.RETRY_SECONDS", 0.0)
        patched.setattr("os.fsync", lambda _descriptor: None)
        for job in (toy.Step, toy.Second, toy.Third, toy.Gather, toy.Choose):
            patched.setattr(job, "optics_used", ("voltage",) if job is toy.Second else ())
        run, files = toy.Toy(tmp_path_factory.mktemp("changed"), class_min=10), dict[str, str]()
        for what, which in story:
            if what == "arrive":
                files[which] = which.partition(" ")[2] or "a"
                run.arrive(which, content=files[which])
            elif what in ("voltage", "classes"):
                run.settings.take_over(with_values(run.settings, {what: which}))
                run.tables.take_parameters()
            elif what == "work":
                run.dispatcher.fill()
            elif what == "round":
                run.rounds.consider(final=False)
            elif what == "work off":
                run.work_off()
            elif what == "end":
                end(run)
            elif what == "kill":
                run.reopen()
            elif run.hands.tasks:
                run.finish(which % len(run.hands.tasks))
        end(run)
        fresh = toy.Toy(tmp_path_factory.mktemp("fresh"), class_min=10)
        fresh.settings.take_over(run.settings.model_copy(update={"session": fresh.settings.session}))
        fresh.tables.take_parameters()
        for name, content in files.items():
            fresh.arrive(name, content=content)
        end(fresh)
        assert tables_of(run) == tables_of(fresh)
        for found in (run, fresh):
            found.writer.close()


def end(run: Any) -> None:
    """Do all that is left, with the last round."""
    run.work_off()
    while run.rounds.consider(final=True):
        run.work_off()


def tables_of(run: Any) -> dict[str, Any]:
    """State, key and result of each item; of rounds those of the newest that is done, with its items in any order."""
    found = {name: dict(table) for name, table in run.table().items() if name not in ("class2d", "select")}
    for name in ("class2d", "select"):
        rounds = [entry for entry in run.stage(name).job.items.values() if entry.state is ItemState.DONE]
        newest = rounds[-1] if rounds else None
        found[name] = newest and (newest.key[:8], sorted(newest.result["values"]["of"]) if name == "class2d" else None)
    return found


def test_fewer_workers_work_from_the_next_task_on_and_no_more_than_there_are(toy: ModuleType, tmp_path: Path) -> None:
    run = toy.Toy(tmp_path, executor="local", workers=4)
    dispatcher: Dispatcher = run.dispatcher
    assert dispatcher.places.free() == 5, "one is ready for the worker that comes free first"
    assert dispatcher.limit(2)
    assert dispatcher.places.free() == 2, "all that are given out are begun"
    assert not dispatcher.limit(9)
    assert (dispatcher.places.workers, dispatcher.places.free()) == (4, 5)
    run.writer.close()
