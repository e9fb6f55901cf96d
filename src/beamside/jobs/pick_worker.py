"""The worker's part of picking: find the candidates, unless they are known, and write those that are accepted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beamside.errors import BeamsideError
from beamside.formats.mrc import read_mrc
from beamside.formats.star import StarBlock, Value, read_star, write_star
from beamside.imaging import pictures
from beamside.imaging.picking.blobs import BlobSettings, pick_blobs
from beamside.imaging.picking.candidates import STEPS, Candidates, OpenArea, accept
from beamside.imaging.picking.templates import Ctf, References, pick_templates
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.ctf import fit_of
from beamside.jobs.output import save_picture
from beamside.jobs.pick import CLOSEST, PickParameters, automatic_border
from beamside.jobs.pick_references import LARGEST, check_references, read_references
from beamside.parameters import set_parameters
from beamside.programs.topaz import pick_with_topaz

COLUMNS = ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnClassNumber", "rlnAnglePsi")
DIAMETER = "beamsideDiameter"
"""Extra column of the candidates, Å."""
GENERAL = ("beamsideKey", "beamsideThreshold", "beamsideFloor", "beamsideExcluded", "beamsideHeight", "beamsideWidth")
OPEN = "beamsideOpen"
"""Column of the grid that tells where picks are allowed: one row of cells as digits, 0 to 9 ninths."""
DECIDING = ("pick_threshold", "picks_per_area")
"""Parameters that choose among the candidates; all others make them."""
ALGORITHM = "3"
"""Version of the pickers: candidates of another one are found again."""


def pick(item: Item, parameters: PickParameters, workspace: Workspace) -> Result:
    """Pick the particles of one micrograph."""
    path = workspace.absolute(item.output("micrograph"))
    image = np.array(read_mrc(path), dtype=np.float32)
    pixel_size = float(item.inputs["micrographs"].value("micrograph_pixel_size"))
    kept, key = workspace.path(item, "_candidates.star"), _key(item, path, parameters, workspace)
    candidates = read_candidates(kept, key)
    if candidates is None:
        found = _find(image, path, item, parameters, workspace)
        write_candidates(kept, key, found)
        # As they are in the file, so that it makes no difference whether they were found now or earlier.
        candidates = read_candidates(kept, key) or found
    picks = accept(candidates, parameters.pick_threshold, parameters.picks_per_area, pixel_size)
    star, picture = workspace.path(item, "_autopick.star"), workspace.path(item, "_picks.jpg")
    write_star(star, [StarBlock("", list(COLUMNS), _rows(picks))])
    coordinates = picks.coordinates.numpy()
    save_picture(picture, pictures.picks_overlay(image, coordinates, picks.diameters.numpy(), pixel_size))
    scores = picks.scores.numpy()
    return Result(
        metrics={
            "particles": float(len(scores)),
            "pick_score": float(np.median(scores)) if len(scores) else 0.0,
            "masked_fraction": picks.excluded,
        },
        outputs={
            "coordinates": workspace.relative(star),
            "candidates": workspace.relative(kept),
            "picks_image": workspace.relative(picture),
        },
        values={
            "max_diameter": parameters.particle_diameter[1],
            "threshold": picks.threshold,
            "candidates": len(candidates),
        },
    )


def _find(
    image: NDArray[np.float32], path: Path, item: Item, parameters: PickParameters, workspace: Workspace
) -> Candidates:
    """Find the candidates with the method that is asked for."""
    pixel_size = float(item.inputs["micrographs"].value("micrograph_pixel_size"))
    low, high = parameters.particle_diameter
    settings = BlobSettings(
        pixel_size=pixel_size,
        min_diameter=low,
        max_diameter=high,
        min_distance=CLOSEST,
        max_resolution=max(parameters.pick_resolution, 2.1 * pixel_size),
        border=parameters.pick_border or automatic_border(low),
        mask=parameters.mask_contamination,
    )

    def blobs() -> Candidates:
        return pick_blobs(torch.from_numpy(image), settings)

    def templates() -> Candidates:
        references = _references(
            str(workspace.absolute(_reference_file(item, parameters))),
            high,
            parameters.pick_angle_step,
            settings.max_resolution,
        )
        return pick_templates(torch.from_numpy(image), settings, references, _ctf(item, workspace))

    def topaz() -> Candidates:
        return pick_with_topaz(
            path,
            image,
            settings,
            program=parameters.topaz_program,
            model=parameters.topaz_model,
            threads=workspace.threads,
        )

    methods: dict[str, Callable[[], Candidates]] = {"blob": blobs, "template": templates, "topaz": topaz}
    return methods[parameters.pick_method]()


def _reference_file(item: Item, parameters: PickParameters) -> str:
    """Return the file of the references; its name tells its content."""
    given = item.shared.get("references")
    return given.output("averages") if given is not None else parameters.pick_references


@lru_cache(maxsize=2)
def _references(path: str, diameter: float, step: float, resolution: float) -> References:
    """The references are the same for all micrographs of a session; the file's name tells its content."""
    images, pixel_size = read_references(Path(path))
    images = images[:LARGEST]
    check_references(images, pixel_size, path)
    return References(torch.from_numpy(images), pixel_size, diameter, step, resolution)


