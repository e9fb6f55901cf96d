"""A simulated microscope that runs as its own process: ``python -m beamside.simulate.microscope --output CAMERA --truth DIR --movies 20``.

It writes the gain reference, then movies at a steady rate, as a camera does: each file grows in place under its final name, and EPU's XML follows.
The truth goes to a folder of its own. The same options give the same bytes; started again, it goes on after the last movie that is complete.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from beamside.simulate.gain import GainReference
    from beamside.simulate.movie import Movie, MovieSettings, MovieTruth

START = datetime(2026, 1, 12, 9, 0, 0, tzinfo=UTC)
"""When the simulated session began, for file names and XML: fixed, so that a run can be repeated."""
SECONDS = 5
"""Between two exposures, in names and XML; not how fast they are written, so that a run at another rate gives the same files."""
SEEDS = 1_000_000
"""Movie `i` of the session with seed `s` has the seed ``SEEDS * s + i``."""
MOST_RAW_FRAMES = 255
EXPOSURE_SECONDS = 0.05
"""Of a frame."""
FLUSHES = 8
"""Pieces in which a movie reaches the disk."""


def movie_name(seed: int, index: int) -> str:
    """Return the stem of movie `index`, in EPU's manner: grid hole, exposure, time; the same for the same seed and index."""
    rng = np.random.default_rng([seed, 77])
    hole, first, second = (int(number) for number in rng.integers(5_000_000, 9_000_000, 3))
    moment = START + timedelta(seconds=index * SECONDS)
    return f"FoilHole_{hole + 3 * (index // 4)}_Data_{first}_{second}_{index:04d}_{moment:%Y%m%d}_{moment:%H%M%S}"


