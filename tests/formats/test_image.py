"""Micrographs of every format come as float32 in file order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beamside.errors import CorruptFileError, InputError, NotReadyError
from beamside.formats.image import check_png_complete, read_image, read_pixel_size
from beamside.formats.mrc import write_mrc
from beamside.formats.tiff import write_tiff


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 65536, (9, 13), dtype=np.uint16)


def test_formats_agree(tmp_path: Path, pixels: np.ndarray) -> None:
    write_mrc(tmp_path / "a.mrc", pixels, 1.5)
    write_tiff(tmp_path / "a.tif", pixels)
    write_tiff(tmp_path / "b.tif", pixels)
    (tmp_path / "b.tif").rename(tmp_path / "a.gain")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name in ("a.mrc", "a.tif", "a.gain", "a.png"):
        image = read_image(tmp_path / name)
        assert image.dtype == np.float32
        assert np.array_equal(image, pixels)
    assert read_pixel_size(tmp_path / "a.mrc") == pytest.approx(1.5)
    assert read_pixel_size(tmp_path / "a.png") == 0
    info = check_png_complete(tmp_path / "a.png")
    assert (info.shape, info.dtype) == ((9, 13), np.uint16)


def test_every_truncated_png_is_incomplete(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for length in range(len(data)):
        (tmp_path / "p.png").write_bytes(data[:length])
        with pytest.raises(NotReadyError):
            check_png_complete(tmp_path / "p.png")


def test_colour_and_foreign_files_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(CorruptFileError, match="colour"):
        read_image(tmp_path / "rgb.png")
    (tmp_path / "x.png").write_bytes(b"GIF89a and more")
    with pytest.raises(CorruptFileError, match="not a PNG"):
        read_image(tmp_path / "x.png")


def test_damaged_pixels_are_reported(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    start = data.index(b"IDAT") + 4
    data[start : start + 20] = bytes(20)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(CorruptFileError, match="decoded"):
        read_image(tmp_path / "a.png")


def test_movies_missing_files_and_other_formats_get_a_sentence(tmp_path: Path) -> None:
    write_tiff(tmp_path / "m.tif", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(InputError, match="3 frames"):
        read_image(tmp_path / "m.tif")
    with pytest.raises(InputError, match="does not exist"):
        read_image(tmp_path / "none.mrc")
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="MRC, TIFF, DM4 or PNG"):
        read_image(tmp_path / "a.jpg")
