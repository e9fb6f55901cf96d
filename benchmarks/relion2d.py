"""relion_refine's 2D classification of a simulated stack, and the reading of its results."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from beamside.simulate.particles import ParticleStack

ITERATIONS = 25
"""Iterations that RELION's users do."""


@dataclass(frozen=True)
class RelionResult:
    """Classes ``(n,)`` from 0 in the order of the stack, class averages ``(k, b, b)``, and the iteration."""

    label: np.ndarray
    averages: np.ndarray
    iteration: int


@dataclass(frozen=True)
class RelionCost:
    """CPU and wall seconds of the iterations done, and CPU seconds of 25, from the last one (a lower bound: they become dearer)."""

    cpu: float
    wall: float
    cpu_all: float


def installed() -> bool:
    return shutil.which("relion_refine") is not None


def command(classes: int, diameter: float, seed: int, iterations: int, threads: int) -> list[str]:
    """Return RELION's command line, with the values of its tutorial and graphical interface."""
    options = {
        "i": "particles.star",
        "o": "out/run",
        "iter": iterations,
        "K": classes,
        "tau2_fudge": 2,
        "particle_diameter": f"{diameter:.0f}",
        "oversampling": 1,
        "psi_step": 12,
        "offset_range": 5,
        "offset_step": 2,
        "pool": 30,
        "random_seed": seed,
        "j": threads,
    }
    flags = ("ctf", "flatten_solvent", "zero_mask", "norm", "scale", "dont_combine_weights_via_disc", "preread_images")
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["relion_refine", *words, *(f"--{flag}" for flag in flags)]


def run(folder: Path, words: list[str], iterations: int) -> RelionCost:
    """Run RELION in `folder`, which has the particles."""
    (folder / "out").mkdir(exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    times: dict[int, float] = {}
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for path in (folder / "out").glob("run_it*_model.star"):
                times.setdefault(int(re.sub(r"\D", "", path.name)), time.perf_counter() - started)
            time.sleep(0.2)
        message = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"relion_refine failed: {message.strip()[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall = time.perf_counter() - started
    walls = [*(times[number] for number in sorted(times) if number > 0), wall]
    last = walls[-1] - walls[-2] if len(walls) > 2 else wall / iterations
    each = max(last * cpu / wall, cpu / iterations)
    return RelionCost(cpu, wall, cpu + max(0, ITERATIONS - iterations) * each)


def write_stack(folder: Path, stack: ParticleStack, ctf: np.ndarray) -> None:
    """Write a stack as RELION 3.1 reads it."""
    with mrcfile.new(folder / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(stack.images.astype(np.float32))
        mrc.voxel_size = stack.pixel_size
    beam = stack.beam
    optics = {
        "OpticsGroupName": "opticsGroup1",
        "OpticsGroup": 1,
        "MicrographPixelSize": stack.pixel_size,
        "Voltage": beam.voltage,
        "SphericalAberration": beam.spherical_aberration,
        "AmplitudeContrast": beam.amplitude_contrast,
        "ImagePixelSize": stack.pixel_size,
        "ImageSize": stack.images.shape[-1],
        "ImageDimensionality": 2,
    }
    lines = ["", "data_optics", "", "loop_", *(f"_rln{name}" for name in optics), " ".join(map(str, optics.values()))]
    names = ("ImageName", "MicrographName", "DefocusU", "DefocusV", "DefocusAngle", "OpticsGroup")
    lines += ["", "", "data_particles", "", "loop_", *(f"_rln{name}" for name in names)]
    for number, (u, v, angle, _) in enumerate(ctf):
        micrograph = f"mic{stack.micrograph[number]:04d}.mrc"
        lines.append(f"{number + 1:06d}@particles.mrcs {micrograph} {u:.2f} {v:.2f} {angle:.3f} 1")
    (folder / "particles.star").write_text("\n".join(lines) + "\n")


def read_result(folder: Path) -> RelionResult:
    """Read the newest whole iteration out of a folder with ``run_itNNN_*`` files."""
    for path in sorted(folder.glob("run_it*_data.star"), reverse=True):
        averages = path.with_name(path.name.replace("_data.star", "_classes.mrcs"))
        optimiser = path.with_name(path.name.replace("_data.star", "_optimiser.star"))
        if averages.exists() and optimiser.exists():
            with mrcfile.open(averages) as mrc:
                return RelionResult(
                    _classes(path) - 1, np.array(mrc.data, np.float32), int(re.sub(r"\D", "", path.name))
                )
    raise SystemExit(f"There are no run_itNNN_data.star and classes.mrcs in {folder}.")


def _classes(path: Path) -> np.ndarray:
    """Return the class of each particle in the order of the stack."""
    text = path.read_text().split("data_particles")[1]
    columns = [line.split()[0] for line in text.splitlines() if line.startswith("_rln")]
    rows = [line.split() for line in text.splitlines() if "@" in line]
    name, label = columns.index("_rlnImageName"), columns.index("_rlnClassNumber")
    rows.sort(key=lambda row: int(row[name].split("@")[0]))
    return np.array([int(row[label]) for row in rows])
