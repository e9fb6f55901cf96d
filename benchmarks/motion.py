"""Motion correction beside RELION's own implementation, on simulated movies with known truth.

``python -m benchmarks.motion --size 2048 --frames 40 --seeds 3`` simulates movies, corrects the same files with Beamside and with
``relion_run_motioncorr --use_own`` (when installed), and prints for each: the error of the modelled shifts (Å, root mean square over all
frames and a 9 × 9 grid, each point's mean over the frames removed), the power of the dose-weighted sum at 4-6 Å, its correlation there with a
micrograph of the same field without motion and with other noise, CPU and wall seconds.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from beamside.formats.movies import open_movie
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import StarBlock, read_star, write_star
from beamside.imaging.dose import dose_weights, exposures, weight_norm
from beamside.imaging.motion import MotionSettings, correct_movie, model_shifts, polynomial_shifts
from beamside.imaging.motion_model import relion_shifts
from beamside.simulate.movie import Movie, MovieSettings, simulate_micrograph, simulate_movie
from beamside.simulate.score import motion_error

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Shifts = Callable[[Array], npt.ArrayLike]
RELION = "relion_run_motioncorr"


@dataclass
class Measured:
    """One program on one movie.

    Error of its shifts and of those that its STAR file gives (Å), power of the dose-weighted sum at 4-6 Å, its likeness there to a micrograph
    without motion, seconds.
    """

    program: str
    error: float
    star_error: float
    power: float
    likeness: float
    cpu: float = float("nan")
    wall: float = float("nan")


def band_power(image: Image, settings: MovieSettings) -> float:
    """Return the mean power of the image at 4-6 Å per pixel."""
    spectrum = _band(image, settings)
    return float((np.abs(spectrum) ** 2).sum() / (spectrum != 0).sum() / image.size)


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


def uncorrected_sum(movie: Movie) -> Image:
    """Return the dose-weighted sum without any motion correction; defective pixels get the frame's mean."""
    settings = movie.truth.settings
    bad = np.zeros(settings.size, dtype=bool)
    for pixels in (movie.gain.dead, movie.gain.hot):
        bad[pixels[:, 0], pixels[:, 1]] = True
    fy = torch.fft.fftfreq(settings.size[0])[:, None]
    frequency = torch.sqrt(fy**2 + torch.fft.rfftfreq(settings.size[1]) ** 2) / settings.pixel_size
    exposure = exposures(settings.frames, settings.dose_per_frame)
    total, square = torch.zeros(frequency.shape, dtype=torch.complex64), torch.zeros(frequency.shape)
    for frame, dose in zip(movie.counts, exposure, strict=True):
        values = frame * movie.gain.gain
        values[bad] = values[~bad].mean()
        weight = dose_weights(frequency, dose[None], settings.voltage)[0]
        total += torch.fft.rfft2(torch.from_numpy(values)) * weight
        square += weight**2
    image: Image = torch.fft.irfft2(total / weight_norm(square.sqrt()[None]), s=settings.size).numpy()
    return image


def run_beamside(movie: Movie, file: Path, gain: Path, threads: int, still: Image) -> Measured:
    """Read the files, correct, write the sums; the program is warm, as Beamside's workers are."""
    settings = movie.truth.settings
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with open_movie(file) as opened:
        frames = opened.read(threads=threads)
    result = correct_movie(
        frames,
        read_mrc(gain),
        None,
        MotionSettings(settings.pixel_size, settings.voltage, settings.dose_per_frame),
        threads=threads,
    )
    assert result.dose_weighted is not None
    image = result.dose_weighted.numpy()
    write_mrc(file.with_name("ours.mrc"), image, settings.pixel_size)
    write_mrc(file.with_name("ours_noDW.mrc"), result.average.numpy(), settings.pixel_size)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return Measured(
        "beamside",
        motion_error(movie.truth, lambda points: model_shifts(result, torch.from_numpy(points)).numpy()),
        motion_error(movie.truth, lambda points: polynomial_shifts(result, torch.from_numpy(points)).numpy()),
        band_power(image, settings),
        likeness(image, still, settings),
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        wall,
    )


