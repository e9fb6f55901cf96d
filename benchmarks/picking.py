"""Picking on simulated micrographs with known particles, by size and with references, and on real apoferritin; RELION on the same files.

Run as ``python -m benchmarks.picking [--seeds N] [--first SEED] [--size PIXELS] [--case TEXT ...] [--without TEXT ...] [--speed PIXELS]
[--data FOLDER] [--pictures FOLDER]``. The data folder holds ``sum_unaligned/*.png`` and ``picks_csv/*.csv``; ``--seeds 0`` leaves the simulated
micrographs out.

Both programs get the same ten projections of the specimen as references, on the grey scale that class averages of normalised particles have
(RELION's scores depend on it), and the true CTF. RELION's picks are judged with its defaults, and with the threshold that is the best for the
case (its "best" rows), which only who knows the truth can choose. Beamside's have the threshold that it finds itself.

RELION is started for every micrograph and prepares its references each time, so the CPU seconds of the first table are not to be compared. What
a further micrograph costs is in the last table: RELION's time for three minus that for one, halved.
"""

from __future__ import annotations

import argparse
import csv
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import mrcfile
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from beamside.imaging.particles import extract_particles
from beamside.imaging.picking.blobs import BlobSettings, pick_blobs
from beamside.imaging.picking.candidates import accept
from beamside.imaging.picking.templates import Ctf, References, pick_templates
from beamside.imaging.pictures import picks_overlay
from beamside.simulate.movie import MovieSettings, MovieTruth, simulate_micrograph
from beamside.simulate.particles import particle_ctf
from beamside.simulate.score import Picks, match_picks
from beamside.simulate.specimen import make_specimen, project, rotation_from_euler, view_directions

Array = NDArray[np.floating]

PIXEL_SIZE = 1.3
REFERENCES, REFERENCE_BOX, REFERENCE_PIXEL = 10, 72, 3.9
"""Number, size and pixel size (Å) of the references."""
ANGLE = 5.0
GREEN, ORANGE = (40, 230, 90), (255, 150, 40)
MATCH = 0.3
"""A pick counts when it is within this part of the diameter."""
FIRST_SEED = 1000
SCALE_SEED = 900
"""Seed of the micrograph whose particles tell the references' grey scale; it is not one of those that are picked."""


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

    def settings(self, size: int) -> MovieSettings:
        """Return how its micrographs of `size` pixels are simulated."""
        return MovieSettings(
            size=(size, size),
            pixel_size=PIXEL_SIZE,
            defocus=self.defocus,
            contamination=self.contamination,
            carbon=self.carbon,
            particle_spacing=self.spacing,
        )


CASES = (
    Case("default, 0.6-1 um", "barrel", (140, 200), (6000, 10000)),
    Case("default, 1-2 um", "barrel", (140, 200), (10000, 20000)),
    Case("default, 2-3 um", "barrel", (140, 200), (20000, 30000)),
    Case("no symmetry", "asymmetric", (140, 200), (8000, 25000)),
    Case("hollow shell, crowded", "shell", (100, 140), (6000, 25000), spacing=160.0),
    Case("contamination x 4", "barrel", (140, 200), (6000, 30000), contamination=1.6),
    Case("carbon edge", "barrel", (140, 200), (6000, 30000), carbon=0.25),
    Case("carbon, contam. x 4", "barrel", (140, 200), (6000, 30000), contamination=1.6, carbon=0.25),
    Case("no symm., both hazards", "asymmetric", (140, 200), (6000, 30000), contamination=1.6, carbon=0.25),
    Case("sparse", "barrel", (140, 200), (6000, 30000), spacing=800.0),
    Case("empty ice", "barrel", (140, 200), (6000, 30000), spacing=0.0),
)


@dataclass(frozen=True)
class Found:
    """Picks ``(n, 2)`` y, x with scores ``(n,)``, what they cost in CPU seconds, and the lowest score that the program itself takes."""

    places: Array
    scores: Array
    seconds: float
    threshold: float = -np.inf

    def above(self, threshold: float) -> Array:
        """Return the places that are taken with a threshold."""
        return self.places[self.scores >= threshold]


Program = Callable[[Array, Case, MovieTruth], Found]


