"""TIFF movies: completeness is judged on every byte that is referred to; pixels survive exactly."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.errors import CorruptFileError, NotReadyError
from beamside.formats import tiff_pages
from beamside.formats.movies import open_movie
from beamside.formats.tiff import check_tiff_complete, write_tiff
from beamside.formats.tiff_directories import read_directories


def counts(frames: int = 4, shape: tuple[int, int] = (20, 30), dtype: str = "u1", seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(1.0, (frames, *shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("compression", ["lzw", "none"])
def test_what_is_written_is_read_back_exactly(tmp_path: Path, dtype: str, compression: str) -> None:
    frames = counts(dtype=dtype)
    if dtype == "i2":
        frames -= 3
    path = tmp_path / "a movie.tiff"
    assert write_tiff(path, frames, compression=compression, threads=2) == 4
    info = check_tiff_complete(path)
    assert (info.frames, info.shape, info.dtype, info.compression) == (4, (20, 30), frames.dtype, compression)
    with open_movie(path) as movie:
        assert np.array_equal(movie.read(threads=3), frames)
        assert np.array_equal(movie.read(1, 3), frames[1:3])
    assert np.array_equal(tifffile.imread(path)[:, ::-1], frames), (
        "TIFF has the top row first, arrays have the bottom row first"
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zstd", "predictor": True},
        {"compression": "lzw", "predictor": True},
        {"compression": "packbits"},
        {"compression": "zstd", "tile": (16, 16)},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"byteorder": ">", "bigtiff": True, "compression": "lzw", "rowsperstrip": 7},
        {"rowsperstrip": 3},
        {"tile": (16, 16)},
    ],
)
@pytest.mark.parametrize("dtype", ["u2", "i4", "f4", "u1"])
def test_files_of_other_writers_are_read(tmp_path: Path, options: dict, dtype: str) -> None:
    if dtype == "f4" and "predictor" in options:
        options = options | {"predictor": 3}
    frames = counts(dtype=dtype)
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, frames[:, ::-1], photometric="minisblack", **options)
    with open_movie(path) as movie:
        assert np.array_equal(movie.read(threads=2), frames)
        assert movie.dtype == frames.dtype


def four_bit_file(path: Path, frames: np.ndarray) -> None:
    """Write a plain TIFF with 4 bits a pixel, the high half of each byte first, as TIFF has it; rows are whole bytes."""
    _, height, width = frames.shape
    padded = np.pad(frames[:, ::-1], ((0, 0), (0, 0), (0, width % 2)))
    strips = [strip.astype(np.uint8).tobytes() for strip in padded[..., 0::2] << 4 | padded[..., 1::2]]
    content = bytearray(b"II*\0" + struct.pack("<I", 8))
    for index, strip in enumerate(strips):
        entries = [
            (256, width),
            (257, height),
            (258, 4),
            (259, 1),
            (262, 1),
            (273, 0),
            (277, 1),
            (278, height),
            (279, len(strip)),
        ]
        end = len(content) + 2 + 12 * len(entries) + 4
        directory = struct.pack("<H", len(entries))
        for tag, value in entries:
            directory += struct.pack("<HHII", tag, 4, 1, end if tag == 273 else value)
        content += directory + struct.pack("<I", 0 if index + 1 == len(strips) else end + len(strip)) + strip
    path.write_bytes(content)


@pytest.mark.parametrize("width", [30, 31])
def test_four_bits_a_pixel_are_unpacked(tmp_path: Path, width: int) -> None:
    frames = np.random.default_rng(1).integers(0, 16, (3, 20, width)).astype(np.uint8)
    path = tmp_path / "m.tif"
    four_bit_file(path, frames)
    with open_movie(path) as movie:
        assert movie.dtype == np.uint8
        assert np.array_equal(movie.read(), frames)


def test_packed_super_resolution_frames_are_known_by_their_size(tmp_path: Path) -> None:
    frame = np.random.default_rng(1).integers(0, 16, (7420, 7676)).astype(np.uint8)
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, (frame[:, 0::2] | frame[:, 1::2] << 4)[::-1], photometric="minisblack", compression="zstd")
    with open_movie(path) as movie:
        assert movie.shape == (7420, 7676)
        assert np.array_equal(movie.frame(0), frame)


def test_damaged_compression_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, counts(1), photometric="minisblack", compression="jpeg")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["Compression"].valueoffset
    content[place : place + 2] = struct.pack("<H", 34712 + 77)
    path.write_bytes(content)
    with pytest.raises(CorruptFileError), open_movie(path) as movie:
        movie.frame(0)


def last_referenced_byte(path: Path) -> int:
    """Find where the file's content ends by tifffile's account, without the padding that some writers add."""
    with tifffile.TiffFile(path) as tif:
        ends = [
            offset + length
            for page in tif.pages
            for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
        ends += [tag.valueoffset + tag.valuebytecount for page in tif.pages for tag in page.tags.values()]
        ends += [page.offset + 2 + 12 * len(page.tags) + 4 for page in tif.pages]
        return max(ends)


@pytest.mark.parametrize("writer", ["beamside", "strips", "uncompressed"])
def test_every_truncated_prefix_is_seen_as_incomplete(tmp_path: Path, writer: str) -> None:
    whole = tmp_path / "whole.tif"
    if writer == "beamside":
        write_tiff(whole, counts(3, (12, 10)))
    else:
        options = {"compression": "lzw", "rowsperstrip": 4} if writer == "strips" else {}
        tifffile.imwrite(whole, counts(3, (12, 10)), photometric="minisblack", **options)
    data = whole.read_bytes()
    check_tiff_complete(whole)
    part = tmp_path / "part.tif"
    for length in range(last_referenced_byte(whole)):
        part.write_bytes(data[:length])
        with pytest.raises(NotReadyError):
            check_tiff_complete(part)


def test_a_file_whose_end_is_allocated_but_not_written_is_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    path.write_bytes(bytes(5000))
    with pytest.raises(NotReadyError, match="zeros"):
        check_tiff_complete(path)


def test_what_is_not_a_tiff_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    path.write_bytes(b"<html>no movie here</html>")
    with pytest.raises(CorruptFileError, match="not a TIFF"):
        check_tiff_complete(path)


def test_colour_and_mixed_sizes_are_refused(tmp_path: Path) -> None:
    colour, mixed = tmp_path / "rgb.tif", tmp_path / "mixed.tif"
    tifffile.imwrite(colour, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(CorruptFileError, match="3 colours"):
        check_tiff_complete(colour)
    with tifffile.TiffWriter(mixed) as writer:
        writer.write(np.zeros((8, 8), np.uint8))
        writer.write(np.zeros((8, 9), np.uint8))
    with pytest.raises(CorruptFileError, match="8 x 8, 8 x 9"):
        check_tiff_complete(mixed)


def test_directories_in_a_loop_do_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, counts(1)[0], photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset, tags = tif.pages[0].offset, len(tif.pages[0].tags)
    data = bytearray(path.read_bytes())
    data[offset + 2 + 12 * tags : offset + 6 + 12 * tags] = offset.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match="loop"):
        check_tiff_complete(path)


def test_a_frame_that_cannot_be_decoded_names_the_frame(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    write_tiff(path, counts(3, (64, 64)))
    with tifffile.TiffFile(path) as tif:
        offset, length = tif.pages[1].dataoffsets[0], tif.pages[1].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = b"\xff" * length
    path.write_bytes(data)
    with open_movie(path) as movie, pytest.raises(CorruptFileError, match="frame 2"):
        movie.frame(1)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def frames():
        yield counts(1)[0]
        raise OSError("camera unplugged")

    with pytest.raises(OSError, match="unplugged"):
        write_tiff(tmp_path / "m.tiff", frames())
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6),
    big=st.booleans(),
    order=st.sampled_from("<>"),
)
def test_damaged_bytes_give_one_of_our_errors_and_nothing_else(
    tmp_path: Path, changes: list[tuple[int, int]], big: bool, order: str
) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, counts(2, (9, 7)), photometric="minisblack", bigtiff=big, byteorder=order, rowsperstrip=2)
    data = bytearray(path.read_bytes())
    for position, value in changes:
        data[position % len(data)] = value
    path.write_bytes(data)
    try:
        info = check_tiff_complete(path)
    except (NotReadyError, CorruptFileError):
        return
    assert info.frames >= 1
    try:
        with open_movie(path) as movie:
            movie.frame(0)
    except (NotReadyError, CorruptFileError):
        return


@pytest.mark.parametrize("compression", ["lzw", "none"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (24, 32), (7, 1)])
def test_what_is_written_is_what_tifffile_writes(
    tmp_path: Path, compression: str, dtype: str, shape: tuple[int, int]
) -> None:
    frames = (np.arange(3 * shape[0] * shape[1]).reshape(3, *shape) % 11).astype(dtype)
    write_tiff(tmp_path / "ours.tif", frames, compression=compression)
    with tifffile.TiffWriter(tmp_path / "theirs.tif") as writer:
        for frame in frames:
            plain = np.ascontiguousarray(frame[::-1]).tobytes()
            writer.write(
                iter([imagecodecs.lzw_encode(plain) if compression == "lzw" else plain]),
                shape=shape,
                dtype=frame.dtype,
                compression=None if compression == "none" else compression,
                photometric="minisblack",
                rowsperstrip=shape[0],
                metadata=None,
                contiguous=False,
            )
    assert (tmp_path / "ours.tif").read_bytes() == (tmp_path / "theirs.tif").read_bytes()


def test_more_than_a_file_can_address_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_pages, "_LARGEST", 3000)
    with pytest.raises(OverflowError):
        write_tiff(tmp_path / "m.tif", counts(), compression="none")
    assert list(tmp_path.iterdir()) == []


@given(
    strip_rows=st.integers(1, 9),
    byteorder=st.sampled_from("<>"),
    dtype=st.sampled_from(["u1", "u2", "i2", "f4", "i1"]),
    compression=st.sampled_from([None, "lzw"]),
    cut=st.integers(0, 400),
)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_simple_pages_are_read_as_tifffile_reads_them(
    tmp_path: Path, strip_rows: int, byteorder: str, dtype: str, compression: str | None, cut: int
) -> None:
    """Also where bytes are changed: what cannot be read without doubt is left to tifffile."""
    frame = (np.arange(8 * 6).reshape(8, 6) % 11).astype(dtype)
    path = tmp_path / "m.tif"
    tifffile.imwrite(
        path,
        frame,
        compression=compression,
        rowsperstrip=strip_rows,
        photometric="minisblack",
        metadata=None,
        byteorder=byteorder,
    )
    page = read_directories(path, frozenset({tiff_pages.FILL_ORDER, tiff_pages.PREDICTOR})).pages[0]
    content, place = bytearray(path.read_bytes()), int(page[tiff_pages.STRIPS][0]) + cut
    damaged = compression == "lzw" and place < len(content)
    if damaged:
        content[place] ^= 0xFF
        path.write_bytes(content)
    with open(path, "rb") as file:
        found = tiff_pages.read_page(file.fileno(), page, byteorder)
    assert found is not None or damaged
    if found is not None:
        assert np.array_equal(found, tifffile.imread(path), equal_nan=dtype == "f4")
