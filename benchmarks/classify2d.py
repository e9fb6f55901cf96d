"""2D classification of simulated particles of known views: how good classes and averages are, and what they cost, beside RELION.

``python -m benchmarks.classify2d --particles 2000 --views 25 --snr 0.08 --seeds 3 --relion-iterations 2``

Averages are aligned to the true projection without CTF along the commonest view of their particles: "FRC=0.5" is where the mean Fourier ring
correlation with it, weighted by particles, falls below 0.5, and "FRC" its mean up to the Nyquist frequency. The row "known poses" averages the
particles by their true views, rotations and shifts: nothing can do better. With ``--views 0`` all particles lie differently; then "spread" tells
how alike the views in a class are, and averages are compared with the projection along the mean view.

``--relion-folder`` scores a folder of run_itNNN files that RELION has made of the same stack (``--write`` writes it); ``--data`` classifies real
β-galactosidase particles instead and draws the classes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from beamside.imaging.classify2d import ClassifySettings, State, classify
from beamside.imaging.classify2d.shards import local_workers
from beamside.simulate.averages import score_averages
from beamside.simulate.particles import ParticleStack, simulate_stack
from beamside.simulate.score import adjusted_rand_index, purity
from beamside.simulate.specimen import Specimen, make_specimen, view_directions
from benchmarks import bgal, relion2d
from benchmarks.known_poses import average_known


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    if options.data:
        bgal.show(
            Path(options.data), options.classes, options.seeds, Path(options.picture) if options.picture else None
        )
        return
    print(
        f"{options.particles} particles of {options.views} views of '{options.specimen}', {options.box} px at {options.pixel_size} Å, "
        f"SNR {options.snr}, K={options.classes}, {options.threads} worker(s), {options.device}"
    )
    print(
        f"{'':28} purity    ARI  FRC=0.5    FRC  spread  classes   best/median Å  iterations   CPU s  wall s  updates/s"
    )
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        stack = _simulate(options, seed)
        if options.write:
            Path(options.write).mkdir(parents=True, exist_ok=True)
            relion2d.write_stack(Path(options.write), stack, _ctf(stack))
        ours = _ours(options, stack, seed)
        if options.chunks > 1:
            _ours(options, stack, seed, chunks=options.chunks)
        if options.known:
            averages = average_known(stack, _ctf(stack), _settings(options, stack, seed))
            _print_row("known poses", stack.view, averages, options, stack)
        if options.relion_folder:
            found = relion2d.read_result(Path(options.relion_folder))
            name = f"RELION, iteration {found.iteration}"
            _print_row(name, found.label, found.averages, options, stack, iterations=found.iteration)
        if options.relion_iterations and seed < options.first_seed + options.relion_seeds:
            _relion(options, stack, seed, ours)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=2000)
    parser.add_argument("--views", type=int, default=25, help="0 for an orientation of its own for each particle")
    parser.add_argument("--snr", type=float, default=0.08)
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--pixel-size", type=float, default=4.0)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--specimen", default="asymmetric")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="workers that share each iteration")
    parser.add_argument("--device", default="cpu", help='"cuda" for a graphics card')
    parser.add_argument("--chunks", type=int, default=1, help="also give the particles in this many parts")
    parser.add_argument("--iterations", type=int, default=0, help="do so many instead of going on to convergence")
    parser.add_argument("--keep-duplicates", action="store_true", help="do not merge classes of one view")
    parser.add_argument("--known", action="store_true", help="also average by the true views and poses")
    parser.add_argument("--relion-iterations", type=int, default=0, help="time this many iterations of relion_refine")
    parser.add_argument("--relion-seeds", type=int, default=1, help="on this many of the stacks")
    parser.add_argument("--relion-folder", default="", help="score the newest run_itNNN files of this folder")
    parser.add_argument("--write", default="", help="folder for the stack, as RELION reads it")
    parser.add_argument("--save", default="", help="folder for the resulting states (.npz)")
    parser.add_argument("--data", default="", help="folder relion_bgal of the real data")
    parser.add_argument("--picture", default="", help="where to draw the classes of the real data (.png)")
    return parser.parse_args()


def _simulate(options: argparse.Namespace, seed: int) -> ParticleStack:
    specimen = make_specimen(options.specimen)
    views = view_directions(specimen, options.views) if options.views else None
    return simulate_stack(specimen, views, options.particles, options.box, options.pixel_size, options.snr, seed)


def _diameter(specimen: Specimen) -> float:
    return specimen.diameter * 1.05


def _ctf(stack: ParticleStack) -> np.ndarray:
    return np.array([[each.u, each.v, each.angle, 0.0] for each in stack.defocus])[stack.micrograph]


def _settings(options: argparse.Namespace, stack: ParticleStack, seed: int) -> ClassifySettings:
    return ClassifySettings(
        classes=options.classes,
        pixel_size=stack.pixel_size,
        particle_diameter=_diameter(make_specimen(options.specimen)),
        voltage=stack.beam.voltage,
        spherical_aberration=stack.beam.spherical_aberration,
        amplitude_contrast=stack.beam.amplitude_contrast,
        seed=seed,
        merge_duplicates=not options.keep_duplicates,
    )


def _ours(options: argparse.Namespace, stack: ParticleStack, seed: int, chunks: int = 1) -> float:
    """Classify with Beamside and print the scores; returns CPU seconds."""
    settings, ctf = _settings(options, stack, seed), _ctf(stack)
    state: State | None = None
    updates = 0

    def count(now: State) -> None:
        nonlocal updates
        updates += int((now.label >= 0).sum())

    cpu, wall = time.process_time(), time.perf_counter()
    with local_workers(options.threads) as workers:
        for chunk in range(1, chunks + 1):
            last = len(stack.images) * chunk // chunks
            state = classify(
                stack.images[:last],
                ctf[:last],
                None,
                settings,
                state,
                iterations=options.iterations or None,
                on_iteration=count,
                device=options.device,
                executor=workers,
            )
    assert state is not None
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    name = f"Beamside, seed {seed}" + (f", {chunks} parts" if chunks > 1 else "")
    _print_row(
        name,
        state.label,
        state.references,
        options,
        stack,
        resolution=state.resolution,
        iterations=state.iteration,
        cost=(cpu, wall, updates / wall),
    )
    if options.save:
        Path(options.save).mkdir(parents=True, exist_ok=True)
        state.save(Path(options.save) / f"{options.specimen}_seed{seed}_{chunks}.npz")
    return cpu


def _print_row(
    name: str,
    label: np.ndarray,
    averages: np.ndarray,
    options: argparse.Namespace,
    stack: ParticleStack,
    *,
    resolution: np.ndarray | None = None,
    iterations: int = 0,
    cost: tuple[float, ...] = (),
) -> None:
    specimen = make_specimen(options.specimen)
    used = np.bincount(label, minlength=len(averages)) > 0.005 * len(label)
    parts = [f"{name:28}"]
    if options.views:
        parts.append(f"{purity(label, stack.view):7.3f} {adjusted_rand_index(label, stack.view):6.3f}")
    else:
        parts.append(" " * 14)
    good = averages.astype(np.float32)
    score = score_averages(good, label, stack.views[stack.view], specimen, stack.pixel_size, _diameter(specimen))
    parts.append(f" {score.resolution:7.2f} {score.mean:6.3f} {score.spread:6.1f}° {used.sum():8d}")
    there = np.array([]) if resolution is None else resolution[used]
    parts.append(f" {there.min():7.1f} /{np.median(there):5.1f}" if len(there) else " " * 15)
    parts.append(f" {iterations or '':11}")
    parts += [f" {value:7.1f}" for value in cost]
    print("".join(parts), flush=True)


def _relion(options: argparse.Namespace, stack: ParticleStack, seed: int, ours: float) -> None:
    """Run some iterations of relion_refine on the same stack and print what they cost."""
    if not relion2d.installed():
        print("relion_refine is not installed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        relion2d.write_stack(folder, stack, _ctf(stack))
        diameter = _diameter(make_specimen(options.specimen))
        words = relion2d.command(options.classes, diameter, seed, options.relion_iterations, options.threads)
        cost = relion2d.run(folder, words, options.relion_iterations)
        found = relion2d.read_result(folder / "out")
        _print_row(
            f"RELION, seed {seed}",
            found.label,
            found.averages,
            options,
            stack,
            iterations=found.iteration,
            cost=(cost.cpu, cost.wall),
        )
        print(
            f"  RELION, {relion2d.ITERATIONS} iterations: about {cost.cpu_all:.0f} CPU s, {cost.cpu_all / ours:.0f} times ours"
        )


if __name__ == "__main__":
    main()
