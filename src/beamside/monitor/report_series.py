"""Numbers over time and their distribution: what the report's plots and tables are made from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

Points = list[tuple[float, float]]

CURVE_POINTS = 400
"""Curves over time have no more points than a screen can show."""

RATE_BINS = 60
ITEMS_PER_BIN = 2


@dataclass(frozen=True)
class Spread:
    """The distribution of a metric in five numbers, in stored units."""

    number: int
    lowest: float
    lower_quartile: float
    median: float
    upper_quartile: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Return the five numbers of `values`, of which there must be at least one; quartiles interpolate between neighbours."""
    ordered = sorted(values)
    if len(ordered) == 1:
        only = ordered[0]
        return Spread(1, only, only, only, only, only)
    low, middle, high = quantiles(ordered, n=4, method="inclusive")
    return Spread(len(ordered), ordered[0], low, middle, high, ordered[-1])


def level(steps: Sequence[tuple[float, int]], end: float) -> Points:
    """Return what `steps` (moment, change) add up to: from 0 at the first of them to the sum of all at `end`."""
    points = _added_up(steps)
    return [(points[0][0], 0.0), *_thinned_peaks(points), (max(end, points[-1][0]), points[-1][1])]


def backlog(arrivals: Sequence[float], ends: Sequence[float]) -> Points:
    """Return how many items have arrived and not ended yet, at each change."""
    return _thinned_peaks(_added_up([(moment, 1) for moment in arrivals] + [(moment, -1) for moment in ends]))


def _added_up(steps: Sequence[tuple[float, int]]) -> Points:
    points: Points = []
    level = 0
    for moment, step in sorted(steps):
        level += step
        if points and points[-1][0] == moment:
            points[-1] = (moment, float(level))
        else:
            points.append((moment, float(level)))
    return points


def _thinned_peaks(points: Points) -> Points:
    """Thin a curve, but keep the highest and the last point of each stretch, so that no peak is hidden."""
    if len(points) <= CURVE_POINTS:
        return points
    stretch = -(-len(points) * 2 // CURVE_POINTS)
    kept: Points = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        highest = max(part, key=lambda point: point[1])
        kept += [highest, part[-1]] if highest is not part[-1] else [highest]
    return kept


def hourly_rate(times: Sequence[float], start: float, end: float, width: float) -> Points:
    """Return items per hour in stretches of `width` seconds between `start` and `end` (the last may be shorter), at the
    beginning of each, and the last once more at `end`."""
    ordered = sorted(times)
    points: Points = []
    left = start
    while left < end:
        right = min(left + width, end)
        # The last stretch has its end too; one that is much shorter than the others would say little, so it joins the one before.
        if end - right < width / 2:
            right = end
        upper = len(ordered) if right >= end else bisect_left(ordered, right)
        points.append((left, 3600.0 * (upper - bisect_left(ordered, left)) / (right - left)))
        left = right
    return [*points, (end, points[-1][1])] if points else []


def bin_width(length: float, items: int) -> float:
    """Return a round stretch of time, in seconds, so that `length` has at most `RATE_BINS` of them and each some items."""
    bins = min(RATE_BINS, max(1, items // ITEMS_PER_BIN))
    widths = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    return float(next((width for width in widths if length / width <= bins), max(length / bins, 86400.0)))