@cache
def references(specimen_name: str) -> Array:
    """Return projections ``(n, b, b)`` on the grey scale of the average of normalised particles, found by regression."""
    specimen = make_specimen(specimen_name)
    views = view_directions(specimen, REFERENCES)
    rotations = rotation_from_euler(views[:, 0], views[:, 1], np.zeros(len(views)))
    images = project(specimen, rotations, REFERENCE_PIXEL, REFERENCE_BOX).astype(np.float32)
    micrograph, truth = simulate_micrograph(MovieSettings(size=(1536, 1536), contamination=0.0), specimen, SCALE_SEED)
    places = torch.from_numpy(truth.particles[:, :2].astype(np.float32))
    box = round(REFERENCE_BOX * REFERENCE_PIXEL / PIXEL_SIZE)
    seen = extract_particles(torch.from_numpy(micrograph), places, box, REFERENCE_BOX, pixel_size=PIXEL_SIZE).numpy()
    shift = (places - places.trunc()).numpy() * PIXEL_SIZE / REFERENCE_PIXEL
    poses = rotation_from_euler(*truth.particles[:, 2:].T)
    clean = project(specimen, poses, REFERENCE_PIXEL, REFERENCE_BOX, shift)
    ctf = particle_ctf(clean.shape[-2:], REFERENCE_PIXEL, truth.defocus, truth.settings.beam)
    expected = np.fft.irfft2(np.fft.rfft2(clean) * ctf, s=clean.shape[-2:])
    expected -= expected.mean(axis=(1, 2), keepdims=True)
    return np.asarray(images * (expected * seen).sum() / (expected**2).sum(), dtype=np.float32)


@cache
def prepared(case: Case) -> References:
    """Return the references as Beamside uses them for all micrographs of a session."""
    return References(torch.from_numpy(references(case.specimen)), REFERENCE_PIXEL, case.diameters[1], ANGLE)


def ours_blob(micrograph: Array, case: Case, truth: MovieTruth) -> Found:
    """Pick by size."""
    start = time.process_time()
    found = pick_blobs(torch.from_numpy(micrograph), BlobSettings(PIXEL_SIZE, *case.diameters))
    picks = accept(found)
    return Found(picks.coordinates.numpy(), picks.scores.numpy(), time.process_time() - start, found.threshold)


def ours_template(micrograph: Array, case: Case, truth: MovieTruth) -> Found:
    """Pick with the references."""
    defocus, beam = truth.defocus, truth.settings.beam
    optics = (beam.voltage, beam.spherical_aberration, beam.amplitude_contrast)
    ctf = Ctf(defocus.u, defocus.v, defocus.angle, 0.0, *optics)
    settings = BlobSettings(PIXEL_SIZE, *case.diameters)
    start = time.process_time()
    found = pick_templates(torch.from_numpy(micrograph), settings, prepared(case), ctf)
    picks = accept(found)
    return Found(picks.coordinates.numpy(), picks.scores.numpy(), time.process_time() - start, found.threshold)


def relion_log(micrograph: Array, case: Case, truth: MovieTruth) -> Found:
    """Pick with RELION's LoG picker; a second run with a low threshold, not counted, tells what others would give."""
    low, high = (f"{value:g}" for value in case.diameters)
    options = f"--i mic.mrc --angpix {PIXEL_SIZE} --LoG --LoG_diam_min {low} --LoG_diam_max {high}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_micrograph(folder, micrograph)
        usual, _, seconds = relion(folder, options)
        places, scores, _ = relion(folder, f"{options} --LoG_adjust_threshold -2")
    # The usual picks are those of the many above the usual threshold; its own number is not told.
    threshold = np.sort(scores)[::-1][min(len(usual), len(scores)) - 1] if len(usual) and len(scores) else np.inf
    return Found(places, scores, seconds, float(threshold))


def relion_template(micrograph: Array, case: Case, truth: MovieTruth) -> Found:
    """Pick with RELION and the references, at its GUI's threshold of 0.05."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_micrograph(folder, micrograph)
        write_micrographs_star(folder / "mics.star", [truth])
        places, scores, seconds = relion(folder, template_options(folder, case))
    return Found(places, scores, seconds, RELION_THRESHOLD)


def template_options(folder: Path, case: Case) -> str:
    """Write the references into `folder`; returns the options of RELION's template mode, with micrographs shrunk to the low-pass."""
    low, high = case.diameters
    with mrcfile.new(folder / "refs.mrcs") as file:
        file.set_data(references(case.specimen))
        file.set_image_stack()
        file.voxel_size = REFERENCE_PIXEL
    return (
        f"--i mics.star --ref refs.mrcs --angpix_ref {REFERENCE_PIXEL} --invert --ctf --ang {ANGLE:g} --lowpass 20 --shrink 0 "
        f"--particle_diameter {high:g} --min_distance {0.75 * (low * high) ** 0.5:g} --threshold {RELION_FLOOR:g} --max_stddev_noise 1.1"
    )


