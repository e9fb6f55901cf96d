"""What taking files in costs: CPU time of each file beside that of the bare system calls, and of each look at a source of many files.

Run as ``python -m benchmarks.intake [--files N] [--many N ...] [--folder FOLDER] [--profile]``.

Small movies are taken in by one thread, as a session does it. The floor is what the promises ask of the system, and nothing else: read and hash,
write, force to the disk, read back, name, and one line in the manifest. Looks are those at a source of which all files were taken.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import os
import pstats
import tempfile
import time
from pathlib import Path

from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.reports import Arrival
from beamside.acquisition.settings import AcquisitionSettings
from benchmarks.flow import make_movies

LOOKS = 5


def floor(sources: list[str], folder: Path) -> float:
    """Return the CPU seconds of the system calls that taking the files in cannot do without."""
    (folder / "raw").mkdir(parents=True)
    start = time.process_time()
    for number, source in enumerate(sources):
        with open(source, "rb", buffering=0) as file:
            content = file.read()
        digest = hashlib.sha256(content).hexdigest()
        part, final = folder / "raw" / f".{number}", folder / "raw" / f"{number}"
        target = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        os.write(target, content)
        os.fsync(target)
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
        found = hashlib.sha256(os.pread(target, len(content) + 1, 0)).hexdigest()
        os.close(target)
        if found != digest:
            raise OSError(f"{part} differs from {source}")
        os.replace(part, final)
        for path, text in ((folder / "raw", b""), (folder / "manifest", digest.encode() + b"\n")):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if text else os.O_RDONLY
            descriptor = os.open(path, flags, 0o644)
            if text:
                os.write(descriptor, text)
            os.fsync(descriptor)
            os.close(descriptor)
    return time.process_time() - start


def intake(folder: Path, project: Path) -> Intake:
    """Return what takes the files of `folder` into `project`."""
    settings = AcquisitionSettings(data=(str(folder / "**/*_fractions.tiff"),), settle_seconds=0.0)
    return Intake(settings, project / "raw", Manifest(project))


def arrivals(taking: Intake) -> list[Arrival]:
    """Look until every file has been given."""
    found = list[Arrival]()
    while True:
        report = taking.look()
        found += report.new
        if not report.waiting:
            return found


def take_all(folder: Path, project: Path, files: int, profile: cProfile.Profile | None) -> None:
    """Print what it costs to take the files in."""
    make_movies(folder, files)
    taking = intake(folder, project)
    start = time.process_time()
    new = arrivals(taking)
    looked = time.process_time() - start
    start = time.process_time()
    if profile:
        profile.enable()
    for arrival in new:
        taking.take(arrival)
    if profile:
        profile.disable()
    took = time.process_time() - start
    least = floor([arrival.source for arrival in new], project.with_name("floor"))
    each = 1000 / files
    print(f"{files} files: taken in {took * each:.2f} ms each, with looking into each {looked * each:.2f} ms before")
    print(f"  the bare system calls {least * each:.2f} ms")


def look_again(folder: Path, project: Path, files: int, profile: cProfile.Profile | None) -> None:
    """Print what a look costs where all files were taken before: their lines are in the manifest, and nothing was copied."""
    make_movies(folder, files)
    taken = [as_taken(path) for path in sorted(folder.glob("**/*.tiff"))]
    Manifest(project).append(*taken)
    taking = intake(folder, project)
    taking.look()
    start, wall = time.process_time(), time.monotonic()
    if profile:
        profile.enable()
    for _ in range(LOOKS):
        taking.look()
    if profile:
        profile.disable()
    cost, wall = (time.process_time() - start) / LOOKS, (time.monotonic() - wall) / LOOKS
    print(f"{files} files that were taken: {1000 * cost:.1f} ms of CPU each look, {1000 * wall:.1f} ms in all")


def as_taken(path: Path) -> ManifestEntry:
    """Return the line of the manifest of a file that would have been taken."""
    status, mark = path.stat(), hashlib.sha256(path.name.encode()).hexdigest()
    name = f"raw/{path.stem}"
    return ManifestEntry(
        "movie",
        str(path),
        status.st_size,
        status.st_mtime_ns,
        mark,
        f"{name}.tiff",
        status.st_size,
        mark,
        item=name,
        frames=2,
        shape=(32, 32),
        dtype="uint8",
    )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--many", type=int, nargs="*", default=[1000, 5000, 20000])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for files, measure in [(options.files, take_all), *((many, look_again) for many in options.many)]:
        profile = cProfile.Profile(time.process_time) if options.profile else None
        with tempfile.TemporaryDirectory(prefix="beamside-intake-", dir=options.folder) as name:
            measure(Path(name, "camera"), Path(name, "project"), files, profile)
        if profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
