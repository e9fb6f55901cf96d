"""Overlapping square tiles of an image: where they lie, how they fade into each other, how they are cut out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiling:
    """Even cover of an image by overlapping square tiles.

    Attributes
    ----------
    shape : of the image (h, w)
    size : side of a tile in pixels
    ramp : pixels over which neighbouring tiles fade into each other
    rows, columns : first pixels of the tiles in y and x
    """

    shape: tuple[int, int]
    size: int
    ramp: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def corners(self) -> list[tuple[int, int]]:
        """First pixels (y, x) of all tiles, row by row."""
        return [(y, x) for y in self.rows for x in self.columns]

    @property
    def centres(self) -> Tensor:
        """Centres ``(p, 2)`` of all tiles, float64 pixels (y, x)."""
        return torch.tensor(self.corners, dtype=torch.float64) + self.size / 2


def make_tiling(shape: tuple[int, int], size: int, ramp: int) -> Tiling:
    """Cover an image of `shape` with tiles of side `size` that overlap by at least `ramp` pixels; a small image gets smaller tiles."""
    size = min(size, *(side // 2 * 2 for side in shape))
    ramp = min(ramp, size // 2)
    return Tiling(shape, size, ramp, _starts(shape[0], size, ramp), _starts(shape[1], size, ramp))


def _starts(length: int, size: int, ramp: int) -> tuple[int, ...]:
    count = max(1, math.ceil((length - ramp) / (size - ramp)))
    if count == 1 and length > size:
        count = 2
    return tuple(round(index * (length - size) / max(count - 1, 1)) for index in range(count))


def fade(size: int, ramp: int) -> Tensor:
    """Return the window ``(size,)``: one in the middle, falling to zero over `ramp` pixels at both ends like a squared cosine."""
    distance = torch.arange(size, dtype=torch.float64) + 0.5
    distance = torch.minimum(distance, size - distance)
    return torch.sin(0.5 * math.pi * (distance / max(ramp, 1)).clamp(max=1.0)) ** 2


def cut(image: Tensor, y: int, x: int, size: int) -> Tensor:
    """Return the square of side `size` whose first pixel is (`y`, `x`); where it leaves the image, the image is mirrored."""
    height, width = image.shape
    if 0 <= y <= height - size and 0 <= x <= width - size:
        return image[y : y + size, x : x + size]
    rows = mirrored(torch.arange(y, y + size, device=image.device), height)
    columns = mirrored(torch.arange(x, x + size, device=image.device), width)
    return image[rows[:, None], columns]


def mirrored(index: Tensor, length: int) -> Tensor:
    """Return where pixels `index` along a side of `length` lie when what is outside mirrors what is inside."""
    index = index % (2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)


def quick_length(length: int) -> int:
    """Return the next even length from `length` on that has no prime factor above 5, and so is quick to transform."""
    length += length % 2
    while (30**20) % length:
        length += 2
    return length
