"""MRC files: written as the standard wants, read tolerantly, truncation found."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import CorruptFileError, NotReadyError
from beamside.formats.movies import open_movie
from beamside.formats.mrc import (
    check_mrc_complete,
    map_mrc,
    mrc_expected_size,
    read_header,
    read_mrc,
    read_sections,
    write_mrc,
)


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4", "c8"])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_every_mode_survives_and_mrcfile_agrees(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    data = (np.random.default_rng(2).normal(size=shape) * 20).astype(dtype)
    path = tmp_path / "x.mrc"
    write_mrc(path, data, 1.25)
    assert np.array_equal(read_mrc(path), data)
    assert read_mrc(path).dtype == data.dtype
    assert mrc_expected_size(path) == path.stat().st_size
    with mrcfile.open(path) as peer:
        assert np.array_equal(peer.data, data)
        assert peer.voxel_size.x == pytest.approx(1.25)
        assert peer.is_single_image() if data.ndim == 2 else peer.is_image_stack()
    assert mrcfile.validate(path)


def test_other_types_become_the_nearest_that_holds_them(tmp_path: Path) -> None:
    for dtype, stored in (("u1", "u2"), ("f8", "f4"), ("i4", "f4"), ("?", "i1")):
        write_mrc(tmp_path / "x.mrc", np.ones((2, 2), dtype))
        assert read_mrc(tmp_path / "x.mrc").dtype == np.dtype(stored)


def test_nan_does_not_break_the_header(tmp_path: Path) -> None:
    write_mrc(tmp_path / "x.mrc", np.array([[np.nan, 1.0], [np.inf, 2.0]], np.float32))
    with mrcfile.open(tmp_path / "x.mrc") as peer:
        assert peer.header.dmax < peer.header.dmin


def test_volumes_are_marked_as_volumes(tmp_path: Path) -> None:
    write_mrc(tmp_path / "v.mrc", np.zeros((4, 4, 4), np.float32), 2.0, volume=True)
    with mrcfile.open(tmp_path / "v.mrc") as peer:
        assert peer.is_volume()
        assert peer.voxel_size.z == 2.0


def test_big_endian_files_of_others_are_read(tmp_path: Path) -> None:
    data = np.arange(12, dtype=">i2").reshape(3, 4)
    header = bytearray(1024)
    struct.pack_into(">4i", header, 0, 4, 3, 1, 1)
    (tmp_path / "old.mrc").write_bytes(bytes(header) + data.tobytes())
    assert np.array_equal(read_mrc(tmp_path / "old.mrc"), data)
    assert read_mrc(tmp_path / "old.mrc").dtype.isnative
    assert read_header(tmp_path / "old.mrc").pixel_size == 0


def test_extended_headers_are_skipped(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("f4")
    with mrcfile.new(tmp_path / "e.mrc") as peer:
        peer.set_data(data)
        peer.set_extended_header(np.zeros(640, "V1"))
    assert np.array_equal(read_mrc(tmp_path / "e.mrc"), data)
    assert np.array_equal(map_mrc(tmp_path / "e.mrc"), data)


def test_bytes_are_unsigned_only_where_imod_says_so(tmp_path: Path) -> None:
    path = tmp_path / "b.mrc"
    write_mrc(path, np.full((2, 2), -1, np.int8))
    assert read_mrc(path).max() == -1
    raw = bytearray(path.read_bytes())
    struct.pack_into("<2i", raw, 152, 1146047817, 0)
    path.write_bytes(raw)
    assert read_mrc(path).min() == 255


def test_packed_four_bit_movies_are_unpacked(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 16, (2, 3, 5), dtype=np.uint8)
    even = np.concatenate([pixels, np.zeros((2, 3, 1), np.uint8)], axis=-1)
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 5, 3, 2, 101)
    path = tmp_path / "p.mrc"
    path.write_bytes(bytes(header) + (even[..., 0::2] | even[..., 1::2] << 4).tobytes())
    with open_movie(path) as movie:
        assert np.array_equal(movie.read(threads=2), pixels)


def packed_file(path: Path, pixels: np.ndarray, nx: int, mode: int, flags: int = 0) -> None:
    """Write 4-bit `pixels` (n, h, w), the low half of each byte first, under a header that says `nx`, `mode` and IMOD's `flags`."""
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, pixels.shape[2] % 2)))
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, nx, pixels.shape[1], pixels.shape[0], mode)
    struct.pack_into("<2i", header, 152, 1146047817 if flags else 0, flags)
    path.write_bytes(bytes(header) + (padded[..., 0::2] | padded[..., 1::2] << 4).astype(np.uint8).tobytes())


@pytest.mark.parametrize(("width", "nx"), [(10, 5), (10, 10), (9, 9)])
def test_bytes_that_imod_marks_as_packed_are_unpacked_whether_pixels_or_bytes_are_counted(
    tmp_path: Path, width: int, nx: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 16, (2, 3, width)).astype(np.uint8)
    path = tmp_path / "m.mrcs"
    packed_file(path, pixels, nx, mode=0, flags=16 | 1)
    assert np.array_equal(read_mrc(path), pixels)
    with open_movie(path) as movie:
        assert (movie.dtype, movie.shape) == (np.uint8, (3, width))


def test_packed_super_resolution_frames_are_known_by_their_size(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 16, (1, 7420, 7676)).astype(np.uint8)
    path = tmp_path / "m.mrc"
    packed_file(path, pixels, nx=3838, mode=0)
    assert np.array_equal(read_mrc(path), pixels[0])


