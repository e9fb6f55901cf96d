"""Motion correction beside RELION's own implementation, on simulated movies with known truth.

``python -m benchmarks.motion /tmp/motion-data --size 2048 --frames 40 --seeds 5`` simulates movies (kept in the folder for the next time), corrects
the same files with Beamside and with ``relion_run_motioncorr --use_own`` (when installed) at several of its settings, and prints for each: the
error of the modelled shifts (Å, root mean square over all frames and a 9 × 9 grid, each point's mean over the frames removed), that of the
polynomial in the per-movie STAR file, CPU and wall seconds from the files to the written sums, and the peak memory of the process.

Every correction is a process of its own. Beamside's corrects the movie twice: its workers stay, so the second time, "warm", is what a movie
costs; "cold" is the whole process with one movie, with the start of Python and torch. ``--images`` compares the sums with a still micrograph, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from beamside.formats.movies import open_movie
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.imaging.motion.correction import MotionSettings, correct_movie, model_shifts, polynomial_shifts
from beamside.imaging.motion.model import relion_shifts
from beamside.simulate.displacement import FAMILIES
from beamside.simulate.movie import MovieSettings, simulate_micrograph
from beamside.simulate.score import grid_points, motion_error
from benchmarks.data import MovieFile, movie_files

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Shifts = Callable[[Array], npt.ArrayLike]
RELION = "relion_run_motioncorr"

_METER = """
import json, resource, subprocess, sys
with open(sys.argv[1], "w") as log:
    status = subprocess.run(sys.argv[2:], stdout=log, stderr=log).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6]))
"""
# A small process that starts a program and measures it: the peak memory of a program counts from the fork of what starts it.


@dataclass(frozen=True)
class Measured:
    """One program on one movie: errors (Å), likeness to a still micrograph at 4-6 Å, seconds, peak memory (GB)."""

    program: str
    error: float
    star_error: float = float("nan")
    likeness: float = float("nan")
    cpu: float = float("nan")
    wall: float = float("nan")
    cold_cpu: float = float("nan")
    cold_wall: float = float("nan")
    memory: float = float("nan")


def likeness(image: Image, reference: Image, settings: MovieSettings) -> float:
    """Return the correlation at 4-6 Å with a micrograph of the same field taken without motion and with other noise.

    The highest value over shifts of the whole image is taken: where an image as a whole lies is no fault.
    """
    first, second = _band(image, settings), _band(reference, settings)
    product = np.fft.irfft2(first * second.conj(), s=image.shape)
    norm = np.fft.irfft2(np.abs(first) ** 2)[0, 0] * np.fft.irfft2(np.abs(second) ** 2)[0, 0]
    return float(product.max() / np.sqrt(norm))


def _band(image: Image, settings: MovieSettings) -> npt.NDArray[np.complex128]:
    fy = np.fft.fftfreq(image.shape[0])[:, None] / settings.pixel_size
    frequency = np.hypot(fy, np.fft.rfftfreq(image.shape[1]) / settings.pixel_size)
    spectrum: npt.NDArray[np.complex128] = np.fft.rfft2(image - image.mean())
    spectrum[(frequency < 1 / 6) | (frequency > 1 / 4)] = 0
    return spectrum


def correct_as_worker(path: Path, gain: Path, settings: MotionSettings, threads: int, output: Path) -> None:
    """Correct a movie twice, as a worker does: read the files, correct, write the sum. Prints what was measured, as JSON."""
    times = []
    for _ in range(2):
        before, start = time.process_time(), time.perf_counter()
        with open_movie(path) as movie:
            frames = movie.read(threads=threads)
        result = correct_movie(frames, read_mrc(gain), None, settings, threads=threads)
        del frames
        write_mrc(output, result.micrograph.numpy(), settings.pixel_size)
        times.append((time.process_time() - before, time.perf_counter() - start, time.process_time()))
    points = torch.from_numpy(grid_points(result.shape))
    print(
        json.dumps(
            {
                "model": model_shifts(result, points).tolist(),
                "polynomial": polynomial_shifts(result, points).tolist(),
                "cpu": times[1][0],
                "wall": times[1][1],
                "cold_cpu": times[0][2],
                "memory": peak_memory(),
            }
        )
    )


def peak_memory() -> float:
    """Return the peak memory of this process since its program started, GB."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1e6


