"""The picture that shows that movies need a gain reference: two groups of movies with the same pattern, and how sharp what they share is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from beamside.imaging.charts import GREY, Canvas
from beamside.imaging.gain.need import Pattern
from beamside.imaging.gain.orientation import deviations
from beamside.imaging.gain.picture import grey, strongest_part

Array = NDArray[np.float32]

CROP = 120
"""Side of the shown part of the movies, in pixels."""

ENLARGED = 330
"""Side of it in the picture."""


def needed_picture(movies: Sequence[NDArray[Any]], pattern: Pattern) -> Image.Image:
    """Draw what `movies` share: sums of frames ``(h, w)`` of two movies or more. Returns an image of 1120 x 450 pixels.

    Left and middle: the same part of the means of every other movie, each pixel against its surroundings, with the same contrast. Right: the
    covariance of different movies at shifts up to 16 pixels; a pattern of pixels is a point in its middle.
    """
    halves = [_mean(movies[start::2]) for start in (0, 1)]
    window = _where_shared(halves)
    contrast = 2.5 * float(np.mean([gaussian_filter(half[window], 0.7).std() for half in halves]))
    canvas = Canvas(1120, 450)
    side = window[0].stop - window[0].start
    canvas.text(
        (20, 24), f"The same {side} x {side} pixels in the means of different movies: the pattern is the camera's", 14
    )
    for left, half, title in (
        (20, halves[0], _titled(len(movies[0::2]), "")),
        (380, halves[1], _titled(len(movies[1::2]), "other ")),
    ):
        canvas.paste(grey(half[window], contrast), (left, 50), (ENLARGED, ENLARGED))
        canvas.rectangle((left, 50), (left + ENLARGED, 50 + ENLARGED), GREY)
        canvas.text((left, 50 + ENLARGED + 18), title, 14)
    canvas.text((20, 50 + ENLARGED + 40), f"contrast: black to white ±{contrast:.1%}", 13, GREY)
    peak = max(float(pattern.near.max()), 1e-12)
    shown = np.clip(pattern.near / peak / 2 + 0.5, 0, 1)
    spot = Image.fromarray(np.asarray(shown * 255 + 0.5, np.uint8)).convert("RGB")
    canvas.text((760, 24), "Covariance of different movies", 14)
    canvas.paste(spot.resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST), (760, 50), (ENLARGED, ENLARGED))
    canvas.rectangle((760, 50), (760 + ENLARGED, 50 + ENLARGED), GREY)
    canvas.text((760, 50 + ENLARGED + 18), f"shifts up to 16 pixels; pixels differ by {pattern.strength:.1%}", 14)
    return canvas.finish()


def _titled(number: int, which: str) -> str:
    return f"mean of {number} {which}movie{'' if number == 1 else 's'}"


def _mean(movies: Sequence[NDArray[Any]]) -> Array:
    total = np.zeros(movies[0].shape, np.float32)
    for movie in movies:
        total += deviations(movie)
    total /= len(movies)
    limit = 4 * float(np.quantile(np.abs(total), 0.68))
    return np.clip(total, -limit, limit)


def _where_shared(halves: Sequence[Array]) -> tuple[slice, slice]:
    """Return the part where smoothed structure of both is most alike: that is where an eye sees it."""
    first, second = (gaussian_filter(half, 0.7) for half in halves)
    return strongest_part(first * second, CROP)
