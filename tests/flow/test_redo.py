"""What a session that goes on computes again, and what it leaves as it is."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from beamside.flow import control
from beamside.flow.again import DoneAgain
from beamside.flow.commands import Recompute
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.start import recompute_cost, state_of_results
from beamside.flow.table import Tables
from beamside.flow.workflow import SHIPPED
from beamside.formats.star import read_star
from beamside.jobs.loading import load_work
from beamside.jobs.registry import job_type
from beamside.project.problems import open_problems
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState
from beamside.project.relion import read_pipeline

Settings = Callable[..., SessionSettings]
WriteMovie = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("whole_chain")

MOTION, CTF, PICK, EXTRACT, CLASSES, SELECT = (
    "MotionCorr/job002",
    "CtfFind/job003",
    "AutoPick/job004",
    "Extract/job005",
    "Class2D/job006",
    "Select/job007",
)
STEPS = ("motion", "ctf", "pick", "extract")


def run(settings: SessionSettings, recompute: str = "") -> Project:
    project = Project(settings.root)
    if recompute:
        control.send(project, "recompute", {"what": recompute})
    assert Session(settings, until_empty=True).run() == "finished"
    return project


def calls(project: Project) -> Counter[str]:
    """What was computed since this was asked last."""
    path = project.root / "calls.txt"
    found = Counter(path.read_text().splitlines() if path.exists() else [])
    path.unlink(missing_ok=True)
    return found


def computed(names: str, steps: tuple[str, ...] = STEPS) -> Counter[str]:
    return Counter(f"{step} {name}_fractions" for step in steps for name in names)


def selected(project: Project) -> float:
    """How many particles are in the newest selection."""
    job = project.load().job_of_type("select")
    assert job is not None
    results = [entry.result for entry in job.items.values() if entry.result]
    return float(results[-1]["metrics"]["selected"])


def selections(project: Project) -> list[float]:
    """How many particles each selection had, one after the other."""
    job = project.load().job_of_type("select")
    assert job is not None
    records = [record for name in job.items for _, record in project.story(name) if "result" in record]
    found = [record for record in records if "selected" in record["result"]["metrics"]]
    return [record["result"]["metrics"]["selected"] for record in sorted(found, key=lambda record: record["time"])]


def told(project: Project) -> str:
    return "\n".join(entry.text() for entry in open_problems(project.load().problems.values()))


def clean(project: Project, job: str, *, harsh: bool = False) -> None:
    """What RELION's cleaning moves to Trash/."""
    kept = {"AutoPick": [], "Extract": ["raw/*_extract.star"], "CtfFind": ["raw"], "MotionCorr": []}
    patterns = ["raw"] if harsh else kept[job.split("/", maxsplit=1)[0]]
    for path in [path for pattern in patterns for path in (project.root / job).glob(pattern)]:
        target = project.root / "Trash" / path.relative_to(project.root).parent
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)


def graph(project: Project) -> dict[str, tuple[object, ...]]:
    jobs = read_pipeline(project.root).jobs
    return {job.name: (job.alias, set(job.inputs), {node.name for node in job.outputs}) for job in jobs}


@pytest.fixture
def settings(session_settings: Settings, write_movie: WriteMovie) -> SessionSettings:
    """Four movies were processed."""
    for name in "abcd":
        write_movie(name)
    found = session_settings()
    project = run(found)
    assert calls(project) == computed("abcd")
    assert selected(project) == 20
    return found


def test_after_a_gentle_clean_one_more_movie_costs_one_movie(
    settings: SessionSettings, write_movie: WriteMovie
) -> None:
    project = Project(settings.root)
    for job in (MOTION, CTF, PICK, EXTRACT):
        clean(project, job)
    assert [trouble.key for trouble in state_of_results(project, settings)] == ["gone:ctf:cleaned:spare"]
    write_movie("e", value=2)
    run(settings)
    assert calls(project) == computed("e")
    assert selected(project) == 25
    assert len(read_star(project.root / EXTRACT / "particles.star")["particles"]) == 50
    assert len(read_star(project.root / CTF / "micrographs_ctf.star")["micrographs"]) == 5
    assert not (project.root / CTF / "raw/a_fractions.ctf").exists(), "what was cleaned stays away"
    assert "CTF estimation: files of 4 results were cleaned" in told(project)
    assert "Nothing needs them" in told(project)
    run(settings, recompute="missing")
    assert calls(project) == computed("abcd", ("ctf",))
    assert "were cleaned" not in told(project)


