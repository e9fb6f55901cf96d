"""The file from which RELION's CtfFind job knows that a micrograph is done, and makes its table when it is continued: CTFFIND's log.

Without it, Continue would run CTFFIND on every micrograph, and where that program is missing write an empty table over ours.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from beamside.formats.atomic import atomic_path
from beamside.jobs.base import Item, Optics, Result, Row

ENDING = "_ctffind4.log"


def root_name(item: Item) -> str:
    """Return the name, without its ending, that RELION gives to what it makes of an item: that of the movie's power spectrum, where there is one."""
    spectrum = item.find("power_spectrum")
    return PurePosixPath(item.name).with_name(PurePosixPath(spectrum).stem).as_posix() if spectrum else item.name


def log_path(item: Item, job: str) -> str:
    """Return the path of the log of an item in the project."""
    return f"{job}/{root_name(item)}{ENDING}"


def write_missing_logs(rows: Sequence[Row], optics: Optics, job: str, root: Path) -> int:
    """Write the logs that are not there; return how many were missing."""
    folders: dict[Path, set[str]] = {}
    missing = 0
    for row in rows:
        path = root / log_path(row.item, job)
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            folders[path.parent] = set(os.listdir(path.parent))
        if path.name not in folders[path.parent]:
            write_log(path, row.item, row.result, job, row.optics or optics)
            missing += 1
    return missing


def write_log(path: Path, item: Item, result: Result, job: str, optics: Optics) -> None:
    """Write the log of an item."""
    with atomic_path(path, durable=False) as temporary:
        temporary.write_text(log_text(item, result, job, optics), encoding="utf-8", errors="surrogateescape")


def log_text(item: Item, result: Result, job: str, optics: Optics) -> str:
    """Return the log. RELION looks in it for the name of the summary, which can be this file, and takes values by their places in a line."""
    values, metrics = result.values, result.metrics
    resolution, pixel_size = (
        float(metrics["ctf_resolution"]),
        float(values.get("micrograph_pixel_size", optics.pixel_size)),
    )
    found = (
        float(values["defocus_u"]),
        float(values["defocus_v"]),
        float(values["defocus_angle"]),
        math.radians(float(values.get("phase_shift", 0.0))),
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
