"""Blob picking on simulated micrographs with known particles, and on real apoferritin beside a person's picks; RELION's LoG picker on the same files.

Run as ``python -m benchmarks.picking [--seeds N] [--size PIXELS] [--data FOLDER [--pictures FOLDER]]``. The data
folder holds ``sum_unaligned/*.png`` and ``picks_csv/*.csv``; ``--seeds 0`` leaves the simulated ones out.
"""

from __future__ import annotations

import argparse
import csv
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from beamside.imaging.picking import BlobSettings, pick_blobs
from beamside.imaging.pictures import picks_overlay
from beamside.simulate.movie import MovieSettings, simulate_micrograph
from beamside.simulate.score import Picks, match_picks
from beamside.simulate.specimen import make_specimen

Array = NDArray[np.floating]

PIXEL_SIZE = 1.3
GREEN, ORANGE = (40, 230, 90), (255, 150, 40)
MATCH = 0.3
"""A pick counts when it is within this part of the diameter."""


@dataclass(frozen=True)
class Case:
    """A kind of micrograph: specimen, picking range (Å), defocus range (Å) and what else is different."""

    name: str
    specimen: str
    diameters: tuple[float, float]
    defocus: tuple[float, float]
    contamination: float = 0.4
    carbon: float = 0.0
    spacing: float = 260.0


CASES = (
    Case("default, 0.6-1 um", "barrel", (140, 200), (6000, 10000)),
    Case("default, 1-2 um", "barrel", (140, 200), (10000, 20000)),
    Case("default, 2-3 um", "barrel", (140, 200), (20000, 30000)),
    Case("no symmetry", "asymmetric", (140, 200), (8000, 25000)),
    Case("hollow shell, crowded", "shell", (100, 140), (6000, 25000), spacing=160.0),
    Case("contamination x 4", "barrel", (140, 200), (6000, 30000), contamination=1.6),
    Case("carbon edge", "barrel", (140, 200), (6000, 30000), carbon=0.25),
    Case("sparse", "barrel", (140, 200), (6000, 30000), spacing=800.0),
    Case("empty ice", "barrel", (140, 200), (6000, 30000), spacing=0.0),
)


def ours(micrograph: np.ndarray, pixel_size: float, diameters: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Return the picks (y, x) and the CPU seconds."""
    start = time.process_time()
    picks = pick_blobs(torch.from_numpy(micrograph), BlobSettings(pixel_size, *diameters))
    return picks.coordinates.numpy(), time.process_time() - start


def relion(micrograph: np.ndarray, pixel_size: float, diameters: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Return the picks (y, x) of RELION's LoG picker with its defaults, and the CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        with mrcfile.new(Path(folder) / "mic.mrc") as file:
            file.set_data(micrograph)
            file.voxel_size = pixel_size
        low, high = (f"{value:g}" for value in diameters)
        command = f"relion_autopick --i mic.mrc --odir ./ --pickname pick --angpix {pixel_size} --LoG --LoG_diam_min {low} --LoG_diam_max {high}"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        lines = (Path(folder) / "mic_pick.star").read_text().splitlines()
    rows = [line.split() for line in lines if line.strip() and line.split()[0][0] in "-.0123456789"]
    return np.array([[float(row[1]), float(row[0])] for row in rows]).reshape(-1, 2), used


def simulated(seeds: int, size: int) -> None:
    programs = {"beamside": ours} | ({"relion LoG": relion} if shutil.which("relion_autopick") else {})
    print(f"{seeds} micrographs of {size}² each, {PIXEL_SIZE} Å/pixel; a pick counts within {MATCH} diameters\n")
    print(
        f"{'micrographs':24}{'program':12}{'true':>6}{'picked':>8}{'recall':>8}{'precision':>10}{'F1':>7}{'worst':>7}{'CPU s':>7}"
    )
    for case in CASES:
        specimen = make_specimen(case.specimen)
        totals = {name: Picks(0, 0, 0) for name in programs}
        worst, seconds = dict.fromkeys(programs, 1.0), dict.fromkeys(programs, 0.0)
        for seed in range(1000, 1000 + seeds):
            settings = MovieSettings(
                size=(size, size),
                pixel_size=PIXEL_SIZE,
                defocus=case.defocus,
                contamination=case.contamination,
                carbon=case.carbon,
                particle_spacing=case.spacing,
            )
            micrograph, truth = simulate_micrograph(settings, specimen, seed)
            for name, program in programs.items():
                picked, used = program(micrograph, PIXEL_SIZE, case.diameters)
                score = match_picks(truth.particles[:, :2], picked, MATCH * specimen.diameter / PIXEL_SIZE)
                totals[name] += score
                worst[name] = min(worst[name], score.f1)
                seconds[name] += used
        for name, total in totals.items():
            print(
                f"{case.name:24}{name:12}{total.true:6}{total.picked:8}{total.recall:8.3f}{total.precision:10.3f}"
                f"{total.f1:7.3f}{worst[name]:7.3f}{seconds[name] / seeds:7.2f}",
                flush=True,
            )


def apoferritin(folder: Path, pictures: Path | None) -> None:
    programs = {"beamside": ours} | ({"relion LoG": relion} if shutil.which("relion_autopick") else {})
    pixel_size, diameters, border = 1.5, (100.0, 150.0), 50 / 1.5
    print("\nReal apoferritin, beside a person's picks (all at least 50 Å inside, matched within 40 Å)")
    for name, program in programs.items():
        total = Picks(0, 0, 0)
        for path in sorted((folder / "sum_unaligned").glob("*.png")):
            micrograph = np.asarray(Image.open(path)).astype(np.float32)
            with open(folder / f"picks_csv/{path.name}-points.csv", encoding="utf-8") as file:
                human = np.array([[float(y), float(x)] for x, y in csv.reader(file)])
            picked, _ = program(micrograph, pixel_size, diameters)
            if pictures is not None:
                save_beside(pictures / f"{path.stem} {name}.png", micrograph, picked, human, pixel_size)
            limit = np.array(micrograph.shape) - border
            human, picked = (places[((places > border) & (places < limit)).all(axis=1)] for places in (human, picked))
            total += match_picks(human, picked, 40 / pixel_size)
        print(f"{name:12} recall {total.recall:.3f} precision {total.precision:.3f} F1 {total.f1:.3f}")


def save_beside(path: Path, micrograph: Array, picked: Array, human: Array, pixel_size: float) -> None:
    """Draw the program's picks (left) beside the person's (right)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    views = [
        picks_overlay(micrograph, places, 130.0, pixel_size, colour=colour)
        for places, colour in ((picked, GREEN), (human, ORANGE))
    ]
    both = Image.new("RGB", (2 * views[0].width + 8, views[0].height))
    both.paste(views[0], (0, 0))
    both.paste(views[1], (views[0].width + 8, 0))
    both.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--data", type=Path, help="folder with the apoferritin micrographs")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of both picks beside each other")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.seeds:
        simulated(options.seeds, options.size)
    if options.data:
        apoferritin(options.data, options.pictures)


if __name__ == "__main__":
    main()