def test_a_selection_stays_while_the_particles_of_before_are_gone(
    settings: SessionSettings, write_movie: WriteMovie
) -> None:
    project = Project(settings.root)
    for job in (MOTION, EXTRACT):
        clean(project, job, harsh=True)
    table = project.root / EXTRACT / "particles.star"
    write_movie("e", value=2)
    run(settings)
    assert calls(project) == computed("e")
    assert selected(project) == 20
    assert len(read_star(table)["particles"]) == 50, "the table keeps what it had"
    assert "2D classification is not repeated: 4 of the 5 results of Extraction" in told(project)
    sentences = "\n".join(trouble.sentence for trouble in state_of_results(project, settings))
    assert "Extraction: files of 4 results were cleaned: they are in Trash/." in sentences
    assert "--recompute missing" in sentences
    run(settings, recompute="missing")
    assert calls(project) == computed("abcd", ("motion", "extract"))
    assert selections(project)[-1] == 25
    assert selections(project) == sorted(selections(project)), "no selection was smaller than the one before"


def test_what_cannot_be_computed_again_stays(settings: SessionSettings) -> None:
    project = Project(settings.root)
    for job in (MOTION, EXTRACT):
        clean(project, job, harsh=True)
    (project.root / "raw/b_fractions.tiff").unlink()
    run(settings, recompute="missing")
    assert calls(project) == computed("acd", ("motion", "extract"))
    assert selected(project) == 20
    assert len(read_star(project.root / EXTRACT / "particles.star")["particles"]) == 40
    assert "What was made from raw/b_fractions.tiff cannot be computed again" in told(project)
    assert "Extraction: files of 1 result were cleaned" in told(project)


def test_no_round_is_made_before_all_that_is_redone_is_there(
    settings: SessionSettings, session_settings: Settings
) -> None:
    changed = session_settings(pick_threshold=1.0)
    assert recompute_cost(changed) == {"Picking": 4, "Extraction": 4}
    project = run(changed)
    assert calls(project) == computed("abcd", ("pick", "extract"))
    assert selections(project)[-1] == 20
    assert selections(project) == sorted(selections(project))


def test_files_that_were_lost_are_told_and_computed_again_when_asked(settings: SessionSettings) -> None:
    project = Project(settings.root)
    lost = project.root / EXTRACT / "raw/a_fractions.mrcs"
    lost.unlink()
    (project.root / PICK / "raw/b_fractions_picks.jpg").unlink()
    run(settings)
    assert calls(project) == Counter()
    assert "Extraction: files of 1 result are gone, and are not in Trash/" in told(project)
    assert "Picking: files of 1 result are gone" in told(project)
    run(settings, recompute="missing")
    assert calls(project) == computed("a", ("extract",)) + computed("b", ("pick",))
    assert lost.exists()
    assert told(project) == ""


def test_what_a_machine_that_failed_lost_is_computed_again(settings: SessionSettings) -> None:
    project = Project(settings.root)
    with ProjectWriter(project) as writer:
        writer.session("started", pid=1)
    (project.root / EXTRACT / "raw/a_fractions.mrcs").unlink()
    (project.root / PICK / "raw/b_fractions_picks.jpg").unlink()
    run(settings)
    assert calls(project) == computed("a", ("extract",))
    assert selected(project) == 20


