"""A session whose processes are killed, whose disk is full and whose source is lost, again and again, ends as an undisturbed one does."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from beamside.acquisition.manifest import MANIFEST_PATH, read_manifest, verify_manifest
from beamside.formats.mrc import read_mrc
from beamside.formats.star import read_star
from beamside.monitor.status import read_status
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

MOVIES, SIDE, FRAMES = 20, 512, 8
DISTURBED = 0.6
"""The share of moments between two movies at which something goes wrong."""

MOST_ENGINES_KILLED = 3
"""A session gives workers up that are lost more than five times in ten minutes."""

KINDS = 5
"""So many kinds of things go wrong."""

END_SECONDS = 900.0
PER_ITEM = ("import", "motion", "ctf", "pick", "extract")
OF_THE_MOMENT = {"megabytes_per_second"}
TABLES = {"motion": ("corrected_micrographs.star", "micrographs"), "ctf": ("micrographs_ctf.star", "micrographs")}


@dataclass
class Chaos:
    """One session over a camera's folder that fills, and what is done to it."""

    movies: list[Path]
    gain: Path
    folder: Path
    """Where camera and temporary files are."""
    disk: Path
    """The session's disk."""
    tag: str = field(default_factory=lambda: f"BEAMSIDE_CHAOS={uuid.uuid4().hex}")
    engines_killed: int = 0
    done: Counter[str] = field(default_factory=Counter)
    deck: list[Callable[[random.Random], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.camera, self.temporary = self.folder / "camera", self.folder / "tmp"
        self.camera.mkdir(parents=True)
        self.temporary.mkdir()
        self.project = Project(self.disk / "sessions" / "chaos")

    def beamside(self, *words: str) -> subprocess.CompletedProcess[str]:
        name, _, value = self.tag.partition("=")
        own = {"OMP_NUM_THREADS": "1", "XDG_STATE_HOME": str(self.folder / "state"), "TMPDIR": str(self.temporary)}
        return subprocess.run(
            [sys.executable, "-m", "beamside.cli.main", "session", *words],
            env={**os.environ, **own, name: value},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def start(self) -> None:
        options = {
            "target": self.disk,
            "group": "sessions",
            "name": "chaos",
            "data": f"{self.camera}/*_Fractions.tiff",
            "gain": self.gain,
            "pixel-size": 1.3,
            "voltage": 300,
            "dose": 3.0,
            "particle-diameter": "100:160",
            "patches-x": 1,
            "patches-y": 1,
            "workers": 2,
            "item-attempts": 20,
            "class-min": 100000,
            "min-free-space": 0,
            "poll-seconds": 0.5,
            "settle-seconds": 0.5,
            "report-minutes": 0.1,
        }
        started = self.beamside(
            "start", *(word for name, value in options.items() for word in (f"--{name}", str(value)))
        )
        assert started.returncode == 0, started.stderr

    def processes(self) -> list[psutil.Process]:
        """All that the session and its predecessors have started and that lives."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = Path(f"/proc/{process.pid}/environ").read_text(errors="replace").split("\0")
                if self.tag in environment and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def session(self) -> psutil.Process | None:
        holder = self.project.writer_process()
        with contextlib.suppress(psutil.Error):
            return psutil.Process(holder.pid) if holder is not None and holder.pid else None
        return None

    def deliver(self, movie: Path) -> None:
        shutil.copyfile(movie, self.camera / movie.name)

    # What goes wrong

    def kill_session(self, source: random.Random) -> None:
        if (session := self.session()) is not None:
            session.kill()
        time.sleep(source.uniform(0.0, 3.0))
        self.resume()

    def kill_everything(self, source: random.Random) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(source.uniform(0.0, 3.0))
        self.resume()

    def kill_some_worker(self, source: random.Random) -> None:
        """Kill a worker, or what looks after the workers: the pool, its helpers, the interchange."""
        session = self.session()
        others = [process for process in self.processes() if session is None or process.pid != session.pid]
        if others and self.engines_killed < MOST_ENGINES_KILLED:
            self.engines_killed += 1
            with contextlib.suppress(psutil.Error):
                source.choice(sorted(others, key=lambda process: process.pid)).kill()

    def fill_disk(self, source: random.Random) -> None:
        """Fill the disk to the last byte for a moment; now and then the session is killed and resumed meanwhile."""
        filler = self.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass
        time.sleep(source.uniform(0.5, 5.0))
        if source.random() < 0.3:
            if (session := self.session()) is not None:
                session.kill()
            self.beamside("resume", str(self.project.root))  # it may say that it cannot
        filler.unlink()
        self.resume()

    def lose_source(self, source: random.Random) -> None:
        away = self.camera.with_name("away")
        self.camera.rename(away)
        time.sleep(source.uniform(0.5, 5.0))
        away.rename(self.camera)

    def resume(self) -> None:
        if self.project.writer_process() is None:
            resumed = self.beamside("resume", str(self.project.root))
            assert resumed.returncode == 0, resumed.stderr

    def disturb(self, source: random.Random) -> None:
        """Let something go wrong; each kind has its turn."""
        if not self.deck:
            self.deck = [
                self.kill_session,
                self.kill_everything,
                self.kill_some_worker,
                self.fill_disk,
                self.lose_source,
            ]
            source.shuffle(self.deck)
        what = self.deck.pop()
        self.done[what.__name__] += 1
        what(source)

    def finish(self) -> None:
        """Let it process what is there, and end."""
        until = time.monotonic() + END_SECONDS
        self.resume()
        asked = self.beamside("stop", "--finish", str(self.project.root))
        assert asked.returncode == 0, asked.stderr
        while self.project.writer_process() is not None:
            assert time.monotonic() < until, read_status(self.project)
            time.sleep(0.5)
        while self.processes() and time.monotonic() < until:
            time.sleep(0.5)
        status = read_status(self.project)
        assert status.state == "finished", status


@pytest.fixture(scope="module")
def movies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A gain reference, and the movies."""
    folder = tmp_path_factory.mktemp("microscope")
    given = {"movies": MOVIES, "size": SIDE, "frames": FRAMES, "rate": 6000, "seed": 11, "dose": 3.0}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = ["-m", "beamside.simulate.microscope", "--output", str(folder / "out"), "--truth", str(folder / "truth")]
    subprocess.run([sys.executable, *command, *words], check=True, capture_output=True)
    found = sorted((folder / "out").glob("*_Fractions.tiff"))
    assert len(found) == MOVIES
    return [folder / "out" / "gain.mrc", *found]


@pytest.fixture(scope="module")
def undisturbed(movies: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    folder = tmp_path_factory.mktemp("undisturbed")
    chaos = Chaos(movies[1:], movies[0], folder, folder / "disk")
    chaos.start()
    for movie in chaos.movies:
        chaos.deliver(movie)
    chaos.finish()
    yield chaos
    end(chaos)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, which can be filled."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs the rights of root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def end(chaos: Chaos) -> None:
    for process in chaos.processes():
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_disturbed_session_ends_as_an_undisturbed_one(
    seed: int, movies: list[Path], undisturbed: Chaos, small_disk: Path, tmp_path: Path
) -> None:
    chaos, source = Chaos(movies[1:], movies[0], tmp_path, small_disk), random.Random(seed)
    try:
        chaos.start()
        for movie in chaos.movies:
            chaos.deliver(movie)
            time.sleep(source.uniform(0.0, 2.0))
            if source.random() < DISTURBED:
                chaos.disturb(source)
        for _ in range(3):
            chaos.disturb(source)
            time.sleep(source.uniform(0.0, 4.0))
        chaos.finish()
        print("disturbed by", dict(chaos.done))
        assert len(chaos.done) == KINDS, "each kind has had its turn"
        check_accounts(chaos)
        check_same(undisturbed, chaos)
        check_nothing_left(chaos)
    finally:
        end(chaos)


def check_accounts(chaos: Chaos) -> None:
    """Every movie is there exactly once: in the manifest, among the items of each job, and in the tables."""
    entries, unreadable = read_manifest(chaos.project.root / MANIFEST_PATH)
    taken = Counter(Path(entry.source).name for entry in entries if entry.kind == "movie")
    assert (taken, unreadable) == (Counter(movie.name for movie in chaos.movies), [])
    assert verify_manifest(chaos.project.root) == []
    state = chaos.project.load()
    assert state.damage == []
    for name in ("import", "motion"):
        job = state.job_of_type(name)
        assert job is not None
        assert len(job.items) == MOVIES
        assert {entry.state for entry in job.items.values()} <= FINAL_STATES


def check_same(expected: Chaos, chaos: Chaos) -> None:
    """The items, their states and values, the micrographs and the tables are the same."""
    wanted: dict[tuple[str, str], tuple[str, object]] = {
        key: (state, pytest.approx(metrics, rel=1e-4, nan_ok=True))
        for key, (state, metrics) in values(expected.project).items()
    }
    assert values(chaos.project) == wanted
    others = {(job, item): path for job, item, path in micrographs(chaos.project)}
    for job, item, micrograph in micrographs(expected.project):
        np.testing.assert_allclose(
            read_mrc(others[job, item]), read_mrc(micrograph), rtol=1e-4, atol=1e-4, err_msg=item
        )
    for name, (file, block) in TABLES.items():
        rows = table(chaos.project, name, file, block)
        assert len(rows) == len(set(rows))
        assert sorted(rows) == sorted(table(expected.project, name, file, block))


def values(project: Project) -> dict[tuple[str, str], tuple[str, dict[str, float]]]:
    state, found = project.load(), {}
    for name in PER_ITEM:
        job = state.job_of_type(name)
        assert job is not None
        for item, entry in job.items.items():
            metrics = (entry.result or {}).get("metrics", {})
            kept = {key: value for key, value in metrics.items() if key not in OF_THE_MOMENT}
            found[name, item] = (entry.state.value, kept)
    return found


def micrographs(project: Project) -> Iterator[tuple[str, str, Path]]:
    job = project.load().job_of_type("motion")
    assert job is not None
    for item, entry in job.items.items():
        if entry.result is not None:
            yield job.name, item, project.root / entry.result["outputs"]["micrograph"]


def table(project: Project, name: str, file: str, block: str) -> list[str]:
    job = project.load().job_of_type(name)
    assert job is not None
    return read_star(project.root / job.name / file)[block].texts("rlnMicrographName")


def check_nothing_left(chaos: Chaos) -> None:
    """No process, no temporary file, in the project or outside."""
    assert [process.cmdline() for process in chaos.processes()] == []
    left = [path for path in chaos.project.root.rglob(".*") if path.suffix in (".tmp", ".part", ".partial")]
    incoming = chaos.project.raw / ".incoming"
    assert [*left, *(incoming.iterdir() if incoming.exists() else [])] == []
    assert list(chaos.temporary.glob("beamside-*")) == []
