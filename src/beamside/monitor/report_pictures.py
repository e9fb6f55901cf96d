"""The pictures of the report: which items show theirs, and small copies of them that fit into one page.

The copies are kept under ``.beamside/report-cache``, so that the next report makes only those that are new.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from beamside.formats.atomic import atomic_path
from beamside.jobs.base import Metric
from beamside.project.project import Project

SHOWN_ITEMS = 100
"""No more items than this show their pictures in one report."""

NEWEST_ITEMS = 60
PROBLEM_ITEMS = 15
WORST_PER_METRIC = 2

LIGHT = 235
"""A picture whose edge is lighter than this (of 255) is a drawing on white, not a photograph."""


@dataclass(frozen=True)
class Size:
    """How large a copy is, in pixels of its longer edge, and how well its JPEG keeps it."""

    pixels: int
    quality: int


LARGE = Size(1800, 86)
"""For the few pictures of aggregates."""

MICROGRAPH_SIZES = (Size(1024, 78), Size(1024, 68), Size(860, 66), Size(720, 64), Size(600, 60))
"""For pictures of whole micrographs, with which people judge them: the first of these with which all of them fit, else the last."""

SIZES = (Size(720, 76), Size(560, 72), Size(440, 66), Size(360, 62), Size(300, 60), Size(240, 52))
"""For the other pictures of items, in the same way."""

MICROGRAPH_BUDGET = 14_000_000
BUDGET = 5_000_000
"""Bytes that all pictures of micrographs, and all others of items, may take together; in the page they take a third more."""

TRIED = 18
"""So many pictures are made to see how much room all of them would take."""


@dataclass(frozen=True)
class Embedded:
    """A picture inside the page; `micrograph` says that it shows a whole one."""

    caption: str
    uri: str
    width: int
    height: int
    drawing: bool
    micrograph: bool = False


def choose_items(
    order: Sequence[str],
    problems: Sequence[str],
    metrics: Iterable[tuple[Metric, Sequence[tuple[str, float]]]],
    limit: int = SHOWN_ITEMS,
) -> set[str]:
    """Return the items whose pictures are shown: the newest, the newest problems, the worst of each metric, and an even sample of the rest.

    Parameters
    ----------
    order : all items, the oldest first
    problems : those that failed or were rejected, the oldest first
    metrics : each metric with its values by item
    """
    if len(order) <= limit:
        return set(order)
    chosen = dict.fromkeys([*order[-NEWEST_ITEMS:], *problems[-PROBLEM_ITEMS:]])
    for metric, values in metrics:
        chosen.update(dict.fromkeys(_worst(metric, values)))
    names = list(chosen)[:limit]
    room = limit - len(names)
    rest = [name for name in order if name not in chosen]
    if room > 0 and rest:
        names += [rest[round(index * (len(rest) - 1) / max(room - 1, 1))] for index in range(min(room, len(rest)))]
    return set(names)


def _worst(metric: Metric, values: Sequence[tuple[str, float]]) -> list[str]:
    ranked = [name for name, _ in sorted(values, key=lambda pair: pair[1])]
    if metric.good == "low":
        return ranked[-WORST_PER_METRIC:]
    if metric.good == "high":
        return ranked[:WORST_PER_METRIC]
    return [*ranked[:1], *ranked[-1:]]


class PictureStore:
    """Makes small copies of a project's pictures and remembers them on disk."""

    def __init__(self, project: Project) -> None:
        self.root = project.root
        self.cache = project.private / "report-cache"
        self._used: set[str] = set()

    def embed(self, wanted: Sequence[tuple[str, str, Size]]) -> list[Embedded | None]:
        """Return a copy of each (caption, path below the project, size); None for a file that is not there or not a picture."""
        with ThreadPoolExecutor(max_workers=min(4, len(os.sched_getaffinity(0)))) as pool:
            return list(pool.map(lambda picture: self._embed(*picture), wanted))

    def fitting_size(self, paths: Sequence[str], sizes: Sequence[Size] = SIZES, budget: int = BUDGET) -> Size:
        """Return that of `sizes` with which the pictures `paths` (below the project) take at most about `budget` bytes, judged by some of them."""
        stretch = max(1, len(paths) // TRIED)
        tried = paths[::stretch]
        for size in sizes:
            found = [len(copy.uri) * 3 // 4 for copy in self.embed([("", path, size) for path in tried]) if copy]
            if not found or sum(found) / len(found) * len(paths) <= budget:
                return size
        return sizes[-1]

    def forget_unused(self) -> None:
        """Remove copies that this report did not use."""
        if not self.cache.is_dir():
            return
        for path in self.cache.iterdir():
            if path.suffix == ".jpg" and path.name not in self._used:
                path.unlink(missing_ok=True)

    def _embed(self, caption: str, relative: str, size: Size) -> Embedded | None:
        path = self.root / relative
        try:
            stat = path.stat()
            identity = f"{relative}\0{stat.st_mtime_ns}\0{stat.st_size}\0{size.pixels}\0{size.quality}"
            name = hashlib.sha256(identity.encode()).hexdigest()[:24] + ".jpg"
            self._used.add(name)
            content = self._cached(name) or self._made(path, name, size)
            with Image.open(io.BytesIO(content)) as copy:
                width, height = copy.size
                drawing = copy.mode == "RGB" and _is_drawing(copy)
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
            # A picture that is missing or damaged is left out: the item's numbers are there without it.
            return None
        uri = "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
        return Embedded(caption, uri, width, height, drawing)

    def _cached(self, name: str) -> bytes:
        try:
            return (self.cache / name).read_bytes()
        except OSError:
            return b""

    def _made(self, path: Path, name: str, size: Size) -> bytes:
        content = reduced_jpeg(path, size)
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.cache / name, durable=False) as temporary:
                temporary.write_bytes(content)
        except OSError:
            pass  # a cache that cannot be written costs only time
        return content


def reduced_jpeg(path: Path, size: Size) -> bytes:
    """Return a picture as a JPEG whose longer edge is at most ``size.pixels``; grey pictures stay grey."""
    with Image.open(path) as picture:
        picture.draft(picture.mode if picture.mode in ("L", "RGB") else "RGB", (size.pixels, size.pixels))
        plain = picture if picture.mode in ("L", "RGB") else _on_white(picture)
        # The noise of photographs is better averaged away, the lines of drawings are better kept.
        filter_ = Image.Resampling.LANCZOS if _is_drawing(plain) else Image.Resampling.BILINEAR
        plain.thumbnail((size.pixels, size.pixels), filter_, reducing_gap=2.0)
        stream = io.BytesIO()
        # Thin coloured lines (picks, curves) do not survive halved colours.
        plain.save(stream, "JPEG", quality=size.quality, subsampling=0)
    return stream.getvalue()


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I;16", "I", "F", "1"):
        return picture.convert("L")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _is_drawing(picture: Image.Image) -> bool:
    if picture.mode != "RGB":
        return False
    right, bottom = picture.width - 1, picture.height - 1
    corners = [picture.getpixel(at) for at in ((0, 0), (right, 0), (0, bottom), (right, bottom))]
    return all(isinstance(corner, tuple) and min(corner) >= LIGHT for corner in corners)
