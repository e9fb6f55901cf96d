"""Removing sources: only what is certain to be whole goes, everything else stays and is told of; what goes on to be written is taken again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from beamside.acquisition import transfer
from beamside.acquisition.kinds import MICROGRAPH
from beamside.acquisition.manifest import verify_manifest
from beamside.errors import TransferError
from beamside.formats.movies import open_movie
from beamside.formats.mrc import write_mrc


@contextmanager
def being_written(path: Path, frames: np.ndarray) -> Iterator[Callable[[int], None]]:
    """Write a movie frame by frame into a file that stays open; the function writes the next so many frames."""
    rest = iter(frames)
    with tifffile.TiffWriter(path) as writer:

        def write(count: int) -> None:
            for _ in range(count):
                writer.write(next(rest)[::-1], photometric="minisblack", metadata=None, contiguous=False)
            writer.filehandle.flush()

        yield write


def looks(rig: Any, count: int, seconds: float = 3.0) -> list[Any]:
    """Look so many times, take what is offered; return what was taken."""
    return [rig.intake.take(arrival) for _ in range(count) for arrival in rig.look(seconds).new]


def kept(rig: Any) -> dict[str, str]:
    return {
        trouble.key.removeprefix("source-kept:"): trouble.sentence
        for trouble in rig.look().standing
        if trouble.key.startswith("source-kept:")
    }


def frames_of(path: Path) -> int:
    with open_movie(path) as movie:
        return movie.frames


def test_the_source_is_removed_only_when_asked_and_only_after_the_manifest_has_it(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_at_first, gone = rig.movie("kept.tiff"), rig.camera / "gone.tiff"
    rig.record("kept.tiff", 3)
    rig.take_all()
    rig.look()
    assert kept_at_first.exists()
    rig.start(remove_source=True)
    rig.movie("gone.tiff", compression="none", dtype="u2")
    rig.record("gone.tiff", 3)
    (arrival,) = rig.look_twice().new
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "verify_hash", lambda *_: (_ for _ in ()).throw(TransferError("differs")))
        with pytest.raises(TransferError):
            rig.intake.take(arrival)
    assert gone.exists()
    rig.look(seconds=30)
    assert not kept_at_first.exists()  # asked for now: verified anew and removed
    rig.intake.take(arrival)
    rig.look()
    assert list(rig.camera.iterdir()) == []
    removed = {entry.source for entry in rig.manifest.entries if entry.kind == "removed"}
    assert removed >= {str(kept_at_first), str(gone)}
    assert verify_manifest(rig.project) == []


def test_a_movie_that_is_written_frame_by_frame_stays_and_is_taken_again_until_it_is_whole(
    rig: Any, counts: Callable[..., np.ndarray]
) -> None:
    rig.start(remove_source=True)
    path, frames = rig.camera / "slow.tiff", counts(1, 6)
    with being_written(path, frames) as write:
        write(2)
        (short,) = looks(rig, 4)
        assert (short.name, short.frames) == ("raw/slow", 2)
        assert "nothing confirms that all frames are there" in kept(rig)["unconfirmed"]
        write(4)
    (whole,) = looks(rig, 4)
    assert path.exists()
    assert (whole.name, whole.path, whole.frames) == ("raw/slow", "raw/slow_v2.tiff", 6)
    assert whole.sha256 != short.sha256
    with open_movie(rig.project / whole.path) as movie:
        assert np.array_equal(movie.read(), frames)
    assert [taken.path for taken in rig.start().taken()] == ["raw/slow_v2.tiff"]
    assert frames_of(rig.project / short.path) == 2
    rig.record("slow.tiff", 6)
    looks(rig, 4)
    assert not path.exists()
    assert verify_manifest(rig.project) == []


def test_a_movie_with_one_frame_so_far_is_not_called_a_single_image(
    rig: Any, counts: Callable[..., np.ndarray]
) -> None:
    with being_written(rig.camera / "slow.tiff", counts(1, 6)) as write:
        write(1)
        reports = [rig.look() for _ in range(4)]
        assert "a single frame" in reports[-1].waiting[0].reason
        write(5)
    reports += [rig.look() for _ in range(3)]
    (arrival,) = [arrival for report in reports for arrival in report.new]
    assert arrival.info.frames == 6
    assert [remark for report in reports for remark in report.remarks] == []


def test_a_movie_that_is_seen_under_two_paths_and_grows_stays_one_item(rig: Any) -> None:
    whole = rig.movie("a.tiff", frames=5).read_bytes()
    short = rig.movie("a.tiff", frames=2).read_bytes()
    (rig.camera / "mirror").mkdir()
    other = rig.camera / "mirror/a.tiff"
    other.write_bytes(short)
    for _ in range(4):
        for arrival in rig.look().new:
            rig.intake.take(arrival)
    for path in (other, rig.camera / "a.tiff"):
        path.write_bytes(whole)
        for _ in range(5):
            for arrival in rig.look().new:
                rig.intake.take(arrival)
    assert [(taken.name, taken.frames) for taken in rig.start().taken()] == [("raw/a", 5)]
    assert [entry.kind for entry in rig.manifest.entries] == ["movie", "duplicate", "movie", "duplicate"]
    assert verify_manifest(rig.project) == []


def test_a_source_that_grows_days_later_and_in_another_session_is_taken_again(rig: Any) -> None:
    whole = rig.movie("a.tiff", frames=5)
    content, short = whole.read_bytes(), rig.movie("a.tiff", frames=2)
    rig.take_all()
    rig.look(seconds=300_000)
    rig.start()
    short.write_bytes(content)
    rig.look()
    (arrival,) = rig.look_twice().new
    taken = rig.intake.take(arrival)
    assert (taken.name, taken.frames) == ("raw/a", 5)
    (remark,) = [remark for remark in rig.look().remarks if remark.subject == "source-changed"]
    assert "from 2 to 5 frames" in remark.sentence
    assert "computed anew" in remark.sentence
    assert [entry.frames for entry in rig.manifest.entries] == [2, 5]


def test_a_source_that_keeps_growing_is_taken_less_and_less_often(rig: Any, counts: Callable[..., np.ndarray]) -> None:
    with being_written(rig.camera / "slow.tiff", counts(1, 40)) as write:
        versions = []
        write(1)
        for _ in range(30):
            write(1)
            versions += looks(rig, 3)
        assert 2 <= len(versions) <= 3
    assert [taken.frames for taken in looks(rig, 20, seconds=60)] == [31]


def test_other_movies_confirm_the_number_of_frames_when_the_file_has_been_left_alone(rig: Any) -> None:
    rig.start(remove_source=True, remove_after=60)
    for number in range(3):
        rig.movie(f"m{number}.tiff", seed=number)
    looks(rig, 30)
    assert len(list(rig.camera.iterdir())) == 3
    rig.movie("m3.tiff", seed=3)
    looks(rig, 3)
    report = rig.look()
    assert report.to_remove > 0
    looks(rig, 3, seconds=30)
    assert list(rig.camera.iterdir()) == []
    assert rig.look().to_remove == 0


def test_movies_that_were_all_taken_short_confirm_each_other_for_nothing_longer(
    rig: Any, counts: Callable[..., np.ndarray]
) -> None:
    """Of two numbers that are shared, the smaller one can be that of movies which a camera left half written."""
    rig.start(remove_source=True)
    for number in range(4):
        rig.movie(f"short{number}.tiff", seed=number, frames=2)
        rig.movie(f"long{number}.tiff", seed=10 + number, frames=6)
    looks(rig, 40, seconds=30)
    assert sorted(path.name for path in rig.camera.iterdir()) == [f"short{number}.tiff" for number in range(4)]
    assert kept(rig)


def test_a_movie_with_another_number_than_its_record_says_stays(rig: Any) -> None:
    rig.start(remove_source=True)
    path = rig.movie("a.tiff", frames=4)
    rig.record("a.tiff", 3)
    assert [taken.frames for taken in looks(rig, 20)] == [4]
    assert "4 frames where a.xml says 3" in kept(rig)["disputed"]
    assert path.exists()
    rig.movie("b.tiff", frames=5)
    rig.record("b.tiff", 2)
    looks(rig, 20)
    said = kept(rig)["disputed"]
    assert said.startswith("2 sources are kept")
    assert "a.tiff (it has 4 frames where a.xml says 3), b.tiff (it has 5 frames where b.xml says 2);" in said


def test_a_record_that_comes_later_confirms_or_contradicts(rig: Any) -> None:
    rig.start(remove_source=True)
    right, wrong = rig.movie("right.tiff"), rig.movie("wrong.tiff", seed=2)
    rig.take_all()
    rig.record("right.tiff", 3)
    rig.record("wrong.tiff", 40)
    looks(rig, 3)
    (doubt,) = [trouble.sentence for trouble in rig.look().standing if trouble.key == "frames-in-doubt"]
    assert f"{wrong} (it has 3 frames where wrong.xml says 40)" in doubt
    assert not right.exists()
    assert wrong.exists()
    assert sorted(path.name for path in rig.camera.iterdir()) == ["wrong.tiff", "wrong.xml"]


def test_a_file_that_another_program_has_open_for_writing_stays_until_it_is_closed(rig: Any) -> None:
    rig.start(remove_source=True)
    path = rig.movie("a.tiff")
    rig.record("a.tiff", 3)
    with open(path, "r+b"):
        looks(rig, 4)
        assert "another program has the file open" in kept(rig)["open"]
        assert path.exists()
    with open(path, "rb"):
        looks(rig, 3, seconds=60)
    assert not path.exists()


def test_a_movie_whose_room_was_set_aside_stays_until_it_is_filled(rig: Any, counts: Callable[..., np.ndarray]) -> None:
    rig.start(remove_source=True)
    path, frames = rig.camera / "m.mrc", counts(1, 6).astype(np.int16)
    write_mrc(path, np.concatenate([frames[:2], np.zeros_like(frames[2:])]))
    rig.record("m.tiff", 6)
    (early,) = looks(rig, 6)
    assert "the last frame has no counts" in kept(rig)["blank"]
    write_mrc(path, frames)
    (whole,) = looks(rig, 6)
    assert whole.name == early.name
    looks(rig, 3, seconds=100)
    assert not path.exists()
    with open_movie(rig.project / whole.path) as movie:
        assert np.array_equal(movie.read(), frames)


def test_a_source_with_the_same_size_and_date_but_another_end_stays(rig: Any) -> None:
    rig.start(remove_source=True)
    path = rig.movie("a.tiff")
    rig.take_all()
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    rig.record("a.tiff", 3)
    looks(rig, 4)
    assert "changed" in kept(rig)
    assert path.exists()


def test_a_left_source_is_not_removed_when_its_copy_is_damaged(rig: Any) -> None:
    path = rig.movie("a.tiff")
    rig.record("a.tiff", 3)
    (taken,) = rig.take_all()
    copy = rig.project / taken.path
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    rig.start(remove_source=True)
    report = rig.look()
    (trouble,) = [one for one in report.standing if one.key == "source-kept:damaged"]
    assert trouble.severity == "error"
    assert path.exists()


def test_a_new_date_does_not_keep_a_source(rig: Any) -> None:
    path = rig.movie("a.tiff")
    rig.record("a.tiff", 3)
    rig.take_all()
    os.utime(path, (5, 5))
    rig.look()
    rig.start(remove_source=True)
    rig.look()
    assert not path.exists()


def test_a_new_file_under_a_removed_one_s_name_is_taken_as_new(rig: Any) -> None:
    rig.start(remove_source=True)
    rig.movie("a.tiff", seed=1)
    rig.record("a.tiff", 3)
    rig.take_all()
    rig.look()
    rig.movie("a.tiff", seed=2)
    assert [taken.path for taken in rig.take_all()] == ["raw/camera_folder_a.tiff"]
    rig.start()
    assert rig.look_twice().new == []
    assert verify_manifest(rig.project) == []


def test_another_exposure_under_a_taken_one_s_name_is_another_item(rig: Any) -> None:
    rig.movie("a.tiff", seed=1)
    rig.take_all()
    path = rig.movie("a.tiff", seed=2, frames=4)
    rig.look()
    (arrival,) = rig.look_twice().new
    assert rig.intake.take(arrival).name == "raw/camera_folder_a"
    remarks = rig.look().remarks
    assert any(f"{path} was replaced by another exposure" in remark.sentence for remark in remarks)
    assert [taken.name for taken in rig.start().taken()] == ["raw/a", "raw/camera_folder_a"]
    assert verify_manifest(rig.project) == []


def test_a_source_that_can_no_longer_be_read_does_no_harm_to_its_copy(rig: Any) -> None:
    path = rig.movie("a.tiff")
    rig.take_all()
    path.write_bytes(path.read_bytes()[:100])
    reports = [rig.look(seconds=30) for _ in range(8)]
    assert [report.set_aside for report in reports] == [[]] * 8
    (remark,) = [remark for report in reports for remark in report.remarks]
    assert "raw/a.tiff stays as it is" in remark.sentence
    assert reports[-1].waiting == []
    assert [taken.frames for taken in rig.intake.taken()] == [3]


def test_a_source_that_has_lost_frames_is_not_taken_again(rig: Any) -> None:
    rig.movie("a.tiff", frames=5)
    rig.take_all()
    rig.movie("a.tiff", frames=2)
    remarks = [remark.sentence for _ in range(8) for remark in rig.look(seconds=30).remarks]
    assert len(remarks) == 1
    assert "had 5 when it was taken" in remarks[0]
    assert [taken.frames for taken in rig.intake.taken()] == [5]


def test_a_lost_mount_is_not_taken_for_removed_sources(rig: Any, tmp_path: Path) -> None:
    rig.start(remove_source=True)
    path = rig.movie("a.tiff")
    rig.record("a.tiff", 3)
    rig.take_all()
    rig.camera.rename(tmp_path / "away")
    looks(rig, 3, seconds=100)
    assert not any(entry.kind == "removed" for entry in rig.manifest.entries)
    (tmp_path / "away").rename(rig.camera)
    looks(rig, 3, seconds=100)
    assert not path.exists()


def test_sidecars_are_removed_with_their_movie_and_stay_with_it(rig: Any) -> None:
    rig.start(remove_source=True)
    rig.movie("X.tiff")
    (rig.camera / "X.tiff.mdoc").write_text("Voltage = 300\n")
    rig.take_all()
    rig.look_twice()
    assert sorted(path.name for path in rig.camera.iterdir()) == ["X.tiff", "X.tiff.mdoc"]
    rig.record("X.tiff", 3)
    looks(rig, 3)
    assert list(rig.camera.iterdir()) == []
    assert verify_manifest(rig.project) == []


def test_a_micrograph_is_one_image_and_goes_at_once(rig: Any, counts: Callable[..., np.ndarray]) -> None:
    rig.kind = MICROGRAPH
    rig.start(data=(str(rig.camera),), remove_source=True)
    Image.fromarray(counts(frames=1)[0]).save(rig.camera / "p.png")
    rig.movie("t.tiff", frames=1)
    looks(rig, 3)
    assert list(rig.camera.iterdir()) == []
