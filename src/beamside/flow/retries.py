"""When something that a passing fault has spoiled is tried again: one rule for the items of jobs and of checks."""

from __future__ import annotations

RETRY_SECONDS, LONGEST_SECONDS = 5.0, 300.0
"""Pause after the first attempt, and the longest: it doubles with each."""


def pause_after(attempt: int) -> float:
    """Return how many seconds to wait after an attempt that was spoiled; the first one has the number 1."""
    return min(LONGEST_SECONDS, RETRY_SECONDS * 2.0 ** (max(1, min(attempt, 64)) - 1))
