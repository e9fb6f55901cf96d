"""Parsl's pool of workers, made to end with its session: ``python -m beamside.execution.pool PID CREATED <the pool's own options>``.

It is started with this Python, so that it needs no script on PATH.
"""

from __future__ import annotations

import runpy
import sys

from beamside.execution.orphans import WatchedProcess, begin_pool

if __name__ == "__main__":
    begin_pool(int(sys.argv.pop(1)), float(sys.argv.pop(1)))

    from parsl.multiprocessing import SpawnContext

    SpawnContext.Process = WatchedProcess  # type: ignore[misc]
    runpy.run_module("parsl.executors.high_throughput.process_worker_pool", run_name="__main__", alter_sys=True)
