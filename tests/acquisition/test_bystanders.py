"""What lies beside the movies and is none: passed over, counted, and told once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.acquisition import passed_over
from beamside.acquisition.bystanders import among_micrographs, is_image_stack, is_temporary
from beamside.acquisition.kinds import MICROGRAPH, source_kind
from beamside.formats.mrc import write_mrc
from beamside.formats.tiff import write_tiff

RNG = np.random.default_rng(3)


def looks(rig: Any, number: int = 6) -> tuple[list[str], list[Any]]:
    """Look and take several times; return the names taken and all remarks."""
    taken, remarks = [], []
    for _ in range(number):
        report = rig.look(seconds=30)
        taken += [rig.intake.take(arrival).name for arrival in report.new]
        remarks += report.remarks
    return taken, remarks


def test_the_gain_reference_beside_the_movies_is_never_a_movie(rig: Any, tmp_path: Path) -> None:
    gain = RNG.normal(1, 0.1, (32, 48)).astype(np.float32)
    write_mrc(tmp_path / "gain.mrc", gain)
    (rig.camera / "CountRef_0001.mrc").write_bytes((tmp_path / "gain.mrc").read_bytes())
    (rig.camera / "another name.mrc").write_bytes((tmp_path / "gain.mrc").read_bytes())
    write_tiff(rig.camera / "as tiff.tiff", gain, compression="none")
    rig.movie("m0.tiff")
    rig.start(gain=str(tmp_path / "gain.mrc"), remove_source=True)
    taken, remarks = looks(rig)
    assert taken == ["raw/m0"]
    assert {(remark.subject, Path(remark.item).name) for remark in remarks if remark.subject == "gain-in-folder"} == {
        ("gain-in-folder", "CountRef_0001.mrc"),
        ("gain-in-folder", "another name.mrc"),
        ("gain-in-folder", "as tiff.tiff"),
    }
    assert (rig.camera / "CountRef_0001.mrc").exists(), "what is passed over is not removed"


def test_sums_and_overview_images_are_told_once_as_what_they_are(rig: Any) -> None:
    names = {
        "GridSquare_7/GridSquare_20240101_101010.mrc": "overview-image",
        "GridSquare_7/FoilHoles/FoilHole_12_20240101_101010.mrc": "overview-image",
        "GridSquare_7/Data/FoilHole_12_Data_34_56_20240101_101010.mrc": "sum-image",
        "GridSquare_7/Data/FoilHole_12_Data_34_56_20240101_101010-gain-ref.MRC": "gain-in-folder",
        "Atlas/Atlas_1.mrc": "overview-image",
        "sum of something.mrc": "single-image",
    }
    for name in names:
        write_mrc(rig.camera / name, RNG.normal(size=(32, 48)).astype(np.float32))
    rig.movie("GridSquare_7/Data/FoilHole_12_Data_34_56_20240101_101010_Fractions.tiff")
    rig.start(data=str(rig.camera))
    taken, remarks = looks(rig)
    assert [Path(name).name for name in taken] == ["FoilHole_12_Data_34_56_20240101_101010_Fractions"]
    assert {str(Path(remark.item).relative_to(rig.camera)): remark.subject for remark in remarks} == names
    assert len(remarks) == len(names), "each is told once"
    assert rig.look().waiting == [], "a session can finish though they lie there"
    assert looks(rig)[1] == []
    (rig.camera / "Atlas/Atlas_1.mrc").unlink()
    assert looks(rig)[1] == [], "nothing was lost with it"


def test_sums_of_the_references_size_are_not_read_to_their_end(
    rig: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mrc(tmp_path / "gain.mrc", RNG.normal(1, 0.1, (32, 48)).astype(np.float32))
    for number in range(20):
        write_mrc(rig.camera / f"sum {number}.mrc", RNG.normal(40, 6, (32, 48)).astype(np.float32))
    read: list[str] = []
    monkeypatch.setattr(passed_over, "hash_file", lambda path: read.append(str(path)))
    monkeypatch.setattr(passed_over, "read_image", lambda path: (read.append(str(path)), np.zeros((1, 1)))[1])
    rig.start(gain=str(tmp_path / "gain.mrc"))
    remarks = looks(rig)[1]
    assert {remark.subject for remark in remarks} == {"single-image"}
    assert len(remarks) == 20
    assert len(set(read)) <= 5 + 1, "a few, to find the reference in another format"


def test_a_sum_that_is_known_by_its_name_does_not_wait_for_more_frames(rig: Any) -> None:
    for number in range(4):
        rig.movie(f"m{number}.tiff")
    looks(rig)
    write_mrc(rig.camera / "FoilHole_1_Data_2_3_20240101_101010.mrc", np.ones((32, 48), np.float32))
    rig.look()
    report = rig.look()
    assert report.waiting == []
    assert [remark.subject for remark in report.remarks] == ["sum-image"]


def test_a_movie_stays_one_whatever_it_is_called(rig: Any) -> None:
    for seed, name in enumerate(("Atlas_1.tiff", "mutant_gain.tiff", "CountRef_7.tiff")):
        rig.movie(name, seed=seed)
    assert {taken.name for taken in rig.take_all()} == {"raw/Atlas_1", "raw/mutant_gain", "raw/CountRef_7"}


def test_a_movie_that_had_only_its_first_frame_yet_is_taken_when_it_has_grown(rig: Any, counts: Any) -> None:
    write_tiff(rig.camera / "m.tiff", counts(frames=1))
    taken, _ = looks(rig)
    assert taken == []
    write_tiff(rig.camera / "m.tiff", counts(frames=3))
    taken, _ = looks(rig)
    assert taken == ["raw/m"]


def test_a_tilt_stack_with_its_mdoc_is_no_movie_and_a_movie_with_its_mdoc_is_one(rig: Any, counts: Any) -> None:
    write_mrc(rig.camera / "series.mrc", counts().astype(np.int16))
    (rig.camera / "series.mrc.mdoc").write_bytes(b"\xef\xbb\xbf[ZValue = 0]\r\nTiltAngle = 0\r\n\r\n[ZValue = 1]\r\n")
    write_mrc(rig.camera / "frames.mrc", counts(seed=5).astype(np.int16))
    (rig.camera / "frames.mrc.mdoc").write_text("[FrameSet = 0]\nNumSubFrames = 3\n")
    rig.start(compress=False)
    taken, remarks = looks(rig)
    assert taken == ["raw/frames"]
    assert [remark.subject for remark in remarks] == ["image-stack"]


def test_a_montage_is_an_image_stack_and_one_section_is_not(tmp_path: Path) -> None:
    sidecar = tmp_path / "m.mdoc"
    for text, expected in (("[ZValue = 0]\n[MontSection = 0]\n", True), ("[ZValue = 0]\n", False), ("", False)):
        sidecar.write_text(text)
        assert is_image_stack(sidecar) is expected
    assert not is_image_stack(tmp_path / "none.mdoc")


@pytest.mark.parametrize(
    ("name", "asked", "subject"),
    [
        ("FoilHole_12_Data_34_56_20240101_101010.mrc", "**/*.mrc", None),
        ("GridSquare_20240101_101010.mrc", "**/*.mrc", "overview-image"),
        ("GridSquare_20240101_101010.mrc", "**/GridSquare*.mrc", None),
        ("Atlas_1.mrc", "**/*.mrc", "overview-image"),
        ("SuperRef_Jan01.mrc", "**/*.mrc", "gain-in-folder"),
        ("24jan05a_06_11520x8184_norm_0.mrc", "**/*.mrc", "gain-in-folder"),
        ("17apr04a_00001gr_00002sq_v01.mrc", "**/*.mrc", "overview-image"),
        ("17apr04a_00001gr_00002sq.mrc", "**/*sq.mrc", None),
        ("17apr04a_00001gr_00002sq_v01_00003hl_00010en.mrc", "**/*.mrc", None),
        ("grid_dark_12.mrc", "**/*.mrc", None),
        ("against_1.mrc", "**/*.mrc", None),
        ("gain_of_function_001.mrc", "**/*.mrc", None),
        ("atlastin_001.mrc", "**/*.mrc", None),
    ],
)
def test_among_micrographs_names_decide_and_a_pattern_can_ask_for_them(name: str, asked: str, subject: str) -> None:
    found = among_micrographs(name, 1, asked)
    assert (found.subject if found else None) == subject


@pytest.mark.parametrize(("mode", "other", "frames"), [("movie", "micrographs", 1), ("micrograph", "movies", 3)])
def test_a_session_in_the_wrong_mode_is_told_so_until_something_is_taken(
    rig: Any, counts: Any, mode: str, other: str, frames: int
) -> None:
    for number in range(2):
        write_tiff(rig.camera / f"m{number}.tiff", counts(number, frames))
    rig.kind = source_kind(mode)
    rig.start()
    looks(rig)
    (trouble,) = rig.look().standing
    assert trouble.key == "wrong-mode"
    assert "2 files have" in trouble.sentence
    assert f"--workflow {other}" in trouble.sentence
    write_tiff(rig.camera / "right.tiff", counts(7, 4 - frames))
    looks(rig)
    assert rig.look().standing == []


def test_movies_among_micrographs_are_passed_over(rig: Any) -> None:
    rig.movie("m_Fractions.tiff")
    write_mrc(rig.camera / "m.mrc", RNG.normal(size=(32, 48)).astype(np.float32))
    rig.kind = MICROGRAPH
    rig.start()
    taken, remarks = looks(rig)
    assert taken == ["raw/m"]
    assert [remark.subject for remark in remarks] == ["movie-among-micrographs"]
    assert "--workflow movies" in remarks[0].sentence


@pytest.mark.parametrize(
    "folder",
    ["$RECYCLE.BIN/S-1-5-21", "System Volume Information", "@eaDir", "lost+found", "#recycle", "sub/@Recycle", ".Trash-1000"],
)  # fmt: skip
def test_folders_of_systems_are_passed_over_and_told_once(rig: Any, folder: str) -> None:
    rig.movie(f"{folder}/deleted.tiff")
    rig.movie("run/kept.tiff", seed=1)
    rig.start(data=[str(rig.camera), str(rig.camera / "*" / "*.tiff")])
    taken, remarks = looks(rig)
    assert taken == ["raw/kept"]
    assert [remark.subject for remark in remarks] == ["system-folder"]
    rig.start(data=str(rig.camera / folder / "*.tiff"))
    assert looks(rig)[0] == ["raw/deleted"], "a folder that is named itself is meant"


def test_names_of_unfinished_copies_wait_for_their_final_name(rig: Any) -> None:
    rig.movie("m.part.tiff")
    rig.movie("m2.tiff.part", seed=1)
    assert looks(rig, 2) == ([], [])
    said = [trouble for trouble in rig.look(seconds=1000).standing if trouble.key == "unfinished-names"]
    assert len(said) == 1
    assert "2 files have" in said[0].sentence
    (rig.camera / "m.part.tiff").rename(rig.camera / "m.tiff")
    (rig.camera / "m2.tiff.part").unlink()
    assert looks(rig)[0] == ["raw/m"]
    assert rig.look().standing == []


HIDDEN = {
    "._m.tiff": "macos-companion", ".m.tiff.Xy12Za": "unfinished-name", "m.tiff.part": "unfinished-name", "m.part.tiff": "unfinished-name",
    "m.tiff.1a2b3c4d.partial": "unfinished-name", "m.tiff~": "unfinished-name", "m_downloading.tiff": "unfinished-name",
    "~m.tiff": "hidden-name", ".m.tiff": "hidden-name",
}  # fmt: skip


@pytest.mark.parametrize("pattern", ["", "*", "*.tiff", "**/m*.tiff"])
def test_temporary_and_hidden_names_that_stay_are_told_once_each(rig: Any, pattern: str) -> None:
    for name in HIDDEN:
        (rig.camera / name).write_bytes(b"bytes")
    for other in (".DS_Store", ".m.xml.Xy12Za", "notes.txt~", ".nfs0001"):
        (rig.camera / other).write_bytes(b"no movie in any case")
    (rig.camera / ".rsync.tiff").mkdir()
    rig.start(data=str(rig.camera / pattern))
    assert looks(rig, 2) == ([], []), "programs that copy give such names for a while"
    remarks = looks(rig, 30)[1]
    files = [(Path(remark.item).name, remark.subject) for remark in remarks if remark.subject != "hidden-folder"]
    assert sorted(files) == sorted(HIDDEN.items())
    folders = [remark.item for remark in remarks if remark.subject == "hidden-folder"]
    assert folders == ([] if pattern.startswith("*.") or pattern == "*" else [str(rig.camera / ".rsync.tiff")])
    assert {remark.severity for remark in remarks} == {"info"}


def test_temporary_names_that_come_and_go_are_not_told(rig: Any) -> None:
    remarks = []
    for number in range(12):
        temporary = rig.movie(f".m{number}.tiff.Xy12Za", seed=number)
        for _ in range(3):
            remarks += rig.look(seconds=10).remarks
        temporary.rename(rig.camera / f"m{number}.tiff")
    assert remarks == []


@pytest.mark.parametrize(
    "name",
    [".m.tiff.Xa3f9Q", "m.tiff.part", "m.tiff.filepart", "m.tiff~", "~$m.tiff", "m.tmp.tiff", "m.tiff.ffs_tmp", "m.tiff.!ut", "downloading_m.tiff"],
)  # fmt: skip
def test_programs_that_copy_are_known_by_their_names(name: str) -> None:
    assert is_temporary(name)


@pytest.mark.parametrize("name", ["part_1.tiff", "temp 300K.tiff", "a.b.tiff", "department.tiff", "m.party.tiff"])
def test_ordinary_names_are_not_temporary(name: str) -> None:
    assert not is_temporary(name)


def test_a_file_that_robocopy_is_still_copying_waits_for_its_date(rig: Any) -> None:
    path = rig.movie("m.tiff")
    os.utime(path, (315_532_800 - 3600, 315_532_800 - 3600))
    assert [rig.look(seconds=30).new for _ in range(5)] == [[]] * 5
    os.utime(path)
    assert looks(rig)[0] == ["raw/m"]
    other = rig.movie("a camera without a clock.tiff")
    os.utime(other, (315_532_800, 315_532_800))
    assert looks(rig, 30)[0] == ["raw/a_camera_without_a_clock"], "in the end, it is taken"
