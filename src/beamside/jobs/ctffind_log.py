"""The file from which RELION's CtfFind job knows that a micrograph is done, and makes its table when it is continued: CTFFIND's log.

Without it, Continue would run CTFFIND on every micrograph, and where that program is missing write an empty table over ours.
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from beamside.jobs.base import Item, Optics, Result

ENDING = "_ctffind4.log"


def root_name(item: Item) -> str:
    """Return the name, without its ending, that RELION gives to what it makes of an item: that of the movie's power spectrum, where there is one."""
    motion = item.results.get("motion")
    spectrum = motion.outputs.get("power_spectrum") if motion is not None else None
    return PurePosixPath(item.name).with_name(PurePosixPath(spectrum).stem).as_posix() if spectrum else item.name


def log_path(item: Item, job: str) -> str:
    """Return the path of the log of an item in the project."""
    return f"{job}/{root_name(item)}{ENDING}"


def log_text(item: Item, result: Result, job: str, optics: Optics, pixel_size: float) -> str:
    """Return the log. RELION looks in it for the name of the summary, which can be this file, and takes values by their places in a line."""
    values, metrics = result.values, result.metrics
    resolution = float(metrics["ctf_resolution"])
    found = (
        float(values["defocus_u"]),
        float(values["defocus_v"]),
        float(values["defocus_angle"]),
        math.radians(float(values["phase_shift"])),
        float(metrics["ctf_score"]),
    )
    return "\n".join(
        [
            "# Fitted by Beamside, and written as RELION reads results of CTFFIND.",
            f"Summary of results: {log_path(item, job)}",
            f"# Pixel size: {pixel_size:.4f} Angstroms ; acceleration voltage: {optics.voltage:.1f} keV ; "
            f"spherical aberration: {optics.spherical_aberration:.2f} mm ; amplitude contrast: {optics.amplitude_contrast:.3f}",
            "# Columns: number; defocus 1 and 2 [A]; azimuth of astigmatism [degrees]; phase shift [radians]; score; resolution [A]",
            " ".join(
                [
                    "1.000000",
                    *(f"{value:.6f}" for value in found),
                    f"{resolution:.6f}" if math.isfinite(resolution) else "inf",
                ]
            ),
            "",
        ]
    )
