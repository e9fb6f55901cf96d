"""Extraction of particles, 256 to 64 pixels by default: speed and equality beside ``relion_preprocess`` on the same micrographs.

Run as ``python -m benchmarks.extract [--particles N] [--box PIXELS] [--scale PIXELS] [--micrographs N] [--size PIXELS]``.

Seconds are CPU seconds of one thread, reading the micrograph and writing the stack included for both programs. RELION's start is in its time, so
several micrographs are taken. Both programs run once before they are timed, so that their files and memory are there: workers live for a session.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from beamside.formats.mrc import read_mrc, write_mrc
from beamside.imaging.particles import extract_particles

PIXEL_SIZE = 1.0
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
opticsGroup1 1 1.0 300 2.7 0.1 1.0

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
"""

Array = NDArray[np.float32]


def make(folder: Path, micrographs: int, particles: int, size: int, box: int) -> list[NDArray[np.float64]]:
    """Write noisy micrographs and coordinates; returns the coordinates (y, x) of each."""
    rows, places = [], []
    for number in range(micrographs):
        rng = np.random.default_rng(number)
        write_mrc(folder / f"mic{number}.mrc", rng.normal(5, 2, (size, size)).astype(np.float32), PIXEL_SIZE)
        points = rng.integers(box // 2, size - box // 2, (particles // micrographs, 2)).astype(np.float64)
        lines = "".join(f"{x:.1f} {y:.1f}\n" for y, x in points)
        star = f"\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n{lines}"
        (folder / f"mic{number}_pick.star").write_text(star)
        rows.append(f"mic{number}.mrc 1 10000 10000 0\n")
        places.append(points)
    (folder / "mics.star").write_text(STAR + "".join(rows))
    return places


def ours(folder: Path, places: list[NDArray[np.float64]], box: int, scale: int) -> tuple[list[Array], float]:
    """Return the stacks and the CPU seconds."""
    stacks = []
    start = time.process_time()
    for number, points in enumerate(places):
        micrograph = torch.from_numpy(np.asarray(read_mrc(folder / f"mic{number}.mrc")))
        stack = extract_particles(micrograph, torch.from_numpy(points), box, scale, pixel_size=PIXEL_SIZE).numpy()
        write_mrc(folder / f"ours{number}.mrcs", stack, PIXEL_SIZE * box / scale, durable=False)
        stacks.append(stack)
    return stacks, time.process_time() - start


def relion(folder: Path, count: int, box: int, scale: int) -> tuple[list[Array], float]:
    """Return RELION's stacks and the CPU seconds."""
    radius = int(0.75 * box / 2 * scale / box)
    command = (
        "relion_preprocess --i mics.star --coord_suffix _pick.star --coord_dir ./ --part_dir out/ --part_star out/p.star --extract "
        f"--extract_size {box} --scale {scale} --norm --bg_radius {radius} --invert_contrast"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [np.asarray(read_mrc(folder / f"out/mic{number}.mrcs")) for number in range(count)], used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=3000)
    parser.add_argument("--micrographs", type=int, default=10)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--box", type=int, default=256)
    parser.add_argument("--scale", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = make(folder, options.micrographs, options.particles, options.size, options.box)
        count = sum(map(len, places))
        print(
            f"{count} particles of {len(places)} micrographs of {options.size}², {options.box} to {options.scale} pixels"
        )
        print(f"{'':12}{'particles/CPU-s':>16}{'ratio':>8}{'largest difference':>20}")
        ours(folder, places, options.box, options.scale)
        if shutil.which("relion_preprocess"):
            relion(folder, len(places), options.box, options.scale)
        ratios = []
        for _ in range(options.repeats):
            stacks, mine = ours(folder, places, options.box, options.scale)
            print(f"{'beamside':12}{count / mine:16.0f}")
            if shutil.which("relion_preprocess"):
                others, theirs = relion(folder, len(places), options.box, options.scale)
                largest = max(float(np.abs(a - b).max()) for a, b in zip(stacks, others, strict=True))
                print(f"{'relion':12}{count / theirs:16.0f}{theirs / mine:8.1f}{largest:20.1e}", flush=True)
                ratios.append(theirs / mine)
        if ratios:
            print(f"ratio: {min(ratios):.1f} to {max(ratios):.1f}, {np.median(ratios):.1f} in the middle")


if __name__ == "__main__":
    main()