RELION_THRESHOLD, RELION_FLOOR = 0.05, 0.01
"""RELION's usual threshold in the GUI, and the one it is run with, so that others can be tried."""

STAR = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
opticsGroup1 1 {pixel} {voltage} {cs} {contrast} {pixel}

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
"""


def write_micrographs_star(path: Path, truths: list[MovieTruth]) -> None:
    """Write the STAR file of the micrographs mic.mrc, mic1.mrc, mic2.mrc, ... with their true CTFs."""
    beam = truths[0].settings.beam
    head = STAR.format(
        pixel=PIXEL_SIZE,
        voltage=beam.voltage,
        cs=beam.spherical_aberration,
        contrast=beam.amplitude_contrast,
    )
    rows = [
        f"mic{number or ''}.mrc 1 {truth.defocus.u} {truth.defocus.v} {truth.defocus.angle}\n"
        for number, truth in enumerate(truths)
    ]
    path.write_text(head + "".join(rows))


def write_micrograph(folder: Path, micrograph: Array, name: str = "mic.mrc") -> None:
    with mrcfile.new(folder / name) as file:
        file.set_data(np.asarray(micrograph, dtype=np.float32))
        file.voxel_size = PIXEL_SIZE


def relion(folder: Path, options: str) -> tuple[Array, Array, float]:
    """Run relion_autopick; returns places (y, x), scores, and CPU seconds."""
    star = folder / "mic_pick.star"
    star.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["relion_autopick", *options.split(), "--odir", "./", "--pickname", "pick"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not star.exists():
        raise SystemExit(f"relion_autopick failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    labels, rows = [], []
    for line in star.read_text().splitlines():
        cells = line.split()
        if len(cells) == 2 and cells[0].startswith("_rln"):
            labels.append(cells[0])
        elif cells and cells[0][0] in "-.0123456789":
            rows.append([float(cell) for cell in cells])
    if not rows:
        return np.zeros((0, 2)), np.zeros(0), used
    table = np.array(rows)
    columns = [labels.index(f"_rln{name}") for name in ("CoordinateY", "CoordinateX", "AutopickFigureOfMerit")]
    return table[:, columns[:2]], table[:, columns[2]], used


OURS: dict[str, Program] = {"beamside size": ours_blob, "beamside templates": ours_template}
THEIRS: dict[str, Program] = {"relion LoG": relion_log, "relion templates": relion_template}


@dataclass
class Tally:
    """What a program made of a case: for each micrograph the true places and what was found."""

    truths: list[Array] = field(default_factory=list)
    founds: list[Found] = field(default_factory=list)

    def score(self, radius: float, threshold: float | None = None) -> tuple[Picks, float]:
        """Return the counts over all micrographs, and the lowest F1 of one; None is each one's own threshold."""
        each = [
            match_picks(truth, found.above(found.threshold if threshold is None else threshold), radius)
            for truth, found in zip(self.truths, self.founds, strict=True)
        ]
        return sum(each, Picks(0, 0, 0)), min(picks.f1 for picks in each)

    def best_threshold(self, radius: float) -> float:
        """Return the threshold, the same for all micrographs, that gives the highest F1."""
        scores = np.concatenate([found.scores for found in self.founds])
        if not len(scores):
            return np.inf
        usual = [found.threshold for found in self.founds]
        tried = [*np.unique(np.quantile(scores, np.linspace(0, 1, 60))).tolist(), *usual, np.inf]
        return float(max(tried, key=lambda threshold: self.score(radius, threshold)[0].f1))

    @property
    def seconds(self) -> float:
        """CPU seconds a micrograph."""
        return sum(found.seconds for found in self.founds) / len(self.founds)


def simulated(seeds: range, size: int, wanted: list[str], without: list[str]) -> None:
    programs = OURS | (THEIRS if shutil.which("relion_autopick") else {})
    programs = {name: program for name, program in programs.items() if not any(part in name for part in without)}
    print(
        f"{len(seeds)} micrographs (seeds from {seeds.start}) of {size}² each, {PIXEL_SIZE} Å/pixel; a pick counts within {MATCH} diameters"
    )
    print(f"{REFERENCES} references, {ANGLE:g}° steps\n")
    heading = f"{'micrographs':24}{'program':24}{'true':>6}{'picked':>8}{'recall':>8}{'precision':>10}"
    print(f"{heading}{'F1':>7}{'worst':>7}{'CPU s':>8}")
    for case in CASES:
        if wanted and not any(part in case.name for part in wanted):
            continue
        specimen = make_specimen(case.specimen)
        radius = MATCH * specimen.diameter / PIXEL_SIZE
        prepared(case)
        tallies = {name: Tally() for name in programs}
        for seed in seeds:
            micrograph, truth = simulate_micrograph(case.settings(size), specimen, seed)
            for name, program in programs.items():
                tallies[name].truths.append(truth.particles[:, :2])
                tallies[name].founds.append(program(micrograph, case, truth))
        for name, tally in tallies.items():
            show(case.name, name, *tally.score(radius), tally.seconds)
            if name in THEIRS:
                show(case.name, f"{name}, best", *tally.score(radius, tally.best_threshold(radius)), tally.seconds)


