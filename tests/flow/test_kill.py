"""Killing a session at any moment costs only what was in flight."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from beamside.acquisition.manifest import verify_manifest
from beamside.flow.settings import SessionSettings
from beamside.project.project import Project
from beamside.project.records import ItemState

MOVIES = 12
PER_ITEM_JOBS = ("motion", "extract")


@pytest.mark.parametrize("seed", [1, 2])
def test_after_kills_at_random_moments_the_tables_are_those_of_an_undisturbed_run(
    seed: int,
    session_settings: Callable[..., SessionSettings],
    write_movie: Callable[..., Path],
    light_jobs_program: Path,
    tmp_path: Path,
) -> None:
    for number in range(MOVIES):
        write_movie(f"{'odd' if number == 3 else 'bad' if number == 7 else 'm'}{number}", value=number)
    settings_file = tmp_path / "settings.json"
    settings = session_settings()
    settings_file.write_text(json.dumps(settings.to_json()))
    project = Project(settings.root)
    command = [sys.executable, str(light_jobs_program), str(settings_file)]
    source = random.Random(seed)
    kills = 0
    for _ in range(5):
        process = subprocess.Popen(command, env={**os.environ, "PAUSE": "0.05"}, stderr=subprocess.DEVNULL)
        wait_for_writer(project, process)
        time.sleep(source.uniform(0.0, 0.8))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        assert project.writer_process() is None
        project.load()
    assert kills >= 2
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

    state = project.load()
    for job_type, expected in (("import", MOVIES), ("motion", MOVIES), ("extract", MOVIES - 2)):
        job = state.job_of_type(job_type)
        assert job is not None
        assert len(job.items) == expected
        assert not {entry.state for entry in job.items.values()} & {
            ItemState.WAITING,
            ItemState.QUEUED,
            ItemState.RUNNING,
        }
    classes = state.job_of_type("class2d")
    assert classes is not None
    last = list(classes.items.values())[-1].result
    assert last is not None
    assert last["metrics"]["classified"] == 10 * (MOVIES - 2)
    # One inline worker and one place in its queue: each kill can cost one item that was being processed.
    calls = Counter((project.root / "calls.txt").read_text().splitlines())
    repeated = sum(number - 1 for number in calls.values())
    assert repeated <= kills
    assert verify_manifest(project.root) == []


def wait_for_writer(project: Project, process: "subprocess.Popen[bytes]") -> None:
    """Wait as long as it takes on a busy machine; a test that hangs is ended by pytest's own timeout."""
    while project.writer_process() is None and process.poll() is None:
        time.sleep(0.01)
