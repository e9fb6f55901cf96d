"""DM3 and DM4 images: pixels and pixel size are found, whatever else is in the file; damaged and cut files are told."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.errors import BeamsideError, CorruptFileError, InputError, NotReadyError
from beamside.formats.dm import find_dm_image, read_dm
from beamside.formats.image import read_image, read_pixel_size

TYPES = {"i2": (1, 2), "f4": (2, 6), "u1": (6, 9), "i4": (7, 3), "u2": (10, 4), "f8": (12, 7), "u8": (40, 12)}
"""Of a type of pixels: its number as a type of images, and as one of values."""


class DmWriter:
    """Writes trees of tags as DigitalMicrograph does: `version` 3 or 4, values little- or big-endian."""

    def __init__(self, version: int = 4, order: str = "<") -> None:
        self.wide, self.order, self.version = version == 4, order, version

    def count(self, number: int) -> bytes:
        return struct.pack(">q" if self.wide else ">i", number)

    def info(self, *numbers: int) -> bytes:
        return b"%%%%" + self.count(len(numbers)) + b"".join(self.count(number) for number in numbers)

    def value(self, content: object) -> bytes:
        if isinstance(content, bytes):  # whatever a damaged file has there
            return content
        if isinstance(content, np.ndarray):
            values = content.astype(content.dtype.newbyteorder(self.order)).tobytes()
            return self.info(20, TYPES[content.dtype.str[1:]][1], content.size) + values
        if isinstance(content, str):
            return self.info(20, 4, len(content)) + content.encode("utf-16-le" if self.order == "<" else "utf-16-be")
        if isinstance(content, int):
            return self.info(5) + struct.pack(self.order + "I", content)
        if isinstance(content, tuple):  # a structure of numbers
            numbers = struct.pack(f"{self.order}{len(content)}f", *content)
            return self.info(15, 0, len(content), *((0, 6) * len(content))) + numbers
        return self.info(6) + struct.pack(self.order + "f", content)

    def group(self, tags: list[tuple[str, object]]) -> bytes:
        parts = [b"\1\0", self.count(len(tags))]
        for name, content in tags:
            is_group = isinstance(content, list)
            body = self.group(content) if isinstance(content, list) else self.value(content)
            length = self.count(len(body)) if self.wide else b""
            parts.append(struct.pack(">BH", 20 if is_group else 21, len(name)) + name.encode("latin-1") + length + body)
        return b"".join(parts)

    def file(self, tags: list[tuple[str, object]]) -> bytes:
        root = self.group(tags) + bytes(8)
        return struct.pack(">i", self.version) + self.count(len(root)) + struct.pack(">i", self.order == "<") + root


def image_tags(pixels: np.ndarray, scale: float = 0.108, unit: str = "nm", kind: int = 0) -> list[tuple[str, object]]:
    axis = [("Origin", 0.0), ("Scale", scale), ("Units", unit)]
    data = [
        ("Calibrations", [("Dimension", [("", axis), ("", axis)])]),
        ("Data", pixels.reshape(-1)),
        ("DataType", kind or TYPES[pixels.dtype.str[1:]][0]),
        ("Dimensions", [("", side) for side in reversed(pixels.shape)]),
        ("PixelDepth", pixels.itemsize),
    ]
    return [("ImageData", data), ("Name", "gain reference"), ("UniqueID", (1.0, 2.0, 3.0, 4.0))]


def document(pixels: np.ndarray, **options: object) -> list[tuple[str, object]]:
    thumbnail = image_tags(np.zeros((4, 5), "i4"), kind=23)
    images = [("", thumbnail), ("", image_tags(pixels, **options))]  # type: ignore[arg-type]
    return [("ApplicationBounds", (0.0, 0.0, 1.0, 1.0)), ("ImageList", images), ("InImageMode", 1)]


@pytest.mark.parametrize("pixel_type", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [3, 4])
def test_the_image_and_its_pixel_size_are_read(tmp_path: Path, version: int, order: str, pixel_type: str) -> None:
    pixels = np.random.default_rng(1).normal(50, 10, (7, 11)).astype(pixel_type)
    path = tmp_path / f"gain.dm{version}"
    path.write_bytes(DmWriter(version, order).file(document(pixels)))
    found = read_dm(path)
    assert (found.dtype, found.dtype.isnative) == (pixels.dtype, True)
    assert np.array_equal(found[::-1], pixels), "the first row of the file is the top one"
    assert np.array_equal(read_image(path), found.astype(np.float32))
    assert read_pixel_size(path) == pytest.approx(1.08)


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1e4), ("nm", 10), ("Å", 1), ("1/nm", 0), ("", 0)])
def test_pixel_sizes_are_told_only_in_units_of_length(tmp_path: Path, unit: str, factor: float) -> None:
    path = tmp_path / "gain.dm4"
    path.write_bytes(DmWriter().file(document(np.ones((3, 4), "f4"), scale=0.5, unit=unit)))
    assert find_dm_image(path).pixel_size == pytest.approx(0.5 * factor)


def test_numbers_that_are_none_and_types_without_end_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "gain.dm4"
    for kind in (float("nan"), float("inf"), -1e30):
        path.write_bytes(DmWriter().file([("ImageList", [("", image_tags(np.ones((3, 4), "f4"), kind=kind))])]))  # type: ignore[arg-type]
        with pytest.raises(CorruptFileError, match="4 x 3 pixels"):
            read_image(path)
    endless = DmWriter().info(*[20] * 4000, 1)
    path.write_bytes(DmWriter().file([("Odd", endless)]))
    with pytest.raises(CorruptFileError, match="no end"):
        read_image(path)


@pytest.mark.parametrize("version", [3, 4])
def test_every_cut_file_is_not_ready(tmp_path: Path, version: int) -> None:
    content = DmWriter(version).file(document(np.ones((3, 4), "f4")))
    path = tmp_path / "cut.dm4"
    for length in range(0, len(content) - 8, 17):
        path.write_bytes(content[:length])
        with pytest.raises(NotReadyError):
            find_dm_image(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_our_errors(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(DmWriter(data.draw(st.sampled_from([3, 4]))).file(document(np.ones((3, 4), "f4"))))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dm4"
    path.write_bytes(content)
    with contextlib.suppress(BeamsideError):
        assert read_image(path).ndim == 2


def test_what_is_no_grey_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.dm4"
    path.write_bytes(b"\0\0\0\7" + bytes(40))
    with pytest.raises(CorruptFileError, match="not a DM3 or DM4 file"):
        read_dm(path)
    path.write_bytes(DmWriter().file([("InImageMode", 1)]))
    with pytest.raises(InputError, match="no grey image"):
        read_dm(path)
    path.write_bytes(DmWriter().file(document(np.ones((2, 3, 4), "f4"))))
    with pytest.raises(InputError, match="3 dimensions where an image has 2"):
        read_dm(path)
    path.write_bytes(DmWriter().file(document(np.ones((3, 4), "f4"), kind=1)))
    with pytest.raises(CorruptFileError, match="48 bytes"):
        read_dm(path)


def test_real_files_are_read(real_data: Path) -> None:
    found = [find_dm_image(path) for path in sorted((real_data / "em" / "dm3").glob("*.dm3"))]
    assert [(image.shape, image.dtype) for image in found] == [((128, 128), np.float32)] * 3
    assert all(image.pixel_size == pytest.approx(191.087, abs=0.001) for image in found)
