"""Threads of motion correction.

Work is shared out over Python threads, frame by frame or tile by tile, while each torch operation stays on one thread (torch releases
Python's lock while it calculates). Torch's own threads wait for each other after every operation by spinning: on a machine whose cores are
all busy, which is the usual case when several workers run, that costs many times the CPU time of the work itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Workers:
    """A number of threads to share work out to; with one, all is done by the caller.

    Used as a context, it holds torch to one thread per operation, and puts torch's setting back at the end.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = max(1, threads)
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        self._before = torch.get_num_threads()

    def __enter__(self) -> Workers:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def map(self, function: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
        """Return the outcomes of `function` for all `items`, in their order."""
        if self._pool is None:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def start(self, function: Callable[[Item], Outcome], item: Item) -> Future[Outcome]:
        """Begin `function` of `item`, to be asked for its outcome later."""
        if self._pool is not None:
            return self._pool.submit(function, item)
        future: Future[Outcome] = Future()
        future.set_result(function(item))
        return future

    def shares(self, count: int) -> list[slice]:
        """Divide ``range(count)`` among the threads."""
        parts = min(self.threads, count)
        return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


ALONE = Workers(1)
