"""What a session itself costs, beside the work of its jobs: CPU time, memory, and how long its loop stands still, for many items.

Run as ``python -m benchmarks.flow [--items N] [--particles N] [--rounds N] [--folder FOLDER] [--profile]``.

All seven jobs of a session on N small movies, with light work (`benchmarks.light_chain`) in the session's process; the CPU time of that work is taken
away. Tasks are pickled, as for workers. Seconds are CPU seconds, also those of fsync and of copying, which a project in memory (``--folder
/dev/shm``) has less of. Each part runs in a process of its own. With ``--profile``, what the loop spends its time on follows.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pickle
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from beamside.acquisition.intake import Intake
from beamside.camera.preparing import MoviePreparation
from beamside.flow import scheduler
from beamside.flow.dispatch import Dispatcher
from beamside.flow.projection import Projection
from beamside.flow.rounds import Rounds
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings, sections
from benchmarks.light_chain import install

IDLE_TICKS = 20
"""So many ticks of a session that has nothing to do are measured."""


class Clock:
    """CPU seconds of the calling thread, by what they were spent on, with the longest call."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.longest: dict[str, float] = {}

    def watch(self, owner: Any, name: str) -> None:
        """Count the time of a method."""
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self.add(name, time.thread_time() - start)

        setattr(owner, name, timed)

    def add(self, name: str, seconds: float) -> None:
        """Add to what was spent."""
        self.spent[name] = self.spent.get(name, 0.0) + seconds
        self.longest[name] = max(self.longest.get(name, 0.0), seconds)


class LightExecutor(Executor):
    """One thread that works, and knows what its tasks cost that thread and how large they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._pool = clock, ThreadPoolExecutor(1)
        self.largest = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Send a task as a worker would get it."""
        packed = pickle.dumps((function, args, kwargs))
        self.largest = max(self.largest, len(packed))
        return self._pool.submit(self._work, packed)

    def _work(self, packed: bytes) -> Any:
        start = time.thread_time()
        try:
            function, args, kwargs = pickle.loads(packed)
            return pickle.loads(pickle.dumps(function(*args, **kwargs)))
        finally:
            self._clock.add("work", time.thread_time() - start)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


class Idle(Session):
    """A session that ends after some ticks, and knows what it had spent when it began to work."""

    began = ticked = 0.0
    wall = 0.0
    ticks = 0

    def _take_events(self) -> None:
        super()._take_events()
        self.ticks += 1
        if self.ticks == 1:
            self.began = time.process_time()
        if self.ticks == IDLE_TICKS:  # what is done once is over by now: each part had its turn
            self.ticked, self.idle, self.wall = time.thread_time(), time.process_time(), time.monotonic()
        if self.ticks == 2 * IDLE_TICKS:
            self.ticked, self.idle = time.thread_time() - self.ticked, time.process_time() - self.idle
            self.wall = time.monotonic() - self.wall
            self.state = "stopping"


def make_movies(folder: Path, number: int) -> None:
    """Write small movies of different content."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.ones((2, 32, 32), np.uint8)
    for index in range(number):
        counts[0, 0, :4] = list(index.to_bytes(4, "big"))
        place = folder / f"GridSquare_{index // 500:04d}"
        place.mkdir(exist_ok=True)
        tifffile.imwrite(place / f"FoilHole_{index:08d}_fractions.tiff", counts, photometric="minisblack")


def settings(folder: Path, items: int, particles: int, rounds: int) -> SessionSettings:
    """Return the settings of the session in `folder`."""
    sections()
    return SessionSettings.from_flat(
        {
            "target": folder / "out",
            "name": "many",
            "data": (str(folder / "camera/**/*_fractions.tiff"),),
            "pixel_size": 1.0,
            "voltage": 300,
            "poll_seconds": 1.0,
            "settle_seconds": 0.0,
            "executor": "inline",
            "class_min": max(20, items * particles // rounds),
            "class_increment": max(20, items * particles // rounds),
        }
    )


def memory(name: str) -> float:
    """Return VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1000


def watched() -> Clock:
    """Let the parts of sessions be timed."""
    clock = Clock()
    for name in ("refresh", "close_jobs", "_catch_up", "_publish", "_write_files"):
        clock.watch(Projection, name)
    methods: list[tuple[type, str]] = [
        (Rounds, "consider"),
        (Dispatcher, "fill"),
        (Dispatcher, "submit_round"),
        (Session, "_take_events"),
        (Intake, "look"),
        (Intake, "take"),
        (MoviePreparation, "__call__"),
    ]
    for owner, name in methods:
        clock.watch(owner, name)
    return clock


def light_executors(clock: Clock) -> list[LightExecutor]:
    """Let sessions use light executors; returns the list to which they are added."""
    started = list[LightExecutor]()

    def start(_settings: object, _gpu_memory: float) -> Executor:
        started.append(LightExecutor(clock))
        return started[-1]

    vars(scheduler)["start_executor"] = start
    return started


