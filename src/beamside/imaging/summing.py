"""Sums that come out the same in every run, on any device."""

from __future__ import annotations

from torch import Tensor


def add_at(target: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Add each of `values` ``(n, ...)`` to the row of `target` ``(m, ...)`` that `index` ``(n,)`` names; returns `target`.

    ``index_add_`` adds in whatever order the threads of a graphics card come. There ``index_put_`` sorts the indices first, so rounding is always
    the same; on the processor it is the slower of the two, which both have one order.
    """
    if target.is_cuda:
        return target.index_put_((index,), values.to(target.dtype), accumulate=True)
    return target.index_add_(0, index, values)
