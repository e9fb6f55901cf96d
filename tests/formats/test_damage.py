"""Files of every format with flipped bits, cut off, or made to fill the memory give a sentence or the pixels, and ask for no more memory."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from beamside.acquisition.readiness import inspect_file
from beamside.errors import BeamsideError, CorruptFileError, NotReadyError
from beamside.formats.image import ImageInfo, read_image
from beamside.formats.movies import open_movie
from beamside.formats.mrc import make_header
from beamside.formats.rendering import Rendering
from beamside.simulate.eer import Electrons, camera_xml, eer_bytes

FRAMES, SHAPE = 3, (32, 48)
COUNTS = np.random.default_rng(0).poisson(1, (FRAMES, *SHAPE)).astype(np.uint8)
HEADROOM_BYTES = 1 << 30


def tiff(**options: object) -> bytes:
    file = io.BytesIO()
    given = {"photometric": "minisblack", "metadata": None, "compression": "lzw", **options}
    tifffile.imwrite(file, COUNTS[:, ::-1], **given)  # type: ignore[arg-type]
    return file.getvalue()


def mrc(mode: int = 1, nz: int = FRAMES, extended: int = 0, order: str = "<") -> bytes:
    header = bytearray(make_header(COUNTS.astype("<i2"), 1.0, volume=False))
    struct.pack_into(order + "4i", header, 0, SHAPE[1], SHAPE[0], nz, mode)
    struct.pack_into(order + "i", header, 92, extended)
    packed = COUNTS[..., ::2] | COUNTS[..., 1::2] << 4
    pixels = {0: COUNTS, 1: COUNTS.astype(order + "i2"), 101: packed}[mode]
    return bytes(header) + bytes(extended) + pixels.tobytes()


def eer(shape: tuple[int, int] = (16, 16)) -> bytes:
    frame = Electrons(np.array([3, 200]), *np.ones((2, 2), int))
    return eer_bytes([frame] * FRAMES, shape, metadata=camera_xml(FRAMES, shape, 0.7, 40.0, 2.5))


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(COUNTS[0].astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


WHOLE = {
    "plain.tiff": tiff(compression=None),
    "lzw.tiff": tiff(),
    "deflate.tif": tiff(compression="zlib"),
    "zstd.tif": tiff(compression="zstd"),
    "tiles.tif": tiff(tile=(16, 16)),
    "strips.tif": tiff(compression=None, rowsperstrip=5),
    "big.tif": tiff(bigtiff=True, byteorder=">"),
    "imagej.tif": tiff(metadata={}, imagej=True, compression=None),
    "plain.mrc": mrc(),
    "packed.mrcs": mrc(101),
    "bytes.mrc": mrc(0),
    "big-endian.mrc": mrc(order=">"),
    "extended.mrc": mrc(extended=2048),
    "m.eer": eer(),
    "m.png": png(),
}


def read(path: Path) -> tuple[ImageInfo, np.ndarray]:
    """Read a file in each way that the session and its workers do."""
    info = inspect_file(str(path))
    if path.suffix == ".png":
        return info, read_image(path)[None]
    with open_movie(path, Rendering(group=1)) as movie:
        return info, movie.read()


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """Let a reader that asks for much more memory than these small files are worth fail at once."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(WHOLE[name])
    info, frames = read(path)
    assert frames.shape == (info.frames, *info.shape)
    assert "unexplained_bytes" not in info.metadata
    if path.suffix in (".tif", ".tiff", ".mrc", ".mrcs"):
        assert np.array_equal(frames, COUNTS)


changes = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 1 << 16), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 1 << 16), st.just(0)),
    st.tuples(st.just("fill"), st.integers(0, 1 << 16), st.sampled_from([0x00, 0x7F, 0xFF])),
    st.tuples(st.just("more"), st.integers(0, 5000), st.integers(0, 255)),
)


def damage(content: bytes, kind: str, where: int, value: int) -> bytes:
    """Change a file; half of the places are near its beginning or its end, where headers are."""
    data = bytearray(content)
    place = where % len(data) if where % 2 else (where // 2 % 512 - 256) % len(data)
    if kind == "flip":
        data[place] ^= value
    elif kind == "cut":
        del data[place:]
    elif kind == "fill":
        data[place : place + 4] = bytes([value]) * 4
    else:
        data += bytes([value]) * where
    return bytes(data)


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(changes, min_size=1, max_size=3))
def test_a_damaged_file_is_told_or_read(tmp_path: Path, name: str, some: list[tuple[str, int, int]]) -> None:
    content = WHOLE[name]
    for change in some:
        content = damage(content, *change) or b"\0"
    path = tmp_path / name
    path.write_bytes(content)
    with contextlib.suppress(BeamsideError):
        info, frames = read(path)
        assert frames.shape == (info.frames, *info.shape)


def change_tags(content: bytes, tags: dict[int, int]) -> bytes:
    """Set tags of every directory of a classic little-endian TIFF file."""
    data = bytearray(content)
    offset = struct.unpack_from("<I", data, 4)[0]
    while offset:
        count = struct.unpack_from("<H", data, offset)[0]
        for place in range(offset + 2, offset + 2 + 12 * count, 12):
            tag = struct.unpack_from("<H", data, place)[0]
            if tag in tags:
                struct.pack_into("<HHII", data, place, tag, 4, 1, tags[tag])
        offset = struct.unpack_from("<I", data, offset + 2 + 12 * count)[0]
    return bytes(data)


