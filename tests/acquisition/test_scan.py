"""Patterns find what a shell with ** would find, and nothing that is still being written."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from beamside.acquisition.bystanders import is_temporary
from beamside.acquisition.scan import Scanner
from beamside.acquisition.sidecars import SidecarIndex, sidecar_keys

FILES = (
    "top_fractions.tiff",
    "a b/one_fractions.tiff",
    "a b/c/two_fractions.tiff",
    "a b/c/three.mrc",
    "d/two_fractions.tiff",
    "d/.hidden_fractions.tiff",
    ".hid/four_fractions.tiff",
    "d/five_fractions.tiff.tmp",
    "d/downloading_six_fractions.tiff",
    "d/notes.txt",
)


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    root = tmp_path / "camera [1]"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def found(*patterns: str) -> list[str]:
    return sorted(sighting.path for sighting in Scanner(patterns).scan().sightings)


@pytest.mark.parametrize(
    "pattern",
    [
        "**/*_fractions.tiff",
        "*/*_fractions.tiff",
        "*.tiff",
        "?/**/*.tiff",
        "a b/**/*.mrc",
        "[a-c]*/c/*",
        "d/two_fractions.tiff",
    ],
)
def test_patterns_agree_with_glob(tmp_path: Path, pattern: str) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = [
        path for path in glob.glob(str(tmp_path / pattern), recursive=True) if not is_temporary(os.path.basename(path))
    ]
    assert expected
    assert found(str(tmp_path / pattern)) == sorted(expected)


def test_a_folder_means_everything_in_it_even_with_brackets_in_its_name(camera: Path) -> None:
    assert [os.path.relpath(path, camera) for path in found(str(camera))] == sorted(FILES[:5])


def test_relative_patterns_and_several_roots_give_each_file_once(camera: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(camera)
    assert found("d/*.tiff", str(camera / "d"), "top_fractions.tiff") == [
        str(camera / "d/two_fractions.tiff"),
        str(camera / "top_fractions.tiff"),
    ]


def test_known_files_are_counted_but_not_looked_at(camera: Path) -> None:
    result = Scanner([str(camera)]).scan(lambda path: "two" in path)
    assert result.matched == 5
    assert len(result.sightings) == 3


def test_links_to_folders_are_followed_only_where_the_pattern_names_them(camera: Path) -> None:
    (camera / "loop").symlink_to(camera)
    (camera / "dead.tiff").symlink_to(camera / "nowhere")
    assert len(found(str(camera))) == 5
    assert found(str(camera / "l*p" / "top*")) == [str(camera / "loop/top_fractions.tiff")]
    assert found(str(camera / "loop" / "d")) == [str(camera / "loop/d/two_fractions.tiff")]


def test_a_file_where_a_folder_is_expected_is_told(camera: Path) -> None:
    result = Scanner([str(camera / "d/notes.txt/*.tiff")]).scan()
    assert not result.complete
    assert "cannot be found" in result.standing[0].sentence


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_told(camera: Path) -> None:
    os.chmod(camera / "d", 0)
    result = Scanner([str(camera)]).scan()
    os.chmod(camera / "d", 0o755)
    assert "cannot be read" in result.standing[0].sentence
    assert not result.complete


def test_a_folder_that_fails_does_not_stop_the_others(camera: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def failing(path: str) -> object:
        if str(path).endswith("/d"):
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr("os.scandir", failing)
    result = Scanner([str(camera)]).scan()
    assert len(result.sightings) == 4
    assert "Input/output error" in result.standing[0].sentence


@pytest.mark.parametrize(
    "name", [".a.tiff", "~a.tiff", "a.tiff.part", "a.TMP", "x_downloading.tiff", "a.tiff.filepart"]
)
def test_temporary_names(name: str) -> None:
    assert is_temporary(name)
    assert not is_temporary("department_1.tiff")


def test_sidecar_names_of_epu_and_serialem() -> None:
    index = SidecarIndex(
        [
            "/c/X.xml",
            "/c/X_Fractions.xml",
            "/c/X.tiff.mdoc",
            "/c/X_Fractions.tiff.mdoc",
            "/c/X_Fractions.mdoc",
            "/c/X2.xml",
            "/c/XY_Fractions.xml",
        ],
        (".xml", ".mdoc"),
    )
    names = [os.path.basename(path) for path in index.of("/c/X_Fractions.tiff")]
    assert names == ["X.tiff.mdoc", "X.xml", "X_Fractions.mdoc", "X_Fractions.tiff.mdoc", "X_Fractions.xml"]
    assert sidecar_keys("/c/m.mrc") == ("m.mrc", "m")


def test_sidecars_elsewhere_count_when_their_name_is_unique() -> None:
    index = SidecarIndex(["/meta/X.xml", "/meta1/Y.xml", "/meta2/Y.xml"], (".xml",))
    assert index.of("/frames/X_Fractions.tiff") == ["/meta/X.xml"]
    assert index.of("/frames/Y_Fractions.tiff") == []
    assert index.of("/meta2/Y_Fractions.tiff") == ["/meta2/Y.xml"]


def test_a_folder_that_is_made_after_the_start_is_looked_into_and_told_when_it_is_away_again(tmp_path: Path) -> None:
    scanner = Scanner([str(tmp_path / "later"), str(tmp_path / "{x,y}")])
    first = scanner.scan()
    assert (first.matched, first.complete) == (0, False)
    assert f"The folder {tmp_path}/later of --data" in first.standing[0].sentence
    for folder in ("later", "x", "y"):
        (tmp_path / folder / "run").mkdir(parents=True)
        (tmp_path / folder / "run" / f"{folder}.tiff").touch()
    assert (scanner.scan().matched, scanner.scan().complete) == (3, True)
    (tmp_path / "later").rename(tmp_path / "lost")
    (tmp_path / "y").rename(tmp_path / "lost y")
    assert (scanner.scan().matched, scanner.scan().complete) == (1, False)