def run_relion(movie: Movie, file: Path, gain: Path, threads: int, patches: int, still: Image) -> Measured:
    """Correct the same file with RELION."""
    settings = movie.truth.settings
    folder, name = file.parent, file.stem
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
    movies = StarBlock.from_records("movies", [{"rlnMicrographMovieName": file.name, "rlnOpticsGroup": 1}])
    write_star(folder / "movies.star", [optics, movies])
    command = [RELION, "--i", "movies.star", "--o", "relion/", "--use_own", "--j", str(threads), "--gainref", gain.name]
    command += ["--patch_x", str(patches), "--patch_y", str(patches), "--bfactor", "150", "--dose_weighting"]
    command += ["--dose_per_frame", str(settings.dose_per_frame), "--preexposure", "0", "--save_noDW"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{RELION} failed: {done.stderr[-2000:]}")
    shifts = relion_model(read_star(folder / "relion" / f"{name}.star"), settings.size)
    error = motion_error(movie.truth, shifts)
    image = np.asarray(read_mrc(folder / "relion" / f"{name}.mrc"), dtype=np.float32)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    power = band_power(image, settings)
    return Measured("relion", error, error, power, likeness(image, still, settings), cpu, wall)


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


def measure(settings: MovieSettings, seed: int, threads: int, patches: int) -> list[Measured]:
    """Simulate one movie and correct it with each program."""
    movie = simulate_movie(settings, seed=seed)
    still, _ = simulate_micrograph(settings, seed=seed)
    plain = uncorrected_sum(movie)
    error = motion_error(movie.truth)
    results = [Measured("uncorrected", error, error, band_power(plain, settings), likeness(plain, still, settings))]
    with tempfile.TemporaryDirectory() as directory:
        file, gain = Path(directory) / "movie.mrcs", Path(directory) / "gain.mrc"
        write_mrc(file, movie.counts.astype(np.int16), settings.pixel_size)
        write_mrc(gain, movie.gain.gain, settings.pixel_size)
        results.append(run_beamside(movie, file, gain, threads, still))
        if shutil.which(RELION):
            results.append(run_relion(movie, file, gain, threads, patches, still))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[2048], help="side, or height and width, in pixels")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--pixel-size", type=float, default=1.0, help="Å")
    parser.add_argument("--dose", type=float, default=1.0, help="e/Å² per frame")
    parser.add_argument("--local", type=float, default=2.0, help="local motion, Å rms by the last frame")
    parser.add_argument("--carbon", type=float, default=0.0, help="fraction of the field on carbon")
    parser.add_argument("--jump", type=int, default=0, help="a frame before which the field jumps by 15 Å")
    parser.add_argument("--empty", action="store_true", help="no particles, no contamination")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patches", type=int, default=5, help="RELION's patches along each axis")
    options = parser.parse_args()
    height, width = (options.size * 2)[:2]
    contents = {"particle_spacing": 0.0, "contamination": 0.0} if options.empty else {}
    settings = MovieSettings(
        size=(height, width),
        frames=options.frames,
        pixel_size=options.pixel_size,
        dose_per_frame=options.dose,
        local_motion=options.local,
        carbon=options.carbon,
        jump=options.jump,
        **contents,
    )
    print(
        f"{height} × {width} × {options.frames}, {options.pixel_size} Å, {options.dose} e/Å²/frame, {options.threads} threads"
    )
    print(
        f"{'seed':>4} {'program':12} {'error Å':>8} {'STAR Å':>8} {'4-6 Å: power':>13} {'likeness':>8} {'CPU s':>7} {'wall s':>7}"
    )
    everything: list[Measured] = []
    for seed in range(1, options.seeds + 1):
        for row in measure(settings, seed, options.threads, options.patches):
            everything.append(row)
            print(f"{seed:4d} " + _row(row))
    means = {
        name: _mean([row for row in everything if row.program == name])
        for name in dict.fromkeys(r.program for r in everything)
    }
    for mean in means.values():
        print("mean " + _row(mean))
    if "relion" in means:
        ours, theirs = means["beamside"], means["relion"]
        print(
            f"beamside / relion: error {ours.error / theirs.error:.2f}, STAR {ours.star_error / theirs.star_error:.2f}, "
            f"CPU {ours.cpu / theirs.cpu:.2f}, wall {ours.wall / theirs.wall:.2f}"
        )


def _mean(rows: list[Measured]) -> Measured:
    names = ("error", "star_error", "power", "likeness", "cpu", "wall")
    return Measured(rows[0].program, *(float(np.mean([getattr(row, name) for row in rows])) for name in names))


def _row(row: Measured) -> str:
    times = f"{row.cpu:7.2f} {row.wall:7.2f}" if np.isfinite(row.cpu) else f"{'-':>7} {'-':>7}"
    return f"{row.program:12} {row.error:8.3f} {row.star_error:8.3f} {row.power:13.3f} {row.likeness:8.3f} {times}"


if __name__ == "__main__":
    main()
