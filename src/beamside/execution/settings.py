"""Where work runs, and how much of it at once."""

from __future__ import annotations

import os
import re
from typing import Literal

import psutil
from pydantic import field_validator

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
    device: str = parameter(
        "auto",
        "What computes the steps that gain by a GPU: `cpu`, `cuda` (all GPUs of this machine), `cuda:N` (one of them), or `auto`: GPUs where there "
        "are some. Each GPU has workers of its own, besides those of --workers. What a GPU's memory does not suffice for is done on the CPU.",
        affects_result=False,
    )
    gpu_workers: int = parameter(
        0,
        "Number of workers for each GPU, so that one computes while another reads; 0: 2 as far as the GPU's memory allows.",
        ge=0,
        le=16,
        advanced=True,
        affects_result=False,
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

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
            raise ValueError(f"{value!r} is none of auto, cpu, cuda, or cuda:N with the number of a GPU")
        return value

    def worker_count(self, others: int = 0) -> int:
        """Return how many workers to start on this machine, besides so many `others` that take memory too."""
        if self.executor == "inline":
            return 1
        if self.workers:
            return self.workers
        by_memory = int(psutil.virtual_memory().available / (self.memory * 1e9)) - others
        return max(1, min(available_cores(), by_memory))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
