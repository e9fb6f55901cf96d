"""Electron counting: fast Poisson counts from rates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import poisson

LEVELS = 256
DRAWS = 1 << 16


class PoissonCounter:
    """Draws Poisson counts for rates between 0 and `highest`, by table.

    A table holds the inverse cumulative distribution at 256 rates for 65,536 equally likely draws. A rate between two levels takes one of them
    at random, so that the mean is exact. Counts end at 255, as an 8-bit camera's do.
    """

    def __init__(self, highest: float) -> None:
        rates = np.linspace(0, highest, LEVELS + 1)
        values = np.arange(256)
        ends = np.rint(poisson.cdf(values, rates[:, None]) * DRAWS).astype(np.int64)
        ends[:, -1] = DRAWS
        lengths = np.diff(ends, axis=1, prepend=0)
        self._table = np.concatenate([np.repeat(values.astype(np.uint8), row) for row in lengths])
        self._scale = np.float32(LEVELS / highest) if highest > 0 else np.float32(0)

    def draw(
        self, rates: npt.NDArray[np.float32], dither: npt.NDArray[np.uint8], bits: npt.NDArray[np.uint16]
    ) -> npt.NDArray[np.uint8]:
        """Return counts for `rates`, given random `dither` and `bits` of the same shape."""
        level = rates * self._scale
        level += dither * np.float32(1 / 256)
        index = np.clip(level, 0, LEVELS).astype(np.int64)
        index <<= 16
        index += bits
        return np.asarray(np.take(self._table, index), dtype=np.uint8)
