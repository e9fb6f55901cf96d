"""cisTEM's ctffind (Rohou & Grigorieff, J. Struct. Biol. 192, 216, 2015), version 4.1 or 5, as the peer of CTF estimation.

It asks its questions on standard input; here they are answered. It is found on the PATH as ``ctffind``.
"""

from __future__ import annotations

import math
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from beamside.imaging.ctf.estimation import CtfSettings

BOX = 512
STEP = 100.0
"""Å; ctffind's own step of the defocus search."""
PHASE_STEP = 0.2
"""Radians; its default of 0.5 is coarser than our step of 10 degrees."""


@dataclass(frozen=True)
class PeerFit:
    """What ctffind found (Å, degrees, seconds); `angle` is from x towards y in array order, as ours is."""

    defocus_u: float
    defocus_v: float
    angle: float
    phase_shift: float
    score: float
    resolution: float
    tilt_axis: float
    tilt_angle: float
    cpu_seconds: float

    @property
    def defocus(self) -> float:
        """Mean defocus in Å."""
        return (self.defocus_u + self.defocus_v) / 2


def find_ctffind(given: Path | None) -> str | None:
    """Return the program's path, or None where it is not installed."""
    if given is not None:
        return str(given)
    return shutil.which("ctffind")


def run_ctffind(
    program: str,
    micrograph: Path,
    pixel_size: float,
    settings: CtfSettings,
    *,
    exhaustive: bool = False,
    tilt: bool = False,
    ready_spectrum: bool = False,
) -> PeerFit:
    """Fit `micrograph` (an MRC file; an amplitude spectrum when `ready_spectrum`) in the ranges of `settings`, with one thread."""
    output = micrograph.with_name(f"{micrograph.stem}_ctffind.mrc")
    answers: list[object] = [micrograph, output, pixel_size, settings.voltage, settings.spherical_aberration]
    answers += [settings.amplitude_contrast, BOX, settings.min_resolution, settings.max_resolution]
    answers += [settings.min_defocus, settings.max_defocus, STEP, "no", "yes" if exhaustive else "no", "no"]
    if settings.phase_shift:
        limits = (math.radians(degrees) for degrees in (settings.min_phase_shift, settings.max_phase_shift))
        answers += ["yes", *limits, PHASE_STEP]
    else:
        answers += ["no", "yes" if tilt else "no"]
    # no thickness; expert options: resample to 1.4 Å, defocus not known, weight low resolution down, one thread (all its defaults)
    answers += ["no", "yes", "yes", 1.4, "no", "yes", 1]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [program, *(["--amplitude-spectrum-input"] if ready_spectrum else [])]
    done = subprocess.run(
        command, input="\n".join(map(str, answers)) + "\n", capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = output.with_suffix(".txt")
    if not report.exists():
        raise RuntimeError(f"ctffind failed on {micrograph}: {done.stdout[-1000:]} {done.stderr[-1000:]}")
    values = [float(word) for word in report.read_text().splitlines()[-1].split()]
    for path in micrograph.parent.glob(f"{output.stem}*"):
        path.unlink()
    defocus_u, defocus_v, angle, phase_shift, score, resolution = values[1:7]
    tilt_axis, tilt_angle = values[7:9] if len(values) > 8 else (math.nan, math.nan)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return PeerFit(
        defocus_u,
        defocus_v,
        angle,
        math.degrees(phase_shift),
        score,
        resolution,
        tilt_axis,
        tilt_angle,
        seconds,
    )