def run_beamside(movie: MovieFile, threads: int, still: Image | None) -> Measured:
    """Correct the movie with Beamside in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "sum.mrc"
        command = [sys.executable, "-m", "benchmarks.motion", "--worker", str(movie.path), str(movie.gain), str(output)]
        settings = movie.truth.settings
        command += [str(settings.pixel_size), str(settings.voltage), str(settings.dose_per_frame), str(threads)]
        start = time.perf_counter()
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        everything = time.perf_counter() - start
        seen = json.loads(done.stdout)
        return Measured(
            "beamside",
            motion_error(movie.truth, lambda _: seen["model"]),
            motion_error(movie.truth, lambda _: seen["polynomial"]),
            float("nan") if still is None else likeness(np.asarray(read_mrc(output)), still, settings),
            seen["cpu"],
            seen["wall"],
            seen["cold_cpu"],
            everything - seen["wall"],
            seen["memory"],
        )


def run_relion(movie: MovieFile, threads: int, setting: str, still: Image | None) -> Measured:
    """Correct the movie with RELION; `setting` is patches and B-factor, such as ``5x5`` or ``5x5:500``."""
    settings = movie.truth.settings
    patches, _, b_factor = setting.partition(":")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / f"movie{movie.path.suffix}"
        file.symlink_to(movie.path.resolve())
        write_star(folder / "movies.star", relion_movies(file.name, settings))
        command = [RELION, "--i", "movies.star", "--o", "relion/", "--use_own", "--j", str(threads)]
        command += ["--gainref", str(movie.gain.resolve()), "--bfactor", b_factor or "150", "--dose_weighting"]
        command += ["--patch_x", patches.split("x")[0], "--patch_y", patches.split("x")[1]]
        command += ["--dose_per_frame", str(settings.dose_per_frame), "--preexposure", "0"]
        start = time.perf_counter()
        meter = [sys.executable, "-c", _METER, str(folder / "log"), *command]
        done = subprocess.run(meter, cwd=folder, capture_output=True, text=True, check=True)
        wall = time.perf_counter() - start
        status, cpu, memory = json.loads(done.stdout)
        if status:
            raise RuntimeError(f"{RELION} failed: {(folder / 'log').read_text()[-2000:]}")
        error = motion_error(
            movie.truth, relion_model(read_star(folder / "relion" / "movie.star"), movie.truth.settings.size)
        )
        alike = float("nan")
        if still is not None:
            alike = likeness(np.asarray(read_mrc(folder / "relion" / "movie.mrc"), dtype=np.float32), still, settings)
        return Measured(f"relion {setting}", error, error, alike, cpu, wall, cpu, wall, memory)


def relion_movies(name: str, settings: MovieSettings) -> list[StarBlock]:
    """Return the STAR file that names a movie to RELION."""
    optics = StarBlock.from_mapping(
        "optics",
        {
            "rlnOpticsGroupName": "opticsGroup1",
            "rlnOpticsGroup": 1,
            "rlnMicrographOriginalPixelSize": settings.pixel_size,
            "rlnVoltage": settings.voltage,
            "rlnSphericalAberration": settings.spherical_aberration,
            "rlnAmplitudeContrast": settings.amplitude_contrast,
        },
    )
    optics.loop = True
    movies = StarBlock.from_records("movies", [{"rlnMicrographMovieName": name, "rlnOpticsGroup": 1}])
    return [optics, movies]


def relion_model(blocks: dict[str, StarBlock], shape: tuple[int, int]) -> Shifts:
    """Return the motion model of a per-movie STAR file."""
    track = blocks["global_shift"]
    moved = np.stack([track.floats("rlnMicrographShiftY"), track.floats("rlnMicrographShiftX")], axis=1)
    model = blocks.get("local_motion_model")

    def shifts(points: Array) -> Array:
        values: Array = np.repeat(moved[:, None], len(points), axis=1)
        if model is not None:
            coefficients = torch.from_numpy(model.floats("rlnMotionModelCoeff").copy())
            values = values + relion_shifts(coefficients, torch.from_numpy(points), shape, len(moved)).numpy()
        return values

    return shifts


def floor(movie: MovieFile, threads: int) -> str:
    """Return how long what no program can do without takes: decoding, one transform of each frame, one back."""
    torch.set_num_threads(threads)
    start, before = time.perf_counter(), time.process_time()
    with open_movie(movie.path) as opened:
        count = opened.frames
        frames = opened.read(threads=threads)
    decoded, decoding = time.perf_counter() - start, time.process_time() - before
    frame = torch.from_numpy(frames[0]).to(torch.float32)
    torch.fft.irfft2(torch.fft.rfft2(frame), s=frame.shape)
    start, before = time.perf_counter(), time.process_time()
    for _ in range(4):
        spectrum = torch.fft.rfft2(frame)
    transforms, transforming = time.perf_counter() - start, time.process_time() - before
    torch.fft.irfft2(spectrum, s=frame.shape)
    back, backwards = time.perf_counter() - start - transforms, time.process_time() - before - transforming
    wall = decoded + transforms / 4 * count + back
    cpu = decoding + transforming / 4 * count + backwards
    return (
        f"floor: decoding {decoded:.2f} s, {count} transforms {transforms / 4 * count:.2f} s, one back {back:.2f} s: "
        f"{wall:.2f} s wall, {cpu:.2f} CPU-s"
    )


def measure(movie: MovieFile, threads: int, relion: list[str], images: bool) -> Iterator[Measured]:
    """Correct one movie with each program; yield each one's results as they come."""
    still = simulate_micrograph(movie.truth.settings, seed=movie.truth.seed)[0] if images else None
    yield Measured("uncorrected", motion_error(movie.truth))
    yield run_beamside(movie, threads, still)
    if shutil.which(RELION):
        for setting in relion:
            yield run_relion(movie, threads, setting, still)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        path, gain, output = (Path(name) for name in sys.argv[2:5])
        pixel_size, voltage, dose = (float(value) for value in sys.argv[5:8])
        correct_as_worker(path, gain, MotionSettings(pixel_size, voltage, dose), int(sys.argv[8]), output)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the simulated movies are kept")
    parser.add_argument("--size", type=int, nargs="+", default=[2048], help="side, or height and width, in pixels")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--pixel-size", type=float, default=1.0, help="Å")
    parser.add_argument("--dose", type=float, default=1.0, help="e/Å² per frame")
    parser.add_argument("--local", type=float, default=2.0, help="local motion, Å rms by the last frame")
    parser.add_argument("--family", choices=FAMILIES, default=FAMILIES[0], help="of the local motion")
    parser.add_argument("--carbon", type=float, default=0.0, help="fraction of the field on carbon")
    parser.add_argument("--jump", type=int, default=0, help="a frame before which the field jumps by 15 Å")
    parser.add_argument("--empty", action="store_true", help="no particles, no contamination")
    parser.add_argument("--suffix", choices=(".tiff", ".mrcs"), default=".tiff", help="LZW TIFF, or 8-bit MRC")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--relion", nargs="*", default=["5x5", "7x7", "1x1"], help="patches, and :B-factor if not 150")
    parser.add_argument("--images", action="store_true", help="compare the sums with a still micrograph")
    options = parser.parse_args()
    height, width = (options.size * 2)[:2]
    settings = MovieSettings(
        size=(height, width),
        frames=options.frames,
        pixel_size=options.pixel_size,
        dose_per_frame=options.dose,
        local_motion=options.local,
        local_family=options.family,
        carbon=options.carbon,
        jump=options.jump,
    )
    if options.empty:
        settings = replace(settings, particle_spacing=0.0, contamination=0.0)
    print(
        f"{height} × {width} × {options.frames} {options.suffix}, {options.pixel_size} Å, {options.dose} e/Å²/frame, "
        f"local motion: {options.family}, {options.threads} threads"
    )
    print(
        f"{'seed':>4} {'program':14} {'error Å':>8} {'STAR Å':>8} {'likeness':>8} {'CPU s':>7} {'wall s':>7} "
        f"{'cold CPU':>8} {'and wall':>8} {'GB':>6}"
    )
    everything: list[Measured] = []
    for movie in movie_files(options.folder, settings, range(1, options.seeds + 1), suffix=options.suffix):
        for row in measure(movie, options.threads, options.relion, options.images):
            everything.append(row)
            print(f"{movie.truth.seed:4d} " + _row(row), flush=True)
    names = dict.fromkeys(row.program for row in everything)
    means = {name: _mean([row for row in everything if row.program == name]) for name in names}
    for mean in means.values():
        print("mean " + _row(mean))
    print(floor(movie, options.threads))
    for name, theirs in means.items():
        ours = means["beamside"]
        if name.startswith("relion"):
            print(
                f"beamside / {name}: error {ours.error / theirs.error:.2f}, STAR {ours.star_error / theirs.star_error:.2f}, "
                f"CPU {ours.cpu / theirs.cpu:.2f}, wall {ours.wall / theirs.wall:.2f}, "
                f"cold CPU {ours.cold_cpu / theirs.cpu:.2f}, memory {ours.memory / theirs.memory:.2f}"
            )


def _mean(rows: list[Measured]) -> Measured:
    names = [field.name for field in fields(Measured)][1:]
    return Measured(rows[0].program, *(float(np.mean([getattr(row, name) for row in rows])) for name in names))


def _row(row: Measured) -> str:
    def number(value: float, width: int, digits: int) -> str:
        return f"{value:{width}.{digits}f}" if np.isfinite(value) else f"{'-':>{width}}"

    widths = [(8, 3), (8, 3), (8, 3), (7, 2), (7, 2), (8, 2), (8, 2), (6, 2)]
    values = [getattr(row, field.name) for field in fields(Measured)][1:]
    return f"{row.program:14} " + " ".join(number(value, *form) for value, form in zip(values, widths, strict=True))


if __name__ == "__main__":
    main()
