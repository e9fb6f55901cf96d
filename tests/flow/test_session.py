import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from beamside.acquisition.intake import Intake
from beamside.acquisition.reports import LookReport, Trouble
from beamside.errors import InputError, JournalError
from beamside.flow import control
from beamside.flow.former_sessions import left_finishing
from beamside.flow.projection import rebuild
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.start import prepare, recompute_cost
from beamside.flow.stored_settings import load_settings, settings_path
from beamside.formats.leftovers import this_place
from beamside.formats.mrc import write_mrc
from beamside.formats.star import read_star
from beamside.project.journal import JournalFile
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemEntry, ItemState
from beamside.project.relion_recovery import read_pipeline

Settings = Callable[..., SessionSettings]
WriteMovie = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("light_workflow")


def run(settings: SessionSettings) -> Project:
    assert Session(settings, until_empty=True).run() == "finished"
    return Project(settings.root)


def states(project: Project, job: str) -> dict[str, ItemState]:
    found = project.load().job_of_type(job)
    assert found is not None
    return {Path(name).name.removesuffix("_fractions"): entry.state for name, entry in found.items.items()}


def calls(project: Project) -> Counter[str]:
    path = project.root / "calls.txt"
    return Counter(path.read_text().splitlines() if path.exists() else [])


def selections(project: Project) -> Counter[str]:
    return Counter((project.root / "rounds.txt").read_text().splitlines())


def send_once_running(project: Project, command: str) -> None:
    while project.writer_process() is None:
        time.sleep(0.01)
    control.send(project, command)


