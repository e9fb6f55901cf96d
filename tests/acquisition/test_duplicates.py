"""The same exposure under another path is one item: told, not copied again, and lost neither here nor there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from beamside.acquisition import storage
from beamside.acquisition.manifest import read_manifest, verify_manifest
from beamside.errors import NotReadyError


def settle(rig: Any, number: int = 4) -> tuple[list[str], list[Any]]:
    """Look and take several times; return the items taken and the remarks."""
    items, remarks = [], []
    for _ in range(number):
        report = rig.look(seconds=10)
        items += [taken.name for arrival in report.new if (taken := rig.intake.take(arrival)) is not None]
        remarks += report.remarks
    return items, remarks


def test_a_renamed_folder_gives_no_new_items(rig: Any) -> None:
    for name in ("run/a.tiff", "run/b.tiff"):
        rig.movie(name)
    (rig.camera / "run/a.xml").write_text("<a/>")
    assert settle(rig)[0] == ["raw/a", "raw/b"]
    (rig.camera / "run").rename(rig.camera / "run renamed")
    rig.movie("run renamed/c.tiff")
    items, remarks = settle(rig)
    assert items == ["raw/c"]
    told = [remark for remark in remarks if remark.subject == "same-content"]
    assert [Path(remark.item).name for remark in told] == ["a.tiff", "b.tiff"]
    assert str(rig.camera / "run/a.tiff") in told[0].sentence
    assert rig.visible() == ["a.tiff", "a.xml", "b.tiff", "c.tiff"]
    assert verify_manifest(rig.project) == []


@pytest.mark.parametrize("how", ["copy", "hard link", "symbolic link", "another name and date"])
def test_copies_and_links_are_the_same_item_also_over_a_restart(rig: Any, how: str) -> None:
    source = rig.movie("a.tiff")
    other = rig.camera / "elsewhere/a.tiff"
    other.parent.mkdir()
    if how == "another name and date":
        other = other.with_name("z.tiff")
    {
        "copy": lambda: shutil.copy2(source, other),
        "hard link": lambda: os.link(source, other),
        "symbolic link": lambda: other.symlink_to(source),
        "another name and date": lambda: (shutil.copy(source, other), os.utime(other, (1, 1))),
    }[how]()
    rig.start(data=str(rig.camera))
    items, remarks = settle(rig)
    assert items == ["raw/a"]
    assert [remark.subject for remark in remarks] == ["same-content"]
    rig.start()
    assert settle(rig) == ([], [])
    assert [taken.name for taken in rig.intake.taken()] == ["raw/a"]


def test_a_known_copy_is_recognised_before_it_is_copied(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rig.movie("a.tiff")
    settle(rig)
    shutil.copy2(source, rig.camera / "b.tiff")
    monkeypatch.setattr(storage, "copy_verified", None)
    assert settle(rig)[0] == []
    assert [entry.kind for entry in rig.manifest.entries] == ["movie", "duplicate"]


def test_a_duplicate_that_becomes_another_file_is_taken(rig: Any) -> None:
    source = rig.movie("a.tiff")
    shutil.copy(source, rig.camera / "b.tiff")
    assert settle(rig)[0] == ["raw/a"]
    rig.movie("b.tiff")
    assert settle(rig)[0] == ["raw/b"]


def test_with_removal_a_copy_goes_too_once_its_content_is_verified(rig: Any) -> None:
    source = rig.movie("a.tiff")
    (rig.camera / "copy").mkdir()
    shutil.copy2(source, rig.camera / "copy/a.tiff")
    for name in ("a.tiff", "copy/a.tiff"):
        rig.record(name, 3)
    rig.start(remove_source=True)
    assert settle(rig, 6)[0] == ["raw/a"]
    assert [path.name for path in rig.camera.rglob("*") if path.is_file()] == []
    assert verify_manifest(rig.project) == []


def test_a_duplicate_stays_when_the_projects_copy_is_damaged_or_gone(rig: Any) -> None:
    source = rig.movie("a.tiff")
    rig.record("a.tiff", 3)
    kept = source.read_bytes()
    rig.start(remove_source=True)
    settle(rig)
    copy = rig.project / "raw/a.tiff"
    copy.write_bytes(kept[:-1] + b"X")
    (rig.camera / "b.tiff").write_bytes(kept)
    settle(rig)
    assert "source-kept:damaged" in [trouble.key for trouble in rig.look().standing]
    copy.unlink()
    (rig.camera / "c.tiff").write_bytes(kept)
    remarks = settle(rig)[1]
    assert "no longer in the project" in next(one.sentence for one in remarks if one.subject == "same-content")
    assert (rig.camera / "b.tiff").read_bytes() == (rig.camera / "c.tiff").read_bytes() == kept


def test_the_projects_own_copy_under_another_path_is_never_removed(rig: Any) -> None:
    rig.movie("a.tiff")
    rig.record("a.tiff", 3)
    settle(rig)
    rig.start(remove_source=True, data=[str(rig.camera / "*.tiff"), str(rig.raw / "*.tiff")])
    settle(rig)
    assert (rig.raw / "a.tiff").exists()
    assert "source-kept:own" in [trouble.key for trouble in rig.look().standing]


def test_of_two_copies_that_are_taken_at_once_one_waits_for_the_other(rig: Any) -> None:
    contents = rig.intake._taken.contents
    assert contents.admit("abc", "/one") is None
    assert contents.admit("abc", "/one") is None, "trying again after a failure"
    with pytest.raises(NotReadyError, match="/one"):
        contents.admit("abc", "/two")
    contents.release("/one")
    assert contents.admit("abc", "/two") is None


def test_duplicates_are_in_the_manifest_for_people_to_read(rig: Any) -> None:
    shutil.copy(rig.movie("a.tiff"), rig.camera / "b.tiff")
    settle(rig)
    entries, unreadable = read_manifest(rig.manifest.path)
    assert unreadable == []
    assert [(entry.kind, Path(entry.source).name, entry.item) for entry in entries] == [
        ("movie", "a.tiff", "raw/a"),
        ("duplicate", "b.tiff", "raw/a"),
    ]
    assert entries[0].sha256 == entries[1].sha256
