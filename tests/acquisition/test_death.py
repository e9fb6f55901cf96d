"""kill -9 at random moments, while the camera writes: in the end everything is there, once, and right."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.acquisition.manifest import Manifest, verify_manifest
from beamside.formats.movies import open_movie
from beamside.formats.tiff import write_tiff

_WORKER = """
import sys, time
from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest
from beamside.acquisition.settings import AcquisitionSettings
from beamside.errors import BeamsideError
camera, project, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings = AcquisitionSettings(
    data=(camera + "/**/*.tiff",), poll_seconds=0.02, settle_seconds=0.15, attempts=1000, remove_source=True, remove_after=0.3
)
intake = Intake(settings, project + "/raw", Manifest(project))
while len(intake.taken()) < wanted:
    for arrival in intake.look().new:
        try:
            intake.take(arrival)
        except BeamsideError as error:
            print(error)
    time.sleep(0.02)
while intake.look().to_remove:
    time.sleep(0.02)
"""


def write_slowly(camera: Path, contents: dict[str, bytes]) -> None:
    """Write movies as a camera does: in place, under their final names, in several steps; then the sidecar."""
    for name, content in contents.items():
        (camera / name).parent.mkdir(parents=True, exist_ok=True)
        with open(camera / name, "wb") as file:
            for start in range(0, len(content), len(content) // 4 + 1):
                file.write(content[start : start + len(content) // 4 + 1])
                file.flush()
                time.sleep(0.1)
        (camera / name).with_suffix(".xml").write_text("<a/>")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_nothing_is_lost_or_taken_twice(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    camera, project = tmp_path / "the camera", tmp_path / "project"
    camera.mkdir()
    frames = {}
    contents = {}
    for index in range(12):
        frames[f"g{index % 3}/m{index // 3}.tiff"] = np.random.default_rng(index).poisson(1, (4, 200, 200)).astype("u2")
    for name, movie in frames.items():
        write_tiff(tmp_path / "movie.tiff", movie, compression="none" if chance.random() < 0.5 else "lzw")
        contents[name] = (tmp_path / "movie.tiff").read_bytes()
    writer = threading.Thread(target=write_slowly, args=(camera, contents))
    writer.start()
    command = [sys.executable, "-c", _WORKER, str(camera), str(project), str(len(frames))]
    for _ in range(8):
        with subprocess.Popen(command, start_new_session=True) as worker:
            time.sleep(chance.uniform(0.4, 1.2))
            os.kill(worker.pid, signal.SIGKILL)
    writer.join()
    subprocess.run(command, check=True, timeout=120)
    assert verify_manifest(project) == []
    taken = [entry for entry in Manifest(project).entries if entry.kind == "movie"]
    assert sorted(entry.source for entry in taken) == sorted(str(camera / name) for name in frames)
    for entry in taken:
        name = str(Path(entry.source).relative_to(camera))
        assert entry.sha256 == hashlib.sha256(contents[name]).hexdigest()
        with open_movie(project / entry.destination) as movie:
            assert np.array_equal(movie.read(), frames[name])
    assert list(camera.rglob("*.tiff")) == []
    assert not list((project / "raw" / ".incoming").iterdir())


def test_many_threads_take_files_of_the_same_name(rig: Any) -> None:
    for index in range(12):
        rig.movie(f"grid{index}/m.tiff", seed=index, compression="none" if index % 2 else "lzw", dtype="u2")
    arrivals = rig.look_twice().new
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(rig.intake.take, [*arrivals, *arrivals[:3]]))
    assert len({item.name for item in taken}) == 12
    assert len(rig.visible()) == 12
    assert verify_manifest(rig.project) == []
