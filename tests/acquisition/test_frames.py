"""How many frames a movie should have: what records say, in every dialect, and what other movies of the session have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.acquisition.epu import read_epu_xml, read_mdoc
from beamside.acquisition.frames import SHARED_BY, UsualFrames, judge, statements
from beamside.acquisition.kinds import MICROGRAPH
from beamside.formats.mrc import write_mrc

FRAME_MDOC = (
    "T = SerialEM\r\nVoltage = 300\r\n\r\n[FrameSet = 0]\r\nNumSubFrames = {}\r\nFrameDosesAndNumber = 1 {}\r\n"
)
IMAGE_MDOC = "[ZValue = 0]\r\nPixelSpacing = 1\r\nSubFramePath = X:\\frames\\{}\r\nNumSubFrames = 40\r\n"
EXPOSURE = """<MicroscopeImage xmlns:a="x"><microscopeData><acquisition><camera><CameraSpecificInput><a:KeyValueOfstringanyType>
<a:Key>FractionationSettings</a:Key><a:Value>{}</a:Value></a:KeyValueOfstringanyType></CameraSpecificInput></camera></acquisition></microscopeData>
</MicroscopeImage>"""


AGAIN = "a movie is taken again if it changes."


def doubts(rig: Any) -> str:
    return "".join(trouble.sentence for trouble in rig.look().standing if trouble.key == "frames-in-doubt")


def test_a_movie_with_fewer_frames_than_its_mdoc_says_waits_and_is_set_aside(rig: Any) -> None:
    rig.movie("a.tiff", frames=6)
    (rig.camera / "a.tiff.mdoc").write_text(FRAME_MDOC.format(40, 40))
    reports = [rig.look(seconds=30) for _ in range(8)]
    assert all(report.new == [] for report in reports)
    (aside,) = [aside for report in reports for aside in report.set_aside]
    assert "6 of the 40 frames that a.tiff.mdoc says" in aside.reason
    rig.movie("a.tiff", frames=40)
    assert [taken.frames for taken in rig.take_all()] == [40]


def test_of_very_many_movies_only_the_new_ones_are_judged(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    monkeypatch.setattr(
        "beamside.acquisition.frame_check.judge",
        lambda source, *args, **options: judged.append(Path(source).name) or judge(source, *args, **options),
    )
    for index in range(4):
        rig.movie(f"m{index}.tiff", frames=6)
    rig.take_all()
    rig.look()
    judged.clear()
    rig.movie("short.tiff", frames=3)
    for _ in range(4):
        rig.clock.now += 30
        rig.take_all()
    assert "short.tiff (it has 3 frames where others have 6)" in doubts(rig)
    assert judged == ["short.tiff"]
    rig.record("m1.tiff", 7)
    for _ in range(3):
        rig.look()
    assert "m1.tiff (it has 6 frames where m1.xml says 7)" in doubts(rig)
    assert judged == ["short.tiff", "m1.tiff"]


def test_an_image_is_not_measured_by_the_movie_that_it_is_the_sum_of(tmp_path: Path) -> None:
    path = tmp_path / "sum_01.mrc.mdoc"
    path.write_text(IMAGE_MDOC.format("m_0001.tif"))
    assert "frames" not in read_mdoc(path)
    path.write_text(IMAGE_MDOC.format("SUM_01.tif").replace("SUM", "sum"))
    assert read_mdoc(path)["frames"] == 40


@pytest.mark.parametrize(
    ("doses", "frames"), [("0 7  0 3", 10), ("1.2 40", 40), ("1.2", None), ("a b", None), ("", None)]
)
def test_frames_can_be_counted_from_their_doses(tmp_path: Path, doses: str, frames: int | None) -> None:
    path = tmp_path / "a.tif.mdoc"
    path.write_text(f"[FrameSet = 0]\nFrameDosesAndNumber = {doses}\n")
    assert read_mdoc(path).get("frames") == frames


def test_a_micrograph_is_not_measured_by_a_record_of_its_movie(rig: Any) -> None:
    rig.kind = MICROGRAPH
    rig.start(remove_source=True)
    path = rig.movie("sum.tiff", frames=1)
    rig.record("sum.tiff", 40)
    rig.take_all()
    assert rig.look().standing == []
    assert not path.exists()


def test_epu_says_into_how_many_fractions_the_camera_was_to_divide(tmp_path: Path) -> None:
    path = tmp_path / "X.xml"
    path.write_text(EXPOSURE.format("<b:NumberOffractions xmlns:b='y'>50</b:NumberOffractions>"))
    assert read_epu_xml(path)["fractions"] == 50
    path.write_text(
        EXPOSURE.format("<d><EndFrameNumber>5</EndFrameNumber><StartFrameNumber>1</StartFrameNumber></d>" * 22)
    )
    planned = read_epu_xml(path)
    assert planned["fractions"] == 22
    # it counts for the fractions, not for their sum or an EER movie's raw frames, and what was recorded counts more
    assert [one.frames for one in statements("X_Fractions.tiff", {}, [("X.xml", planned)])] == [22]
    assert statements("X.mrc", {}, [("X.xml", planned)]) == statements("X_EER.eer", {}, [("X.xml", planned)]) == []
    assert not statements("X_Fractions.tiff", {}, [("X.xml", planned)])[0].counted, "a plan can be changed by hand"
    both = [("X.xml", planned), ("X_Fractions.xml", {"frames": 21.0})]
    assert [one.frames for one in statements("X_Fractions.tiff", {}, both)] == [21]


def test_an_mrc_movie_with_the_bytes_of_more_frames_than_its_header_says_is_no_movie_of_one_frame(rig: Any) -> None:
    path = rig.camera / "m.mrc"
    write_mrc(path, np.ones((6, 32, 48), np.int16))
    data = bytearray(path.read_bytes())
    data[8:12] = (2).to_bytes(4, "little")  # nz
    path.write_bytes(data)
    reports = [rig.look(seconds=30) for _ in range(8)]
    assert all(report.new == [] for report in reports)
    (aside,) = [aside for report in reports for aside in report.set_aside]
    assert "the bytes of 6 images, and its MRC header says 2" in aside.reason


def test_bytes_that_no_header_accounts_for_are_waited_for_and_then_told(rig: Any) -> None:
    rig.start(remove_source=True)
    path = rig.movie("a.tiff")
    path.write_bytes(path.read_bytes() + bytes(2000))
    rig.record("a.tiff", 3)
    first = rig.look_twice()
    assert "2,000 bytes that its header does not account for" in first.waiting[0].reason
    reports = []
    for _ in range(6):
        reports.append(rig.look(seconds=30))
        for arrival in reports[-1].new:
            rig.intake.take(arrival)
    assert (
        doubts(rig)
        == f"The number of frames of 1 movie is in doubt: {path} (it has 2,000 bytes that its header does not account for); "
        + AGAIN
    )
    assert path.exists()
    assert "source-kept:disputed" in [trouble.key for trouble in rig.look().standing]


def test_a_movie_taken_before_the_usual_number_was_known_is_told_of(rig: Any) -> None:
    short = rig.movie("first.tiff", frames=2)
    rig.take_all()
    for number in range(SHARED_BY):
        rig.movie(f"m{number}.tiff", seed=number, frames=6)
    rig.take_all()
    assert f"1 movie is in doubt: {short} (it has 2 frames where others have 6)" in doubts(rig)
    rig.movie("first.tiff", frames=6)
    rig.look()
    assert [taken.frames for taken in rig.take_all()] == [6]
    assert doubts(rig) == "", "it was taken again"


counts = st.lists(st.integers(1, 4), min_size=1, max_size=12)


@given(counts)
def test_nothing_is_confirmed_by_others_but_the_largest_number_that_enough_share(numbers: list[int]) -> None:
    usual = UsualFrames()
    for number in numbers:
        usual.add(number)
    for number in set(numbers):
        verdict = judge("m.tiff", number, {}, [], usual, single_images=False)
        larger = any(numbers.count(other) > SHARED_BY for other in range(number + 1, 5))
        assert (verdict.standing == "usual") == (number > 1 and numbers.count(number) > SHARED_BY and not larger)


def test_what_is_described_in_the_file_can_contradict_it_but_not_confirm_it() -> None:
    """A description can be written anew with each frame."""
    described = {"described_frames": 6.0}
    assert judge("m.tif", 6, described, [], UsualFrames(), single_images=False).standing == "unconfirmed"
    assert judge("m.tif", 5, described, [], UsualFrames(), single_images=False).standing == "disputed"


@given(counts, st.integers(1, 4), st.integers(0, 6), st.integers(0, 6))
def test_whoever_contradicts_a_movie_keeps_its_source(numbers: list[int], frames: int, recorded: int, own: int) -> None:
    usual = UsualFrames()
    for number in [*numbers, frames]:
        usual.add(number)
    sidecars = [("m.xml", {"frames": float(recorded)})]
    standing = judge("m.tiff", frames, {"frames": own}, sidecars, usual, single_images=False).standing
    said = [number for number in (recorded, own) if number]
    if any(number != frames for number in said):
        assert standing == "disputed"
    elif said:
        assert standing == "stated"
    else:
        assert standing != "stated"
