"""SerialEM's defect files mean the same pixels here as in IMOD; what cannot be understood is refused at the start."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.acquisition.defects import read_defects
from beamside.acquisition.gain import check_defects, prepare_defects
from beamside.errors import GainError
from beamside.formats.mrc import read_mrc

SIZE = "CameraSizeX 12\nCameraSizeY 10\n"


def bottom_up(*rectangles: tuple[slice | int, slice | int], shape: tuple[int, int] = (10, 12)) -> np.ndarray:
    """Return the mask of pixels given as rows and columns from the top left, with row 0 at the bottom."""
    mask = np.zeros(shape, bool)
    for rows, columns in rectangles:
        mask[rows, columns] = True
    return mask[::-1]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("BadPixels 1 2 3 9", bottom_up((2, 1), (9, 3))),
        ("BadColumns 4 7", bottom_up((slice(None), [4, 7]))),
        ("BadRows 0", bottom_up((0, slice(None)))),
        ("PartialBadColumn 5 2 1 3", bottom_up((slice(1, 4), slice(5, 7)))),
        ("PartialBadRow 8 2 10 11", bottom_up((slice(8, 10), slice(10, 12)))),
        ("UsableArea 1 2 8 10", bottom_up((0, slice(None)), (9, slice(None)), (slice(None), [0, 1, 11]))),
        ("UsableArea 0 0 0 0", bottom_up()),
        ("WasScaled 1\nBadPixels 2 4", bottom_up((slice(4, 6), slice(2, 4)))),
        ("RotationAndFlip 7\nK2Type 1\n# a comment\nPartialBadCol 5 1 0 9 # shortened", bottom_up((slice(None), 5))),
        ("NewKeywordOfLater 1 2 3\nBadRows 9", bottom_up((9, slice(None)))),
    ],
)
def test_each_keyword_marks_its_pixels(tmp_path: Path, lines: str, wanted: np.ndarray) -> None:
    path = tmp_path / "defects_0001.txt"
    path.write_bytes(b"\xef\xbb\xbf" + (SIZE + lines).replace("\n", "\r\n").encode())
    check_defects(path)
    assert prepare_defects(path, (10, 12), output=tmp_path / "o.mrc") == wanted.sum()
    assert np.array_equal(read_mrc(tmp_path / "o.mrc") != 0, wanted)


def test_a_list_for_counting_serves_super_resolution_movies(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text(SIZE + "BadPixels 1 2\n")
    assert prepare_defects(tmp_path / "d.txt", (20, 24), output=tmp_path / "o.mrc") == 4
    wanted = bottom_up((slice(4, 6), slice(2, 4)), shape=(20, 24))
    assert np.array_equal(read_mrc(tmp_path / "o.mrc") != 0, wanted)
    with pytest.raises(GainError, match="neither is 1, 2 or 4 times"):
        prepare_defects(tmp_path / "d.txt", (10, 13), output=tmp_path / "o.mrc")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("BadRows 1", "has no CameraSizeX"),
        (SIZE + "PartialBadCol 50 0 100", "Line 3 .* PartialBadColumn is followed by 4 whole numbers .*first and last row"),
        (SIZE + "BadPixels 1 2 3", "pairs"),
        (SIZE + "BadColumns", "followed by whole numbers"),
        (SIZE + "BadColumns 3-7", "'3-7'"),
        (SIZE + "BadColumns 12", "Line 3 .* outside the camera's 12 x 10"),
        (SIZE + "BadPixels -1 0", "outside"),
        (SIZE + "PartialBadRow 1 1 5 2", "outside"),
        (SIZE + "BadBlocks 1 2", "unknown keyword 'BadBlocks'"),
        ("CameraSizeX 0\nCameraSizeY 10", "0 x 10"),
        ("5.5 6 2 2", "Line 1 .* is not 'x y width height'"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "d.txt").write_text(text)
    with pytest.raises(GainError, match=told):
        check_defects(tmp_path / "d.txt")


def test_whole_numbers_with_decimals_and_other_endings_are_read(tmp_path: Path) -> None:
    (tmp_path / "list.defects").write_text("5.0 6 2.0 2\n")
    assert prepare_defects(tmp_path / "list.defects", (10, 12), output=tmp_path / "o.mrc") == 4


@settings(deadline=None)
@given(st.text(max_size=200) | st.text("BadPixels CmrSzeXYRow0123456789-.\n", max_size=200))
def test_any_text_is_read_or_refused_with_a_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text)
    with suppress(GainError):
        read_defects(path)