def test_a_file_that_is_gone_is_made_again_where_something_is_to_be_made_from_it(
    settings: SessionSettings, session_settings: Settings
) -> None:
    project = Project(settings.root)
    clean(project, MOTION, harsh=True)
    (project.root / "raw/b_fractions.tiff").unlink()
    shutil.move(project.root / "Trash" / MOTION / "raw/c_fractions.mrc", project.root / MOTION)
    (project.root / MOTION / "raw").mkdir()
    shutil.move(project.root / MOTION / "c_fractions.mrc", project.root / MOTION / "raw/c_fractions.mrc")
    run(session_settings(pick_threshold=1.0))
    assert calls(project) == computed("ad", ("motion", "pick", "extract")) + computed("c", ("pick", "extract"))
    job = project.load().job_of_type("pick")
    assert job is not None
    assert job.items["raw/b_fractions"].state is ItemState.FAILED
    assert "raw/b_fractions.tiff is not in the project any more" in job.items["raw/b_fractions"].reason


def test_what_waits_behind_a_result_that_cannot_be_made_again_is_given_up(
    settings: SessionSettings, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(settings.root)
    (project.root / MOTION / "raw/a_fractions.mrc").unlink()
    motion = job_type("motion")
    work = load_work(motion)

    def fail(item: object, *arguments: object) -> object:
        if "a_fractions" in str(item):
            raise ValueError("broken")
        return work(item, *arguments)

    monkeypatch.setattr(motion.work.replace(":", "."), fail)
    run(session_settings(pick_threshold=1.0))
    job = project.load().job_of_type("pick")
    assert job is not None
    assert job.items["raw/a_fractions"].reason == "Motion correction was failed"


def test_results_of_an_earlier_version_stay_until_others_are_asked_for(
    settings: SessionSettings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(settings.root)
    for kind in map(job_type, SHIPPED["movies"]["jobs"]):
        if kind.name in ("motion", "pick", "class2d", "select"):
            monkeypatch.setattr(type(kind), "version", str(int(kind.version) + 1))
    assert recompute_cost(settings) == {}
    run(settings)
    assert calls(project) == Counter()
    rounds = len(selections(project))
    write_movie("e", value=2)
    run(settings)
    assert calls(project) == computed("e")
    assert selected(project) == 25
    assert len(selections(project)) > rounds
    assert "Motion correction: 4 results come from an earlier version of the algorithm (6; now it is 7)" in told(
        project
    )
    assert "outdated" in told(project)
    run(settings, recompute="outdated")
    assert calls(project) == computed("abcd"), "what follows from new results is new"
    assert told(project) == ""
    run(settings)
    assert calls(project) == Counter()
    assert selections(project) == sorted(selections(project))


def test_the_version_that_made_a_result_is_known_by_what_it_says(
    settings: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = job_type("ctf")
    monkeypatch.setattr(type(kind), "version", "of a plug-in")
    with ProjectWriter(Project(settings.root)) as writer:
        stage = Tables(settings, writer).stage("ctf")
        assert set(stage.outdated().values()) == {"3"}
        assert stage.stale() == []


def test_a_deleted_job_stays_deleted_and_comes_back_as_it_was(
    settings: SessionSettings, write_movie: WriteMovie, relion_window: ModuleType
) -> None:
    project = Project(settings.root)
    before = graph(project)
    relion_window.delete(project.root, EXTRACT, CLASSES, SELECT)
    write_movie("e", value=2)
    run(settings)
    assert calls(project) == computed("e", ("motion", "ctf", "pick"))
    assert not any((project.root / name).exists() for name in (EXTRACT, CLASSES, SELECT))
    assert set(graph(project)) == set(before) - {EXTRACT, CLASSES, SELECT}
    assert "Extract/job005 (Extraction) was deleted in RELION" in told(project)
    relion_window.undelete(project.root, EXTRACT)
    run(settings)
    assert calls(project) == computed("e", ("extract",))
    assert {name: (alias, inputs) for name, (alias, inputs, _) in graph(project).items()} == {
        name: (alias, inputs) for name, (alias, inputs, _) in before.items() if name != SELECT
    } | {SELECT: graph(project)[SELECT][:2]}
    assert selected(project) == 25
    assert "deleted" not in told(project)


def test_one_deleted_job_alone_leaves_what_follows_it(
    settings: SessionSettings, write_movie: WriteMovie, relion_window: ModuleType
) -> None:
    project = Project(settings.root)
    relion_window.delete(project.root, EXTRACT)
    write_movie("e", value=2)
    run(settings)
    assert calls(project) == computed("e", ("motion", "ctf", "pick"))
    assert not (project.root / EXTRACT).exists()
    assert selected(project) == 20
    shutil.rmtree(project.root / "Trash")
    assert "Extract/job005 (Extraction) was deleted" in state_of_results(project, settings)[0].sentence
    run(settings)
    assert calls(project) == Counter()
    assert EXTRACT not in graph(project)
    assert (project.root / SELECT / "particles.star").exists()
    run(settings, recompute="missing")
    assert calls(project) == computed("abcde", ("extract",))
    jobs = graph(project)
    new = next(name for name in jobs if name.startswith("Extract/"))
    assert new != EXTRACT
    assert jobs[CLASSES][1] == {f"{new}/particles.star"}
    assert selected(project) == 25
    assert selections(project) == sorted(selections(project))


def test_a_job_that_is_deleted_while_the_session_runs_is_not_made_again(
    settings: SessionSettings, write_movie: WriteMovie, relion_window: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(settings.root)
    write_movie("e", value=2)
    loop, looks, answers = Session._take_events, [], []

    def delete_first(session: Session) -> None:
        if not looks:
            relion_window.delete(project.root, EXTRACT, CLASSES, SELECT)
            session.projection.relion.publish()
            answers.append(session.ask(Recompute(what="missing"), "a person"))
        looks.append(1)
        loop(session)

    monkeypatch.setattr(Session, "_take_events", delete_first)
    run(settings)
    assert calls(project) == computed("e", ("motion", "ctf", "pick"))
    assert not (project.root / EXTRACT).exists()
    assert EXTRACT not in graph(project)
    assert "Extract/job005 (Extraction) was deleted" in told(project)
    assert "In place of Extract/job005, Class2D/job006, Select/job007" in answers[0]


def test_a_project_whose_jobs_were_all_deleted_can_be_made_anew(
    settings: SessionSettings, relion_window: ModuleType
) -> None:
    project = Project(settings.root)
    relion_window.delete(project.root, *graph(project))
    run(settings)
    assert calls(project) == Counter()
    assert graph(project) == {}
    run(settings, recompute="missing")
    assert calls(project) == computed("abcd")
    assert len(graph(project)) == 7
    assert selected(project) == 20
    run(settings)
    assert calls(project) == Counter()
    assert told(project) == ""


def test_a_stage_that_gets_its_inputs_one_by_one_is_told_once_and_not_with_each() -> None:
    def a_stage(title: str) -> Any:
        return SimpleNamespace(
            title=title, entry=lambda item: SimpleNamespace(result={}), is_held_back=lambda item: False
        )

    again, motion, ctf = DoneAgain(), a_stage("Motion correction"), a_stage("CTF estimation")
    for item in "abc":
        again.add(motion, item, "inputs changed")
    seen = []
    for item in "abc":
        again.add(ctf, item, "inputs changed")  # its micrograph is about to be another one
        again.discard(motion, item)
        seen.append([trouble.sentence for trouble in again.troubles()])
        again.discard(ctf, item)
        told = [trouble.key for trouble in again.troubles()]
        assert told == (
            [] if item == "c" else [f"again:{one}:inputs changed" for one in ("Motion correction", "CTF estimation")]
        )
    assert seen[0][0] == "Motion correction: 3 results are computed again (inputs changed); 1 of them done."
    assert seen[2] == [
        "Motion correction: 3 results were computed again (inputs changed).",
        "CTF estimation: 3 results are computed again (inputs changed); 2 of them done.",
    ]
    again.add(motion, "a", "a file was lost")
    assert [trouble.sentence for trouble in again.troubles()] == [
        "Motion correction: 1 result is computed again (a file was lost)."
    ]