def png_of(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


HUGE = {256: 131072, 257: 131072, 258: 16, 278: 131072}
BOMBS: dict[str, Callable[[], bytes]] = {
    "plain.tiff": lambda: change_tags(WHOLE["plain.tiff"], HUGE),
    "lzw.tiff": lambda: change_tags(WHOLE["lzw.tiff"], HUGE),
    "zstd.tif": lambda: change_tags(WHOLE["zstd.tif"], HUGE),
    "tiles.tif": lambda: change_tags(WHOLE["tiles.tif"], {322: 1 << 16, 323: 1 << 16}),
    "wide.tif": lambda: change_tags(WHOLE["plain.tiff"], {256: 96}),
    "narrow.tif": lambda: change_tags(WHOLE["plain.tiff"], {256: 24}),
    "tall.tif": lambda: change_tags(WHOLE["lzw.tiff"], {257: 64}),
    "low.tif": lambda: change_tags(WHOLE["strips.tif"], {257: 10}),
    "m.eer": lambda: change_eer((16, 16), (1 << 14, 1 << 14)),
    "tall.eer": lambda: change_eer((16, 16), (32, 16)),
    "m.png": lambda: png_of(1 << 16, 1 << 16, bytes(100)),
    "bomb.png": lambda: png_of(20000, 10000, bytes(20001 * 10000)),
}


def change_eer(shape: tuple[int, int], claimed: tuple[int, int]) -> bytes:
    """Return an EER movie that claims another size: its directories have the numbers of height and width."""
    data = bytearray(eer(shape))
    for tag, old, new in ((256, shape[1], claimed[1]), (257, shape[0], claimed[0])):
        for kind, code in ((3, "H"), (4, "I"), (16, "Q")):
            before = struct.pack("<HHQ", tag, kind, 1) + struct.pack("<" + code, old)
            data = data.replace(before, struct.pack("<HHQ", tag, kind, 1) + struct.pack("<" + code, new))
    return bytes(data)


@pytest.mark.parametrize("name", BOMBS)
def test_a_header_that_claims_more_or_less_than_the_file_holds_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    with pytest.raises(CorruptFileError, match=name):
        inspect_file(str(path))
    with pytest.raises(CorruptFileError, match=name):
        read_image(path) if path.suffix == ".png" else open_movie(path).read()


def test_an_mrc_header_with_fewer_images_than_the_file_has_bytes_for_is_told(tmp_path: Path) -> None:
    path = tmp_path / "one.mrc"
    path.write_bytes(mrc(nz=1))
    for reader in (inspect_file, open_movie):
        with pytest.raises(NotReadyError, match="the bytes of 3 images, and its MRC header says 1"):
            reader(str(path))
    path.write_bytes(mrc(nz=4))
    with pytest.raises(NotReadyError, match="truncated or still being written"):
        inspect_file(str(path))


def test_an_extended_header_that_is_larger_than_said_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.mrc"
    data = bytearray(mrc(extended=2048))
    struct.pack_into("<i", data, 92, 0)
    path.write_bytes(data)
    assert inspect_file(str(path)).metadata["unexplained_bytes"] == 2048
    struct.pack_into("<i", data, 92, 2**31 - 1)
    path.write_bytes(data)
    with pytest.raises(NotReadyError):
        inspect_file(str(path))


def test_bytes_that_no_directory_refers_to_are_noticed(tmp_path: Path) -> None:
    for name in ("lzw.tiff", "plain.tiff", "m.eer", "m.png"):
        path = tmp_path / name
        path.write_bytes(WHOLE[name] + bytes(3000))
        assert inspect_file(str(path)).metadata["unexplained_bytes"] >= 3000


ONE_DIRECTORY = {
    "imagej": "ImageJ=1.54f\nimages=3\nslices=3\n",
    "tifffile": '{"shape": [3, 32, 48]}',
    "ome": '<?xml version="1.0"?><OME><Image><Pixels SizeX="48" SizeY="32" SizeZ="1" SizeC="1" SizeT="3"/></Image></OME>',
}


@pytest.mark.parametrize("dialect", ONE_DIRECTORY)
def test_a_stack_with_one_directory_is_not_taken_for_one_image(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(COUNTS[:1], photometric="minisblack", metadata=None, description=ONE_DIRECTORY[dialect])
    assert inspect_file(str(path)).metadata["described_frames"] == 3, "the others may still come"
    with open(path, "ab") as file:
        file.write(COUNTS[1:].tobytes())
    for reader in (inspect_file, read_image):
        with pytest.raises(
            CorruptFileError, match="3 images by its description and its size, and 1 by its directories"
        ):
            reader(str(path))


@pytest.mark.parametrize(
    "text",
    ["", "ImageJ=1\nimages=x", "{", '{"shape": 3}', '{"shape": [3, 5, 5]}', "[1]", "<OME><Pixels/></OME>", "[" * 5000],
)
def test_descriptions_that_do_not_say_how_many_images_there_are_mean_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, COUNTS, photometric="minisblack", metadata=None, description=text)
    info = inspect_file(str(path))
    assert (info.frames, dict(info.metadata)) == (3, {})
