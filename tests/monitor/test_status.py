"""The status of a session: what it says is true also when its process hangs, is gone, or is somewhere else."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from beamside.acquisition.reports import LookReport, Remark, Waiting
from beamside.flow.problems import Problems
from beamside.flow.waiting import for_the_source, waits
from beamside.monitor import liveness
from beamside.monitor.liveness import SILENT_SECONDS, STARTING_SECONDS, session_state
from beamside.monitor.status import OVER_SECONDS, read_status
from beamside.project.lease import Holder
from beamside.project.live import age, live_path, read_live, write_live
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

HERE = Holder(os.getpid(), socket.gethostname(), 0.0)
THERE = Holder(4711, "another", 0.0)


def state(live: dict[str, object], holder: Holder | None, age: float = 0.5, held: float = 1.0) -> tuple[str, str]:
    return session_state(live, holder, "started", live_age=age, held_for=held)


def of(holder: Holder, said: str = "running") -> dict[str, object]:
    return {"state": said, "pid": holder.pid, "host": holder.host}


@pytest.mark.parametrize("holder", [HERE, THERE])
def test_a_session_that_gives_no_sign_of_life_is_not_shown_as_running(holder: Holder) -> None:
    assert state(of(holder), holder) == ("running", "")
    word, sentence = state(of(holder), holder, age=SILENT_SECONDS + 1)
    assert word == "not responding"
    assert f"Process {holder.pid} on {holder.host}" in sentence


def test_the_live_file_of_an_earlier_process_says_nothing_of_this_one() -> None:
    assert state(of(THERE), HERE, age=1e6) == ("starting", "")
    assert state(of(THERE), HERE, age=1e6, held=STARTING_SECONDS + 1)[0] == "not responding"


def test_a_session_that_writes_its_last_report_may_take_its_time() -> None:
    assert state(of(HERE, "finished"), HERE, age=1e4) == ("finished", "")


def test_without_a_process_the_journal_says_how_it_ended() -> None:
    assert state(of(HERE), None) == ("dead", "")
    assert session_state({}, None, "stopped", live_age=-1, held_for=0) == ("stopped", "")


def test_a_suspended_process_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "is_suspended", lambda pid: pid == HERE.pid)
    word, sentence = state(of(HERE), HERE)
    assert word == "not responding"
    assert f"kill -CONT {HERE.pid}" in sentence
    assert state(of(THERE), THERE)[0] == "running", "numbers of processes of another machine say nothing here"


def test_the_age_of_the_live_file_does_not_follow_a_clock_that_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    project.private.mkdir()
    write_live(project, {"state": "running"})
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert age(read_live(project)) < 1000
    elsewhere = {**read_live(project), "boot": "another"}
    live_path(project).write_text(json.dumps(elsewhere))
    assert age(read_live(project)) > 1e9


def test_on_a_full_disk_a_session_still_says_that_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "run1")
    project.private.mkdir(parents=True)
    write_live(project, {"state": "running", "waits": ["the first file"]})
    monkeypatch.setattr("beamside.project.live.atomic_path", full_disk)
    for said in ([], ["a sentence that is longer than all that was in the file before " * 5]):
        write_live(project, {"state": "waiting for the disk", "waits": said})
        found = read_live(project)
        assert (found["state"], found["pid"]) == ("waiting for the disk", os.getpid())
        assert age(found) < 1000
    live_path(project).unlink()
    with pytest.raises(OSError, match="No space left"):
        write_live(project, {"state": "waiting for the disk"})


def full_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_running_session_whose_disk_is_full_needs_a_person(
    writer: Callable[[], ProjectWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamside.monitor.status._free_bytes", lambda _project: 0.0)
    with writer() as open_writer:
        open_writer.session("started")
        write_live(open_writer.project, {"state": "running"})
        status = read_status(open_writer.project)
        assert (status.attention(), [problem.key for problem in status.problems]) == ("error", ["disk-full"])
        open_writer.session("finished")
    assert read_status(open_writer.project).attention() == "", "nothing is going to be written"


@pytest.fixture
def writer(tmp_path: Path) -> Callable[[], ProjectWriter]:
    def open_() -> ProjectWriter:
        made = ProjectWriter(Project(tmp_path / "lab/run1"))
        made.create_job("Import/job001", "import", {}, {})
        made.create_job("MotionCorr/job002", "motion", {}, {"movies": "Import/job001.movies"})
        return made

    return open_


def test_failures_are_grouped_and_what_follows_from_them_is_not_counted_twice(
    writer: Callable[[], ProjectWriter],
) -> None:
    with writer() as made:
        made.create_job("CtfFind/job003", "ctf", {}, {"micrographs": "MotionCorr/job002.micrographs"})
        for number in range(19):
            for job, reason in (
                ("MotionCorr/job002", f"raw/m{number} has 0 frames"),
                ("CtfFind/job003", "Motion correction was failed"),
            ):
                made.item(job, f"raw/m{number}", ItemState.WAITING)
                made.item(job, f"raw/m{number}", ItemState.FAILED, reason=reason)
        status = read_status(made.project)
    assert [group.text() for group in status.failures] == [
        "19 × raw/m0 has 0 frames (Motion correction, failed: raw/m0 to raw/m18)"
    ]


def test_open_problems_are_there_also_when_the_session_is_not(writer: Callable[[], ProjectWriter]) -> None:
    with writer() as made:
        problems = Problems(made)
        made.session("started")
        problems.remark(Remark("motion-few", "Few.", "raw/a"))
        problems.open("disk-space", "The disk is full.", "error")
        problems.open("report", "No report.")
        problems.close("report")
        made.item("Import/job001", "raw/a", ItemState.WAITING)
    status = read_status(made.project)
    assert [problem.text for problem in status.problems] == ["The disk is full.", "Few."]
    assert [problem.text for problem in status.over] == ["No report."]
    assert status.state == "dead"
    assert status.attention() == "down"
    assert 0 <= status.newest_file_age < 1000
    assert status.newest_result_age == -1
    assert status.free_bytes > 0


def test_what_was_only_for_information_is_shown_for_a_while(
    writer: Callable[[], ProjectWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    with writer() as made:
        problems = Problems(made)
        problems.remark(Remark("not-taken", "It is tried again.", "/camera/a", severity="info"))
        problems.remark(Remark("motion-few", "Few.", "raw/a"))
        problems.flush(force=True)
    assert len(read_status(made.project).problems) == 2
    now = time.time()
    monkeypatch.setattr("beamside.monitor.status.time.time", lambda: now + 2 * OVER_SECONDS)
    assert [problem.text for problem in read_status(made.project).problems] == ["Few."]


def waiting_for(report: LookReport | None = None, **changes: object) -> str:
    usual: dict[str, object] = {"root": Path("/data/run 1"), "state": "running", "space": 0.0, "held": []}
    finishing = bool(changes.pop("finishing", False))
    usual |= {"busy": False, "source": lambda: for_the_source(report, ("/camera/*.tiff",), finishing)}
    return "; ".join(waits(**{**usual, **changes}))  # type: ignore[arg-type]


def test_a_session_says_what_it_waits_for() -> None:
    assert waiting_for(state="paused") == "`beamside session resume '/data/run 1'`: it is paused"
    assert waiting_for(space=1.0, busy=True) == "1 GB of free space on the disk of /data/run 1"
    assert waiting_for(held=["an answer about the gain reference, with 3 movies"]) == (
        "an answer about the gain reference, with 3 movies"
    )
    assert waiting_for(busy=True) == ""
    assert waiting_for(LookReport()) == "the first file that matches /camera/*.tiff"
    assert waiting_for(LookReport(complete=False)) == "the source, which cannot be read at present"
    growing = Waiting("/camera/a.mrc", "/camera/a.mrc has 1 of 6 frames: it is truncated.")
    assert (
        waiting_for(LookReport(waiting=[growing, growing])) == "a.mrc (has 1 of 6 frames: it is truncated), and 1 more"
    )
