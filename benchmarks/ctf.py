"""How accurate CTF estimation is, on simulated micrographs and on real power spectra.

``python -m benchmarks.ctf`` simulates micrographs (perfectly aligned, all doses summed) with `beamside.simulate` and prints errors
of defocus and astigmatism against their truth. ``--real DIR`` reads ``relion_bgal`` and ``apoferritin`` below DIR as well.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import mrcfile
import numpy as np
import torch
from PIL import Image

from beamside.imaging.ctf import CtfFit, CtfSettings, estimate_ctf, micrograph_spectrum
from beamside.simulate.movie import MovieSettings, simulate_micrograph
from beamside.simulate.specimen import make_specimen

APOFERRITIN = CtfSettings(300.0, 2.7, 0.07)
Case = tuple[str, MovieSettings]


def cases() -> list[Case]:
    """Return the named sets of simulated micrographs."""
    wide = {"defocus": (6000.0, 30000.0), "astigmatism": 500.0}
    return [
        ("demo: 1536², 1.3 Å, 24 e/Å²", MovieSettings(frames=24, **wide)),
        ("1536², 1.3 Å, 40 e/Å²", MovieSettings(frames=40, **wide)),
        ("2048², 1.0 Å, 40 e/Å²", MovieSettings(size=(2048, 2048), pixel_size=1.0, **wide)),
        ("demo, no particles", MovieSettings(frames=24, particle_spacing=0.0, **wide)),
        ("demo, a third carbon", MovieSettings(frames=24, carbon=0.3, **wide)),
    ]


def simulated(count: int, first_seed: int) -> None:
    """Print a line of errors for each case."""
    print(
        "| simulated micrographs | n | U+V/2 within 50 Å | U-V within 100 Å | median | 95 % | median U-V | 95 % U-V "
        "| failed | wrong unnoticed | resolution | CPU s spectrum + fit |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    specimen = make_specimen()
    for name, settings in cases():
        mean, astigmatism, fits, seconds = [], [], [], np.zeros(2)
        for seed in range(first_seed, first_seed + count):
            micrograph, truth = simulate_micrograph(settings, specimen, seed)
            optics = CtfSettings(settings.voltage, settings.spherical_aberration, settings.amplitude_contrast)
            start = time.process_time()
            spectrum, pixel_size = micrograph_spectrum(torch.from_numpy(micrograph), settings.pixel_size)
            middle = time.process_time()
            fit = estimate_ctf(spectrum, pixel_size, optics)
            seconds += [middle - start, time.process_time() - middle]
            true = truth.defocus
            mean.append(abs(fit.defocus - (true.u + true.v) / 2))
            astigmatism.append(abs(fit.astigmatism - abs(true.u - true.v)))
            fits.append(fit)
        print(_row(name, np.array(mean), np.array(astigmatism), fits, seconds / count), flush=True)


def _row(name: str, mean: np.ndarray, astigmatism: np.ndarray, fits: list[CtfFit], seconds: np.ndarray) -> str:
    failed = np.array([bool(fit.failed) for fit in fits])
    resolution = np.median([fit.resolution for fit in fits])
    return (
        f"| {name} | {len(fits)} | {np.mean(mean < 50):.0%} | {np.mean(astigmatism < 100):.0%} | {np.median(mean):.0f} "
        f"| {np.quantile(mean, 0.95):.0f} | {np.median(astigmatism):.0f} | {np.quantile(astigmatism, 0.95):.0f} "
        f"| {failed.sum()} | {np.sum(~failed & (mean > 200))} | {resolution:.1f} | {seconds[0]:.2f} + {seconds[1]:.2f} |"
    )


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
    parser.add_argument("--micrographs", type=int, default=20, help="simulated micrographs of each case; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--real", type=Path, default=os.environ.get("BEAMSIDE_TEST_DATA"), help="folder of real data")
    parser.add_argument("--pictures", type=Path, help="folder for half-and-half pictures of the apoferritin fits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.micrographs:
        simulated(options.micrographs, options.seed)
    if options.real:
        real = Path(options.real)
        galactosidase(real / "em" / "relion_bgal")
        apoferritin(real / "em" / "apoferritin", options.pictures)


if __name__ == "__main__":
    main()
