from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from beamside.cli import progress
from beamside.cli.progress import (
    attention_lines,
    exit_code,
    failure_lines,
    headline,
    news,
    plain_lines,
    show,
    signs,
    stage_words,
    status_table,
)
from beamside.monitor.status import FailureGroup, LastValue, ProblemStatus, SessionStatus, StageStatus
from beamside.project.project import Project, ProjectWriter

MOTION = StageStatus(
    "motion",
    "Motion correction",
    "MotionCorr/job002",
    waiting=3,
    running=2,
    done=40,
    failed=1,
    per_hour=540.4,
    last=(LastValue("Total motion", "12.5", "Å"), LastValue("Early motion", "6.0", "Å")),
)
CTF = StageStatus("ctf", "CTF estimation", "CtfFind/job003", done=38, rejected=2)
STATUS = SessionStatus(
    name="lab/run1",
    root="/data/lab/run1",
    state="running",
    stages=(MOTION, CTF),
    waiting_at_source=4,
    backlog=5,
    copied_bytes_per_second=231e6,
    particles=1234,
    failures=(
        FailureGroup("CTF estimation", "failed", "no Thon rings", 19, "raw/m1", "raw/m30"),
        FailureGroup("Motion correction", "failed", "the gain is [64, 64]", 1, "raw/m4", "raw/m4"),
    ),
)


