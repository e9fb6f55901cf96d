"""EER movies: every electron lands in its pixel, at both samplings, in every coding; incomplete and damaged files are told."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.errors import BeamsideError, ConfigError, CorruptFileError, InputError, NotReadyError
from beamside.formats.eer import Coding, EerFrames, check_eer_complete
from beamside.formats.movies import open_movie
from beamside.formats.rendering import Rendering, grouping
from beamside.simulate.eer import Electrons, camera_xml, eer_bytes, encode_frame, split_counts

SHAPE = (48, 80)
USUAL = Coding(7, 2, 2)
CODINGS = [(7, 2, 2), (8, 2, 2), (7, 1, 1), (7, 3, 3), (6, 4, 4), (5, 3, 2), (10, 2, 4), (4, 4, 2)]


def some_electrons(density: float, seed: int, coding: Coding = USUAL, shape: tuple[int, int] = SHAPE) -> Electrons:
    rng = np.random.default_rng(seed)
    pixels = np.flatnonzero(rng.random(shape[0] * shape[1]) < density)
    x, y = (rng.integers(0, 1 << bits, len(pixels)) for bits in (coding.x, coding.y))
    return Electrons(pixels, x, y)


def rendered(frames: list[Electrons], coding: Coding, upsampling: int) -> np.ndarray:
    total = np.zeros((SHAPE[0] * upsampling, SHAPE[1] * upsampling), int)
    for electrons in frames:
        row, column = np.divmod(electrons.pixels, SHAPE[1])
        if upsampling == 2:
            row, column = (
                row * 2 + (electrons.y >> coding.y - 1),
                column * 2 + (electrons.x >> coding.x - 1),
            )
        np.add.at(total, (row, column), 1)
    return total


@pytest.fixture
def movie_file(tmp_path: Path) -> Path:
    frames = [some_electrons(0.02, seed) for seed in range(11)]
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes(frames, SHAPE, metadata=camera_xml(11, SHAPE, 0.7, 40.0, 2.5)))
    return path


@pytest.mark.parametrize("upsampling", [1, 2])
@pytest.mark.parametrize("bits", CODINGS)
def test_electrons_land_in_their_pixels(tmp_path: Path, bits: tuple[int, int, int], upsampling: int) -> None:
    coding = Coding(*bits)
    frames = [some_electrons(density, seed, coding) for seed, density in enumerate((0.02, 0.4, 0.0005, 0.0))]
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes(frames, SHAPE, coding))
    with EerFrames(path) as movie:
        assert (movie.info.frames, movie.info.shape, movie.info.coding) == (4, SHAPE, coding)
        for index, electrons in enumerate(frames):
            assert np.array_equal(movie.sum(index, index + 1, upsampling), rendered([electrons], coding, upsampling))
        assert np.array_equal(movie.sum(0, 4, upsampling), rendered(frames, coding, upsampling))


def test_frames_of_the_oldest_kind_are_read_with_short_long_skips_too(tmp_path: Path, monkeypatch) -> None:
    """Two accounts of compression 65000 exist; the end of the frame tells which one a file follows."""
    coding = Coding(8, 2, 2)
    frames = [some_electrons(0.003, seed, coding) for seed in range(3)]
    monkeypatch.setattr(
        "beamside.simulate.eer.encode_frame", lambda *arguments, evenly: encode_frame(*arguments, evenly=False)
    )
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes(frames, SHAPE, coding))
    with EerFrames(path) as movie:
        assert movie.info.evenly
        for upsampling in (1, 2):
            assert np.array_equal(movie.sum(0, 3, upsampling), rendered(frames, coding, upsampling))


def test_many_frames_in_one_sum_do_not_overflow(tmp_path: Path) -> None:
    everywhere = Electrons(np.arange(256), np.zeros(256, int), np.zeros(256, int))
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes([everywhere] * 300, (16, 16)))
    with open_movie(path, Rendering(1, 300)) as movie:
        assert (movie.dtype, movie.frames) == (np.uint16, 1)
        assert (movie.frame(0) == 300).all()
    with open_movie(path, Rendering(1, 255)) as movie:
        assert movie.dtype == np.uint8
        assert (movie.frame(0) == 255).all()


def test_a_movie_is_rendered_in_groups_and_what_is_left_over_is_left_out(movie_file: Path) -> None:
    with EerFrames(movie_file) as raw, open_movie(movie_file, Rendering(2, 4)) as movie:
        assert (movie.frames, movie.shape, movie.pixel_size) == (2, (96, 160), pytest.approx(0.35))
        frames = movie.read(threads=2)
        assert np.array_equal(frames, [raw.sum(0, 4, 2), raw.sum(4, 8, 2)])
    with EerFrames(movie_file) as raw, open_movie(movie_file) as movie:
        assert np.array_equal(movie.read().sum(axis=0), raw.sum(0, 11)), "without a wish, all raw frames are there"
    with pytest.raises(InputError, match="11 raw frames, fewer than the 12"):
        open_movie(movie_file, Rendering(1, 12))


def test_the_camera_says_pixel_size_dose_and_frames(movie_file: Path) -> None:
    said = check_eer_complete(movie_file).metadata
    assert said == pytest.approx({"pixel_size": 0.7, "total_dose": 40.0, "exposure_time": 2.5, "frames": 11})


@pytest.mark.parametrize(
    "xml", [b"", b"<metadata>", b"<metadata><item name='totalDose'>NaN</item></metadata>", b"\xff"]
)
def test_metadata_that_cannot_be_read_are_nothing(tmp_path: Path, xml: bytes) -> None:
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes([some_electrons(0.02, 1)], SHAPE, metadata=xml))
    assert check_eer_complete(path).metadata == {}


@pytest.mark.parametrize(
    ("frames", "dose", "wanted", "size", "fractions", "left_over"),
    [
        (1005, 0.04, 1.0, 25, 40, 5),
        (1000, 0.04, 1.0, 25, 40, 0),
        (40, 1.0, 1.0, 1, 40, 0),
        (7, 0.5, 10.0, 7, 1, 0),
        (10, 3.0, 1.0, 1, 10, 0),
    ],
)
def test_the_group_comes_nearest_to_the_dose(
    frames: int, dose: float, wanted: float, size: int, fractions: int, left_over: int
) -> None:
    found = grouping(frames, dose, wanted)
    assert (found.size, found.fractions, found.left_over) == (size, fractions, left_over)


def test_every_truncated_prefix_is_seen_as_incomplete(movie_file: Path, tmp_path: Path) -> None:
    data, part = movie_file.read_bytes(), tmp_path / "part.eer"
    # the strip of the last frame is followed by up to 7 bytes of padding
    for length in [*range(0, len(data) - 8, 7), len(data) - 8]:
        part.write_bytes(data[:length])
        with pytest.raises(NotReadyError):
            check_eer_complete(part)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_frames_or_our_errors(movie_file: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(movie_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.eer"
    path.write_bytes(content)
    try:
        with open_movie(path, Rendering(2, 3)) as movie:
            for index in range(movie.frames):
                assert movie.frame(index).shape == movie.shape
    except BeamsideError:
        pass


def test_other_files_named_eer_are_refused(tmp_path: Path, movie_file: Path) -> None:
    from beamside.formats.tiff import write_tiff

    path = tmp_path / "other.eer"
    write_tiff(path, np.zeros((3, 16, 16), np.uint8))
    with pytest.raises(CorruptFileError, match="no frames of electron events"):
        check_eer_complete(path)
    content = movie_file.read_bytes()
    first_width = content.index(struct.pack("<HHQQ", 256, 4, 1, SHAPE[1]))
    path.write_bytes(content[: first_width + 12] + struct.pack("<Q", 81) + content[first_width + 20 :])
    with pytest.raises(CorruptFileError, match="several sizes"):
        check_eer_complete(path)


def test_impossible_renderings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="upsampling 1 or 2"):
        Rendering(4, 1)
    path = tmp_path / "odd.eer"
    path.write_bytes(eer_bytes([some_electrons(0.1, 1, shape=(15, 17))], (15, 17)))
    with EerFrames(path) as movie:
        assert movie.sum(0, 1).sum() > 0
        with pytest.raises(InputError, match="17 x 15 pixels, which cannot be rendered with upsampling 2"):
            movie.sum(0, 1, 2)


def test_counts_become_raw_frames_and_counts_again() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(1.2, SHAPE).astype(np.uint8)
    frames = split_counts(counts, 12, Coding(7, 2, 2), rng)
    assert len(frames) == 12
    assert np.array_equal(rendered(frames, Coding(7, 2, 2), 1), counts)
    assert all((np.diff(electrons.pixels) > 0).all() for electrons in frames)
    with pytest.raises(ConfigError, match="take more raw frames"):
        split_counts(counts, 1, Coding(7, 2, 2), rng)
