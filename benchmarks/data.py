"""Simulated data for the benchmarks, made once and kept: ``python -m benchmarks.data FOLDER --size 2048 --frames 40 --seeds 1 2 3``."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import mrcfile

from beamside.simulate.gain import gain_reference
from beamside.simulate.microscope import movie_bytes, write_gain
from beamside.simulate.movie import MovieSettings, MovieTruth, simulate_movie
from beamside.simulate.specimen import make_specimen


@dataclass(frozen=True)
class MovieFile:
    """A movie on disk, its gain reference and the truth about it."""

    path: Path
    gain: Path
    truth: MovieTruth


def movie_files(
    folder: Path, settings: MovieSettings, seeds: Iterable[int], specimen: str = "barrel", suffix: str = ".tiff"
) -> list[MovieFile]:
    """Return movies of `settings`, one for each seed; those that are not in `folder` yet are made.

    `suffix` is ``.tiff`` (LZW, as the simulated microscope writes) or ``.mrcs`` (8-bit; RELION reads it in file order, but TIFF upside down).
    """
    described = json.dumps([asdict(settings), specimen], sort_keys=True)
    place = folder / hashlib.sha256(described.encode()).hexdigest()[:12]
    place.mkdir(parents=True, exist_ok=True)
    (place / "settings.json").write_text(described, encoding="utf-8")
    gain_path = place / "gain.mrc"
    if not gain_path.exists():
        write_gain(gain_path, gain_reference(settings.size, settings.gain_seed), settings.pixel_size)
    return [_movie_file(place, settings, seed, specimen, suffix) for seed in seeds]


def _movie_file(place: Path, settings: MovieSettings, seed: int, specimen: str, suffix: str) -> MovieFile:
    path, truth_path = place / f"movie{seed:04d}{suffix}", place / f"movie{seed:04d}.json"
    if not (path.exists() and truth_path.exists()):
        movie = simulate_movie(settings, make_specimen(specimen), seed)
        temporary = path.with_name(f"part-{path.name}")
        if suffix == ".tiff":
            temporary.write_bytes(movie_bytes(movie.counts))
        else:
            with mrcfile.new(temporary, overwrite=True) as file:
                file.set_data(movie.counts.clip(max=127).astype("int8"))
        temporary.replace(path)
        movie.truth.save(truth_path)
    return MovieFile(path, place / "gain.mrc", MovieTruth.load(truth_path))


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate movies for benchmarks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, nargs="+", default=[2048], help="edge, or height and width, in pixels")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--pixel-size", type=float, default=1.2)
    parser.add_argument("--dose", type=float, default=1.0, help="e/Å² per frame")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--suffix", choices=(".tiff", ".mrcs"), default=".tiff")
    options = parser.parse_args()
    size = (options.size[0], options.size[-1])
    settings = MovieSettings(
        size=size, frames=options.frames, pixel_size=options.pixel_size, dose_per_frame=options.dose
    )
    for file in movie_files(options.folder, settings, options.seeds, suffix=options.suffix):
        print(file.path)


if __name__ == "__main__":
    main()
