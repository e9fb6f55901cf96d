"""Stacks of particle images that need not be in memory, and can be divided."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from beamside.errors import CorruptFileError, InputError
from beamside.formats.mrc import read_header, read_sections

Image = npt.NDArray[np.float32]


class ImageStack(Protocol):
    """Square images of one size, with numbers from 0."""

    @property
    def count(self) -> int:
        """How many images there are."""

    @property
    def box(self) -> int:
        """Width of an image in pixels."""

    def read(self, first: int, last: int) -> Image:
        """Return the images ``first ... last - 1`` as ``(n, b, b)``."""

    def part(self, first: int, last: int) -> ImageStack:
        """Return the stack of the images ``first ... last - 1``: what a worker needs of it."""


@dataclass(frozen=True)
class ArrayStack:
    """Images in an array or a memory map.

    Raises
    ------
    InputError
        when it is empty, or its images are not square.
    """

    images: npt.NDArray[np.floating]

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.ndim != 3 or shape[1] != shape[2]:
            raise InputError(f"2D classification needs a stack of square images, but this one has the shape {shape}.")

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.images)

    @property
    def box(self) -> int:
        """Width of an image in pixels."""
        return int(self.images.shape[-1])

    def read(self, first: int, last: int) -> Image:
        """Return the images ``first ... last - 1`` as ``(n, b, b)``."""
        return np.array(self.images[first:last], dtype=np.float32, order="C")

    def part(self, first: int, last: int) -> ArrayStack:
        """Return the stack of the images ``first ... last - 1``."""
        return ArrayStack(self.images[first:last])


@dataclass(frozen=True)
class FileStack:
    """Images in MRC files, read when they are needed.

    Attributes
    ----------
    files : each file with the number of its first image that is meant and that after the last
    box : pixels
    """

    files: tuple[tuple[Path, int, int], ...]
    box: int

    @property
    def count(self) -> int:
        """How many images there are."""
        return sum(last - first for _, first, last in self.files)

    def read(self, first: int, last: int) -> Image:
        """Return the images ``first ... last - 1`` as ``(n, b, b)``."""
        parts = []
        for path, begin, end in self.part(first, last).files:
            images = read_sections(path, begin, end)
            if images.shape[1:] != (self.box, self.box):
                raise CorruptFileError(
                    f"{path} has particles of {images.shape[2]} × {images.shape[1]} pixels, but others have {self.box}; extract them again."
                )
            parts.append(images.astype(np.float32))
        return np.concatenate(parts) if parts else np.zeros((0, self.box, self.box), np.float32)

    def part(self, first: int, last: int) -> FileStack:
        """Return the stack of the images ``first ... last - 1``."""
        ends = list(accumulate(end - begin for _, begin, end in self.files))
        files = []
        for number in range(bisect_right(ends, first), len(ends)):
            path, begin, end = self.files[number]
            start = ends[number] - (end - begin)
            if start >= last:
                break
            files.append((path, begin + max(first - start, 0), begin + min(last - start, end - begin)))
        return FileStack(tuple(files), self.box)


def file_stack(files: Sequence[tuple[Path, int]]) -> FileStack:
    """Return the stack of all images of MRC `files`, each with the number of images that it must have.

    Raises
    ------
    CorruptFileError
        when a file has another number of images, or they are not square.
    InputError
        when there is no file.
    """
    if not files:
        raise InputError("2D classification needs particles, but the stack is empty; look at the picking.")
    for path, count in files:
        sections, rows, columns = read_header(path).shape
        if sections != count or rows != columns:
            raise CorruptFileError(
                f"{path} has {sections} images of {columns} × {rows} pixels, but its STAR file lists {count} particles; extract it again."
            )
    box = read_header(files[0][0]).shape[-1]
    return FileStack(tuple((path, 0, count) for path, count in files if count), box)


def as_stack(images: npt.NDArray[np.floating] | ImageStack) -> ImageStack:
    """Return `images` as a stack.

    Raises
    ------
    InputError
        when it cannot be classified: no images, or of a width that is odd or below 16 pixels.
    """
    stack: ImageStack = ArrayStack(images) if isinstance(images, np.ndarray) else images
    if stack.count == 0:
        raise InputError("2D classification needs particles, but the stack is empty; look at the picking.")
    if stack.box % 2 or stack.box < 16:
        raise InputError(
            f"2D classification needs images of an even width of at least 16 pixels, but these have {stack.box}; "
            "extract with another box."
        )
    return stack
