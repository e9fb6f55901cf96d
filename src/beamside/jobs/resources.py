"""What a task of a job wants of the machine that it runs on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What one task wants: the work on one item, or a round.

    One that wants more cores or memory than a worker has takes the places of several workers.

    Attributes
    ----------
    cores : that its work uses; 0 for as many as a worker has, and for a round half of the machine's, for the last round all
    memory : GB; 0 for what is planned for a worker (--memory)
    gpu_memory : GB of a GPU's memory, for work that computes on ``Workspace.device`` and gains by a GPU; 0 for work that stays on the CPU
    """

    cores: int = 0
    memory: float = 0.0
    gpu_memory: float = 0.0

    @property
    def gpu(self) -> bool:
        """Tell whether it is done on a GPU where there is one."""
        return self.gpu_memory > 0
