"""Sizes of boxes: which are large enough for particles and fast to transform. No torch is needed to know them."""

from __future__ import annotations

BACKGROUND_FRACTION = 0.75
"""Diameter of the circle that holds the particle, as a fraction of the box, where none is given (RELION's default)."""


def good_size(minimum: float) -> int:
    """Return the smallest even number that is at least `minimum` and has no prime factor above 5: fast to transform."""
    size = max(2, int(-(-minimum // 1)))
    size += size % 2
    while _without_factors(size, (2, 3, 5)) != 1:
        size += 2
    return size


def choose_box(max_diameter: float, pixel_size: float) -> int:
    """Return the box in pixels for particles of up to `max_diameter` Å: one and a half times as large, and fast to transform."""
    return good_size(1.5 * max_diameter / pixel_size)


def _without_factors(number: int, factors: tuple[int, ...]) -> int:
    for factor in factors:
        while number % factor == 0:
            number //= factor
    return number