def movie_bytes(counts: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Return the TIFF file of a movie: LZW, one page a frame; TIFF stores the top row first, our arrays (as MRC) the bottom row."""
    import tifffile

    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for frame in counts:
            writer.write(
                frame[::-1],
                photometric="minisblack",
                compression="lzw",
                rowsperstrip=128,
                metadata=None,
                software="beamside simulated microscope",
            )
    return buffer.getvalue()


def eer_file(movie: Movie, raw_frames: int, seed: int) -> bytes:
    """Return the EER file of a movie, each of whose frames becomes `raw_frames` raw ones; a hot pixel counts in each of them at most."""
    from beamside.formats.eer import Coding
    from beamside.simulate.eer import camera_xml, eer_bytes, split_counts

    settings, coding = movie.truth.settings, Coding(7, 2, 2)
    total = settings.frames * raw_frames
    dose = settings.dose_per_frame * settings.frames
    rng = np.random.default_rng([seed, 79])
    frames = (split_counts(np.minimum(counts, raw_frames), raw_frames, coding, rng) for counts in movie.counts)
    metadata = camera_xml(total, settings.size, settings.pixel_size, dose, settings.frames * EXPOSURE_SECONDS)
    return eer_bytes((raw for fraction in frames for raw in fraction), settings.size, coding, metadata)


def write_gain(path: Path, gain: GainReference, pixel_size: float) -> None:
    """Write the gain reference as an MRC file, which appears whole."""
    import mrcfile

    temporary = path.with_name(f".{path.name}.part")
    with mrcfile.new(temporary, overwrite=True) as file:
        file.set_data(gain.gain)
        file.voxel_size = pixel_size
        # the library dates its label; the same options must give the same bytes
        file.header.label[0] = b"Gain reference of a simulated camera"
    temporary.replace(path)


class Microscope:
    """Writes movies of one session.

    Parameters
    ----------
    output : the camera's folder
    truth : folder for the truth, outside the camera's
    settings, specimen, seed : what to simulate
    rate : movies per minute
    raw_frames : raw frames of each frame, for EER movies; 0 for TIFF
    """

    def __init__(
        self,
        output: Path,
        truth: Path,
        settings: MovieSettings,
        specimen: str,
        seed: int,
        rate: float,
        raw_frames: int = 0,
    ) -> None:
        self.output = output
        self.truth = truth
        self.settings = settings
        self.specimen = specimen
        self.seed = seed
        self.rate = rate
        self.raw_frames = raw_frames
        self.stopping = False

    def run(self, movies: int) -> int:
        """Write `movies` movies, less those that are there; return how many there are at the end."""
        from beamside.simulate.gain import gain_reference

        self.output.mkdir(parents=True, exist_ok=True)
        self.truth.mkdir(parents=True, exist_ok=True)
        self._refuse_others()
        missing = [index for index in range(movies) if not self._truth_path(index).exists()]
        gain = gain_reference(self.settings.size, self.settings.gain_seed)
        if len(missing) == movies or not (self.output / "gain.mrc").exists():
            write_gain(self.output / "gain.mrc", gain, self.settings.pixel_size)
        if len(missing) < movies:
            say(f"{movies - len(missing)} of {movies} movies are there already.")
        began = time.monotonic()
        for number, index in enumerate(missing):
            data, truth = self._expose(index, gain)
            self._wait(began + number * 60 / self.rate)
            if self.stopping or not self._write(index, data):
                say("Stopped.")
                return movies - len(missing) + number
            self._finish(index, truth)
            say(f"{index + 1}/{movies} {movie_name(self.seed, index)} {len(data) / 1e6:.1f} MB")
        say(f"All {movies} movies are written.")
        return movies

    def stop(self) -> None:
        """Ask the microscope to stop as soon as it can."""
        self.stopping = True

    def _truth_path(self, index: int) -> Path:
        return self.truth / f"{movie_name(self.seed, index)}.json"

    def _refuse_others(self) -> None:
        """Raise an error when the folder of truths has movies of another session: the two would be taken for one."""
        from beamside.errors import ConfigError
        from beamside.simulate.movie import MovieTruth

        for path in sorted(self.truth.glob("FoilHole_*.json")):
            truth = MovieTruth.load(path)
            if (truth.settings, truth.specimen, truth.seed // SEEDS) != (self.settings, self.specimen, self.seed):
                raise ConfigError(
                    f"{path} is of a movie with other settings; repeat them, or choose a new --output and --truth."
                )

    def _expose(self, index: int, gain: GainReference) -> tuple[bytes, MovieTruth]:
        from beamside.simulate.movie import simulate_movie
        from beamside.simulate.specimen import make_specimen

        seed = SEEDS * self.seed + index
        movie = simulate_movie(self.settings, make_specimen(self.specimen), seed, gain)
        data = eer_file(movie, self.raw_frames, seed) if self.raw_frames else movie_bytes(movie.counts)
        return data, movie.truth

    def _wait(self, moment: float) -> None:
        while not self.stopping and (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    def _write(self, index: int, data: bytes) -> bool:
        """Write a movie piece by piece; False when told to stop in between, which leaves a truncated file, as a microscope would."""
        ending = "EER.eer" if self.raw_frames else "Fractions.tiff"
        path = self.output / f"{movie_name(self.seed, index)}_{ending}"
        if path.exists() and path.read_bytes() == data:
            # killed before it said so: whoever watches the folder may have taken the movie already, so it is left alone
            return True
        pause = min(0.05, 10 / self.rate / FLUSHES)
        size = -(-len(data) // FLUSHES)
        with path.open("wb") as file:
            for start in range(0, len(data), size):
                if self.stopping:
                    return False
                file.write(data[start : start + size])
                file.flush()
                time.sleep(pause)
        return True

    def _finish(self, index: int, truth: MovieTruth) -> None:
        """Write what belongs to a movie that is on disk: XML, and last the truth, which marks it as complete."""
        name = movie_name(self.seed, index)
        path = self.output / f"{name}.xml"
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_bytes(self._xml(index, truth))
        temporary.replace(path)
        truth.save(self._truth_path(index))

    def _xml(self, index: int, truth: MovieTruth) -> bytes:
        from beamside.simulate.epu import Exposure, epu_xml

        settings, rng = truth.settings, np.random.default_rng([self.seed, index, 78])
        defocus = (truth.defocus.u + truth.defocus.v) / 2
        row, column = divmod(index // 4, 10)
        exposure = Exposure(
            identifier="-".join(rng.bytes(size).hex() for size in (4, 2, 2, 2, 6)),
            time=START + timedelta(seconds=index * SECONDS),
            size=settings.size,
            pixel_size=settings.pixel_size,
            voltage=settings.voltage,
            dose=settings.dose_per_frame * settings.frames,
            exposure_time=settings.frames * EXPOSURE_SECONDS,
            applied_defocus=round(defocus, -3),
            measured_defocus=round(defocus + rng.normal(0, 300), 1),
            beam_shift=((index % 2 - 0.5) * 0.04, (index // 2 % 2 - 0.5) * 0.04),
            stage=(column * 2.5e-6 - 1e-5, row * 2.5e-6, -2.2e-5 + rng.normal(0, 1e-7), 0.0),
        )
        return epu_xml(exposure)


def say(sentence: str) -> None:
    """Print a line of progress at once, also into a pipe."""
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m beamside.simulate.microscope", description="Simulate a microscope that writes movies."
    )
    parser.add_argument("--output", type=Path, required=True, help="the camera's folder")
    parser.add_argument(
        "--truth",
        type=Path,
        required=True,
        help="folder for what is true about each movie; not inside the camera's folder",
    )
    parser.add_argument("--movies", type=int, default=20, help="number of movies (%(default)s)")
    parser.add_argument("--size", type=int, default=1536, help="height and width in pixels (%(default)s)")
    parser.add_argument("--frames", type=int, default=24, help="frames per movie (%(default)s)")
    parser.add_argument("--rate", type=float, default=15.0, help="movies per minute (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other movies (%(default)s)")
    parser.add_argument("--pixel-size", type=float, default=1.3, help="Å (%(default)s)")
    parser.add_argument("--dose", type=float, default=1.0, help="e/Å² per frame (%(default)s)")
    parser.add_argument("--voltage", type=float, default=300.0, help="kV (%(default)s)")
    parser.add_argument("--specimen", default="barrel", help="barrel, asymmetric or shell (%(default)s)")
    parser.add_argument(
        "--spacing", type=float, default=260.0, help="one particle for each square of this width in Å (%(default)s)"
    )
    parser.add_argument(
        "--carbon", type=float, default=0.0, help="fraction of each field on the carbon film (%(default)s)"
    )
    parser.add_argument(
        "--eer",
        type=int,
        default=0,
        metavar="FRAMES",
        help="write EER movies, with so many raw frames for each frame of --frames; without it, TIFF movies",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the microscope until its movies are written, or until SIGTERM or SIGINT, which end it cleanly; return the exit status."""
    from beamside.errors import BeamsideError
    from beamside.simulate.movie import MovieSettings
    from beamside.simulate.specimen import make_specimen

    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rate <= 0 or options.movies < 0 or options.seed < 0:
        parser.error("--rate must be above 0, --movies and --seed not below 0")
    if options.eer < 0 or options.eer > MOST_RAW_FRAMES:
        parser.error(f"--eer must be 0 to {MOST_RAW_FRAMES}")
    if options.truth.resolve().is_relative_to(options.output.resolve()):
        parser.error(
            f"--truth {options.truth} is inside the camera's folder, where a session would take it for data; choose another place"
        )
    try:
        make_specimen(options.specimen)
        settings = MovieSettings(
            size=(options.size, options.size),
            frames=options.frames,
            pixel_size=options.pixel_size,
            dose_per_frame=options.dose,
            voltage=options.voltage,
            particle_spacing=options.spacing,
            carbon=options.carbon,
        )
    except BeamsideError as error:
        parser.error(str(error))
    microscope = Microscope(
        options.output, options.truth, settings, options.specimen, options.seed, options.rate, options.eer
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        microscope.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        microscope.run(options.movies)
    except BeamsideError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
