"""Judging whether an engine's workers are there: whether they come at all, and whether they stay away."""

from __future__ import annotations

from dataclasses import dataclass, field

UNCONNECTED_SECONDS = 180.0
"""Workers that are away for longer do not come: a slow file system may need a minute to load what they import."""

TROUBLED_POOLS, FAILED_POOLS = 2, 5
"""After so many pools that ended without having come, people are told, and the engine is given up."""


@dataclass
class Connection:
    """What is known of one engine's workers.

    Attributes
    ----------
    since : when they were there last, or else when the engine was started, in monotonic seconds
    ever : whether they were ever there
    """

    since: float
    ever: bool = False
    _pools: int = field(default=0)

    def look(self, now: float, connected: bool, pools: int) -> str:
        """Take a look at the engine; return "" as long as it is well or may become so, "troubled", or "failed".

        Parameters
        ----------
        now : monotonic seconds
        connected : whether a pool of workers is connected
        pools : how many have been started so far
        """
        if connected:
            self.since, self.ever, self._pools = now, True, pools
            return ""
        without = pools - self._pools
        if without > FAILED_POOLS or now - self.since > UNCONNECTED_SECONDS:
            return "failed"
        return "troubled" if without > TROUBLED_POOLS else ""
