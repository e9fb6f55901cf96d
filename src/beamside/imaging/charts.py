"""A small drawing board for the pictures that jobs write: antialiased lines, text with Å, axes with ticks. Only NumPy and Pillow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, log10

from PIL import Image, ImageDraw, ImageFont

INK = "#222222"
GREY = "#8a8a8a"
PALE = "#e2e2e2"
BLUE = "#1f6fb4"
ORANGE = "#e8731a"
GREEN = "#2a9d4a"

_OVERSAMPLING = 2
_RING = "Å"

Point = tuple[float, float]
Colour = str | tuple[int, int, int]


class Canvas:
    """An RGB image that is drawn at twice its size and reduced at the end; all coordinates are pixels of the final image, x and y."""

    def __init__(self, width: int, height: int, background: Colour = "white") -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), background)
        self._draw = ImageDraw.Draw(self._image)

    def finish(self) -> Image.Image:
        """Return the finished image."""
        return self._image.resize((self.width, self.height), Image.Resampling.BOX)

    def line(self, points: Iterable[Point], colour: Colour = INK, width: float = 1.0) -> None:
        """Draw a line through `points`."""
        scaled = [_scaled(point) for point in points]
        if len(scaled) > 1:
            self._draw.line(scaled, fill=colour, width=_thickness(width), joint="curve")

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([_scaled(point) for point in points], fill=colour)

    def circle(self, centre: Point, radius: float, colour: Colour, width: float = 1.0, *, fill: bool = False) -> None:
        """Draw a circle, or a disc."""
        (x, y), reach = _scaled(centre), radius * _OVERSAMPLING
        box = (x - reach, y - reach, x + reach, y + reach)
        if fill:
            self._draw.ellipse(box, fill=colour)
        else:
            self._draw.ellipse(box, outline=colour, width=_thickness(width))

    def rectangle(self, corner: Point, opposite: Point, colour: Colour, *, fill: bool = False) -> None:
        """Draw a frame, or fill it."""
        box = (*_scaled(corner), *_scaled(opposite))
        self._draw.rectangle(box, fill=colour if fill else None, outline=colour, width=_OVERSAMPLING)

    def paste(self, image: Image.Image, corner: Point, size: tuple[int, int] | None = None) -> None:
        """Put an image there, enlarged or reduced to `size` (its own by default)."""
        width, height = size or image.size
        filled = image.resize((width * _OVERSAMPLING, height * _OVERSAMPLING), Image.Resampling.BICUBIC)
        x, y = _scaled(corner)
        self._image.paste(filled, (round(x), round(y)))

    def text(self, at: Point, text: str, size: float = 13, colour: Colour = INK, anchor: str = "lm") -> None:
        """Write a line of text; `anchor` is Pillow's: l, m, r and t, m, b."""
        tile = _text_mask(text, round(size * _OVERSAMPLING))
        self._stamp(tile, at, colour, anchor)

    def text_upwards(self, at: Point, text: str, size: float = 13, colour: Colour = INK) -> None:
        """Write text that reads from bottom to top, centred on `at`."""
        tile = _text_mask(text, round(size * _OVERSAMPLING)).transpose(Image.Transpose.ROTATE_90)
        self._stamp(tile, at, colour, "mm")

    def text_width(self, text: str, size: float = 13) -> float:
        """Return the width of a line of text."""
        return _text_mask(text, round(size * _OVERSAMPLING)).width / _OVERSAMPLING

    def _stamp(self, mask: Image.Image, at: Point, colour: Colour, anchor: str) -> None:
        x, y = _scaled(at)
        x -= {"l": 0.0, "m": mask.width / 2, "r": float(mask.width)}[anchor[0]]
        y -= {"t": 0.0, "m": mask.height / 2, "b": float(mask.height)}[anchor[1]]
        self._image.paste(Image.new("RGB", mask.size, colour), (round(x), round(y)), mask)


