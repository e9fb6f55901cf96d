"""What a killed process leaves half written is removed, and never what one in use writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.formats.atomic import atomic_path, replace_file
from beamside.formats.leftovers import FOREIGN_SECONDS, LONGEST_FILE_NAME, left_over, sweep, temporary_name, this_place

DIES = """
import os, sys
from beamside.formats.atomic import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_text("half of it")
    os._exit(9)
"""


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    job = tmp_path / "MotionCorr" / "job002" / "raw"
    job.mkdir(parents=True)
    (tmp_path / "Trash").mkdir()
    for folder in (job, tmp_path / "Trash"):
        assert subprocess.run([sys.executable, "-c", DIES, str(folder / "a.mrc")], check=False).returncode == 9
    [left] = job.iterdir()
    keep = [job / "b.mrc", job / ".hidden.tmp", job / "x.1-2.tmp", job / ".nfs0001"]
    for path in keep:
        path.touch()
    with atomic_path(job / "a.mrc") as mine:
        mine.write_text("being written")
        assert sweep(tmp_path, skip=("Trash",)) == [left]
        assert mine.exists()
    assert sorted(job.iterdir()) == sorted([job / "a.mrc", *keep])
    assert len(list((tmp_path / "Trash").iterdir())) == 1


@pytest.mark.parametrize(("place", "alive"), [("0123abcd-", False), ("0123abcd-", True), ("", False), ("", True)])
@pytest.mark.parametrize("old", [False, True])
def test_of_processes_that_cannot_be_seen_only_what_is_old_is_swept(
    tmp_path: Path, place: str, alive: bool, old: bool
) -> None:
    """`place` is empty in what earlier versions wrote; the process may then be one of this machine."""
    pid = os.getpid() if alive else 2**22 + 1  # more than there can be
    path = tmp_path / f".a.mrc.{place}{pid}-1.tmp"
    path.touch()
    if old:
        then = path.stat().st_mtime - FOREIGN_SECONDS - 60
        os.utime(path, (then, then))
    swept = old and not (alive and not place)
    assert sweep(tmp_path) == ([path] if swept else [])
    assert list(tmp_path.iterdir()) == ([] if swept else [path])


@given(
    st.binary(min_size=1, max_size=LONGEST_FILE_NAME).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
)
def test_a_temporary_name_fits_and_says_who_writes(name: bytes) -> None:
    temporary = temporary_name(os.fsdecode(name))
    assert len(os.fsencode(temporary)) <= LONGEST_FILE_NAME
    assert temporary.startswith(".")
    assert not left_over(temporary, lambda: 1e9), "this process is alive"
    dead = temporary.replace(f"{this_place()}-{os.getpid()}-", f"{this_place()}-{2**22 + 1}-")
    assert left_over(dead, lambda: 0.0)


def test_names_as_long_as_they_can_be_are_written(tmp_path: Path) -> None:
    names = ["a" * 250 + ".mrc", "a" * 251 + ".tif", "é" * 127]
    for name in names:
        replace_file(tmp_path / name, b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