def test_what_a_session_that_died_was_asked_does_not_concern_the_next_one(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("a")
    settings = session_settings()
    control.send(Project(settings.root), "stop")
    assert states(run(settings), "extract") == {"a": ItemState.DONE}


def test_a_paused_session_stays_paused_however_long_nothing_arrives(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    session = Session(session_settings(idle_minutes=0.001))
    session.state = "paused"
    session.source._last_arrival -= 3600  # type: ignore[attr-defined]
    assert not session._all_done()
    assert session.state == "paused"
    assert session._shown_state() == "paused"


def test_every_movie_goes_through_all_jobs(session_settings: Settings, write_movie: WriteMovie) -> None:
    for name in ("a", "b", "c"):
        write_movie(name)
    project = run(session_settings())
    assert states(project, "import") == dict.fromkeys("abc", ItemState.DONE)
    assert states(project, "extract") == dict.fromkeys("abc", ItemState.DONE)
    table = read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    assert sorted(table.column("rlnMicrographName")) == [f"raw/{name}_fractions" for name in "abc"]
    assert {job.status for job in read_pipeline(project.root).jobs} == {"Succeeded"}


def test_the_journal_says_where_each_result_was_made(session_settings: Settings, write_movie: WriteMovie) -> None:
    write_movie("a")
    project = run(session_settings())
    ends = {job: record for job, record in project.story("raw/a_fractions") if record["state"] == "done"}
    made = [record["where"]["pid"] for job, record in ends.items() if not job.startswith("Import")]
    assert made == [os.getpid()] * 2
    told = [json.loads(line) for path in project.workers.iterdir() for line in path.read_text().splitlines() if line]
    assert [line["begins"] for line in told] == [True, False] * (len(told) // 2)
    assert len(told) >= 4


def test_tables_have_every_item_though_the_clock_steps_back_meanwhile(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movie("a")
    item = ProjectWriter.item

    def and_then_an_hour_earlier(writer: ProjectWriter, *given: Any, **more: Any) -> ItemEntry:
        entry = item(writer, *given, **more)
        if given[1:] == ("raw/a_fractions", ItemState.DONE) and given[0].startswith("MotionCorr"):
            write_movie("b", value=2)
            monkeypatch.setattr("beamside.project.project.time.time", lambda: entry.changed - 3600)
        return entry

    monkeypatch.setattr(ProjectWriter, "item", and_then_an_hour_earlier)
    monkeypatch.setattr("beamside.flow.projection.Pace.done", lambda _pace: None)
    project = run(session_settings())
    table = read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    assert sorted(table.column("rlnMicrographName")) == ["raw/a_fractions", "raw/b_fractions"]


def test_a_failure_is_kept_with_its_reason_and_the_stream_goes_on(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for name in ("a", "bad", "c"):
        write_movie(name)
    project = run(session_settings())
    assert states(project, "motion") == {"a": ItemState.DONE, "bad": ItemState.FAILED, "c": ItemState.DONE}
    assert set(states(project, "extract")) == {"a", "c"}
    job = project.load().job_of_type("motion")
    assert job is not None
    assert "no frames worth a sum" in job.items["raw/bad_fractions"].reason
    assert calls(project)["motion raw/bad_fractions"] == 1, "trying the same again would only fail again"


def test_a_result_that_nobody_can_record_fails_its_item_and_the_stream_goes_on(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for name in ("a", "strange", "z"):
        write_movie(name)
    project = run(session_settings())
    assert states(project, "motion") == {"a": ItemState.DONE, "strange": ItemState.FAILED, "z": ItemState.DONE}
    job = project.load().job_of_type("motion")
    assert job is not None
    assert "set" in job.items["raw/strange_fractions"].reason
    run(session_settings())


def test_a_session_waits_while_its_journals_cannot_be_written(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_movie(f"m{number}")
    write, calls_of_write = os.write, []

    def full_for_a_while(descriptor: int, data: bytes) -> int:
        calls_of_write.append(1)
        if len(calls_of_write) > 12 and len(calls_of_write) % 3:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr("beamside.flow.scheduler.TICK", 0.001)
    monkeypatch.setattr("beamside.project.journal.os", SimpleNamespace(**{**vars(os), "write": full_for_a_while}))
    project = run(session_settings())
    assert states(project, "extract") == {f"m{number}": ItemState.DONE for number in range(3)}
    assert all(count == 1 for count in calls(project).values()), "nothing was done twice"


def test_a_session_does_not_wait_for_a_mount_that_is_lost(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movie("a")
    settings = session_settings()
    append, lost = JournalFile.append, []

    def stale(journal: JournalFile, record: dict[str, Any], *, sync: bool = True) -> None:
        if lost or record.get("state") == "done":
            lost.append(1)
            raise JournalError("The journal cannot be written: Stale file handle") from OSError(
                116, "Stale file handle"
            )
        append(journal, record, sync=sync)

    session = Session(settings, until_empty=True)
    with monkeypatch.context() as patched:
        patched.setattr(JournalFile, "append", stale)
        with pytest.raises(JournalError, match="Stale file handle"):
            session.run()
    assert states(run(settings), "extract") == {"a": ItemState.DONE}


def test_files_of_one_name_that_are_set_aside_each_keep_their_reason(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for folder in ("one", "two"):
        broken = write_movie(f"{folder}/same")
        broken.write_bytes(broken.read_bytes()[:-40])
    project = run(session_settings())
    write_movie("three/same")
    run(session_settings())
    job = project.load().job_of_type("import")
    assert job is not None
    assert job.items["raw/same_fractions"].state is ItemState.DONE
    reasons = [entry.reason for entry in job.items.values() if entry.state is ItemState.FAILED]
    assert sorted(folder for folder in ("one", "two") for reason in reasons if f"/{folder}/same" in reason) == [
        "one",
        "two",
    ]
    assert len(reasons) == 2


def test_a_passing_fault_is_tried_again(session_settings: Settings, write_movie: WriteMovie) -> None:
    write_movie("flaky")
    project = run(session_settings())
    assert states(project, "motion") == {"flaky": ItemState.DONE}
    story = [(record["state"], record.get("reason", "")) for _, record in project.story("raw/flaky_fractions")]
    assert ("waiting", "Input/output error (raw/flaky_fractions)") in story


def test_a_rejected_item_is_counted_and_not_used(session_settings: Settings, write_movie: WriteMovie) -> None:
    write_movie("odd")
    write_movie("fine")
    project = run(session_settings())
    assert states(project, "motion") == {"odd": ItemState.REJECTED, "fine": ItemState.DONE}
    table = read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    assert table.column("rlnMicrographName") == ["raw/fine_fractions"]


def test_a_rejected_item_stays_out_of_the_tables_while_it_is_processed_again(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("odd")
    write_movie("fine")
    project = run(session_settings())
    with ProjectWriter(project) as writer:
        writer.item("MotionCorr/job002", "raw/odd_fractions", ItemState.WAITING)
    rebuild(project)
    table = read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    assert table.column("rlnMicrographName") == ["raw/fine_fractions"]


def test_a_second_run_does_no_work(session_settings: Settings, write_movie: WriteMovie) -> None:
    for name in ("a", "b", "odd", "bad"):
        write_movie(name)
    first = calls(run(session_settings()))
    assert calls(run(session_settings())) == first


def test_a_changed_parameter_recomputes_what_depends_on_it_and_says_so_before(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_movie(name)
    project = run(session_settings())
    changed = session_settings(patches_x=3)
    assert recompute_cost(changed) == {"Measuring": 2, "Cutting": 2}
    assert recompute_cost(session_settings(report_minutes=9)) == {}
    run(changed)
    assert calls(project) == Counter(
        {f"{job} raw/{name}_fractions": 2 for job in ("motion", "extract") for name in "ab"}
    )
    assert set(states(project, "extract").values()) == {ItemState.DONE}


def test_movies_that_come_later_are_added_to_a_finished_session(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("a")
    run(session_settings())
    write_movie("b", value=2)
    project = run(session_settings())
    assert states(project, "extract") == dict.fromkeys("ab", ItemState.DONE)
    assert calls(project)["motion raw/a_fractions"] == 1


def test_a_movie_that_went_on_to_be_written_after_it_was_taken_is_processed_anew_as_the_same_item(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("a", (2, 64, 64))
    run(session_settings())
    write_movie("a", (5, 64, 64))
    project = run(session_settings())
    assert calls(project) == Counter({f"{job} raw/a_fractions": 2 for job in ("motion", "extract")})
    (item,) = project.load().job_of_type("import").items.values()  # type: ignore[union-attr]
    assert item.state is ItemState.DONE
    assert item.result is not None
    assert (item.result["outputs"]["movie"], item.result["values"]["frames"]) == ("raw/a_fractions_v2.tiff", 5)
    table = read_star(project.root / "Import/job001/movies.star")["movies"]
    assert table.column("rlnMicrographMovieName") == ["raw/a_fractions_v2.tiff"]
    assert calls(run(session_settings())) == calls(project), "what was done anew is not done again"


def test_a_session_that_removes_sources_ends_when_they_are_gone_and_says_which_are_kept(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for number in range(4):
        write_movie(f"m{number}", value=number + 1)
    short = write_movie("short", (2, 64, 64))
    project = run(session_settings(remove_source=True, remove_after=0.01))
    assert list(short.parent.iterdir()) == [short]
    (kept,) = [entry for key, entry in project.load().problems.items() if "source-kept" in key and entry.open]
    assert "1 source is kept" in kept.sentence
    assert short.name in kept.sentence


def test_aggregates_run_at_a_count_at_increments_and_over_all_at_the_end(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for number in range(5):
        write_movie(f"m{number}")
    project = run(session_settings())
    job = project.load().job_of_type("class2d")
    assert job is not None
    results = [entry.result for entry in job.items.values()]
    classified = [result["metrics"]["classified"] for result in results if result]
    assert classified[-1] == 50
    assert all(later > earlier for earlier, later in pairwise(classified[:-1]))
    assert classified[0] >= 20
    assert results[-1] is not None
    assert results[-1]["values"]["final"]


def test_an_aggregate_that_follows_another_has_a_round_for_each_of_its_rounds(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for number in range(5):
        write_movie(f"m{number}")
    project = run(session_settings())
    state = project.load()
    before, after = state.job_of_type("class2d"), state.job_of_type("select")
    assert before is not None
    assert after is not None
    newest = list(before.items)[-1]
    assert set(after.items) <= set(before.items)
    assert {entry.state for entry in after.items.values()} == {ItemState.DONE}
    result = after.items[newest].result
    assert result is not None
    assert result["metrics"]["selected"] == 25
    assert result["values"]["final"]
    told = state.problems["select-few"]
    assert (told.sentence, told.count) == ("Only 25 were chosen.", 1), "a warning is that of the newest round"
    run(session_settings())
    assert selections(project)[newest] == 1, "a second run does no work"


def test_a_changed_rule_selects_again_and_classifies_nothing(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for name in ("a", "b", "c"):
        write_movie(name)
    project = run(session_settings())
    changed = session_settings(select_score=0.9)
    assert recompute_cost(changed) == {"Choosing": 1}
    run(changed)
    job = project.load().job_of_type("class2d")
    assert job is not None
    newest = list(job.items)[-1]
    assert selections(project)[newest] == 2
    assert job.items[newest].attempt == 1
    run(session_settings(select_score=0.9, classes=7))
    assert selections(project)[newest] == 3, "new classes are selected from again"


def test_particles_that_were_extracted_again_are_classified_again_before_the_end(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "beamside.flow.projection.SHARE", 1e9
    )  # rounds are considered at every turn, however busy the machine is
    for number in range(5):
        write_movie(f"m{number}")
    job = run(session_settings()).load().job_of_type("class2d")
    assert job is not None
    before = len(job.items)
    job = run(session_settings(patches_x=3)).load().job_of_type("class2d")
    assert job is not None
    rounds = [entry.result for entry in job.items.values() if entry.result][before:]
    assert [result["values"]["final"] for result in rounds] == [*[False] * (len(rounds) - 1), True]
    assert len(rounds) > 1, "the classes of before are out of date as soon as there are enough particles again"


def test_a_truncated_movie_is_set_aside_with_the_reason(session_settings: Settings, write_movie: WriteMovie) -> None:
    write_movie("a")
    broken = write_movie("broken", shape=(3, 64, 64))
    broken.write_bytes(broken.read_bytes()[:-40])
    project = run(session_settings())
    assert states(project, "import") == {"a": ItemState.DONE, "broken": ItemState.FAILED}
    job = project.load().job_of_type("import")
    assert job is not None
    assert str(broken) in job.items["raw/broken_fractions"].reason
    write_movie("broken", value=3)
    run(session_settings())
    assert states(project, "extract") == {"a": ItemState.DONE, "broken": ItemState.DONE}


def test_a_gain_reference_of_another_shape_is_told_and_mended_by_giving_the_right_one(
    session_settings: Settings, write_movie: WriteMovie, tmp_path: Path
) -> None:
    write_movie("a")
    write_mrc(tmp_path / "wrong.mrc", np.ones((50, 64), np.float32))
    project = run(session_settings(gain=str(tmp_path / "wrong.mrc")))
    job = project.load().job_of_type("import")
    assert job is not None
    assert states(project, "import") == {"a": ItemState.DONE}, "raw data are safe whatever the gain"
    result = job.items["raw/a_fractions"].result
    assert result is not None
    assert "64 x 50" in result["values"]["gain_error"]
    write_mrc(tmp_path / "right.mrc", np.ones((64, 64), np.float32))
    before = calls(project)["motion raw/a_fractions"]
    run(session_settings(gain=str(tmp_path / "right.mrc")))
    assert calls(project)["motion raw/a_fractions"] == before + 1


def test_a_stopped_session_goes_on_where_it_was(session_settings: Settings, write_movie: WriteMovie) -> None:
    for name in ("a", "b"):
        write_movie(name)
    settings = session_settings()
    project = Project(settings.root)
    threading.Thread(target=send_once_running, args=(project, "stop")).start()
    assert Session(settings).run() == "stopped"
    assert {job.status for job in read_pipeline(project.root).jobs} == {"Aborted"}
    run(settings)
    assert states(project, "extract") == dict.fromkeys("ab", ItemState.DONE)


def test_a_copied_project_goes_on_in_its_own_directory(
    session_settings: Settings, write_movie: WriteMovie, tmp_path: Path
) -> None:
    write_movie("a")
    settings = session_settings(group="lab")
    run(settings)
    moved = tmp_path / "elsewhere" / "others" / "again"
    shutil.copytree(settings.root, moved, symlinks=True)
    found = load_settings(Project(moved))
    assert found.root == moved
    assert found.jobs == settings.jobs
    assert load_settings(Project(settings.root)).root == settings.root
    linked = tmp_path / "linked"
    linked.symlink_to(settings.root)
    assert load_settings(Project(linked)).root == settings.root


@pytest.mark.parametrize("state", [ItemState.QUEUED, ItemState.RUNNING])
def test_what_was_in_flight_when_a_session_died_is_processed_by_the_next_one(
    session_settings: Settings, write_movie: WriteMovie, state: ItemState
) -> None:
    for name in ("a", "b"):
        write_movie(name)
    project = run(session_settings())
    with ProjectWriter(project) as writer:  # the records of a session that was killed while it worked at "a"
        for step in (ItemState.WAITING, ItemState.QUEUED, state)[: 2 if state is ItemState.QUEUED else 3]:
            writer.item("MotionCorr/job002", "raw/a_fractions", step)
    run(session_settings())
    assert states(project, "motion") == dict.fromkeys("ab", ItemState.DONE)
    assert calls(project)["motion raw/a_fractions"] == 2


def test_star_files_and_pipeline_are_made_again_from_the_journals(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("a")
    project = run(session_settings())
    star = project.root / "MotionCorr/job002/corrected_micrographs.star"
    before = star.read_bytes()
    files = ["default_pipeline.star", "MotionCorr/job002/job.star", ".gui_motioncorrjob.star", "checksums.sha256"]
    texts = {name: (project.root / name).read_bytes() for name in files}
    for path in (star, project.private / "index.sqlite", *(project.root / name for name in files)):
        path.unlink()
    assert rebuild(project).lost == 0
    assert star.read_bytes() == before
    assert {name: (project.root / name).read_bytes() for name in files} == texts
    assert (project.root / "MotionCorr/job002/RELION_JOB_EXIT_SUCCESS").exists()
    assert len(read_pipeline(project.root).jobs) == 5


def test_a_rebuild_counts_results_whose_files_are_gone(session_settings: Settings, write_movie: WriteMovie) -> None:
    for name in ("a", "b"):
        write_movie(name)
    project = run(session_settings())
    before = calls(project)
    lost = project.root / "MotionCorr/job002/raw/a_fractions.txt"
    lost.unlink()
    assert rebuild(project).lost == 1
    table = read_star(project.root / "MotionCorr/job002/corrected_micrographs.star")["micrographs"]
    assert table.column("rlnMicrographName") == ["raw/a_fractions", "raw/b_fractions"]
    assert calls(run(session_settings())) == before, "computed again only when that is asked for"


def test_a_session_that_died_while_finishing_finishes_when_it_goes_on() -> None:
    def after(*states: str) -> bool:
        return left_finishing([{"state": state} for state in states])

    assert after("started", "finishing")
    assert after("started", "paused", "finishing", "resumed")
    assert not after("started", "finishing", "finished")
    assert not after("started", "finishing", "finished", "started")
    assert not after("started", "finishing", "stopped")
    assert not after()


def test_an_unreadable_source_is_not_an_empty_one(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that is lost while the session finishes must not make it end without the files that are there."""
    write_movie("a")
    look, looks = Intake.look, []

    def lost_for_a_while(intake: Intake) -> LookReport:
        looks.append(1)
        if not 3 <= len(looks) <= 9:
            return look(intake)
        write_movie("b", value=2)
        return LookReport(complete=False, standing=[Trouble("away", "the folder cannot be read")])

    monkeypatch.setattr(Intake, "look", lost_for_a_while)
    assert states(run(session_settings()), "extract") == dict.fromkeys("ab", ItemState.DONE)


def test_a_session_whose_source_never_was_there_can_finish(session_settings: Settings) -> None:
    assert states(run(session_settings()), "import") == {}


def test_a_changed_parameter_of_classification_runs_the_last_round_again(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    for name in ("a", "b", "c"):
        write_movie(name)
    run(session_settings())
    changed = session_settings(classes=7)
    assert recompute_cost(changed) == {"Gathering": 1}
    project = run(changed)
    assert recompute_cost(changed) == {}
    job = project.load().job_of_type("class2d")
    assert job is not None
    assert {entry.state for entry in job.items.values()} == {ItemState.DONE}
    assert calls(project)["extract raw/a_fractions"] == 1


def test_a_movie_given_as_gain_reference_is_told_at_once(session_settings: Settings, write_movie: WriteMovie) -> None:
    movie = write_movie("a")
    with pytest.raises(InputError, match=r"gain reference cannot be used.*Check --gain"):
        prepare(session_settings(gain=str(movie)))


def test_when_a_session_fails_its_jobs_have_failed(
    session_settings: Settings, write_movie: WriteMovie, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_movie("a")
    settings = session_settings()

    def break_down(_session: Session) -> None:
        raise RuntimeError("a cable was pulled")

    monkeypatch.setattr(Session, "_take_events", break_down)
    with pytest.raises(RuntimeError, match="cable"):
        Session(settings, until_empty=True).run()
    jobs = read_pipeline(settings.root).jobs
    assert {job.status for job in jobs} == {"Failed"}
    assert all((settings.root / job.name / "RELION_JOB_EXIT_FAILURE").exists() for job in jobs)
    monkeypatch.undo()
    state = Project(settings.root).load()
    assert (state.session_state, state.message) == ("failed", "a cable was pulled")


def test_when_a_session_cannot_begin_its_jobs_have_failed(
    session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = session_settings()

    def break_down(*_given: Any) -> None:
        raise RuntimeError("no workers")

    monkeypatch.setattr("beamside.flow.scheduler.start_executor", break_down)
    with pytest.raises(RuntimeError, match="no workers"):
        Session(settings, until_empty=True).run()
    assert {job.status for job in read_pipeline(settings.root).jobs} == {"Failed"}
    assert Project(settings.root).load().session_state == "failed"


def test_settings_that_are_handed_to_a_session_are_its_users_alone(session_settings: Settings) -> None:
    settings = session_settings()
    before = os.umask(0o002)
    try:
        prepare(settings)
    finally:
        os.umask(before)
    path = settings_path(Project(settings.root))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o022 == 0


def test_a_session_sweeps_what_killed_workers_of_the_one_before_have_left(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("a")
    project = run(session_settings())
    folder = project.root / "MotionCorr" / "job002" / "raw"
    left = folder / f".b.mrc.{this_place()}-{2**22 + 1}-7.tmp"
    left.touch()
    session = Session(session_settings(), until_empty=True)
    session.run()
    session.sweeper.join()
    assert not left.exists()


def test_a_session_sweeps_what_its_own_killed_workers_have_left_when_it_ends(
    session_settings: Settings, write_movie: WriteMovie
) -> None:
    write_movie("a")
    settings = session_settings()
    left = settings.root / "MotionCorr" / "job002" / f".b.mrc.{this_place()}-{2**22 + 1}-7.tmp"
    assert Session(settings, until_empty=True, write_report=lambda _project, _final: left.touch()).run() == "finished"
    assert not left.exists()


def test_thousands_of_news_do_not_keep_commands_and_signs_of_life_waiting(
    session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, now, taken = Session(session_settings()), [0.0], list[int]()

    def take(event: int) -> None:
        taken.append(event)
        now[0] += 0.2

    monkeypatch.setattr("beamside.flow.scheduler.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(session, "_take_safely", take)
    for event in range(10):
        session.events.put(event)
    session._take_events()
    assert taken == [0, 1, 2]
    while not session.events.empty():
        session._take_events()
    assert taken == list(range(10))
