"""Parsl's interchange, made to end with its session: by itself it outlives a session that was killed."""

from __future__ import annotations

import os
import runpy

from beamside.execution.orphans import end_with_session, process_created

if __name__ == "__main__":
    session = os.getppid()
    end_with_session(session, process_created(session))
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__", alter_sys=True)