def run_all(asked: SessionSettings) -> dict[str, Any]:
    """Run the session until its source is empty; returns what it cost."""
    clock = watched()
    executors = light_executors(clock)
    base, start, wall = memory("VmRSS"), time.process_time(), time.monotonic()
    state = Session(asked, until_empty=True).run()
    return {
        "state": state,
        "cpu": time.process_time() - start - clock.spent["work"],
        "wall": time.monotonic() - wall,
        "base": base,
        "rss": memory("VmRSS"),
        "peak": memory("VmHWM"),
        "task": max(executor.largest for executor in executors),
        "spent": clock.spent,
        "longest": clock.longest,
    }


def run_again(asked: SessionSettings) -> dict[str, Any]:
    """Resume the session, which has nothing left to do, for a while; returns what that cost."""
    clock = watched()
    light_executors(clock)
    start = time.process_time()
    session = Idle(asked)
    session.run()
    return {
        "recover": session.began - start,
        "rss": memory("VmRSS"),
        "peak": memory("VmHWM"),
        "tick": session.ticked / IDLE_TICKS,
        "idle": session.idle / session.wall,
        "spent": clock.spent,
    }


PARTS = {"run": run_all, "resume": run_again}


def part(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run a part in a process of its own."""
    numbers = [f"--{key}={getattr(options, key)}" for key in ("items", "particles", "rounds")]
    command = [sys.executable, "-m", "benchmarks.flow", f"--part={name}", f"--folder={folder}", *numbers]
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command + ["--profile"] * options.profile, stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    *profile, last = done.stdout.splitlines()
    print("\n".join(profile))
    found: dict[str, Any] = json.loads(last)
    return found


def child_seconds(command: list[str]) -> float:
    """Return the CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def megabytes(paths: list[Path]) -> float:
    """Return the size of files in MB."""
    return sum(path.stat().st_size for path in paths) / 1e6


def show(options: argparse.Namespace, folder: Path) -> None:
    """Run all parts, and print what each cost."""
    make_movies(folder / "camera", options.items)
    print(f"{options.items} movies of {options.particles} particles, {options.rounds} rounds of classification")
    first = part("run", options, folder)
    spent, longest = first["spent"], first["longest"]
    shared = spent["refresh"] + spent["close_jobs"]
    print(f"the session ({first['state']}): {1000 * first['cpu'] / options.items:.2f} ms per item")
    print(
        f"  of it projections: {1000 * shared / options.items:.2f} ms, {100 * shared / first['wall']:.0f} % of a core"
    )
    for name, what in (("_write_files", "STAR files"), ("_catch_up", "index"), ("_publish", "RELION's pipeline")):
        print(f"    {what}: {1000 * spent[name] / options.items:.2f} ms, longest {longest[name]:.2f} s")
    for name, what in (("fill", "giving out work"), ("consider", "looking whether a round is due")):
        print(f"  {what}: {1000 * spent[name] / options.items:.2f} ms, longest {longest[name]:.2f} s")
    for names, what in (
        (("look",), "looking at the source"),
        (("take", "__call__"), "taking files in"),
        (("_take_events",), "recording what came of them"),
    ):
        print(f"  {what}: {1000 * sum(spent[name] for name in names) / options.items:.2f} ms")
    print(f"  starting a round: {longest['submit_round']:.2f} s, a task of {first['task'] / 1e6:.1f} MB")
    print(
        f"memory: {first['rss']:.0f} MB at the end, {first['peak']:.0f} at most, {first['base']:.0f} at the beginning"
    )
    project = folder / "out/sessions/many"
    private = project / ".beamside"
    journals = [*private.glob("journal/*.jsonl"), private / "manifest.jsonl"]
    index = list(private.glob("index.sqlite*"))
    print(f"journals: {megabytes(journals):.1f} MB; index: {megabytes(index):.1f} MB")
    again = part("resume", options, folder)
    print(f"recovery of all items: {again['recover']:.2f} s, {again['peak']:.0f} MB at most")
    print(
        f"nothing to do: {1000 * again['tick']:.1f} ms of the loop per tick, {100 * again['idle']:.1f} % of a core in all"
    )
    program = [sys.executable, "-m", "beamside.cli.main"]
    status = child_seconds([*program, "session", "status", str(project)])
    print(f"session status: {status:.2f} s ({child_seconds([*program, '--version']):.2f} s without a project)")
    for path in index:
        path.unlink()
    anew = child_seconds([*program, "session", "status", str(project)])
    print(f"session status that makes the index anew: {anew:.2f} s")


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--particles", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is None:
        with tempfile.TemporaryDirectory(prefix="beamside-flow-", dir=options.folder) as name:
            show(options, Path(name))
        return
    install(options.particles)
    asked = settings(options.folder, options.items, options.particles, options.rounds)
    profile = cProfile.Profile(time.thread_time)
    if options.profile:
        profile.enable()
    found = PARTS[options.part](asked)
    if options.profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        pstats.Stats(profile).sort_stats("cumtime").print_stats(60)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
