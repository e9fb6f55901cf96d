"""The eight orientations of an image, and which shapes of a camera's reference and its frames belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
Rotation = Literal[0, 90, 180, 270]
Flip = Literal["none", "up-down", "left-right"]

RATIOS = (1, 2, 4)
"""Sides of a reference and of the frames may be in these ratios, either way."""


@dataclass(frozen=True)
class Orientation:
    """A rotation in degrees clockwise (row 0 on top), then a mirroring: RELION's and MotionCor2's order."""

    rotate: Rotation = 0
    flip: Flip = "none"

    def apply(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return a view of `image` in this orientation."""
        turned = np.rot90(image, k=-(self.rotate // 90))
        if self.flip == "up-down":
            return turned[::-1]
        return turned[:, ::-1] if self.flip == "left-right" else turned

    def canonical(self) -> Orientation:
        """Return the one of `ORIENTATIONS` that does the same."""
        probe = self.apply(_PROBE)
        return next(one for one in ORIENTATIONS if np.array_equal(one.apply(_PROBE), probe))

    def __str__(self) -> str:
        flips = {"none": "", "up-down": "flipped up-down", "left-right": "flipped left-right"}
        words = [f"rotated by {self.rotate}°" if self.rotate else "", flips[self.flip]]
        return ", ".join(filter(None, words)) or "in the orientation of its file"


_PROBE = np.arange(4).reshape(2, 2)

ORIENTATIONS: tuple[Orientation, ...] = (
    Orientation(0, "none"),
    Orientation(0, "up-down"),
    Orientation(0, "left-right"),
    Orientation(180, "none"),
    Orientation(90, "none"),
    Orientation(270, "none"),
    Orientation(90, "up-down"),
    Orientation(90, "left-right"),
)
"""The eight orientations of an image, each in its shortest words."""


def fitting_ratio(gain: Shape, frame: Shape) -> float | None:
    """Return pixels of a reference to one of a frame along each side (4, 2, 1, 1/2, 1/4), or None when the shapes do not belong together."""
    for ratio in RATIOS:
        if gain == (frame[0] * ratio, frame[1] * ratio):
            return float(ratio)
        if frame == (gain[0] * ratio, gain[1] * ratio):
            return 1 / ratio
    return None


def fitting_orientations(gain: Shape, frame: Shape) -> tuple[Orientation, ...]:
    """Return the orientations in which a reference of shape `gain` fits frames of shape `frame`."""
    upright, turned = fitting_ratio(gain, frame), fitting_ratio((gain[1], gain[0]), frame)
    return tuple(one for one in ORIENTATIONS if (turned if one.rotate % 180 else upright) is not None)
