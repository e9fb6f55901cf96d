"""The pictures that people look at: micrographs, picks, motion, CTF fits, class averages. NumPy arrays in, Pillow images out.

Rows are shown in file order (row 0 on top), as RELION's display does, so that what is right in one picture is right in all of them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from beamside.errors import InputError
from beamside.imaging.charts import BLUE, GREEN, GREY, INK, ORANGE, PALE, Axes, Canvas, Point, nice_ticks

Array = NDArray[np.floating]
Bytes = NDArray[np.uint8]

PICK_COLOUR = (40, 230, 90)
DARK = 0.45
"""Brightness of pictures that are shown but were not chosen."""


def to_bytes(image: Array, low: float = 0.5, high: float = 99.5) -> Bytes:
    """Scale an image to 0..255 between two of its percentiles; a flat image becomes grey, values that are not finite count as lowest."""
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(values.shape, 128, dtype=np.uint8)
    bottom, top = (float(value) for value in np.percentile(values[finite], (low, high)))
    if top - bottom <= 1e-6 * max(abs(top), abs(bottom), 1e-30):
        return np.full(values.shape, 128, dtype=np.uint8)
    scaled = np.clip((np.where(finite, values, bottom) - bottom) / (top - bottom), 0, 1)
    return np.asarray(scaled * 255 + 0.5, dtype=np.uint8)


def reduce_image(image: Array, max_size: int) -> Array:
    """Average an image down so that its longer edge is at most `max_size`: this is also the low-pass filter that makes particles visible."""
    if image.ndim != 2 or 0 in image.shape:
        raise InputError(
            f"A picture needs a two-dimensional image, not one of shape {image.shape}: pass one micrograph."
        )
    height, width = image.shape
    scale = max_size / max(height, width)
    if scale >= 1:
        return np.asarray(image, dtype=np.float32)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    offset = np.float32(values[finite].mean(dtype=np.float64)) if finite.any() else np.float32(0)
    clean = np.where(finite, values, offset) - offset
    reduced = np.asarray(Image.fromarray(clean).resize(size, Image.Resampling.BOX), dtype=np.float32)
    return reduced + offset


def thumbnail(image: Array, max_size: int = 1024) -> Image.Image:
    """Return a grey picture of a micrograph ``(h, w)``, large enough to judge it, with contrast from its percentiles."""
    return Image.fromarray(to_bytes(reduce_image(image, max_size)))


def encode(image: Image.Image, kind: str = "png", quality: int = 85) -> bytes:
    """Return the bytes of a PNG or JPEG file."""
    if kind not in ("png", "jpeg"):
        raise InputError(f"Pictures are written as png or jpeg, not as {kind!r}.")
    stream = io.BytesIO()
    if kind == "jpeg":
        image.save(stream, "JPEG", quality=quality)
    else:
        image.save(stream, "PNG", optimize=False, compress_level=6)
    return stream.getvalue()


def picks_overlay(
    image: Array,
    coordinates: Array,
    diameters: float | Array,
    pixel_size: float,
    max_size: int = 1024,
    colour: tuple[int, int, int] = PICK_COLOUR,
) -> Image.Image:
    """Draw picks as circles on a micrograph, with a scale bar.

    Parameters
    ----------
    image : ``(h, w)``
    coordinates : ``(n, 2)``, y and x in pixels
    diameters : Å, one or one per pick
    pixel_size : Å
    """
    points = np.asarray(coordinates, dtype=np.float64).reshape(-1, 2)
    sizes = np.broadcast_to(np.asarray(diameters, dtype=np.float64), (len(points),))
    reduced = reduce_image(image, max_size)
    scale = reduced.shape[1] / image.shape[1]
    # Smoothing by a small part of the diameter takes away noise and leaves the particles.
    blur = float(np.median(sizes)) / pixel_size * scale / 25 if len(sizes) else 1.0
    small = Image.fromarray(to_bytes(gaussian_filter(reduced, blur)))
    canvas = Canvas(small.width, small.height)
    canvas.paste(small.convert("RGB"), (0, 0))
    for (y, x), diameter in zip(points, sizes, strict=True):
        canvas.circle(((x + 0.5) * scale, (y + 0.5) * scale), max(3.0, diameter / pixel_size / 2 * scale), colour, 2.2)
    _scale_bar(canvas, image.shape[1] * pixel_size, scale / pixel_size)
    return canvas.finish()


def motion_plot(global_shifts: Array, patch_shifts: Array | None = None, pixel_size: float = 1.0) -> Image.Image:
    """Draw the track of the whole movie, and those of its patches where they are, enlarged.

    Parameters
    ----------
    global_shifts : ``(frames, 2)``, y and x in pixels
    patch_shifts : ``(rows, columns, frames, 2)``, the patches' total shifts in pixels; None when there was no local motion
    pixel_size : Å

    Returns
    -------
    An image of 960 x 500 pixels, or 500 x 500 without patches.
    """
    track = np.asarray(global_shifts, dtype=np.float64) * pixel_size
    if track.ndim != 2 or track.shape[1] != 2 or len(track) == 0:
        raise InputError(f"A motion track needs (frames, 2) shifts, not an array of shape {track.shape}.")
    canvas = Canvas(960 if patch_shifts is not None else 500, 500)
    _draw_track(canvas, track - track[0])
    if patch_shifts is not None:
        _draw_patches(canvas, np.asarray(patch_shifts, dtype=np.float64) * pixel_size)
    return canvas.finish()


def ctf_plot(
    frequency: Array,
    experimental: Array,
    fit: Array,
    quality: Array | None = None,
    resolution: float | None = None,
    title: str = "",
) -> Image.Image:
    """Draw the one-dimensional CTF fit over spatial frequency.

    Parameters
    ----------
    frequency : ``(n,)`` in 1/Å, increasing
    experimental : ``(n,)``, the spectrum's rotational average, scaled to 0..1 (values outside are cut off)
    fit : ``(n,)``, the fitted CTF squared
    quality : ``(n,)``, correlation between the two at each frequency, or None
    resolution : Å up to which the fit is good, marked by a line, or None
    """
    canvas = Canvas(760, 400)
    top = float(frequency[-1])
    low = -0.2 if quality is not None and float(np.nanmin(quality)) < -0.02 else 0.0
    axes = Axes(canvas, (70, 44, 740, 340), (0.0, top), (low, 1.1))
    labels = [value for value in (50, 20, 10, 7, 5, 4, 3.5, 3, 2.5, 2, 1.7, 1.5, 1.3, 1.2, 1.1, 1) if 1 / value <= top]
    axes.x_ticks([1 / value for value in labels], [f"{value:g}" for value in labels], "Resolution (Å)")
    axes.y_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"], "Normalised power")
    axes.plot(frequency.tolist(), experimental.tolist(), INK, 1.4)
    axes.plot(frequency.tolist(), fit.tolist(), ORANGE, 1.6)
    entries = [("spectrum", INK), ("fit", ORANGE)]
    if quality is not None:
        axes.plot(frequency.tolist(), quality.tolist(), BLUE, 1.6)
        entries.append(("correlation", BLUE))
    if resolution is not None and np.isfinite(resolution) and resolution > 0 and 1 / resolution <= top:
        x, _ = axes.place(1 / resolution, 0)
        canvas.line([(x, 44), (x, 340)], GREEN, 1.6)
        near_edge = x > 640
        canvas.text((x - 5 if near_edge else x + 5, 56), f"{resolution:.1f} Å", 12, GREEN, "rm" if near_edge else "lm")
    axes.draw_frame()
    _legend(canvas, entries, (740, 22))
    canvas.text((70, 22), title, 13)
    return canvas.finish()


def ctf_picture(array: Array, resolution: float | None = None, pixel_size: float = 1.0, size: int = 512) -> Image.Image:
    """Return a picture of a two-dimensional power spectrum (half measured, half fitted) ``(n, n)`` with zero frequency at ``n // 2``.

    The central peak would set the contrast: pixels within 3 % of the centre are left out of the percentiles. A ring marks `resolution` (Å).
    """
    values = np.asarray(array, dtype=np.float32)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise InputError(f"A power spectrum picture needs a square image, not one of shape {values.shape}.")
    count = values.shape[0]
    axis = np.arange(count) - count // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    outside = values[radius > 0.03 * count]
    bottom, top = np.percentile(outside[np.isfinite(outside)], (1, 99.3)) if np.isfinite(outside).any() else (0.0, 1.0)
    grey = Image.fromarray(to_bytes(np.clip(values, bottom, max(top, bottom + 1e-12)), 0, 100))
    canvas = Canvas(size, size)
    canvas.paste(grey.convert("RGB"), (0, 0), (size, size))
    if resolution is not None and np.isfinite(resolution) and resolution >= 2 * pixel_size:
        reach = pixel_size / resolution * size
        canvas.circle((size / 2, size / 2), reach, PICK_COLOUR, 1.2)
        text = f"{resolution:.1f} Å"
        x, y = size / 2, min(size / 2 + reach + 14, size - 14)
        half = canvas.text_width(text, 14) / 2 + 5
        canvas.rectangle((x - half, y - 10), (x + half, y + 10), "#14161a", fill=True)
        canvas.text((x, y), text, 14, PICK_COLOUR, "mm")
    return canvas.finish()


def class_montage(
    averages: Array,
    labels: Sequence[str] = (),
    columns: int | None = None,
    tile: int = 112,
    framed: Sequence[bool] | None = None,
) -> Image.Image:
    """Draw class averages ``(k, b, b)`` as a sheet in the given order, each with its own contrast and a label below.

    A class without any contrast (no particles) is drawn as an empty tile. With `framed`, those that are get a green frame, and the others are dark.
    """
    count = len(averages)
    if labels and len(labels) != count:
        raise InputError(f"There are {len(labels)} labels for {count} class averages: give one each.")
    if framed is not None and len(framed) != count:
        raise InputError(f"There are {len(framed)} marks for {count} class averages: give one each.")
    across = columns or max(1, min(12, ceil(sqrt(count * 1.6))))
    gap, foot = 6, 20 if labels else 0
    canvas = Canvas(gap + across * (tile + gap), gap + max(1, ceil(count / across)) * (tile + foot + gap), "#16181c")
    for index, average in enumerate(averages):
        x = gap + (index % across) * (tile + gap)
        y = gap + (index // across) * (tile + foot + gap)
        if np.isfinite(average).any() and float(np.ptp(average[np.isfinite(average)])) > 0:
            picture = to_bytes(average, 0.3, 99.7)
            if framed is not None and not framed[index]:
                picture = np.asarray(picture * DARK, dtype=np.uint8)
            canvas.paste(Image.fromarray(picture).convert("RGB"), (x, y), (tile, tile))
        else:
            canvas.rectangle((x, y), (x + tile, y + tile), "#3a3d44")
        if framed is not None and framed[index]:
            corners = [(x, y), (x + tile, y), (x + tile, y + tile), (x, y + tile), (x, y), (x + tile, y)]
            canvas.line(corners, PICK_COLOUR, 3)
        if labels:
            colour = "#d8dade" if framed is None or framed[index] else "#8b8f98"
            canvas.text((x + tile / 2, y + tile + foot / 2 + 1), labels[index], 12, colour, "mm")
    return canvas.finish()


def _scale_bar(canvas: Canvas, field: float, pixels_per_angstrom: float) -> None:
    """Draw a bar of a round length, a sixth to a third of the `field` (Å) at most."""
    length = next((value for value in (10000, 5000, 2000, 1000, 500, 200, 100, 50, 20, 10) if value <= field / 4), 0)
    if not length:
        return
    wide, bottom = length * pixels_per_angstrom, canvas.height - 14
    text = f"{length // 10} nm"
    box = max(wide, canvas.text_width(text, 14)) + 20
    canvas.rectangle((8, bottom - 34), (8 + box, bottom + 8), (20, 20, 20), fill=True)
    canvas.text((8 + box / 2, bottom - 18), text, 14, "white", "mm")
    left = 8 + (box - wide) / 2
    canvas.line([(left, bottom - 2), (left + wide, bottom - 2)], "white", 4)


def _legend(canvas: Canvas, entries: Sequence[tuple[str, str]], right: Point) -> None:
    x, y = right
    for text, colour in reversed(entries):
        x -= canvas.text_width(text, 12)
        canvas.text((x, y), text, 12)
        canvas.line([(x - 26, y), (x - 6, y)], colour, 2)
        x -= 42


def _draw_track(canvas: Canvas, track: Array) -> None:
    """Draw the whole movie's track in Å from its first frame, on equal scales; y grows downwards as in the micrograph."""
    centre = (track.max(axis=0) + track.min(axis=0)) / 2
    reach = max(float(np.ptp(track, axis=0).max()) * 0.58, 0.5)
    y_range = (centre[0] + reach, centre[0] - reach)
    axes = Axes(canvas, (70, 44, 470, 444), (centre[1] - reach, centre[1] + reach), y_range)
    axes.x_ticks(*nice_ticks(*axes.x_range), "Shift in x (Å)")
    axes.y_ticks(*nice_ticks(y_range[1], y_range[0]), "Shift in y (Å)")
    _coloured_track(canvas, [axes.place(x, y) for y, x in track], 2.0, dots=2.6)
    axes.draw_frame()
    total = float(np.linalg.norm(np.diff(track, axis=0), axis=1).sum())
    canvas.text((70, 22), f"Whole movie: {total:.1f} Å in {len(track)} frames", 13)


