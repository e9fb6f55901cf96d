"""What is remembered of names from look to look is what looking at them anew says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.acquisition import listing
from beamside.acquisition.listing import FolderNames
from beamside.acquisition.scan import Scanner, ScanResult

NAMES = st.sampled_from(
    [
        "a_fractions.tiff",
        "b_fractions.tiff",
        "c.mrc",
        ".d_fractions.tiff",
        "e_fractions.tiff.part",
        "f.xml",
        "g",
        "G.TIFF",
    ]
)


def seen(result: ScanResult) -> tuple[object, ...]:
    paths = [sighting.path for sighting in result.sightings]
    return paths, result.matched, sorted(result.sidecars), result.temporary, result.hidden_folders


@given(st.lists(st.tuples(st.sampled_from(["", "x/", "x/y/", ".h/"]), NAMES, st.booleans()), max_size=25))
@settings(deadline=None, max_examples=60)
def test_a_scanner_that_remembers_sees_what_a_new_one_sees(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bool]]
) -> None:
    root = tmp_path_factory.mktemp("camera")
    patterns = [str(root / "**" / "*_fractions.tiff"), str(root / "x" / "*")]
    scanner = Scanner(patterns, (".xml",))
    (root / "x").mkdir()
    for folder, name, is_folder in steps:
        path = root / folder / name
        if path.is_dir():
            for each in path.iterdir():
                each.unlink()
            path.rmdir()
        elif path.exists():
            path.unlink()
        elif is_folder:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        assert seen(scanner.scan()) == seen(Scanner(patterns, (".xml",)).scan())


def test_a_name_is_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    monkeypatch.setattr(listing, "is_temporary", lambda name: bool(judged.append(name)))
    scanner = Scanner([str(tmp_path / "*.tiff")])
    for name in ("a.tiff", "b.tiff"):
        (tmp_path / name).touch()
    assert scanner.scan().matched == scanner.scan().matched == 2
    assert set(judged) == {"a.tiff", "b.tiff"}
    judged.clear()
    (tmp_path / "c.tiff").touch()
    assert scanner.scan().matched == 3
    assert set(judged) == {"c.tiff"}


def test_a_file_that_is_replaced_under_its_name_is_seen_as_it_is_now(tmp_path: Path) -> None:
    scanner = Scanner([str(tmp_path / "*.tiff")])
    (tmp_path / "a.tiff").write_text("1")
    assert [sighting.size for sighting in scanner.scan().sightings] == [1]
    (tmp_path / "new").write_text("12")
    (tmp_path / "new").replace(tmp_path / "a.tiff")
    assert [sighting.size for sighting in scanner.scan().sightings] == [2]
    (tmp_path / "a.tiff").unlink()
    (tmp_path / "a.tiff").mkdir()
    assert scanner.scan().sightings == []


def test_questions_that_are_asked_later_are_answered_for_all_names() -> None:
    first = FolderNames(["a", "b"])
    assert first.places("is", "a", "a".__eq__) == [0]
    second = FolderNames(["c", "b", "a"], first)
    assert second.places("is", "b", "b".__eq__) == [1]
    assert second.places("is", "a", "a".__eq__) == [2]
