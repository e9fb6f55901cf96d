"""Where work runs, and how much of it at once."""

from __future__ import annotations

import os
from typing import Literal

import psutil

from beamside.parameters import ParameterModel, parameter


class ExecutionSettings(ParameterModel):
    """Settings of the executor; none of them changes a result."""

    executor: Literal["local", "inline"] = parameter(
        "local",
        "Where items are processed: worker processes of this machine, or inside the session process (for debugging).",
        advanced=True,
        affects_result=False,
    )
    workers: int = parameter(
        0, "Number of worker processes; 0: one per core, as far as memory allows.", ge=0, le=1024, affects_result=False
    )
    memory: float = parameter(
        3.0, "Memory to plan for each worker.", unit="GB", gt=0, le=1024, advanced=True, affects_result=False
    )
    item_attempts: int = parameter(
        3, "How often an item is tried before it is set aside.", ge=1, le=20, advanced=True, affects_result=False
    )
    min_free_space: float = parameter(
        1.0,
        "The session waits while less than this is free on the target's disk, and then goes on by itself.",
        unit="GB",
        ge=0,
        advanced=True,
        affects_result=False,
    )

    def worker_count(self) -> int:
        """Return how many workers to start on this machine."""
        if self.executor == "inline":
            return 1
        if self.workers:
            return self.workers
        by_memory = int(psutil.virtual_memory().available / (self.memory * 1e9))
        return max(1, min(available_cores(), by_memory))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
