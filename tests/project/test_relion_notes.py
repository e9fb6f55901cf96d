"""The lines of ``run.out`` and ``run.err``, and the first line of the notes: each is there once, whatever happened to the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.project.relion_notes import HEADLINE, JobLog, LogLine, set_headline


def lines(path: Path, name: str = "run.out") -> list[str]:
    return [line.split("\t")[2] for line in (path / name).read_text(errors="surrogateescape").splitlines()]


def test_failures_are_in_both_files(tmp_path: Path) -> None:
    JobLog(tmp_path).add([LogLine("a", 0, "done", "1.0 s"), LogLine("b", 61, "failed", "No frames.")], "failed")
    assert (tmp_path / "run.out").read_text() == (
        "1970-01-01 00:00:00 UTC\tdone\ta\t1.0 s\n1970-01-01 00:01:01 UTC\tfailed\tb\tNo frames.\n"
    )
    assert lines(tmp_path, "run.err") == ["b"]


def test_a_line_that_was_cut_short_is_written_again_on_a_line_of_its_own(tmp_path: Path) -> None:
    JobLog(tmp_path).add([LogLine("a", 0, "done"), LogLine("b", 1, "done")], "failed")
    with (tmp_path / "run.out").open("r+") as file:
        file.truncate((tmp_path / "run.out").stat().st_size - 4)
    JobLog(tmp_path).add([LogLine("a", 0, "done"), LogLine("b", 1, "done")], "failed")
    assert (tmp_path / "run.out").read_text().splitlines()[-1] == LogLine("b", 1, "done").text
    assert (tmp_path / "run.out").read_text().startswith(LogLine("a", 0, "done").text + "\n")


def test_what_other_programs_write_stays_and_removed_files_come_back(tmp_path: Path) -> None:
    log = JobLog(tmp_path)
    log.add([LogLine("a", 0, "done")], "failed")
    with (tmp_path / "run.out").open("a") as file:
        file.write("RELION says something")
    log.add([LogLine("b", 1, "done")], "failed")
    assert "RELION says something\n1970" in (tmp_path / "run.out").read_text()
    (tmp_path / "run.out").unlink()
    JobLog(tmp_path).add([LogLine("a", 0, "done"), LogLine("b", 1, "done")], "failed")
    assert lines(tmp_path) == ["a", "b"]


def test_details_may_be_said_in_other_words_later(tmp_path: Path) -> None:
    JobLog(tmp_path).add([LogLine("a", 0, "done", "motion 3 Å")], "failed")
    JobLog(tmp_path).add([LogLine("a", 0, "done", "total motion 3.0 Å")], "failed")
    assert lines(tmp_path) == ["a"]


def test_a_full_disk_leaves_no_half_line_and_a_later_call_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = JobLog(tmp_path)
    log.add([LogLine("a", 0, "done")], "failed")
    before = (tmp_path / "run.out").read_bytes()

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, data: bytes) -> int:
            os.write(self._file.fileno(), data[:5])
            raise OSError(28, "No space left on device")

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r": Full(real(path, mode)) if mode == "ab" else real(path, mode)
    )
    with pytest.raises(OSError, match="No space"):
        log.add([LogLine("b", 1, "done")], "failed")
    monkeypatch.undo()
    assert (tmp_path / "run.out").read_bytes() == before
    log.add([LogLine("b", 1, "done")], "failed")
    assert lines(tmp_path) == ["a", "b"]


def test_what_reached_one_of_the_files_before_a_fault_is_not_there_twice(tmp_path: Path) -> None:
    log, failed = JobLog(tmp_path), [LogLine("b", 1, "failed", "No frames.")]
    log.add([LogLine("a", 0, "done")], "failed")
    (tmp_path / "run.err").unlink()
    (tmp_path / "run.err").mkdir()
    with pytest.raises(OSError, match="directory"):
        log.add(failed, "failed")
    assert lines(tmp_path) == ["a", "b"]
    (tmp_path / "run.err").rmdir()
    log.add(failed, "failed")
    assert (lines(tmp_path), lines(tmp_path, "run.err")) == (["a", "b"], ["b"])


@given(name=st.text(min_size=1), reason=st.text())
def test_whatever_a_name_or_a_reason_has_in_it_a_line_is_one_line(name: str, reason: str) -> None:
    text = LogLine(name, 5.0, "failed", reason).text
    assert len(text.splitlines()) == 1
    assert text.startswith("1970-01-01 00:00:05 UTC\tfailed\t")
    assert text.count("\t") in (2, 3)


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    name = os.fsdecode(b"raw/caf\xe9")
    for _ in range(2):
        JobLog(tmp_path).add([LogLine(name, 0, "done")], "failed")
    assert (tmp_path / "run.out").read_bytes() == b"1970-01-01 00:00:00 UTC\tdone\traw/caf\xe9\n"


def test_the_headline_comes_first_changes_and_goes(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    set_headline(tmp_path, [])
    assert not note.exists()
    note.write_text("\n ++++ Executing new job\n")
    set_headline(tmp_path, ["One.", "Two."])
    assert note.read_text() == f"{HEADLINE}One. Two.\n\n ++++ Executing new job\n"
    inode = note.stat().st_ino
    set_headline(tmp_path, ["One.", "Two."])
    assert note.stat().st_ino == inode
    set_headline(tmp_path, ["Three."])
    assert note.read_text() == f"{HEADLINE}Three.\n\n ++++ Executing new job\n"
    set_headline(tmp_path, [])
    assert note.read_text() == "\n ++++ Executing new job\n"
