"""2D classification of simulated particles of known views: how pure the classes are, and what it costs, beside RELION.

``python -m benchmarks.classify2d --particles 2000 --views 25 --snr 0.08 --seeds 3 --relion-iterations 2``

RELION's first iterations cost less than its later ones, so the extrapolation to 25 iterations from the last one timed is a lower bound.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import mrcfile
import numpy as np
import torch

from beamside.imaging.classify2d import ClassifySettings, State, classify
from beamside.simulate.particles import ParticleStack, simulate_stack
from beamside.simulate.score import adjusted_rand_index, purity
from beamside.simulate.specimen import make_specimen, view_directions

RELION_ITERATIONS = 25


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    print(
        f"{options.particles} particles of {options.views} views of '{options.specimen}', {options.box} px at {options.pixel_size} Å, "
        f"SNR {options.snr}, K={options.classes}, {options.threads} thread(s)"
    )
    print(f"{'':24}  purity    ARI  classes   best/median Å  iterations   CPU s  wall s")
    for seed in range(1, options.seeds + 1):
        stack = _simulate(options, seed)
        ours = _ours(options, stack, seed)
        if options.chunks > 1:
            _ours(options, stack, seed, chunks=options.chunks)
        if options.relion_iterations and seed <= options.relion_seeds:
            _relion(options, stack, seed, ours)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument(
        "--views", type=int, default=25, help="0 for an orientation of its own for each particle (then no scores)"
    )
    parser.add_argument("--snr", type=float, default=0.08)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--pixel-size", type=float, default=4.0)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--specimen", default="asymmetric")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--chunks", type=int, default=1, help="also give the particles in this many parts, one after the other"
    )
    parser.add_argument("--relion-iterations", type=int, default=0, help="time this many iterations of relion_refine")
    parser.add_argument("--relion-seeds", type=int, default=1, help="on this many of the stacks")
    parser.add_argument("--save", default="", help="folder for the resulting states (.npz)")
    return parser.parse_args()


def _simulate(options: argparse.Namespace, seed: int) -> ParticleStack:
    specimen = make_specimen(options.specimen)
    views = view_directions(specimen, options.views) if options.views else None
    return simulate_stack(specimen, views, options.particles, options.box, options.pixel_size, options.snr, seed)


def _diameter(options: argparse.Namespace) -> float:
    return make_specimen(options.specimen).diameter * 1.05


def _ctf(stack: ParticleStack) -> np.ndarray:
    return np.array([[each.u, each.v, each.angle, 0.0] for each in stack.defocus])[stack.micrograph]


def _ours(options: argparse.Namespace, stack: ParticleStack, seed: int, chunks: int = 1) -> float:
    """Classify with Beamside and print the scores; returns CPU seconds."""
    settings = ClassifySettings(
        classes=options.classes,
        pixel_size=stack.pixel_size,
        particle_diameter=_diameter(options),
        voltage=stack.beam.voltage,
        spherical_aberration=stack.beam.spherical_aberration,
        amplitude_contrast=stack.beam.amplitude_contrast,
        seed=seed,
    )
    state: State | None = None
    cpu, wall = time.process_time(), time.perf_counter()
    ctf = _ctf(stack)
    for chunk in range(1, chunks + 1):
        count = len(stack.images) * chunk // chunks
        state = classify(stack.images[:count], ctf[:count], None, settings, state)
    assert state is not None
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    name = f"Beamside, seed {seed}" + (f", {chunks} parts" if chunks > 1 else "")
    _print_row(name, state.label, stack, state.resolution, state.iteration, cpu, wall)
    if options.save:
        state.save(Path(options.save) / f"seed{seed}_{chunks}.npz")
    return cpu


def _print_row(
    name: str,
    label: np.ndarray,
    stack: ParticleStack,
    resolution: np.ndarray | None,
    iterations: int,
    cpu: float,
    wall: float,
) -> None:
    used = np.bincount(label) > 0.005 * len(label)
    scored = len(stack.views) < len(label)
    scores = f"{purity(label, stack.view):8.3f} {adjusted_rand_index(label, stack.view):6.3f}" if scored else " " * 15
    there = np.array([]) if resolution is None else resolution[: len(used)][used]
    limits = f"{there.min():7.1f} /{np.median(there):5.1f}" if len(there) else " " * 14
    print(f"{name:24}{scores} {used.sum():8d}  {limits} {iterations:11d} {cpu:7.1f} {wall:7.1f}", flush=True)


def _relion(options: argparse.Namespace, stack: ParticleStack, seed: int, ours: float) -> None:
    """Run some iterations of relion_refine on the same stack and print what they cost."""
    program = shutil.which("relion_refine")
    if program is None:
        print("relion_refine is not installed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_star(folder, stack)
        (folder / "out").mkdir()
        command = [program, "--i", "particles.star", "--o", "out/run", "--iter", str(options.relion_iterations)]
        command += [
            "--K",
            str(options.classes),
            "--tau2_fudge",
            "2",
            "--particle_diameter",
            f"{_diameter(options):.0f}",
        ]
        command += [
            "--ctf",
            "--flatten_solvent",
            "--zero_mask",
            "--oversampling",
            "1",
            "--psi_step",
            "12",
            "--offset_range",
            "5",
        ]
        command += ["--offset_step", "2", "--norm", "--scale", "--pool", "30", "--dont_combine_weights_via_disc"]
        command += ["--preread_images", "--random_seed", str(seed), "--j", str(options.threads)]
        times = []
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            seen: set[int] = set()
            while process.poll() is None:
                for path in sorted((folder / "out").glob("run_it*_model.star")):
                    number = int(re.sub(r"\D", "", path.name))
                    if number not in seen:
                        seen.add(number)
                        times.append((number, time.perf_counter() - started))
                time.sleep(0.2)
            message = process.stderr.read() if process.stderr else ""
        if process.returncode:
            print(
                f"relion_refine failed: {message.strip().splitlines()[-1] if message.strip() else process.returncode}"
            )
            return
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        wall = time.perf_counter() - started
        label = _read_classes(folder / "out" / f"run_it{options.relion_iterations:03d}_data.star") - 1
        _print_row(f"RELION, seed {seed}", label, stack, None, options.relion_iterations, cpu, wall)
        share = cpu / wall
        walls = [time_ for number, time_ in times if number > 0] + [wall]
        last = (walls[-1] - walls[-2]) if len(walls) > 2 else wall / options.relion_iterations
        total = (
            cpu
            + max(0, RELION_ITERATIONS - options.relion_iterations)
            * max(last, cpu / options.relion_iterations / share)
            * share
        )
        print(f"  RELION, {RELION_ITERATIONS} iterations: about {total:.0f} CPU s, {total / ours:.0f} times ours")


def _write_star(folder: Path, stack: ParticleStack) -> None:
    """Write the stack as RELION 3.1 reads it."""
    with mrcfile.new(folder / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(stack.images.astype(np.float32))
        mrc.voxel_size = stack.pixel_size
    box, beam = stack.images.shape[-1], stack.beam
    optics = (
        "OpticsGroupName",
        "OpticsGroup",
        "MicrographPixelSize",
        "Voltage",
        "SphericalAberration",
        "AmplitudeContrast",
    )
    optics += ("ImagePixelSize", "ImageSize", "ImageDimensionality")
    values = f"opticsGroup1 1 {stack.pixel_size} {beam.voltage} {beam.spherical_aberration} {beam.amplitude_contrast}"
    lines = [
        "",
        "data_optics",
        "",
        "loop_",
        *(f"_rln{name}" for name in optics),
        f"{values} {stack.pixel_size} {box} 2",
        "",
    ]
    names = ("ImageName", "MicrographName", "DefocusU", "DefocusV", "DefocusAngle", "OpticsGroup")
    lines += ["", "data_particles", "", "loop_", *(f"_rln{name}" for name in names)]
    for number, (u, v, angle, _) in enumerate(_ctf(stack)):
        micrograph = f"mic{stack.micrograph[number]:04d}.mrc"
        lines.append(f"{number + 1:06d}@particles.mrcs {micrograph} {u:.2f} {v:.2f} {angle:.3f} 1")
    (folder / "particles.star").write_text("\n".join(lines) + "\n")


def _read_classes(path: Path) -> np.ndarray:
    """Return the class of each particle in the order of the stack."""
    text = path.read_text().split("data_particles")[1]
    columns = [line.split()[0] for line in text.splitlines() if line.startswith("_rln")]
    rows = [line.split() for line in text.splitlines() if "@" in line]
    name, label = columns.index("_rlnImageName"), columns.index("_rlnClassNumber")
    rows.sort(key=lambda row: int(row[name].split("@")[0]))
    return np.array([int(row[label]) for row in rows])


if __name__ == "__main__":
    main()
