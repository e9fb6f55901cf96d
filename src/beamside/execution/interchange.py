"""Parsl's interchange, made to end with its session (PID, CREATED): by itself it outlives one that was killed."""

from __future__ import annotations

import runpy
import sys

from beamside.execution.orphans import end_with_session

if __name__ == "__main__":
    end_with_session(int(sys.argv.pop(1)), float(sys.argv.pop(1)))
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True)
