"""The pattern that RELION's Import is given takes what it says it takes."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.jobs.patterns import pattern_of

NAMES = st.text("ab_1 [?*.", min_size=1, max_size=5)
FILES = st.builds(lambda name, ending: name + ending, NAMES, st.sampled_from([".tif", ".tiff", ".mrc", ".xml", ""]))


@settings(max_examples=30)
@given(movies=st.sets(FILES, min_size=1, max_size=5), others=st.sets(FILES, max_size=5))
def test_a_pattern_takes_what_it_says(movies: set[str], others: set[str]) -> None:
    movies, others = ({name for name in names if name not in (".", "..")} for names in (movies, others - movies))
    if not movies:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "raw").mkdir()
        for name in (*movies, *others):
            (root / "raw" / name).touch()
        pattern = pattern_of([f"raw/{name}" for name in movies], root)
        assert pattern is not None
        taken = {os.path.basename(path) for path in glob.glob(pattern.text, root_dir=root)}
        assert len(movies - taken) == pattern.missed
        assert len(taken - movies) == pattern.others
        assert pattern.other in {*(taken - movies), ""}
        if len({os.path.splitext(name)[1] for name in (*movies, *others)}) == 1 and not others:
            assert all(name.startswith(".") for name in movies - taken)


def test_nothing_imported_has_no_pattern(tmp_path: Path) -> None:
    assert pattern_of([], tmp_path) is None


def test_a_folder_that_cannot_be_read_is_taken_to_have_only_the_files(tmp_path: Path) -> None:
    pattern = pattern_of(["raw/a.tiff", "raw/b.tiff"], tmp_path)
    assert pattern is not None
    assert (pattern.text, pattern.missed, pattern.others) == ("raw/*.tiff", 0, 0)


@pytest.mark.parametrize("there", [True, False])
def test_files_in_folders_further_down_are_missed_as_a_star_takes_no_folder(tmp_path: Path, there: bool) -> None:
    names = ["raw/a.tiff", "raw/b.tiff", "raw/square/c.tiff", "raw2/d.tiff"]
    for name in names if there else ():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pattern = pattern_of(names, tmp_path)
    assert pattern is not None
    assert (pattern.text, pattern.missed, pattern.others) == ("raw/*.tiff", 2, 0)
