"""One session over a camera disk as facilities have them: nothing wrong comes out, and nothing stays unexplained."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from beamside.formats.mrc import read_mrc
from beamside.monitor.status import SessionStatus, read_status
from beamside.project.project import Project
from beamside.project.records import ItemState, ProjectState

sys.path.insert(0, str(Path(__file__).parent))
from odd_folders import FRAMES, SETTINGS, OddFolders, grow, write_odd_folders

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

GROWTH_SECONDS = 80.0
"""Two files grow for so long: eight seconds from frame to frame, which is longer than a file takes to settle here."""


@dataclass
class Run:
    odd: OddFolders
    project: Project
    state: ProjectState
    status: SessionStatus

    def taken(self) -> dict[bytes, str]:
        """The items by the path of their source; a movie that was taken under its second path stands under its first."""
        done = self.state.job_of_type("import")
        assert done is not None
        sources = {
            os.fsencode(entry.result["values"]["source"]): name
            for name, entry in done.items.items()
            if entry.result is not None
        }
        return {self.odd.copies.get(path, path): name for path, name in sources.items()}

    def micrograph(self, item: str) -> npt.NDArray[np.float32] | None:
        motion = self.state.job_of_type("motion")
        assert motion is not None
        entry = motion.items.get(item)
        if entry is None or entry.state is not ItemState.DONE or entry.result is None:
            return None
        return read_mrc(self.project.root / entry.result["outputs"]["micrograph"]).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The session, from its start to its end."""
    root = tmp_path_factory.mktemp("odd")
    odd = write_odd_folders(root)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(root / "state")}

    def beamside(*words: str) -> None:
        command = [sys.executable, "-m", "beamside.cli.main", "session", *words]
        subprocess.run(command, env=environment, check=True, timeout=300)

    growing = grow(odd, GROWTH_SECONDS)
    options = {
        "target": root / "sessions",
        "group": "odd",
        "name": "session",
        "data": f"{odd.root}/**/*",
        "gain": odd.gain_file,
        "pixel-size": SETTINGS.pixel_size,
        "voltage": 300,
        "dose": SETTINGS.dose_per_frame,
        "particle-diameter": "80:130",
        "patches-x": 1,
        "patches-y": 1,
        "poll-seconds": 2,
        "settle-seconds": 4,
        "workers": 2,
    }
    beamside("start", *(word for name, value in options.items() for word in (f"--{name}", str(value))))
    project = Project(root / "sessions" / "odd" / "session")
    try:
        growing.join()
        beamside("stop", "--finish", str(project.root))
        end = time.monotonic() + 3000
        while project.writer_process() is not None:
            assert time.monotonic() < end, read_status(project)
            time.sleep(2)
        yield Run(odd, project, project.load(), read_status(project))
    finally:
        if project.writer_process() is not None:
            beamside("stop", str(project.root))


def test_the_session_ends_as_finished(run: Run) -> None:
    assert run.status.state == "finished", run.status.message


def test_every_good_movie_becomes_the_micrograph_of_its_own_frames(run: Run) -> None:
    wrong = {}
    taken = run.taken()
    for path, expected in run.odd.good.items():
        item = taken.get(path)
        picture = run.micrograph(item) if item else None
        fault = "not taken" if item is None else "no micrograph" if picture is None else ""
        if picture is not None:
            fault = _difference(picture, expected)
        if fault:
            wrong[path] = fault
    assert not wrong, _lines(wrong)


def test_nothing_else_becomes_a_micrograph(run: Run) -> None:
    used = {path: item for path, item in run.taken().items() if run.micrograph(item) is not None}
    assert sorted(set(used) - set(run.odd.good)) == []


def test_every_file_that_is_not_used_is_named_with_a_reason(run: Run) -> None:
    told = _everything_told(run)
    untold = {
        path: why
        for path, why in run.odd.bad.items()
        if not any(os.fsdecode(part) in told for part in _parts(path, run))
    }
    assert not untold, _lines(untold)


def test_the_same_movie_under_another_path_is_one_item_and_told(run: Run) -> None:
    first = run.state.job_of_type("import")
    assert first is not None
    sources = [os.fsencode(entry.result["values"]["source"]) for entry in first.items.values() if entry.result]
    told = _everything_told(run)
    for copy, path in run.odd.copies.items():
        assert len([source for source in sources if source in (copy, path)]) == 1, copy
        assert os.fsdecode(copy) in told or os.fsdecode(path) in told, copy


def test_movies_that_grew_are_taken_with_all_their_frames(run: Run) -> None:
    taken = run.taken()
    first = run.state.job_of_type("import")
    assert first is not None
    frames = [first.items[taken[os.fsencode(path)]].result for path, _ in run.odd.growing]
    assert [result["values"]["frames"] for result in frames if result] == [FRAMES, FRAMES]


def _difference(picture: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> str:
    """Say how a micrograph differs from what it should be: its mean, what is in it, and the camera's pattern; "" when it does not."""
    if picture.shape != expected.shape:
        return f"{picture.shape} pixels instead of {expected.shape}"
    # dose weighting keeps the noise of a frame, as RELION's does: the sum of n frames is divided by the root of n
    ratio = float(np.median(picture) / np.median(expected)) * FRAMES**0.5
    seen, wanted = _binned(picture), _binned(expected)
    likeness = float(np.corrcoef(seen.ravel(), wanted.ravel())[0, 1])
    if abs(ratio - 1) > 0.05 or likeness < 0.9:
        return f"{ratio:.3f} × the counts, correlation {likeness:.3f}"
    return ""


def _binned(image: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Bin by 8, after limiting what single defective pixels can do."""
    low, high = np.percentile(image, (0.5, 99.5))
    limited = np.clip(image, low, high).astype(np.float64)
    return limited.reshape(image.shape[0] // 8, 8, image.shape[1] // 8, 8).mean(axis=(1, 3))


def _everything_told(run: Run) -> str:
    """All that a person can read about the session's files."""
    words = [word for entry in run.state.problems.values() for word in (entry.sentence, *entry.items)]
    for job in run.state.jobs.values():
        words += [word for entry in job.items.values() if entry.reason for word in (entry.name, entry.reason)]
    return "\n".join(words)


def _parts(path: bytes, run: Run) -> list[bytes]:
    """A file is named by its path, by its item's name, or by the path of the folder which is passed over whole."""
    top = os.fsencode(run.odd.root)
    item = run.taken().get(path)
    parts = [os.fsencode(item), path] if item else [path]
    while os.path.dirname(parts[-1]) != top:
        parts.append(os.path.dirname(parts[-1]))
    return parts


def _lines(faults: dict[bytes, str]) -> str:
    return "\n".join(f"{os.fsdecode(path)!r}: {fault}" for path, fault in faults.items())
