"""Numbers over time and their distribution: what the report's plots and tables are made from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

Points = list[tuple[float, float]]

CURVE_POINTS = 400
"""Curves over time have no more points than a screen can show."""

RATE_BINS = 60


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


def thinned(points: Points, limit: int = CURVE_POINTS) -> Points:
    """Return at most about `limit` of the points, evenly chosen, with the first and the last."""
    if len(points) <= limit:
        return points
    step = (len(points) - 1) / (limit - 1)
    return [points[round(index * step)] for index in range(limit)]


def cumulative(times: Sequence[float]) -> Points:
    """Return how many of the moments `times` have passed, at each of them."""
    return thinned([(moment, float(number)) for number, moment in enumerate(sorted(times), 1)])


def backlog(arrivals: Sequence[float], ends: Sequence[float]) -> Points:
    """Return how many items have arrived and not ended yet, at each change."""
    steps = sorted([(moment, 1) for moment in arrivals] + [(moment, -1) for moment in ends])
    points: Points = []
    level = 0
    for moment, step in steps:
        level += step
        if points and points[-1][0] == moment:
            points[-1] = (moment, float(level))
        else:
            points.append((moment, float(level)))
    return _thinned_peaks(points)


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


def hourly_rate(times: Sequence[float], start: float, end: float) -> Points:
    """Return items per hour in equal stretches of time between `start` and `end`, at the middle of each."""
    ordered = sorted(times)
    width = bin_width(end - start)
    points: Points = []
    left = start
    while left < end or not points:
        right = min(left + width, end) if end > left else left + width
        number = bisect_right(ordered, right) - bisect_right(ordered, left)
        if left == start:
            number += sum(1 for moment in ordered[:1] if moment == start)
        points.append(((left + right) / 2, 3600.0 * number / (right - left)))
        left += width
    return points


def bin_width(length: float) -> float:
    """Return a round stretch of time, in seconds, that divides `length` into at most `RATE_BINS` parts."""
    rounds = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    return float(next((width for width in rounds if length / width <= RATE_BINS), max(length / RATE_BINS, 86400.0)))
