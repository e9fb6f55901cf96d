"""How accurate CTF estimation is, on simulated micrographs and on real power spectra, beside ctffind.

``python -m benchmarks.ctf`` simulates micrographs (perfectly aligned, all doses summed) with `beamside.simulate` and prints the errors
of Beamside and of ctffind (with the same search ranges and resolutions, on the same files) against their truth; then tilts, what is
found in noise, and the time that a fit takes. ``--real DIR`` reads ``relion_bgal`` and ``apoferritin`` below DIR as well.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import mrcfile
import numpy as np
import torch
from PIL import Image

from beamside.imaging.ctf.estimation import LEAST_SIGNIFICANCE, CtfSettings, estimate_ctf, micrograph_spectrum
from beamside.imaging.ctf.tilt import estimate_tilt
from beamside.imaging.spectrum import tile_powers
from beamside.simulate.movie import MovieSettings, MovieTruth, simulate_micrograph
from beamside.simulate.score import defocus_error
from beamside.simulate.specimen import make_specimen
from benchmarks.ctf_cases import SEARCH, Case, cases, micrograph, read
from benchmarks.ctffind import find_ctffind, run_ctffind

APOFERRITIN = CtfSettings(300.0, 2.7, 0.07)
WRONG = 300.0
"""Å; a mean defocus further off than this is wrong."""
CLEAR_ASTIGMATISM = 150.0
OWN_RESOLUTION = 5.0
"""Å; up to where ctffind fits when it is not told otherwise."""
TILTS = (0.0, 20.0, 40.0, 55.0)


@dataclass(frozen=True)
class Errors:
    """How far a fit is from the truth: mean defocus, U - V and the vector of astigmatism in Å, angle and phase shift in degrees."""

    mean: float
    astigmatism: float
    angle: float
    vector: float
    phase_shift: float


@dataclass(frozen=True)
class Outcome:
    """One program's fit of one micrograph; `failed` when the program said so itself."""

    errors: Errors
    failed: bool
    seconds: float


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Print a line for each case and program."""
    peer = find_ctffind(options.ctffind)
    if peer is None:
        print("ctffind is not installed, so it is not compared; give it with --ctffind.\n")
    table = ""
    for case in cases(options.size):
        if not any(part in f"{case.table}, {case.name}" for part in options.cases):
            continue
        if case.table != table:
            table = case.table
            print(f"\n**{table}**; {options.size}², 1.3 Å; median / 95 % of {options.micrographs} micrographs\n")
            print(
                "| case | program | mean defocus, Å | U-V, Å | angle, ° | phase shift, ° | failed | wrong unnoticed | CPU s |"
            )
            print("|---|---|---|---|---|---|---|---|---|")
        outcomes: dict[str, list[Outcome]] = {}
        for seed in range(options.seed, options.seed + options.micrographs):
            path, truth = micrograph(case, seed, folder)
            outcomes.setdefault("Beamside", []).append(_ours(path, truth, case))
            if peer:
                outcomes.setdefault("ctffind", []).append(_peers(peer, path, truth, case.limits()))
            if peer and options.own_resolution:
                own = replace(case.limits(), max_resolution=OWN_RESOLUTION)
                outcomes.setdefault(f"ctffind to {OWN_RESOLUTION:g} Å", []).append(_peers(peer, path, truth, own))
        for program, results in outcomes.items():
            print(_row(case.name, program, results), flush=True)


def _errors(truth: MovieTruth, u: float, v: float, angle: float, phase_shift: float) -> Errors:
    error = defocus_error(truth, u, v, angle)
    shift = (phase_shift - truth.settings.phase_shift + 90) % 180 - 90
    # the direction of no astigmatism means nothing
    turn = abs(error.angle) if truth.defocus.u - truth.defocus.v > CLEAR_ASTIGMATISM else math.nan
    return Errors(abs(error.mean), abs(error.astigmatism), turn, error.vector, abs(shift))


def _ours(path: Path, truth: MovieTruth, case: Case) -> Outcome:
    spectrum, pixel_size = micrograph_spectrum(torch.from_numpy(read(path)), case.settings.pixel_size)
    start = time.process_time()
    fit = estimate_ctf(spectrum, pixel_size, case.limits())
    seconds = time.process_time() - start
    return Outcome(_errors(truth, fit.defocus_u, fit.defocus_v, fit.angle, fit.phase_shift), bool(fit.failed), seconds)


def _peers(program: str, path: Path, truth: MovieTruth, limits: CtfSettings) -> Outcome:
    fit = run_ctffind(program, path, truth.settings.pixel_size, limits)
    return Outcome(_errors(truth, fit.defocus_u, fit.defocus_v, fit.angle, fit.phase_shift), False, fit.cpu_seconds)


def _row(name: str, program: str, results: list[Outcome]) -> str:
    def summary(values: list[float]) -> str:
        known = [value for value in values if not math.isnan(value)]
        return f"{np.median(known):.0f} / {np.quantile(known, 0.95):.0f}" if known else "–"

    errors = [result.errors for result in results]
    failed = sum(result.failed for result in results)
    unnoticed = sum(not result.failed and result.errors.mean > WRONG for result in results)
    columns = [[getattr(error, field) for error in errors] for field in ("mean", "astigmatism", "angle", "phase_shift")]
    seconds = sum(result.seconds for result in results) / len(results)
    told = " | ".join(summary(column) for column in columns)
    return f"| {name} | {program} | {told} | {failed} | {unnoticed} | {seconds:.2f} |"


def tilts(count: int, size: int) -> None:
    """Print the errors of tilt angle and axis on tilted specimens."""
    print(
        f"\n**Tilted specimens** ({size}², 1.4 Å, 25 e/Å², 1.2–2.2 µm, axis drawn at random; median / largest error)\n"
    )
    print("| tilt | n | angle, ° | axis, ° | mean defocus, Å | its own estimate of the error, ° | failed | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    base = MovieSettings(size=(size, size), pixel_size=1.4, frames=1, dose_per_frame=25.0, defocus=(12000.0, 22000.0))
    for angle in TILTS:
        errors, failed, seconds = [], 0, 0.0
        for seed in range(count):
            axis = float(np.random.default_rng([seed, 7]).uniform(-180, 180))
            image, truth = simulate_micrograph(replace(base, tilt_angle=angle, tilt_axis=axis), make_specimen(), seed)
            start = time.process_time()
            fit, tilt = estimate_tilt(tile_powers(torch.from_numpy(image), 1.4), CtfSettings(300.0, 2.7, 0.1))
            seconds += time.process_time() - start
            failed += bool(fit.failed or tilt.failed)
            turn = abs((tilt.axis - axis + 180) % 360 - 180) if angle else math.nan
            mean = abs(fit.defocus - (truth.defocus.u + truth.defocus.v) / 2)
            errors.append((abs(tilt.angle - angle), turn, mean, tilt.error))
        columns = np.array(errors).T
        told = " | ".join(
            f"{np.median(values):.1f} / {values.max():.1f}" if angle or number != 1 else "–"
            for number, values in enumerate(columns)
        )
        print(f"| {angle:g}° | {count} | {told} | {failed} | {seconds / count:.1f} |", flush=True)


def without_rings(count: int) -> None:
    """Print how often something is found where there is nothing to find."""
    print("\n**Nothing to find** (search 0.2–6 µm, 300 kV, 1024²)\n")
    print("| input | n | taken for a fit | highest significance | needed |")
    print("|---|---|---|---|---|")
    limits = CtfSettings(300.0, 2.7, 0.1, min_defocus=SEARCH["min_defocus"], max_defocus=SEARCH["max_defocus"])
    kinds = {"white noise": False, "coloured noise": True}
    for name, coloured in kinds.items():
        for phase_shift in (False, True):
            settings = replace(limits, phase_shift=phase_shift)
            fits = [estimate_ctf(*micrograph_spectrum(_noise(seed, coloured), 1.3), settings) for seed in range(count)]
            found = sum(not fit.failed for fit in fits)
            most = max(fit.significance for fit in fits)
            searched = ", phase shift searched" if phase_shift else ""
            print(f"| {name}{searched} | {count} | {found} | {most:.1f} | {LEAST_SIGNIFICANCE:g} |", flush=True)


def _noise(seed: int, coloured: bool) -> torch.Tensor:
    """Return noise (1024, 1024), white or with an amplitude that falls with the frequency as that of carbon in focus does."""
    noise = np.random.default_rng(seed).standard_normal((1024, 1024)).astype(np.float32)
    if coloured:
        fy, fx = np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None, :]
        noise += np.fft.irfft2(np.fft.rfft2(noise) / (1 + (np.hypot(fy, fx) / 0.05) ** 2), s=noise.shape).astype(
            np.float32
        )
    return torch.from_numpy(noise)


def speed(options: argparse.Namespace, folder: Path) -> None:
    """Print CPU seconds for one 4096² micrograph with a ready spectrum."""
    settings = MovieSettings(size=(4096, 4096), pixel_size=1.0, frames=1, dose_per_frame=30.0)
    image, _ = simulate_micrograph(settings, make_specimen(), 1)
    start = time.process_time()
    spectrum, pixel_size = micrograph_spectrum(torch.from_numpy(image), settings.pixel_size)
    middle = time.process_time()
    estimate_ctf(spectrum, pixel_size, CtfSettings(300.0, 2.7, 0.1))
    print(
        f"\n4096²: spectrum {middle - start:.2f}, fit with a ready spectrum {time.process_time() - middle:.2f} CPU-seconds"
    )
    peer = find_ctffind(options.ctffind)
    if peer:
        path = folder / "spectrum.mrc"
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(spectrum.numpy())
            file.voxel_size = pixel_size
        fit = run_ctffind(peer, path, pixel_size, CtfSettings(300.0, 2.7, 0.1), ready_spectrum=True)
        print(f"ctffind with the same spectrum: {fit.cpu_seconds:.2f} CPU-seconds")


def galactosidase(folder: Path) -> None:
    """Print the errors on the β-galactosidase power spectra (EMPIAR-10204, RELION's tutorial)."""
    print(
        "\n| β-galactosidase spectrum | U | V | angle | error of mean | of U-V | of angle | merit | resolution | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    with (folder / "truth" / "ctf_truth_8_power_spectra.csv").open() as stream:
        for row in csv.DictReader(stream):
            spectrum = torch.from_numpy(mrcfile.read(folder / row["power_spectrum"]).astype(np.float32))
            optics = CtfSettings(float(row["kV"]), float(row["Cs_mm"]), float(row["amp_contrast"]))
            start = time.process_time()
            fit = estimate_ctf(spectrum, float(row["pixel_A"]), optics)
            seconds = time.process_time() - start
            u, v, angle = (float(row[f"truth_{key}"]) for key in ("defocusU_A", "defocusV_A", "angle_deg"))
            print(
                f"| {Path(row['power_spectrum']).stem[9:14]} | {fit.defocus_u:.0f} | {fit.defocus_v:.0f} | {fit.angle:.1f} "
                f"| {fit.defocus - (u + v) / 2:+.0f} | {fit.astigmatism - (u - v):+.0f} "
                f"| {(fit.angle - angle + 90) % 180 - 90:+.1f} | {fit.figure_of_merit:.3f} | {fit.resolution:.2f} "
                f"| {seconds:.2f} |"
            )


def apoferritin(folder: Path, pictures: Path | None) -> None:
    """Print the fits of the apoferritin sums and single frames (EMPIAR-10146); their defocus is not known."""
    print("\n| apoferritin | U | V | angle | merit | resolution | verdict |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(folder.glob("s*/*.png")):
        image = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32))
        fit = estimate_ctf(*micrograph_spectrum(image, 1.5), APOFERRITIN)
        print(
            f"| {path.stem} | {fit.defocus_u:.0f} | {fit.defocus_v:.0f} | {fit.angle:.1f} | {fit.figure_of_merit:.3f} "
            f"| {fit.resolution:.2f} | {fit.failed or 'good'} |"
        )
        if pictures:
            Image.fromarray(fit.picture.numpy()).save(pictures / f"{path.stem}.png")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--micrographs", type=int, default=8, help="simulated micrographs of each case; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--size", type=int, default=1024, help="edge of the simulated micrographs in pixels")
    parser.add_argument("--cases", nargs="+", default=[""], help="only cases whose name or table contains one of these")
    parser.add_argument("--ctffind", type=Path, help="the program, where it is not on the PATH")
    parser.add_argument("--own-resolution", action="store_true", help="run ctffind with its own highest resolution too")
    parser.add_argument("--folder", type=Path, help="where micrographs are kept for the next time")
    parser.add_argument("--tilts", type=int, default=4, help="tilted micrographs of each tilt; 0 for none")
    parser.add_argument("--noise", type=int, default=50, help="fits to noise of each kind; 0 for none")
    parser.add_argument("--no-speed", action="store_true", help="do not measure the time")
    parser.add_argument("--real", type=Path, default=os.environ.get("BEAMSIDE_TEST_DATA"), help="folder of real data")
    parser.add_argument("--pictures", type=Path, help="folder for half-and-half pictures of the apoferritin fits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.micrographs:
            compare(options, folder)
        if options.tilts:
            tilts(options.tilts, options.size)
        if options.noise:
            without_rings(options.noise)
        if not options.no_speed:
            speed(options, folder)
    if options.real and (Path(options.real) / "em").is_dir():
        real = Path(options.real)
        galactosidase(real / "em" / "relion_bgal")
        apoferritin(real / "em" / "apoferritin", options.pictures)


if __name__ == "__main__":
    main()
