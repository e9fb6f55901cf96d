"""Lists of a camera's defective pixels: MotionCor2's rectangles, and SerialEM's (and so IMOD's) defect files.

SerialEM writes ``defects_*.txt`` beside its frames: lines of a keyword and whole numbers, with ``CameraSizeX`` and ``CameraSizeY`` among them.
Coordinates count from 0 at the top left, as the camera's software shows the image; rows of the arrays here begin at the bottom, as IMOD reads the
frames, so rows are counted from the other end (what IMOD's ``clip`` and ``alignframes`` do with the same file). The file lies in the same rotation
and flip as the frames beside it, so that ``RotationAndFlip`` changes nothing. A keyword may be shortened, as IMOD allows.

========================  =========================================================================
``BadPixels``             x y x y ...
``BadColumns``            columns, over the whole height; ``BadRows`` likewise
``PartialBadColumn``      first column, number of columns, first and last row (both included)
``PartialBadRow``         first row, number of rows, first and last column (both included)
``UsableArea``            top left bottom right (included); 0 for right or bottom: up to the edge
``WasScaled``             above 0: coordinates of super-resolution, where a bad pixel has 2 x 2 (above 1: 4 x 4)
========================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beamside.errors import GainError, GainNotReadyError
from beamside.formats.claims import MOST_PIXELS

_KEYWORDS = (
    "CameraSizeX", "CameraSizeY", "RotationAndFlip", "WasScaled", "K2Type", "FalconType", "NumToAvgSuperRes", "UsableArea",
    "PartialBadColumn", "PartialBadRow", "BadPixels", "BadColumns", "BadRows",
)  # fmt: skip
_EXACTLY = {
    "CameraSizeX": 1,
    "CameraSizeY": 1,
    "WasScaled": 1,
    "UsableArea": 4,
    "PartialBadColumn": 4,
    "PartialBadRow": 4,
}
_MEANINGS = {
    "UsableArea": "top left bottom right",
    "PartialBadColumn": "first column, number of columns, first and last row",
    "PartialBadRow": "first row, number of rows, first and last column",
}
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Rectangle:
    """Defective pixels: ``x <= column < x + width``, and rows likewise; `line` is where the file says so."""

    x: int
    y: int
    width: int
    height: int
    line: int


@dataclass(frozen=True)
class DefectList:
    """What a text file of defects says.

    Attributes
    ----------
    rectangles : with row 0 at the bottom, as the arrays of the frames
    camera : (height, width) that they are meant for; None when the file does not say, and they are in pixels of the movies
    """

    rectangles: tuple[Rectangle, ...]
    camera: tuple[int, int] | None

    def mask(self, shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
        """Return True where a pixel of the camera (or of movies of this shape, when the file does not say) is defective.

        Raises GainError for a rectangle outside.
        """
        height, width = self.camera or shape
        mask = np.zeros((height, width), bool)
        for one in self.rectangles:
            if min(one.x, one.y, one.width, one.height) < 0 or one.x + one.width > width or one.y + one.height > height:
                of = "the camera's" if self.camera else "the movies'"
                raise GainError(
                    f"Line {one.line} of {path} lies outside {of} {width} x {height} pixels: check --defects."
                )
            mask[one.y : one.y + one.height, one.x : one.x + one.width] = True
        return mask


def read_defects(path: Path) -> DefectList:
    """Read a text file of defects.

    Raises
    ------
    GainNotReadyError
        When it is missing or cannot be read now.
    GainError
        When a line is not understood: naming the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise GainNotReadyError(f"The list of defects {path} does not exist: check --defects.") from None
    except OSError as error:
        raise GainNotReadyError(
            f"The list of defects {path} cannot be read ({error.strerror}): check --defects."
        ) from error
    if len(content) > _MOST_BYTES:
        raise GainError(
            f"The list of defects {path} has more than {_MOST_BYTES >> 20} MB: is it a list? Check --defects."
        )
    text = content.decode("utf-8-sig", "replace")
    lines = [(number, line.partition("#")[0].split()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, fields) for number, fields in lines if fields]
    if any(fields[0][0].isalpha() for _, fields in lines):
        return _serialem(lines, path)
    return DefectList(tuple(_rectangle(number, fields, path) for number, fields in lines), None)


