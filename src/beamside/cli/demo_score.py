"""The demo's results beside its own truth: motion, defocus and picks of every simulated movie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beamside.formats.star import StarBlock, read_star
from beamside.project.index import Index
from beamside.project.project import Project
from beamside.simulate.movie import MovieTruth
from beamside.simulate.score import Picks, defocus_error, match_picks, motion_error
from beamside.simulate.specimen import make_specimen

Array = npt.NDArray[np.float64]

MOTION_LIMIT = 0.7
"""Å rms over all frames and the field."""
DEFOCUS_LIMIT, ASTIGMATISM_LIMIT, DEFOCUS_SHARE = 50.0, 100.0, 0.95
"""Å, Å, and the share of micrographs that must be within both."""
PICKING_LIMIT = 0.9
"""F1 of picking."""


@dataclass(frozen=True)
class Line:
    """One line of the comparison: what, how it came out, what is asked for, and whether that is reached."""

    what: str
    result: str
    asked: str
    reached: bool


@dataclass(frozen=True)
class Score:
    """The numbers of all movies whose truth is known and that were processed."""

    motion: tuple[float, ...]
    uncorrected: tuple[float, ...]
    defocus: tuple[float, ...]
    astigmatism: tuple[float, ...]
    picks: Picks

    def lines(self) -> list[Line]:
        """Return what people read."""
        lines = []
        if self.motion:
            error, before = _rms(self.motion), _rms(self.uncorrected)
            text = f"{error:.2f} Å rms over frames and field ({before:.1f} Å uncorrected)"
            lines.append(Line("Motion", text, f"≤ {MOTION_LIMIT} Å", error <= MOTION_LIMIT))
        if self.defocus:
            lines += [
                _within("Defocus", self.defocus, DEFOCUS_LIMIT),
                _within("Astigmatism", self.astigmatism, ASTIGMATISM_LIMIT),
            ]
        if self.picks.true:
            picks = self.picks
            text = f"recall {picks.recall:.3f}, precision {picks.precision:.3f}, F1 {picks.f1:.3f} ({picks.true} true particles)"
            lines.append(Line("Picking", text, f"F1 ≥ {PICKING_LIMIT}", picks.f1 >= PICKING_LIMIT))
        return lines


def score_project(project: Project, truth: Path) -> Score:
    """Compare the results of `project` with the truth files in the folder `truth`."""
    truths = {path.stem: MovieTruth.load(path) for path in sorted(truth.glob("*.json"))}
    index = Index(project)
    try:
        index.catch_up()
        results = {kind: dict(_results(index, job, truths)) for kind, job in index.jobs().items() if kind != "class2d"}
    finally:
        index.close()
    motion, uncorrected = _motion_errors(project, truths, results.get("motion", {}))
    errors = [_ctf_errors(truths[name], result["values"]) for name, result in results.get("ctf", {}).items()]
    picks = Picks(0, 0, 0)
    for name, result in results.get("pick", {}).items():
        picks += _picks(truths[name], project.root / result["outputs"]["coordinates"])
    return Score(motion, uncorrected, tuple(mean for mean, _ in errors), tuple(other for _, other in errors), picks)


def _ctf_errors(truth: MovieTruth, values: Mapping[str, Any]) -> tuple[float, float]:
    """Return the errors of defocus and astigmatism in Å; a fit that failed found neither, so both are infinite."""
    if "defocus_u" not in values:
        return math.inf, math.inf
    error = defocus_error(truth, *(float(values[f"defocus_{part}"]) for part in ("u", "v", "angle")))
    return abs(error.mean), abs(error.astigmatism)


def _results(index: Index, job: str, truths: Mapping[str, MovieTruth]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name of the truth, result) of the finished items of a job."""
    for item, result in index.results(job):
        name = Path(item).name.removesuffix("_Fractions")
        if name in truths:
            yield name, result


def _motion_errors(
    project: Project, truths: Mapping[str, MovieTruth], results: Mapping[str, dict[str, Any]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    modelled = {name: read_shifts(project.root / result["outputs"]["motion_star"]) for name, result in results.items()}
    return (
        tuple(motion_error(truths[name], shifts) for name, shifts in modelled.items()),
        tuple(motion_error(truths[name]) for name in modelled),
    )


def read_shifts(path: Path) -> Callable[[Array], Array]:
    """Return the modelled shifts of a per-movie STAR file as a function from points ``(m, 2)`` (y, x) in pixels to ``(frames, m, 2)`` (y, x).

    Local motion is that of the patches (``local_shift``), which is what the sum was made with, interpolated by the polynomial that goes through a
    grid of them exactly.
    """
    blocks = read_star(path)
    track = blocks["global_shift"]
    global_shifts = np.stack([track.floats("rlnMicrographShiftY"), track.floats("rlnMicrographShiftX")], axis=-1)
    local = blocks.get("local_shift")
    if local is None or not len(local):
        return lambda points: np.repeat(global_shifts[:, None], len(points), axis=1)
    rows, columns, tracks = _patch_grid(local)

    def shifts(points: Array) -> Array:
        along_y, along_x = _lagrange(rows, points[:, 0]), _lagrange(columns, points[:, 1])
        local_shifts: Array = np.einsum("pr,pc,rcfd->fpd", along_y, along_x, tracks)
        return global_shifts[:, None] + local_shifts

    return shifts


def _patch_grid(local: StarBlock) -> tuple[Array, Array, Array]:
    """Return the rows and columns of the patches in pixels, and their tracks ``(rows, columns, frames, 2)`` (y, x)."""
    y, x = local.floats("rlnCoordinateY"), local.floats("rlnCoordinateX")
    frame = local.integers("rlnMicrographFrameNumber") - 1
    rows, row = np.unique(y, return_inverse=True)
    columns, column = np.unique(x, return_inverse=True)
    tracks = np.zeros((len(rows), len(columns), int(frame.max()) + 1, 2))
    tracks[row, column, frame, 0] = local.floats("rlnMicrographShiftY")
    tracks[row, column, frame, 1] = local.floats("rlnMicrographShiftX")
    return rows, columns, tracks


def _lagrange(nodes: Array, at: Array) -> Array:
    """Return the weights ``(len(at), len(nodes))`` of polynomial interpolation through `nodes`."""
    weights = np.ones((len(at), len(nodes)))
    for index, node in enumerate(nodes):
        for other in np.delete(nodes, index):
            weights[:, index] *= (at - other) / (node - other)
    return weights


def _picks(truth: MovieTruth, coordinates: Path) -> Picks:
    block = next(iter(read_star(coordinates).values()))
    picked = np.stack([block.floats("rlnCoordinateY"), block.floats("rlnCoordinateX")], axis=-1)
    radius = make_specimen(truth.specimen).diameter / 3 / truth.settings.pixel_size
    return match_picks(truth.particles[:, :2], picked, radius)


def _rms(values: tuple[float, ...]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _within(what: str, errors: tuple[float, ...], limit: float) -> Line:
    share = float(np.mean([error <= limit for error in errors]))
    text = f"{share:.0%} of {len(errors)} micrographs within {limit:.0f} Å (median error {np.median(errors):.0f} Å)"
    return Line(what, text, f"≥ {DEFOCUS_SHARE:.0%}", share >= DEFOCUS_SHARE)
