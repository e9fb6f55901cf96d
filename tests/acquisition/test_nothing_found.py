"""When a pattern finds nothing, what is there is told, and how it differs."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.acquisition.nothing_found import Pattern, how_it_differs
from beamside.acquisition.scan import Scanner, expand_braces


def told(root: Path, pattern: str, *files: str) -> str:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    scanner = Scanner([str(root / pattern)])
    assert scanner.scan().matched == 0
    return scanner.nothing_matches()


@pytest.mark.parametrize(
    ("pattern", "file", "said"),
    [
        ("**/*_fractions.tiff", "g/a_Fractions.tiff", "1 file differs only by the case of letters"),
        ("RUN*/*.tiff", "run1/a.tiff", "1 file differs only by the case of letters"),
        ("*.tiff", "a.tif", "1 file differs only by the ending"),
        ("*_fractions.tiff", "a_Fractions.tif", "only by the case of letters and by the ending"),
        ("*.mrc", "a.mrc.bz2", "1 file matches, but is compressed (.bz2)"),
        ("*", "a.mrc.gz", "1 file matches, but is compressed (.gz)"),
        ("*.tif", "a.tiff.zst", "1 file differs only by the ending (.tif and .tiff"),
        ("*/*.tif", "a.tif", "only by the folders above"),
        ("*.tif", "one/level/deeper/a.tif", "only by the folders above"),
        ("*", "a.dm4", "1 file matches, but .dm4 is not TIFF, MRC, EER or PNG"),
        ("*.tif", "a.part.tif", "1 file matches, but has the name of an unfinished copy"),
        ("*.tif", "a.tif.part", "1 file matches, but has the name of an unfinished copy"),
        (
            "*.tiff",
            "a.tif.part",
            "1 file differs only by the ending (.tif and .tiff, .mrc and .mrcs are different to a pattern), but has the name",
        ),
        ("*_fractions.tiff", "something.mrc", "1 file of these formats with other names is there"),
        ("*_fractions.tiff", "something.mrc.xz", "1 compressed file of these formats with other names is there"),
    ],
)
def test_the_difference_is_named_with_an_example(tmp_path: Path, pattern: str, file: str, said: str) -> None:
    sentence = told(tmp_path, pattern, file)
    assert said in sentence
    assert str(tmp_path / file) in sentence


def test_the_gain_reference_is_not_offered_as_a_movie(tmp_path: Path) -> None:
    for name in ("gain.mrc", "below/dark.mrc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scanner = Scanner([str(tmp_path / "*.mrc")], exclude=[str(tmp_path / "gain.mrc"), str(tmp_path / "below/dark.mrc")])
    assert scanner.scan().matched == 0
    assert scanner.nothing_matches().endswith(
        f"so far. 1 file matches, but is given as the gain reference or as the list of defects: {tmp_path / 'gain.mrc'}."
    )


def test_files_one_level_higher_than_an_empty_folder_are_seen(tmp_path: Path) -> None:
    (tmp_path / "run/raw").mkdir(parents=True)
    assert "by the folders above" in told(tmp_path, "run/raw/*.tif", "run/a.tif")


def test_several_files_are_counted_and_near_ones_go_before_strangers(tmp_path: Path) -> None:
    sentence = told(tmp_path, "*.tif", "a.TIF", "b.TIF", "c.mrc")
    assert "2 files differ only by the case of letters" in sentence
    assert "c.mrc" not in sentence


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # beside it, in the folder of all tests, there may be files
    assert f"The folder {tmp_path / 'run'} has no files." in told(tmp_path, "run/*.tif")


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [
        ("Run1/x", "run1/*.tif", "there is Run1: is that meant?"),
        ("session_2024/x", "sesion_2024/*.tif", "there is session_2024: is that meant?"),
        ("a/x", "zzz/*.tif", "there is a."),
        ("run1", "run1/x/*.tif", "is not a folder."),
    ],
)
def test_a_folder_that_does_not_exist_is_told_with_its_neighbours(
    tmp_path: Path, there: str, asked: str, said: str
) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    [trouble] = Scanner([str(tmp_path / asked)]).scan().standing
    assert said in trouble.sentence


def test_braces_mean_what_they_mean_in_a_shell(tmp_path: Path) -> None:
    for name in ("s/a.tif", "t/b.tiff", "u/c.tif", "lit{e,r}al/d.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [Path(one.path).name for one in Scanner([f"{tmp_path}/{{s,t}}/*.{{tif,tiff}}"]).scan().sightings]
    assert sorted(names) == ["a.tif", "b.tiff"]
    assert Scanner([f"{tmp_path}/lit{{e,r}}al"]).scan().matched == 1
    some = Scanner([f"{tmp_path}/{{s,v}}/*.tif"])
    assert (some.scan().standing, some.scan().complete) == ([], True), "one of the folders is enough"
    (tmp_path / "v").mkdir()
    assert some.scan().complete
    (tmp_path / "v").rmdir()
    assert not some.scan().complete, "a folder that was there is missed"
    assert sorted(expand_braces("a{b{c,d},e}f")) == ["abcf", "abdf", "aef"]
    assert expand_braces("a{b}f") == ["a{b}f"]


def test_a_session_looks_around_anew_and_stops_when_files_come(rig) -> None:  # type: ignore[no-untyped-def]
    rig.start(data=str(rig.camera / "*.tiff"))
    assert "has no files" in rig.look().standing[0].sentence
    (rig.camera / "A.TIFF").touch()
    assert "case of letters" in rig.look(seconds=60).standing[0].sentence
    rig.movie("a.tiff")
    assert rig.look().standing == []


NAMES = st.text("aBc*?[]{}_", min_size=1, max_size=5)


@settings(deadline=None, max_examples=200)
@given(st.lists(NAMES, min_size=1, max_size=3))
def test_a_path_differs_from_itself_in_nothing_and_from_others_in_what_was_changed(path: list[str]) -> None:
    def differences(parts: list[str]) -> tuple[str, ...] | None:
        return how_it_differs("/root/" + "/".join(path) + ".tif", Pattern("", "/root", tuple(parts)))

    itself = [*(glob.escape(part) for part in path[:-1]), glob.escape(path[-1]) + ".tif"]
    assert differences(itself) == ()
    assert differences(["**", itself[-1]]) == ()
    assert differences([*itself[:-1], itself[-1] + "f"]) == ("ending",)
    assert differences(["zz", *itself]) == ("place",)
    assert differences([*itself[:-1], itself[-1].swapcase()]) == ("case",)
    assert differences([*itself[:-1], "zz.tif"]) is None
