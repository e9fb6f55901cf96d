"""The worker's part of class selection: score the classes of a round, choose, and write what RELION's Select job writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.errors import ConfigError, CorruptFileError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import StarBlock, Value, read_star, write_star
from beamside.imaging import pictures
from beamside.imaging.classes.quality import ClassStatistics, class_scores, measure_classes
from beamside.imaging.classes.shape import Shape, class_shapes, origins_after_recentring, recentred
from beamside.imaging.duplicates import duplicates
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.output import save_picture
from beamside.jobs.select import Selection, SelectParameters, class_numbers

Array = NDArray[np.floating]

LONG_QUANTILE, SHORT_QUANTILE = 0.9, 0.1
"""Of the selected particles' long and short diameters: the extremes of views, not of single classes."""
TOO_LONG, TOO_SHORT = 1.15, 0.7
"""Diameters beyond these multiples of the largest one that was given are told."""
ROOM = 1.25
"""Boxes must be at least so many times as wide as the particles are long: the CTF spreads them."""
FEWEST_FOR_WARNING = 100
"""With fewer selected particles nothing is said of their size."""


@dataclass(frozen=True)
class ClassRound:
    """A round of classification as its files tell it.

    Attributes
    ----------
    averages : ``(k, b, b)``
    labels, psi : ``(n,)`` 0-based classes, degrees
    origins : ``(n, 2)`` y and x in Å
    """

    averages: NDArray[np.float32]
    classes: StarBlock
    optics: StarBlock
    particles: StarBlock
    labels: NDArray[np.int64]
    psi: Array
    origins: Array
    statistics: ClassStatistics
    pixel_size: float
    mask_diameter: float


def select_classes(
    items: Sequence[Item], parameters: SelectParameters, workspace: Workspace, *, round_name: str, final: bool
) -> Result:
    """Select from the round of classification that is the only item."""
    item = items[0]
    outputs, given = item.inputs["classes"].result.outputs, item.inputs["classes"].result.values
    found = read_round(workspace.root, outputs)
    counts = found.statistics.counts
    features = measure_classes(found.averages, found.pixel_size, found.mask_diameter, found.statistics)
    scores = np.where(counts > 0, class_scores(features), 0.0)
    shapes = class_shapes(found.averages, found.pixel_size, found.mask_diameter)
    kept = choose(scores, counts, parameters)
    averages, origins = found.averages, found.origins
    if parameters.select_recentre:
        centres = np.array([shape.centre for shape in shapes]).reshape(-1, 2)
        averages = recentred(averages, centres)
        origins = origins_after_recentring(origins, found.psi, centres[found.labels] * found.pixel_size)
    members = np.isin(found.labels, kept)
    twice = _duplicates(found, members, origins, given, parameters)
    members &= ~twice
    files = _write(workspace, found, kept, members, scores, averages, origins)
    picture = workspace.root / workspace.job / f"{round_name}_classes.png"
    order = [int(k) for k in np.argsort(-scores, kind="stable") if counts[k] > 0]
    labels = [f"{k + 1}: {scores[k]:.2f} · {int(counts[k])}" for k in order]
    save_picture(picture, pictures.class_montage(averages[order], labels, framed=[k in kept for k in order]))
    long, short = diameters(shapes, counts, kept)
    selected = int(members.sum())
    warnings = _warnings(long, selected, len(kept), given, found, parameters)
    return Result(
        metrics={
            "selected": float(selected),
            "selected_share": selected / max(1, len(found.labels)),
            "selected_classes": float(len(kept)),
            "duplicates": float(twice.sum()),
            "class_score": float((scores * counts).sum() / max(1, counts.sum())),
            **({"long_diameter": long, "short_diameter": short} if long else {}),
        },
        outputs={**files, "selection_image": workspace.relative(picture)},
        values={
            "final": final,
            "round": round_name,
            "pixel_size": found.pixel_size,
            "class_table": _class_table(counts, found.statistics.resolution, scores, shapes, kept),
            "warnings": warnings,
        },
    )


