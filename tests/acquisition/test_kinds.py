from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest

from beamside.acquisition import kinds
from beamside.acquisition.kinds import MICROGRAPH, MOVIE, source_kind
from beamside.acquisition.transfer import hash_file
from beamside.errors import ConfigError

PACKAGE = """
from beamside.acquisition.kinds import SourceKind, without_pixels
from beamside.errors import NotReadyError


def inspect(path):
    with open(path, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    if not lines or lines[-1] != "end":
        raise NotReadyError(f"{path} does not end with 'end': it is still being written.")
    return without_pixels({"lines": len(lines)})


TEXT = SourceKind("text", (".txt",), "text", inspect, role="text")
NUMBER = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package, installed beside others, that brings kinds of source: one that is right, and some that are not."""
    site = tmp_path / "site"
    described = site / "texts-1.dist-info"
    described.mkdir(parents=True)
    (site / "texts_for_tests.py").write_text(PACKAGE)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: texts\nVersion: 1\n")
    points = ["text = texts_for_tests:TEXT", "letters = texts_for_tests:TEXT", "number = texts_for_tests:NUMBER"]
    points.append("away = texts_that_are_missing:TEXT")
    (described / "entry_points.txt").write_text("\n".join(["[beamside.kinds]", *points, ""]))
    monkeypatch.syspath_prepend(str(site))
    invalidate_caches()
    kinds.installed.cache_clear()
    yield
    kinds.installed.cache_clear()
    sys.modules.pop("texts_for_tests", None)


def texts(rig: Any) -> None:
    rig.kind = source_kind("text")
    rig.start(data=(str(rig.camera),), sidecars=())


def write(rig: Any, name: str, *lines: str) -> Path:
    path: Path = rig.camera / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.usefixtures("package")
def test_a_package_brings_a_kind_that_is_taken_in_with_hash_and_manifest(rig: Any) -> None:
    texts(rig)
    source = write(rig, "one.txt", "a", "b", "end")
    write(rig, "picture.tiff", "no text")
    (taken,) = rig.take_all()
    assert (taken.name, taken.path, taken.metadata) == ("raw/one", "raw/one.txt", {"lines": 3})
    assert rig.visible() == ["one.txt"]
    (entry,) = rig.manifest.entries
    assert entry.sha256 == entry.destination_sha256 == hash_file(source) == hash_file(rig.raw / "one.txt")
    rig.start()
    assert rig.look_twice().new == [], "a new process knows what was taken"
    assert [again.name for again in rig.intake.taken()] == ["raw/one"]


@pytest.mark.usefixtures("package")
def test_a_file_that_its_kind_calls_unfinished_waits_and_is_taken_when_it_is_whole(rig: Any) -> None:
    texts(rig)
    path = write(rig, "one.txt", "a")
    report = rig.look_twice()
    assert report.new == []
    assert "does not end with 'end'" in report.waiting[0].reason
    write(rig, "one.txt", "a", "and more", "end")
    assert [taken.metadata["lines"] for taken in (*rig.take_all(), *rig.take_all())] == [3]
    assert path.exists()


@pytest.mark.usefixtures("package")
def test_the_source_of_a_kind_without_frames_is_removed_as_nothing_has_to_confirm_their_number(rig: Any) -> None:
    rig.options["remove_source"] = True
    texts(rig)
    path = write(rig, "one.txt", "a", "end")
    rig.take_all()
    rig.look_twice()
    assert not path.exists()
    assert (rig.raw / "one.txt").read_text() == "a\nend\n"


@pytest.mark.usefixtures("package")
def test_where_nothing_matches_the_kind_says_what_was_looked_for(rig: Any) -> None:
    texts(rig)
    write(rig, "picture.tiff", "no text")
    (trouble,) = rig.look().standing
    assert trouble.key == "nothing-matches"
    assert trouble.sentence.startswith("No text file matches")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unheard", "No kind of source is called 'unheard'"),
        ("away", "cannot be loaded: ModuleNotFoundError"),
        ("number", "is not a SourceKind"),
        ("letters", "calls itself 'text'"),
    ],
)
def test_a_kind_that_cannot_be_used_is_refused_with_a_sentence(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        source_kind(name)


def test_the_kinds_of_microscopy_are_there_without_any_package() -> None:
    assert source_kind("movie") is MOVIE
    assert source_kind("micrograph") is MICROGRAPH
    assert (MOVIE.in_parts, MICROGRAPH.in_parts) == (True, False)


def test_several_of_a_kind_in_words() -> None:
    assert [MOVIE.count(number) for number in (0, 1, 2)] == ["0 movies", "1 movie", "2 movies"]
    assert replace(MOVIE, name="series", many="series").count(2) == "2 series"