@pytest.mark.parametrize(("mode", "words"), [(3, "complex 16-bit numbers"), (16, "colours"), (77, "unknown type")])
def test_other_modes_are_refused_by_their_names(tmp_path: Path, mode: int, words: str) -> None:
    path = tmp_path / "m.mrc"
    packed_file(path, np.zeros((1, 4, 4), np.uint8), nx=4, mode=mode)
    with pytest.raises(CorruptFileError, match=rf"{words} \(MRC mode {mode}\): modes 0, 1, 2, 6, 12 and 101"):
        read_mrc(path)


def test_every_truncated_prefix_is_seen_as_incomplete(tmp_path: Path) -> None:
    whole, part = tmp_path / "w.mrc", tmp_path / "p.mrc"
    write_mrc(whole, np.ones((2, 6, 9), np.int16))
    data = whole.read_bytes()
    for length in range(len(data)):
        part.write_bytes(data[:length])
        with pytest.raises(NotReadyError):
            check_mrc_complete(part)


@settings(max_examples=200)
@given(st.binary(min_size=1024, max_size=1400))
def test_any_bytes_give_a_header_or_one_of_our_errors(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mrc"
    path.write_bytes(data)
    try:
        header = check_mrc_complete(path)
    except (NotReadyError, CorruptFileError):
        return
    assert header.expected_size <= len(data)
    assert read_sections(path).shape == header.shape


def test_a_text_file_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "t.mrc").write_text("hello " * 300)
    with pytest.raises(CorruptFileError, match="not an MRC file"):
        read_header(tmp_path / "t.mrc")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.mrc"
    write_mrc(path, np.ones((2, 2), np.float32))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_mrc(path, np.zeros((9, 9), np.float32))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.mrc"]


@pytest.mark.data
def test_real_relion_files_without_version_and_of_half_precision(real_data: Path) -> None:
    stack = real_data / "em/relion_bgal/Extract/job009/Movies/20170629_00023_frameImage.mrcs"
    with mrcfile.open(stack, permissive=True) as peer:
        assert np.array_equal(read_mrc(stack), peer.data)
    assert read_mrc(stack).shape == (229, 64, 64)
    assert read_header(stack).mode == 12
    assert read_header(stack).pixel_size == pytest.approx(3.54)


@pytest.mark.data
def test_a_real_tilt_series_is_read_as_mrcfile_reads_it(real_data: Path) -> None:
    (series,) = (real_data / "em/tilt_series_exosome").glob("*.mrc")
    with mrcfile.open(series, permissive=True) as peer:
        assert np.array_equal(map_mrc(series), peer.data)


def write_bytes_of_others(
    path: Path, stored: np.ndarray, order: str = "<", flags: int | None = None, limits: tuple[float, float] = (0, 0)
) -> None:
    """Write bytes (n, h, w) as they are, with IMOD's mark and `flags`, and with least and greatest value in the header."""
    count, height, width = stored.shape
    header = bytearray(1024)
    struct.pack_into(order + "4i", header, 0, width, height, count, 0)
    struct.pack_into(order + "2f", header, 76, *limits)
    if flags is not None:
        struct.pack_into(order + "2i", header, 152, 1146047817, flags)
    header[208:216] = b"MAP " + (b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    path.write_bytes(bytes(header) + stored.tobytes())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("flags", "limits", "stored"),
    [
        pytest.param(1, (0, 0), lambda counts: (counts.astype(int) - 128).astype(np.int8), id="IMOD, signed"),
        pytest.param(0, (0, 0), lambda counts: counts, id="SerialEM and old IMOD, unsigned"),
        pytest.param(None, (0, 250), lambda counts: counts, id="no mark, a header that speaks of unsigned"),
    ],
)
def test_bytes_mean_the_counts_that_their_program_meant(
    tmp_path: Path, order: str, flags: int | None, limits: tuple[float, float], stored: Callable[..., np.ndarray]
) -> None:
    counts = np.random.default_rng(4).poisson(1.0, (3, 16, 32)).astype(np.uint8)
    counts[1, 2, 3] = 250
    write_bytes_of_others(tmp_path / "x.mrc", stored(counts), order, flags, limits)
    with open_movie(tmp_path / "x.mrc") as movie:
        assert movie.dtype == np.uint8
        assert np.array_equal(movie.read(), counts)


def test_bytes_without_a_word_about_them_are_signed_as_the_standard_says(tmp_path: Path) -> None:
    values = np.random.default_rng(5).integers(-128, 128, (2, 8, 8)).astype(np.int8)
    write_bytes_of_others(tmp_path / "x.mrc", values)
    assert np.array_equal(read_sections(tmp_path / "x.mrc"), values)
    counts = np.abs(values // 2)
    write_bytes_of_others(tmp_path / "x.mrc", counts, flags=1)
    assert np.array_equal(read_sections(tmp_path / "x.mrc"), counts), "a mark, and counts that are not shifted"


def test_bytes_with_round_sides_are_read_in_the_order_of_the_machine_stamp(tmp_path: Path) -> None:
    counts = np.random.default_rng(6).poisson(1.0, (256, 256, 512)).astype(np.int8)
    write_bytes_of_others(tmp_path / "x.mrc", counts, ">")
    assert read_header(tmp_path / "x.mrc").shape == (256, 256, 512)