def read_round(root: Path, outputs: Mapping[str, str]) -> ClassRound:
    """Read the files of a round, ours or RELION's; raises CorruptFileError when they do not fit each other."""
    data, model = read_star(root / outputs["data"], sharing=True), read_star(root / outputs["model"])
    averages = np.asarray(read_mrc(root / outputs["classes"]), dtype=np.float32)
    averages = averages[None] if averages.ndim == 2 else averages
    classes, particles = model["model_classes"], data["particles"]
    labels = np.array(particles.integers("rlnClassNumber"), dtype=np.int64) - 1
    if len(classes) != len(averages) or (len(labels) and not 0 <= labels.min() <= labels.max() < len(averages)):
        raise CorruptFileError(
            f"{root / outputs['data']} names classes that {outputs['classes']} does not have; classify again."
        )
    number = np.bincount(labels, minlength=len(averages)).astype(np.float64)
    pixel_size = float(model["model_general"].floats("rlnPixelSize")[0])

    def mean(column: str) -> Array:
        values = np.array(particles.floats(column), dtype=np.float64)
        return np.asarray(np.bincount(labels, values, minlength=len(averages)) / np.maximum(number, 1))

    statistics = ClassStatistics(
        counts=number,
        resolution=np.array(classes.floats("rlnEstimatedResolution")),
        pmax=mean("rlnMaxValueProbDistribution"),
        evidence=mean("rlnLogLikeliContribution"),
    )
    return ClassRound(
        averages=averages,
        classes=classes,
        optics=data["optics"],
        particles=particles,
        labels=labels,
        psi=np.array(particles.floats("rlnAnglePsi")),
        origins=np.array([particles.floats(f"rlnOrigin{axis}Angst") for axis in "YX"]).T.reshape(-1, 2),
        statistics=statistics,
        pixel_size=pixel_size,
        mask_diameter=_mask_diameter(root, outputs, model) or averages.shape[-1] * pixel_size,
    )


def _mask_diameter(root: Path, outputs: Mapping[str, str], model: Mapping[str, StarBlock]) -> float:
    """Return the diameter in Å of the mask that the round was made with; 0 where nothing says it, as of a round without RELION's optimiser."""
    tables = read_star(root / outputs["optimiser"]) if "optimiser" in outputs else model
    table = tables.get("optimiser_general")
    return float(table.floats("rlnParticleDiameter")[0]) if table is not None else 0.0


def choose(scores: Array, counts: Array, parameters: SelectParameters) -> list[int]:
    """Return the numbers, from 0, of the classes that are kept, the best first.

    Raises
    ------
    ConfigError
        when a class chosen by hand does not exist.
    """
    order = np.argsort(-scores, kind="stable")
    if parameters.select_classes:
        wanted = class_numbers(parameters.select_classes)
        if wanted[-1] > len(scores):
            raise ConfigError(
                f"Class {wanted[-1]} cannot be selected: there are {len(scores)} classes; change --select-classes."
            )
        return [int(k) for k in order if int(k) + 1 in wanted]
    fewest = max(1.0, parameters.select_min_share * counts.sum() / max(1, len(counts)))
    passing = [int(k) for k in order if scores[k] >= parameters.select_score and counts[k] >= fewest]
    return passing[: parameters.select_top or None]


def _duplicates(
    found: ClassRound,
    members: NDArray[np.bool_],
    origins: Array,
    given: Mapping[str, Any],
    parameters: SelectParameters,
) -> NDArray[np.bool_]:
    """Return which of the particles ``(n,)`` lie on a likelier one of the `members` and are to be left out."""
    twice = np.zeros(len(members), dtype=bool)
    if "micrograph_pixel_size" not in given:  # a round of an earlier version; `_warnings` tells
        return twice
    pixel_size = float(given["micrograph_pixel_size"])
    places = np.array([found.particles.floats(f"rlnCoordinate{axis}") for axis in "YX"]).T.reshape(-1, 2) * pixel_size
    names = found.particles.texts("rlnMicrographName")
    twice[members] = duplicates(
        (places - origins)[members],
        [name for name, member in zip(names, members, strict=True) if member],
        np.array(found.particles.floats("rlnLogLikeliContribution"))[members],
        parameters.select_duplicate_distance,
    )
    return twice


def diameters(shapes: Sequence[Shape], counts: Array, kept: Sequence[int]) -> tuple[float, float]:
    """Return how long and how narrow the particles of the kept classes are, in Å; zeros when no class shows anything."""
    shown = [k for k in kept if shapes[k].long > 0 and counts[k] > 0]
    if not shown:
        return 0.0, 0.0
    weights = counts[shown]
    long = _quantile(np.array([shapes[k].long for k in shown]), weights, LONG_QUANTILE)
    return long, min(long, _quantile(np.array([shapes[k].short for k in shown]), weights, SHORT_QUANTILE))


def _quantile(values: Array, weights: Array, quantile: float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(total, quantile * total[-1])), len(values) - 1)])