def _rectangle(number: int, fields: Sequence[str], path: Path) -> Rectangle:
    values = _whole_numbers(fields)
    if values is None or len(values) != 4:
        raise GainError(f"Line {number} of {path} is not 'x y width height' in whole pixels: {' '.join(fields)!r}.")
    return Rectangle(values[0], values[1], values[2], values[3], number)


def _whole_numbers(fields: Sequence[str]) -> list[int] | None:
    try:
        values = [float(field) for field in fields]
    except ValueError:
        return None
    return [int(value) for value in values] if all(value.is_integer() for value in values) else None


def _serialem(lines: Sequence[tuple[int, Sequence[str]]], path: Path) -> DefectList:
    entries = [(number, *_entry(number, fields, path)) for number, fields in lines]
    single = {keyword: values for _, keyword, values in entries if keyword in _EXACTLY}
    if "CameraSizeX" not in single or "CameraSizeY" not in single:
        raise GainError(
            f"The list of defects {path} has no CameraSizeX and CameraSizeY: give the file as SerialEM wrote it."
        )
    width, height = single["CameraSizeX"][0], single["CameraSizeY"][0]
    if min(width, height) < 1 or width * height > MOST_PIXELS:
        raise GainError(
            f"The list of defects {path} says that the camera has {width} x {height} pixels: check --defects."
        )
    scaled = single.get("WasScaled", [0])[0]
    side = 4 if scaled > 1 else 2 if scaled > 0 else 1
    found = [
        one for number, keyword, values in entries for one in _rectangles(keyword, values, number, side, width, height)
    ]
    upwards = (Rectangle(one.x, height - one.y - one.height, one.width, one.height, one.line) for one in found)
    return DefectList(tuple(upwards), (height, width))


def _entry(number: int, fields: Sequence[str], path: Path) -> tuple[str, list[int]]:
    """Return keyword and numbers of a line; an unknown keyword is passed over unless it may be a defect."""
    given = fields[0]
    keyword = next((known for known in _KEYWORDS if known == given), None)
    keyword = keyword or next((known for known in _KEYWORDS if known.startswith(given)), None)
    if keyword is None:
        if "bad" in given.lower() or "defect" in given.lower():
            raise GainError(
                f"Line {number} of {path} has the unknown keyword {given!r}: it may say what is defective; check --defects."
            )
        return given, []
    values = _whole_numbers(fields[1:])
    wanted = _EXACTLY.get(keyword, 0)
    if values is None or (len(values) < wanted if wanted else not values):
        meaning = f" ({_MEANINGS[keyword]})" if keyword in _MEANINGS else ""
        many = "whole numbers" if not wanted else f"{wanted} whole number{'s' if wanted > 1 else ''}"
        raise GainError(
            f"Line {number} of {path}: {keyword} is followed by {many}{meaning}, not by {' '.join(fields[1:])!r}."
        )
    if keyword == "BadPixels" and len(values) % 2:
        raise GainError(
            f"Line {number} of {path}: BadPixels is followed by pairs of x and y, and there are {len(values)} numbers."
        )
    return keyword, values


def _rectangles(keyword: str, values: Sequence[int], line: int, side: int, width: int, height: int) -> list[Rectangle]:
    """Return the rectangles of a line, with row 0 at the top."""
    if keyword == "UsableArea":
        return _outside(values, line, width, height)
    corners: list[tuple[int, int, int, int]] = []  # x, y, width, height
    if keyword == "BadPixels":
        corners = [(x, y, side, side) for x, y in zip(values[::2], values[1::2], strict=True)]
    elif keyword == "BadColumns":
        corners = [(column, 0, 1, height) for column in values]
    elif keyword == "BadRows":
        corners = [(0, row, width, 1) for row in values]
    elif keyword in ("PartialBadColumn", "PartialBadRow"):
        line_from, lines, first, last = values[:4]
        length = last - first + 1
        column = keyword == "PartialBadColumn"
        corners = [(line_from, first, lines, length) if column else (first, line_from, length, lines)]
    return [Rectangle(*corner, line) for corner in corners]


def _outside(values: Sequence[int], line: int, width: int, height: int) -> list[Rectangle]:
    top, left, bottom, right = values[:4]
    below, beyond = (bottom + 1 if bottom > 0 else height), (right + 1 if right > 0 else width)
    return [
        Rectangle(0, 0, width, top, line),
        Rectangle(0, below, width, height - below, line),
        Rectangle(0, 0, left, height, line),
        Rectangle(beyond, 0, width - beyond, height, line),
    ]
