"""The work of joining particles: one micrograph at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import Value, write_star
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.extract import PARTICLE_COLUMNS, micrograph_pixel_size, particles_block, particles_of
from beamside.jobs.join import PORTS, JoinParameters
from beamside.jobs.ports import Given

_X, _Y, _IMAGE, _FOM = (
    PARTICLE_COLUMNS.index(name)
    for name in ("rlnCoordinateX", "rlnCoordinateY", "rlnImageName", "rlnAutopickFigureOfMerit")
)


def join(item: Item, parameters: JoinParameters, workspace: Workspace) -> Result:
    """Join the particles of one micrograph: images are copied into one stack, in the order of the ports."""
    given = [item.inputs[port] for port in PORTS if port in item.inputs]
    diameters = [float(one.value("max_diameter", 0.0)) for one in given]
    # What has no particles need not say how large they are, and adds none.
    having = [one for one in given if one.metric("extracted")]
    sizes = {(round(float(one.value("image_pixel_size")), 4), int(one.value("image_size"))) for one in having}
    if len(sizes) > 1:
        listed = " and ".join(f"{size} px of {pixel_size:g} Å" for pixel_size, size in sorted(sizes))
        raise ProcessingError(
            f"Particles of different sizes cannot be joined: {listed}. Extract them with the same box."
        )
    first, given = (having or given)[0], having
    named = {name: first.value(name) for name in ("image_pixel_size", "image_size", "box")}
    values = {name: value for name, value in named.items() if value is not None}
    if any(diameters):
        values["max_diameter"] = max(diameters)
    tables = [_rows(one, workspace) for one in given]
    pixel_sizes = [micrograph_pixel_size(one) or workspace.optics.pixel_size for one in given]
    kept = _without_duplicates(tables, pixel_sizes, parameters.join_duplicate_distance)
    count = sum(map(len, kept))
    metrics = {"extracted": float(count), "duplicates": float(sum(map(len, tables)) - count)}
    if not count:
        return Result(metrics=metrics, values=values)
    stack, star = workspace.path(item, ".mrcs"), workspace.path(item, "_join.star")
    images = [
        _stack(one, workspace)[[_number(rows[index]) for index in indices]]
        for one, rows, indices in zip(given, tables, kept, strict=True)
        if indices
    ]
    write_mrc(stack, np.concatenate(images), float(values["image_pixel_size"]), durable=False)
    name = workspace.relative(stack)
    joined = [list(rows[index]) for rows, indices in zip(tables, kept, strict=True) for index in indices]
    for number, row in enumerate(joined, 1):
        row[_IMAGE] = f"{number:06d}@{name}"
    write_star(star, [particles_block(joined)])
    return Result(
        metrics=metrics, outputs={"particles": name, "particles_star": workspace.relative(star)}, values=values
    )


def _rows(given: Given, workspace: Workspace) -> list[list[Value]]:
    path = given.result.outputs.get("particles_star")
    return [list(row) for row in particles_of(workspace.absolute(path)).rows] if path else []


def _stack(given: Given, workspace: Workspace) -> NDArray[np.float32]:
    """Return the images of a port as (n, height, width), also where there is only one."""
    images = np.asarray(read_mrc(workspace.absolute(given.result.outputs["particles"])), dtype=np.float32)
    return images.reshape(-1, *images.shape[-2:])


def _number(row: Sequence[Value]) -> int:
    return int(str(row[_IMAGE]).split("@", 1)[0]) - 1


def _without_duplicates(
    tables: Sequence[Sequence[Sequence[Value]]], pixel_sizes: Sequence[float], distance: float
) -> list[list[int]]:
    """Return which rows of each table are kept; `distance` is in Å, as the `pixel_sizes` of the tables' micrographs, which may differ.

    Those of an earlier table go before those of a later one, and within a table the better pick goes first. So the same particles are kept whatever
    the order in which a picker lists them.
    """
    taken: list[tuple[float, float]] = []
    kept: list[list[int]] = []
    for rows, pixel_size in zip(tables, pixel_sizes, strict=True):
        best_first = sorted(range(len(rows)), key=lambda index: (-float(rows[index][_FOM]), index))
        mine: list[int] = []
        for index in best_first:
            place = (pixel_size * float(rows[index][_X]), pixel_size * float(rows[index][_Y]))
            if distance and taken and np.min(np.hypot(*(np.array(taken) - place).T)) < distance:
                continue
            taken.append(place)
            mine.append(index)
        kept.append(sorted(mine))
    return kept
