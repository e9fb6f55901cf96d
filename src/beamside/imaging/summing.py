"""Sums that come out the same in every run, on any device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_SWITCHING = threading.Lock()


def add_at(target: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add each of `values` ``(n, ...)`` to the row of `target` ``(m, ...)`` that `index` ``(n,)`` names; returns `target`.

    On a graphics card ``index_add_`` adds in whatever order the threads come, unless torch is asked for its deterministic algorithms. On the
    processor there is one order.
    """
    if not target.is_cuda:
        return target.index_add_(0, index, values)
    with deterministic():
        return target.index_add_(0, index, values)


@contextmanager
def deterministic() -> Iterator[None]:
    """Have torch's deterministic algorithms in a ``with`` block, one thread at a time, because the switch is the whole process's.

    What has no such algorithm, and is started by another thread meanwhile, at most warns.
    """
    with _SWITCHING:
        before = torch.are_deterministic_algorithms_enabled()
        only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=only_warns)
