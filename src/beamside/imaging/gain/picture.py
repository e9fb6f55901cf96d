"""The picture that shows whether a gain reference fits: the movies' mean without and with it, and how their counts follow it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

from beamside.formats.orientation import Orientation
from beamside.imaging.charts import BLUE, GREY, INK, ORANGE, Axes, Canvas, nice_ticks
from beamside.imaging.gain.orientation import Mode, Verdict, deviations, multiplier

Array = NDArray[np.float32]

CROP = 160
"""Side of the shown part of the movies, in pixels."""

ENLARGED = 320
"""Side of it in the picture."""

BINS = 40
"""Groups of pixels, by what the reference says of them."""

SHORT = {"none": "", "up-down": " ud", "left-right": " lr"}


def gain_picture(
    total: NDArray[np.floating],
    gain: NDArray[np.floating],
    frame: tuple[int, int],
    verdict: Verdict,
    orientation: Orientation,
    mode: Mode,
    movies: int,
) -> Image.Image:
    """Draw what the movies say about a gain reference.

    Parameters
    ----------
    total : ``(h, w)`` sum of uncorrected frames inside `orientation.compared_window`
    gain : the reference as it lies in its file
    frame : shape of the whole frames
    verdict : of the comparison
    orientation, mode : how the reference is used in the picture
    movies : how many were summed

    Returns
    -------
    An image of 1120 x 470 pixels: a part of the mean without and with the reference, with the same contrast; the mean of all pixels by what the
    reference says of them; the slopes of all orientations.
    """
    factor = multiplier(gain, frame, orientation, mode)
    counts = np.where(factor > 0, np.asarray(total, np.float32), 0)
    before, after = deviations(counts), deviations(counts * factor)
    expected = deviations(np.divide(1, factor, out=np.zeros_like(factor), where=factor > 0))
    limit = 4 * float(np.quantile(np.abs(before), 0.68))
    before, after = np.clip(before, -limit, limit), np.clip(after, -limit, limit)
    canvas = Canvas(1120, 470)
    window = _most_pattern(expected)
    contrast = 2.5 * float(gaussian_filter(before[window], 0.7).std())
    plural = "movie" if movies == 1 else "movies"
    use = "multiplied" if mode == "multiply" else "divided"
    canvas.text((20, 24), f"Mean of {movies} {plural}: each pixel against its surroundings, {_size(window)} pixels", 14)
    for left, image, title in ((20, before, "without the reference"), (360, after, "with it")):
        canvas.paste(grey(image[window], contrast), (left, 50), (ENLARGED, ENLARGED))
        canvas.rectangle((left, 50), (left + ENLARGED, 50 + ENLARGED), GREY)
        canvas.text((left, 50 + ENLARGED + 18), title, 14)
    canvas.text((360, 50 + ENLARGED + 38), f"{orientation}, {use}", 13, GREY)
    canvas.text((20, 50 + ENLARGED + 38), f"contrast: black to white ±{contrast:.1%}", 13, GREY)
    _draw_response(canvas, expected, before, after, factor > 0)
    _draw_slopes(canvas, verdict)
    return canvas.finish()


def _size(window: tuple[slice, slice]) -> str:
    return f"{window[1].stop - window[1].start} x {window[0].stop - window[0].start}"


def _most_pattern(expected: Array) -> tuple[slice, slice]:
    """Return the part where smoothed structure of the reference is strongest: that is where an eye sees it."""
    return strongest_part(np.abs(gaussian_filter(np.clip(expected, -0.3, 0.3), 1.5)), CROP)


def strongest_part(strength: Array, side: int) -> tuple[slice, slice]:
    """Return the square of `side` pixels, or less in a smaller image, that has most of `strength` ``(h, w)``."""
    height, width = strength.shape
    side = min(side, height, width)
    means = uniform_filter(strength, side, mode="constant")
    means = means[side // 2 : height - side // 2 + 1, side // 2 : width - side // 2 + 1]
    y, x = np.unravel_index(int(np.argmax(means)), means.shape)
    top, left = min(int(y), height - side), min(int(x), width - side)
    return slice(top, top + side), slice(left, left + side)


def grey(values: Array, contrast: float) -> Image.Image:
    """Return `values` ``(h, w)`` around zero as an image, a little smoothed: black is minus and white plus the `contrast`."""
    smooth = gaussian_filter(values, 0.7)
    scaled = np.clip(smooth / max(contrast, 1e-6) / 2 + 0.5, 0, 1)
    return Image.fromarray(np.asarray(scaled * 255 + 0.5, np.uint8)).convert("RGB")


def _draw_response(canvas: Canvas, expected: Array, before: Array, after: Array, good: NDArray[np.bool_]) -> None:
    """Draw the mean of the counts by what the reference expects: a slope of 1 without it, and none with it."""
    x = expected[good]
    edges = np.quantile(x[:: max(1, len(x) // 500_000)], np.linspace(0.002, 0.998, BINS + 1))
    edges = np.maximum.accumulate(edges + np.arange(BINS + 1) * 1e-9)
    place = np.digitize(x, edges) - 1
    inside = (place >= 0) & (place < BINS)
    number = np.maximum(np.bincount(place[inside], minlength=BINS), 1)
    centre, plain, corrected = (
        100 * np.bincount(place[inside], values[inside], BINS) / number for values in (x, before[good], after[good])
    )
    reach = 1.1 * float(max(np.abs(centre).max(), 0.1))
    axes = Axes(canvas, (770, 50, 1100, 250), (-reach, reach), (-reach, reach))
    ticks, labels = nice_ticks(-reach, reach, 5)
    axes.x_ticks(ticks, labels, "expected from the reference (%)")
    axes.y_ticks(ticks, labels, "counted (%)")
    axes.plot([-reach, reach], [-reach, reach], GREY, 0.8)
    for values, colour in ((plain, ORANGE), (corrected, BLUE)):
        axes.plot(centre.tolist(), values.tolist(), colour, 1.2)
        for a, b in zip(centre, values, strict=True):
            canvas.circle(axes.place(float(a), float(b)), 2.2, colour, fill=True)
    axes.draw_frame()
    canvas.text((770, 34), "without", 13, ORANGE)
    canvas.text((832, 34), "with", 13, BLUE)
    canvas.text((1100, 34), "Counts of pixels", 13, anchor="rm")


def _draw_slopes(canvas: Canvas, verdict: Verdict) -> None:
    """Draw a bar for the slope of each orientation that fits the shape."""
    axes = Axes(canvas, (770, 322, 1100, 430), (0, 8), (-1.2, 1.2))
    axes.y_ticks([-1, 0, 1], ["-1", "0", "1"], "")
    shown = sorted(
        verdict.matches, key=lambda match: (list(SHORT).index(match.orientation.flip), match.orientation.rotate)
    )
    step = 8 / max(len(shown), 1)
    for index, match in enumerate(shown):
        left, right = (index + 0.2) * step, (index + 0.8) * step
        chosen = match is verdict.best
        corner, opposite = axes.place(left, match.slope), axes.place(right, 0)
        canvas.polygon(
            [corner, (opposite[0], corner[1]), opposite, (corner[0], opposite[1])], ORANGE if chosen else GREY
        )
        x, y = axes.place((left + right) / 2, -1.2)
        label = f"{match.orientation.rotate}°{SHORT[match.orientation.flip]}"
        canvas.text((x, y + 5), label, 11, INK if chosen else GREY, "mt")
    axes.draw_frame()
    canvas.text((1100, 310), "Slope: -1 multiply, 1 divide, 0 wrong", 13, anchor="rm")