@dataclass(frozen=True)
class Axes:
    """Where data go on a canvas: the frame's left, top, right, bottom, and the data at its ends (y grows upwards unless turned)."""

    canvas: Canvas
    frame: tuple[float, float, float, float]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def place(self, x: float, y: float) -> Point:
        """Return where the data point goes; values outside of the ranges go to the frame."""
        left, top, right, bottom = self.frame
        u = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        v = (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        return left + min(max(u, 0), 1) * (right - left), bottom - min(max(v, 0), 1) * (bottom - top)

    def plot(self, x: Sequence[float], y: Sequence[float], colour: Colour, width: float = 1.5) -> None:
        """Draw a curve; where a value is not finite it is interrupted."""
        run: list[Point] = []
        for a, b in zip(x, y, strict=True):
            if abs(a) < float("inf") and abs(b) < float("inf"):
                run.append(self.place(a, b))
            else:
                self.canvas.line(run, colour, width)
                run = []
        self.canvas.line(run, colour, width)

    def draw_frame(self) -> None:
        """Draw the frame."""
        left, top, right, bottom = self.frame
        self.canvas.rectangle((left, top), (right, bottom), GREY)

    def x_ticks(self, positions: Sequence[float], labels: Sequence[str], title: str) -> None:
        """Draw ticks with pale grid lines below the frame, and the axis title."""
        left, top, right, bottom = self.frame
        for position, label in zip(positions, labels, strict=True):
            x, _ = self.place(position, self.y_range[0])
            self.canvas.line([(x, top), (x, bottom)], PALE)
            self.canvas.line([(x, bottom), (x, bottom + 4)], GREY)
            self.canvas.text((x, bottom + 7), label, 12, anchor="mt")
        self.canvas.text(((left + right) / 2, bottom + 26), title, 13, anchor="mt")

    def y_ticks(self, positions: Sequence[float], labels: Sequence[str], title: str) -> None:
        """Draw ticks with pale grid lines left of the frame, and the axis title."""
        left, top, right, bottom = self.frame
        for position, label in zip(positions, labels, strict=True):
            _, y = self.place(self.x_range[0], position)
            self.canvas.line([(left, y), (right, y)], PALE)
            self.canvas.line([(left - 4, y), (left, y)], GREY)
            self.canvas.text((left - 7, y), label, 12, anchor="rm")
        self.canvas.text_upwards((left - 44, (top + bottom) / 2), title, 13)


def nice_ticks(low: float, high: float, wanted: int = 5) -> tuple[list[float], list[str]]:
    """Return round positions between `low` and `high`, about `wanted` of them, and their labels."""
    if not high > low:
        return [low], [f"{low:g}"]
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    positions = [index * step for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
    digits = max(0, -floor(log10(step) + 1e-9))
    return positions, [f"{position:.{digits}f}" for position in positions]


def _scaled(point: Point) -> Point:
    return point[0] * _OVERSAMPLING, point[1] * _OVERSAMPLING


def _thickness(width: float) -> int:
    return max(1, round(width * _OVERSAMPLING))


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=512)
def _text_mask(text: str, size: int) -> Image.Image:
    """Return the text as a mask, one line high. Pillow's own font has no Å: an A gets its ring here."""
    font = _font(size)
    plain = text.replace(_RING, "A").replace("−", "-")
    width = ceil(font.getlength(plain)) + 2
    height = round(size * 1.3)
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    draw.text((1, height * 0.86), plain, fill=255, font=font, anchor="ls")
    cap_top = height * 0.86 - size * 0.70
    for index, letter in enumerate(text):
        if letter == _RING:
            middle = 1 + font.getlength(plain[:index]) + font.getlength("A") / 2
            radius = size * 0.105
            top = cap_top - 2 * radius
            draw.ellipse(
                (middle - radius, top, middle + radius, top + 2 * radius), outline=255, width=max(1, round(size * 0.05))
            )
    return mask