def drawn(status: SessionStatus, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(status_table(status, width))
    console.file.close()
    return console.export_text()


def test_the_headline_has_state_backlog_and_rates_with_units() -> None:
    assert (
        headline(STATUS) == "lab/run1: running, 4 files at the source, backlog 5, copying at 231 MB/s, 1234 particles"
    )


def test_one_of_something_is_not_many() -> None:
    words = headline(replace(STATUS, waiting_at_source=1, particles=1))
    assert "1 file at the source" in words
    assert words.endswith("1 particle")


def test_a_stage_in_words_counts_failures() -> None:
    assert (
        stage_words(MOTION) == "Motion correction 40 done, 2 running, 3 waiting, 1 failed (540/h; Total motion 12.5 Å)"
    )
    assert stage_words(CTF) == "CTF estimation 38 done, 2 rejected"


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_shows_every_count_and_last_values(width: int) -> None:
    text = drawn(STATUS, width)
    row = next(line for line in text.splitlines() if line.startswith("Motion correction "))
    assert row.split()[2:8] == ["3", "2", "40", "·", "1", "540"]
    assert "Total motion 12.5 Å, Early motion 6.0 Å" in text
    assert max(map(len, text.splitlines())) <= width


def test_the_first_line_names_the_process_while_there_is_one() -> None:
    assert drawn(replace(STATUS, pid=4711), 160).splitlines()[0].split() == ["lab/run1", "running", "process", "4711"]
    assert "process" not in drawn(STATUS, 160)


def test_failures_are_shown_by_reason_and_brackets_stay_intact() -> None:
    text = drawn(STATUS, 120)
    assert "19 × no Thon rings (CTF estimation, failed: raw/m1 to raw/m30)" in text
    assert "raw/m4 (Motion correction, failed): the gain is [64, 64]" in text
    many = replace(STATUS, failures=tuple(FailureGroup("T", "failed", f"r{i}", 2, "a", "b") for i in range(5)))
    assert failure_lines(many)[-1] == "and 4 more for other reasons: see the report"


LOST = ProblemStatus("look:camera", "The folder /camera cannot be found.", "error", 1, 1e9)
DOSE = ProblemStatus("metadata-total-dose", "The dose differs.", "warning", 16, 1e9)


def test_errors_come_before_questions_and_these_before_warnings() -> None:
    status = replace(STATUS, problems=(LOST, DOSE), questions=("How is the gain used?",), waits=("new files",))
    lines = [line for line, _ in attention_lines(status)]
    words = ("cannot be found", "How is the gain", "dose differs", "waits for new files")
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 4
    text = drawn(status, 160)
    assert text.index("cannot be found") < text.index("Motion correction")


def test_why_a_session_failed_is_said_once() -> None:
    status = replace(STATUS, state="failed", message=LOST.text)
    assert len(attention_lines(status)) == 1
    assert len(attention_lines(replace(status, problems=(LOST,)))) == 1


def test_the_exit_code_says_whether_a_person_is_needed() -> None:
    assert exit_code(STATUS) == 0
    assert exit_code(replace(STATUS, problems=(DOSE,))) == 0
    assert exit_code(replace(STATUS, questions=("How?",))) == 5
    assert exit_code(replace(STATUS, questions=("How?",), problems=(LOST, DOSE))) == 4
    for state in ("dead", "failed", "not responding"):
        assert exit_code(replace(STATUS, state=state, problems=(LOST,))) == 3


def test_how_alive_a_session_is_has_a_line() -> None:
    status = replace(STATUS, pid=7, sign_of_life_age=0.4, newest_file_age=75, newest_result_age=-1, free_bytes=2.5e12)
    assert signs(status) == ["last sign of life 0.4 s ago, newest file 1 min 15 s ago, 2.50 TB free"]


def test_plain_output_says_again_what_has_grown_and_what_is_over() -> None:
    told: dict[str, int] = {}
    quiet = replace(STATUS, failures=())
    assert len(news(replace(quiet, problems=(LOST, DOSE)), told)) == 2
    assert news(replace(quiet, problems=(LOST, replace(DOSE, count=17))), told) == []
    assert len(news(replace(quiet, problems=(LOST, replace(DOSE, count=170))), told)) == 1
    over = replace(LOST, over=1e9 + 60)
    assert news(replace(quiet, over=(over,)), told) == ["over: The folder /camera cannot be found."]
    assert news(replace(quiet, over=(over,)), told) == []
    assert len(news(replace(quiet, problems=(replace(LOST, since=1e9 + 99),)), told)) == 1, "lost a second time"


def test_a_session_without_jobs_can_be_shown() -> None:
    empty = SessionStatus("a/b", "/a/b", "starting")
    assert "starting" in drawn(empty, 80)
    assert len(plain_lines(empty)) == 1


def test_plain_lines_are_printed_when_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path / "p")
    with ProjectWriter(project):
        pass
    looks = iter([STATUS, STATUS, SessionStatus(name="lab/run1", root="/", state="finished", particles=2000)])
    over: Iterator[bool] = iter([False, False, True])
    ends: list[bool] = []

    def ended() -> bool:
        ends.append(next(over))
        return ends[-1]

    monkeypatch.setattr(progress, "read_status", lambda _project: next(looks))
    monkeypatch.setattr(progress, "_pause_until", lambda *_: None)
    show(project, ended, note=lambda: "microscope: 3/20")
    lines = capsys.readouterr().out.splitlines()
    assert sum("running" in line and "lab/run1" in line for line in lines) == 1
    assert sum("finished" in line for line in lines) == 1
    assert lines.count("  microscope: 3/20") == 1
    assert sum("raw/m4" in line for line in lines) == 1
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("width", [80, 160])
def test_the_label_of_a_job_is_shown_beside_long_values_and_all_columns(width: int) -> None:
    last = tuple(LastValue(f"Some measurement {number}", "12.5", "Å") for number in range(4))
    stages = tuple(
        StageStatus(label, f"Extraction ({label})", f"Extract/{label}", done=10000, held=1, last=last)
        for label in ("cut_small", "cut_large")
    )
    text = drawn(replace(STATUS, stages=stages), width)
    assert "Extraction (cut_small) " in text
    assert "Extraction (cut_large) " in text
    assert "per hour" in text
    assert max(map(len, text.splitlines())) <= width


def test_particles_are_counted_where_there_are_any() -> None:
    assert "0 particles" in headline(replace(STATUS, particles=0))
    assert "particle" not in headline(replace(STATUS, particles=0, has_particles=False))
