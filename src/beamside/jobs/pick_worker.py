"""The worker's part of picking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from beamside.formats.mrc import read_mrc
from beamside.formats.star import StarBlock, Value, write_star
from beamside.imaging import pictures
from beamside.imaging.picking import BlobSettings, pick_blobs
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.output import save_picture
from beamside.jobs.pick import PickParameters


def pick(item: Item, parameters: PickParameters, workspace: Workspace) -> Result:
    """Pick the particles of one micrograph."""
    image = np.array(read_mrc(workspace.absolute(item.output("micrograph"))), dtype=np.float32)
    pixel_size = float(item.results["ctf"].values["micrograph_pixel_size"])
    low, high = parameters.particle_diameter
    settings = BlobSettings(
        pixel_size=pixel_size,
        min_diameter=low,
        max_diameter=high,
        max_resolution=parameters.pick_resolution,
        mask=parameters.mask_contamination,
    )
    picks = pick_blobs(torch.from_numpy(image), settings)
    if parameters.pick_threshold:
        moved = replace(settings, threshold=picks.threshold + parameters.pick_threshold)
        picks = pick_blobs(torch.from_numpy(image), moved)
    coordinates, scores = picks.coordinates.cpu().numpy(), picks.scores.cpu().numpy()
    diameters = picks.diameters.cpu().numpy()
    star, picture = workspace.path(item, "_autopick.star"), workspace.path(item, "_picks.jpg")
    columns = ["rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnClassNumber", "rlnAnglePsi"]
    rows: list[list[Value]] = [
        [float(x), float(y), float(score), 0, 0.0] for (y, x), score in zip(coordinates, scores, strict=True)
    ]
    write_star(star, [StarBlock("", columns, rows)])
    save_picture(picture, pictures.picks_overlay(image, coordinates, diameters, pixel_size))
    return Result(
        metrics={
            "particles": float(len(scores)),
            "pick_score": float(np.median(scores)) if len(scores) else 0.0,
            "masked_fraction": picks.excluded,
        },
        outputs={"coordinates": workspace.relative(star), "picks_image": workspace.relative(picture)},
        values={"max_diameter": high},
    )