def _draw_patches(canvas: Canvas, patches: Array) -> None:
    """Draw each patch's track in its own cell, all enlarged alike."""
    if patches.ndim != 4 or patches.shape[-1] != 2:
        raise InputError(f"Patch tracks need (rows, columns, frames, 2) shifts, not an array of shape {patches.shape}.")
    rows, columns = patches.shape[:2]
    left, top, edge = 530.0, 44.0, 400.0
    tracks = patches - patches[:, :, :1]
    middle = (tracks.max(axis=2, keepdims=True) + tracks.min(axis=2, keepdims=True)) / 2
    cell_width, cell_height = edge / columns, edge / rows
    extent = max(float(np.ptp(tracks, axis=2).max()), 0.1)
    scale = 0.8 * min(cell_width, cell_height) / extent
    for index in range(1, columns):
        canvas.line([(left + index * cell_width, top), (left + index * cell_width, top + edge)], PALE)
    for index in range(1, rows):
        canvas.line([(left, top + index * cell_height), (left + edge, top + index * cell_height)], PALE)
    for row in range(rows):
        for column in range(columns):
            x0, y0 = left + (column + 0.5) * cell_width, top + (row + 0.5) * cell_height
            path = (tracks[row, column] - middle[row, column]) * scale
            _coloured_track(canvas, [(x0 + x, y0 + y) for y, x in path], 1.6, dots=0)
    canvas.rectangle((left, top), (left + edge, top + edge), GREY)
    canvas.text((left, 22), f"{rows} x {columns} patches; first frame blue, last orange", 13)
    length = next(
        value for value in (50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05) if value * scale <= 120 or value == 0.05
    )
    canvas.line([(left, top + edge + 20), (left + length * scale, top + edge + 20)], INK, 2.5)
    canvas.text((left + length * scale + 8, top + edge + 20), f"{length:g} Å of motion", 12)


def _coloured_track(canvas: Canvas, points: Sequence[Point], width: float, dots: float) -> None:
    """Draw a track that goes from blue to orange; its start is a ring."""
    start, end = np.array([31, 111, 180]), np.array([232, 115, 26])
    count = max(len(points) - 1, 1)
    for index, (a, b) in enumerate(pairwise(points)):
        red, green, blue = (int(value) for value in start + (end - start) * index / count)
        canvas.line([a, b], (red, green, blue), width)
        if dots:
            canvas.circle(b, dots, (red, green, blue), fill=True)
    canvas.circle(points[0], 3.2 if dots else 2.2, BLUE, fill=True)
