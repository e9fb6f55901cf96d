"""The file from which RELION's CtfFind job knows that a micrograph is done, and makes its table when it is continued: CTFFIND's log.

Without it, Continue would run CTFFIND on every micrograph, and where that program is missing write an empty table over ours.
"""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from beamside.formats.atomic import atomic_path
from beamside.jobs.base import Item, Optics, Result, Row

ENDING = "_ctffind4.log"


def root_name(item: Item) -> str:
    """Return the name, without its ending, that RELION gives to what it makes of an item: that of the movie's power spectrum, where there is one."""
    spectrum = item.find("power_spectrum")
    return posixpath.join(posixpath.dirname(item.name), _stem(spectrum)) if spectrum else item.name


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def log_path(item: Item, job: str) -> str:
    """Return the path of the log of an item in the project."""
    return f"{job}/{root_name(item)}{ENDING}"


def write_missing_logs(rows: Sequence[Row], optics: Optics, job: str, root: Path) -> int:
    """Write the logs that are not there; return how many were missing."""
    folders: dict[str, set[str]] = {}
    missing = 0
    for row in rows:
        folder, _, name = log_path(row.item, job).rpartition("/")
        if folder not in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
            folders[folder] = set(os.listdir(root / folder))
        if name not in folders[folder]:
            write_log(root / folder / name, row.item, row.result, job, row.optics or optics)
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
