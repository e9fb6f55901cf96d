"""The worker's part of extraction."""

from __future__ import annotations

import numpy as np
import torch

from beamside.errors import ProcessingError
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import Value, read_star, write_star
from beamside.imaging import pictures
from beamside.imaging.particles import extract_particles
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.ctf import ctf_values, defocus_offset, fit_of
from beamside.jobs.extract import ExtractParameters, particle_sizes, particles_block
from beamside.jobs.output import save_picture

_PLACE, _SCORE = ("rlnCoordinateX", "rlnCoordinateY"), "rlnAutopickFigureOfMerit"
SHOWN = 24
"""Particles in the picture for people."""


def extract(item: Item, parameters: ExtractParameters, workspace: Workspace) -> Result:
    """Extract the particles of one micrograph. Picks whose box would leave the micrograph are counted and left out."""
    micrograph = item.output("micrograph")
    image = np.asarray(read_mrc(workspace.absolute(micrograph)), dtype=np.float32)
    if not np.isfinite(image).all():  # one such particle would spoil all classes
        raise ProcessingError(f"{micrograph} has values that are not finite: check what has made this micrograph.")
    pixel_size = float(item.inputs["micrographs"].value("micrograph_pixel_size"))
    picks = _picks(item, workspace)
    largest = float(item.inputs["coordinates"].value("max_diameter"))
    sizes = particle_sizes(parameters, workspace.optics, pixel_size, largest)
    box, small = sizes.box, sizes.size
    inside = _inside(picks[:, :2], image.shape, box)
    picks = picks[inside]
    values = {"image_pixel_size": sizes.pixel_size, "image_size": small, "box": box}
    metrics = {"extracted": float(len(picks)), "at_edge": float((~inside).sum())}
    if not len(picks):
        return Result(metrics=metrics, values=values)
    particles = extract_particles(
        torch.from_numpy(image),
        torch.from_numpy(picks[:, [1, 0]].astype(np.float32)),
        box,
        small,
        pixel_size=pixel_size,
        rescaled_pixel_size=sizes.pixel_size if sizes.resampled else None,
        background_diameter=parameters.background_diameter or None,
        invert=parameters.invert_contrast,
    ).numpy()
    stack, star = workspace.path(item, ".mrcs"), workspace.path(item, "_extract.star")
    picture = workspace.path(item, "_particles.jpg")
    write_mrc(stack, particles, sizes.pixel_size, durable=False)
    save_picture(picture, pictures.class_montage(particles[:SHOWN], columns=min(SHOWN // 2, len(particles)), tile=64))
    rows = _rows(picks, workspace.relative(stack), micrograph, fit_of(item.inputs["micrographs"]))
    write_star(star, [particles_block(rows)])
    return Result(
        metrics=metrics,
        outputs={
            "particles": workspace.relative(stack),
            "particles_star": workspace.relative(star),
            "particles_image": workspace.relative(picture),
        },
        values=values,
    )


def _picks(item: Item, workspace: Workspace) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the picks as (n, 3): x, y, score; those of a program or a person that gives no scores have 0."""
    path = workspace.absolute(item.inputs["coordinates"].output("coordinates"))
    blocks = list(read_star(path).values())
    table = next((block for block in blocks if _PLACE[0] in block), blocks[0])
    columns = [table.floats(label) for label in _PLACE]
    columns.append(table.floats(_SCORE) if _SCORE in table else np.zeros(len(table)))
    return np.array(columns, dtype=np.float64).reshape(3, -1).T


def _inside(
    points: np.ndarray[tuple[int, int], np.dtype[np.float64]], shape: tuple[int, ...], box: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell which boxes are wholly inside; `points` are x, y."""
    first = np.trunc(points) - box // 2
    limit = np.array([shape[1], shape[0]])
    return np.asarray(((first >= 0) & (first + box <= limit)).all(axis=1))


def _rows(
    picks: np.ndarray[tuple[int, int], np.dtype[np.float64]], stack: str, micrograph: str, ctf: Result
) -> list[list[Value]]:
    _, _, _, angle, score, resolution = ctf_values(ctf)
    defocus_u, defocus_v = float(ctf.values["defocus_u"]), float(ctf.values["defocus_v"])
    phase = float(ctf.values.get("phase_shift", 0.0))
    offsets = [defocus_offset(ctf, float(x), float(y)) for x, y, _ in picks]
    return [
        [
            float(x),
            float(y),
            float(fom),
            0,
            0.0,
            f"{index + 1:06d}@{stack}",
            micrograph,
            1,
            resolution,
            score,
            defocus_u + offset,
            defocus_v + offset,
            angle,
            0.0,
            1.0,
            phase,
        ]
        for index, ((x, y, fom), offset) in enumerate(zip(picks, offsets, strict=True))
    ]