def speed(size: int) -> None:
    """Print what a further micrograph costs."""
    case = CASES[1]
    prepared(case)
    seeds = range(FIRST_SEED, FIRST_SEED + 3)
    micrographs = [simulate_micrograph(case.settings(size), make_specimen(case.specimen), seed) for seed in seeds]
    print(f"\nCPU seconds of a further micrograph of {size}²")
    for name, mine in OURS.items():
        mine(micrographs[0][0], case, micrographs[0][1])
        seconds = [mine(micrograph, case, truth).seconds for micrograph, truth in micrographs]
        print(f"{name:24}{np.median(seconds):8.2f}")
    if shutil.which("relion_autopick") is None:
        return
    low, high = case.diameters
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        for number, (micrograph, _) in enumerate(micrographs):
            write_micrograph(folder, micrograph, f"mic{number or ''}.mrc")
        log = f"--i mics.star --LoG --LoG_diam_min {low:g} --LoG_diam_max {high:g}"
        for name, options in {"relion LoG": log, "relion templates": template_options(folder, case)}.items():
            used = []
            for count in (1, 3):
                write_micrographs_star(folder / "mics.star", [truth for _, truth in micrographs[:count]])
                used.append(relion(folder, options)[2])
            print(f"{name:24}{(used[1] - used[0]) / 2:8.2f}   the first one {used[0]:.2f}", flush=True)


def show(case: str, program: str, total: Picks, worst: float, seconds: float) -> None:
    print(
        f"{case:24}{program:24}{total.true:6}{total.picked:8}{total.recall:8.3f}{total.precision:10.3f}"
        f"{total.f1:7.3f}{worst:7.3f}{seconds:8.2f}",
        flush=True,
    )


def apoferritin(folder: Path, pictures: Path | None) -> None:
    print("\nReal apoferritin, beside a person's picks (all at least 50 Å inside, matched within 40 Å)")
    pixel_size, diameters, border = 1.5, (100.0, 150.0), 50 / 1.5

    def blobs(micrograph: Array) -> Array:
        return accept(
            pick_blobs(torch.from_numpy(micrograph), BlobSettings(pixel_size, *diameters))
        ).coordinates.numpy()

    def laplacian(micrograph: Array) -> Array:
        with tempfile.TemporaryDirectory() as name:
            write_micrograph(Path(name), micrograph)
            options = (
                f"--i mic.mrc --angpix {pixel_size} --LoG --LoG_diam_min {diameters[0]} --LoG_diam_max {diameters[1]}"
            )
            return relion(Path(name), options)[0]

    programs = {"beamside": blobs} | ({"relion LoG": laplacian} if shutil.which("relion_autopick") else {})
    for name, program in programs.items():
        total = Picks(0, 0, 0)
        for path in sorted((folder / "sum_unaligned").glob("*.png")):
            micrograph = np.asarray(Image.open(path)).astype(np.float32)
            with open(folder / f"picks_csv/{path.name}-points.csv", encoding="utf-8") as file:
                human = np.array([[float(y), float(x)] for x, y in csv.reader(file)])
            picked = program(micrograph)
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
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="first seed")
    parser.add_argument("--size", type=int, default=1536)
    parser.add_argument("--speed", type=int, default=2048, help="size of the micrographs that are timed; 0 for none")
    parser.add_argument("--case", nargs="*", default=[], help="only cases whose names have one of these in them")
    parser.add_argument("--without", nargs="*", default=[], help="no programs whose names have one of these in them")
    parser.add_argument("--data", type=Path, help="folder with the apoferritin micrographs")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of both picks beside each other")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.seeds:
        simulated(range(options.first, options.first + options.seeds), options.size, options.case, options.without)
    if options.speed:
        speed(options.speed)
    if options.data:
        apoferritin(options.data, options.pictures)


if __name__ == "__main__":
    main()