def _ctf(item: Item, workspace: Workspace) -> Ctf:
    values, optics = fit_of(item.inputs["micrographs"]).values, workspace.optics
    return Ctf(
        float(values["defocus_u"]),
        float(values["defocus_v"]),
        float(values["defocus_angle"]),
        float(values.get("phase_shift", 0.0)),
        optics.voltage,
        optics.spherical_aberration,
        optics.amplitude_contrast,
    )


def _key(item: Item, micrograph: Path, parameters: PickParameters, workspace: Workspace) -> str:
    """Return what the candidates are valid for: the micrograph's file, its CTF where it is used, and all parameters that do not merely choose."""
    status = micrograph.stat()
    given = {name: value for name, value in set_parameters(parameters).items() if name not in DECIDING}
    ctf = dict(fit_of(item.inputs["micrographs"]).values) if parameters.pick_method == "template" else {}
    optics = workspace.optics
    used = [optics.voltage, optics.spherical_aberration, optics.amplitude_contrast] if ctf else []
    pixel_size = item.inputs["micrographs"].value("micrograph_pixel_size")
    content = [ALGORITHM, str(micrograph), status.st_size, status.st_mtime_ns, pixel_size, given, ctf, used]
    if item.shared:
        content.append(_reference_file(item, parameters))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def _rows(candidates: Candidates) -> list[list[Value]]:
    return [
        [float(x), float(y), float(score), int(reference), float(psi)]
        for (y, x), score, reference, psi in zip(
            candidates.coordinates.tolist(),
            candidates.scores.tolist(),
            candidates.references.tolist(),
            candidates.psi.tolist(),
            strict=True,
        )
    ]


def write_candidates(path: Path, key: str, candidates: Candidates) -> None:
    """Write all candidates of a micrograph, with what they are valid for."""
    height, width = candidates.open.shape
    general: list[Value] = [key, candidates.threshold, candidates.floor, candidates.excluded, height, width]
    cells: list[list[Value]] = [["".join(map(str, row))] for row in _steps(candidates.open).tolist()]
    rows = [[*row, float(size)] for row, size in zip(_rows(candidates), candidates.diameters.tolist(), strict=True)]
    write_star(
        path,
        [
            StarBlock("general", list(GENERAL), [general], loop=False),
            StarBlock("open", [OPEN], cells),
            StarBlock("candidates", [*COLUMNS, DIAMETER], rows),
        ],
    )


def read_candidates(path: Path, key: str) -> Candidates | None:
    """Return the candidates of a file that are valid for `key`; None when there is no such file, or it is of something else."""
    try:
        blocks = read_star(path)
        general, table = blocks["general"], blocks["candidates"]
        if str(general.single(GENERAL[0])) != key:
            return None
        threshold, floor, excluded, height, width = (float(general.single(name)) for name in GENERAL[1:])
        parts = torch.tensor([[int(digit) for digit in row] for row in blocks["open"].texts(OPEN)]) / STEPS
        area = OpenArea(parts, (int(height), int(width)))
        columns = {name: torch.from_numpy(table.floats(name).copy()).float() for name in (*COLUMNS, DIAMETER)}
    except (BeamsideError, OSError, KeyError, ValueError, OverflowError):
        return None
    return Candidates(
        coordinates=_places(columns),
        scores=columns[COLUMNS[2]],
        diameters=columns[DIAMETER],
        references=columns[COLUMNS[3]].long(),
        psi=columns[COLUMNS[4]],
        threshold=threshold,
        floor=floor,
        excluded=excluded,
        open=area,
    )


def _steps(area: OpenArea) -> Tensor:
    return (area.parts * STEPS).round().long()


def _places(columns: dict[str, Tensor]) -> Tensor:
    return torch.stack([columns[COLUMNS[1]], columns[COLUMNS[0]]], dim=1)
