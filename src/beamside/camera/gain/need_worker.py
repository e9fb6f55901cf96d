"""The worker's part of a session without a gain reference: whether the movies need one, the picture of it, and which file it may be.

Torch is not loaded for this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.acquisition.gain_candidates import gain_candidates
from beamside.camera.gain.sums import file_hash, sum_of_movies
from beamside.camera.gain.task import GainOutcome, GainTask
from beamside.errors import BeamsideError
from beamside.formats.image import read_image
from beamside.formats.orientation import fitting_orientations, fitting_ratio
from beamside.imaging.gain.need import shared_pattern
from beamside.imaging.gain.need_picture import needed_picture
from beamside.imaging.gain.orientation import compare
from beamside.jobs.output import save_picture


def look_for_need(task: GainTask) -> GainOutcome:
    """Return as evidence what the movies share; a picture and a candidate when that is a camera's pattern."""
    root, shape = Path(task.root), (task.shape[0], task.shape[1])
    sums, frames, unreadable = [], 0, []
    for movie in task.movies:
        total, number, used, why = sum_of_movies([root / movie], shape, 1.0)
        unreadable += why
        if used:
            sums.append(total)
            frames += number
    if len(sums) < 2:
        return GainOutcome(evidence={"kind": "unsure", "movies": len(sums), "unreadable": unreadable})
    pattern = shared_pattern(sums)
    evidence: dict[str, Any] = {
        "kind": pattern.kind,
        "strength": pattern.strength,
        "limit": pattern.limit,
        "sigmas": pattern.sigmas,
        "movies": len(sums),
        "frames": frames,
        "counts_per_pixel": float(np.mean([total.mean(dtype=np.float64) for total in sums])),
        "unreadable": unreadable,
    }
    if pattern.kind == "needed":
        save_picture(root / task.picture, needed_picture(sums, pattern))
        evidence["picture"] = task.picture
        evidence["candidate"] = _candidate(task, sums[0])
    return GainOutcome(evidence=evidence)


def _candidate(task: GainTask, total: NDArray[np.float32]) -> dict[str, Any]:
    """Return the file that the movies fit, or else the first whose shape fits and that was not refused; {} for none."""
    sources = [path for path in task.sources if Path(path).is_absolute()]
    sidecars = [Path(task.root) / path for path in task.sources if not Path(path).is_absolute()]
    likely: dict[str, Any] = {}
    for path in gain_candidates(sources, sidecars):
        try:
            gain = read_image(path)
        except (BeamsideError, OSError):  # a movie, a half-written file, something else of that name
            continue
        slope = _slope(task, gain, total)
        if slope is None:
            continue
        if slope:
            return {"path": str(path), "slope": slope}
        if not likely and file_hash(path) not in task.refused:
            likely = {"path": str(path), "slope": 0.0}
    return likely


def _slope(task: GainTask, gain: NDArray[np.float32], total: NDArray[np.float32]) -> float | None:
    """Return how the movies follow an image as a reference; 0 when they cannot tell, None when it is none of theirs."""
    shape = (task.shape[0], task.shape[1])
    found = (gain.shape[0], gain.shape[1])
    if not fitting_orientations(found, shape):
        return None
    ratio = fitting_ratio(found, shape) or fitting_ratio(found[::-1], shape) or 1.0
    if ratio < 1:  # another window is compared
        total = sum_of_movies([Path(task.root) / task.movies[0]], shape, ratio)[0]
    verdict = compare(total, gain, shape)
    if verdict.kind == "clear" and verdict.best is not None:
        return verdict.best.slope
    return None if verdict.kind in ("absent", "flat") else 0.0