def _warnings(
    long: float,
    selected: int,
    classes: int,
    given: Mapping[str, Any],
    found: ClassRound,
    parameters: SelectParameters,
) -> dict[str, str]:
    """Return what should be told, by subject."""
    if not classes:
        return {
            "none": "No class was selected; look at the classes, and lower --select-score or choose by --select-classes."
        }
    warnings = {}
    if parameters.select_duplicate_distance and "micrograph_pixel_size" not in given:
        warnings["duplicates"] = (
            "Duplicates were not looked for: this round of 2D classification, of an earlier version or another program, "
            "does not tell the pixel size of the micrographs. Where it is of an earlier version, they are in the next round."
        )
    if selected < FEWEST_FOR_WARNING or not long:
        return warnings
    largest = float(given.get("particle_diameter", 0.0))
    if largest and not TOO_SHORT * largest <= long <= TOO_LONG * largest:
        warnings["diameter"] = (
            f"The particles of the selected classes are about {long:.0f} Å long, but --particle-diameter says up to {largest:.0f} Å; "
            "correct it, so that picking, box and mask fit."
        )
    box = found.averages.shape[-1] * found.pixel_size
    if long * ROOM > box:
        warnings["box"] = (
            f"The box of {box:.0f} Å is small for particles that are about {long:.0f} Å long; take a larger --box-size "
            f"({ROOM * long:.0f} Å or more)."
        )
    return warnings


def _write(
    workspace: Workspace,
    found: ClassRound,
    kept: list[int],
    members: NDArray[np.bool_],
    scores: Array,
    averages: Array,
    origins: Array,
) -> dict[str, str]:
    """Write the selected particles and class averages, and which classes they are; returns paths by role."""
    job = workspace.root / workspace.job
    job.mkdir(parents=True, exist_ok=True)
    names = {
        "particles_star": f"{workspace.job}/particles.star",  # made of the whole one by the session
        "whole_star": f"{workspace.job}/{Selection.published[0].file}",
        "averages": f"{workspace.job}/class_averages.mrcs",
        "averages_star": f"{workspace.job}/class_averages.star",
        "selection": f"{workspace.job}/backup_selection.star",
    }
    if kept:
        write_mrc(workspace.root / names["averages"], np.ascontiguousarray(averages[kept]), found.pixel_size)
    else:
        names.pop("averages")
    table: list[list[Value]] = [
        [f"{place:06d}@{workspace.job}/class_averages.mrcs", *found.classes.rows[k][1:], float(scores[k]), k + 1]
        for place, k in enumerate(kept, 1)
    ]
    columns = [*found.classes.columns, "rlnPredictedClassScore", "rlnClassNumber"]
    write_star(workspace.root / names["averages_star"], [StarBlock("", columns, table)])
    flags: list[list[Value]] = [[int(k in kept)] for k in range(len(scores))]
    write_star(workspace.root / names["selection"], [StarBlock("", ["rlnSelected"], flags)])
    write_star(workspace.root / names["whole_star"], _selected_particles(found, members, origins))
    return names


def _selected_particles(found: ClassRound, members: NDArray[np.bool_], origins: Array) -> list[StarBlock]:
    columns = found.particles.columns
    y, x = (columns.index(f"rlnOrigin{axis}Angst") for axis in "YX")
    kept = [place for place, label in enumerate(columns) if not (label == "rlnGroupName" and _one_group(found))]
    rows: list[list[Value]] = []
    for index in np.flatnonzero(members):
        row = list(found.particles.rows[index])
        row[y], row[x] = (float(value) for value in origins[index])
        rows.append([row[place] for place in kept])
    return [found.optics, StarBlock("particles", [columns[place] for place in kept], rows)]


def _one_group(found: ClassRound) -> bool:
    """Tell whether an earlier version wrote the round, with all particles in one group: RELION would keep them in it for ever."""
    return set(found.particles.texts("rlnGroupName")) == {"group_01"}


def _class_table(
    counts: Array, resolution: Array, scores: Array, shapes: Sequence[Shape], kept: Sequence[int]
) -> list[dict[str, float | bool]]:
    """Return the classes for reports, in the order of the file."""
    return [
        {
            "particles": int(counts[k]),
            "score": float(scores[k]),
            "kept": k in kept,
            "resolution": float(resolution[k]),
            "long": shapes[k].long,
            "short": shapes[k].short,
        }
        for k in range(len(scores))
    ]
