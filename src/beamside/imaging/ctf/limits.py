"""What CTF estimation asks of its settings; without torch, so that settings can be checked before anything runs."""

from __future__ import annotations

DEFOCUS_STEP = 100.0
"""Å: step of the first search over the defocus; no range is narrower."""

NYQUIST_MARGIN = 1.02
"""The fit ends this much before the end of the spectrum."""


def finest_resolution(max_resolution: float, pixel_size: float) -> float:
    """Return the highest resolution in Å that is fitted in a spectrum of this pixel size (Å)."""
    return max(max_resolution, 2 * pixel_size * NYQUIST_MARGIN)


def enough_rings(min_resolution: float, finest: float) -> bool:
    """Tell whether the rings between two resolutions (Å) are enough for a fit."""
    return finest <= min_resolution / 2
