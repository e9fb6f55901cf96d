"""Particle picking from a range of diameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import field_validator

from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import Item, JobType, Metric, Node, Optics, Picture, Result, Row, StarContent, Workspace
from beamside.parameters import ParameterModel, parameter


class PickParameters(ParameterModel):
    """Parameters of picking."""

    particle_diameter: tuple[float, float] = parameter(
        (120.0, 180.0), "Smallest and largest diameter of the particles, as MIN:MAX.", unit="Å"
    )
    pick_threshold: float = parameter(
        0.0,
        "Moves the automatic threshold: higher picks fewer, lower picks more.",
        ge=-5,
        le=5,
        relion="log_adjust_thr",
    )
    pick_resolution: float = parameter(
        20.0,
        "Resolution of the micrographs that are searched.",
        unit="Å",
        ge=5,
        le=100,
        advanced=True,
        relion="log_maxres",
    )
    mask_contamination: bool = parameter(True, "Leave out ice crystals, carbon and other contamination.", advanced=True)

    @field_validator("particle_diameter", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        """Accept "100:160" and a single number."""
        if isinstance(value, str):
            parts = value.replace("-", ":").replace(",", ":").split(":")
            return tuple(parts if len(parts) > 1 else parts * 2)
        return (value, value) if isinstance(value, int | float) else value

    @field_validator("particle_diameter")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 10 <= value[0] <= value[1] <= 5000:
            raise ValueError(f"must be MIN:MAX with 10 <= MIN <= MAX <= 5000 (Å), not {value[0]:g}:{value[1]:g}")
        return value


class Picking(JobType):
    """Find particles by their size."""

    name = "pick"
    title = "Picking"
    directory = "AutoPick"
    relion_type = 4
    relion_label = "relion.autopick"
    version = "1"
    optics_used = ("pixel_size",)
    requires = ("ctf",)
    Parameters = PickParameters
    metrics = (
        Metric(
            "particles",
            "Particles",
            good="high",
            digits=0,
            description="Particles picked in the micrograph.",
            main=True,
        ),
        Metric("pick_score", "Pick score", good="high", description="Median score of the picks."),
        Metric(
            "masked_fraction",
            "Masked area",
            "%",
            scale=100,
            good="low",
            digits=1,
            description="Area left out as contaminated.",
        ),
    )
    nodes = (
        Node("coords_suffix_autopick.star", 2, "MicrographsCoords.star.relion.autopick"),
        Node("autopick.star", 2, "MicrographsCoords.star.relion.autopick"),
    )
    pictures = (Picture("picks_image", "Picked particles"),)
    inputs = ("ctf",)
    input_options = ("fn_input_autopick",)
    fixed_options = {"do_log": "Yes", "do_ref3d": "No", "angpix": "-1", "log_upper_thr": "999", "log_invert": "No"}

    def relion_options(self, parameters: Any, optics: Optics, inputs: Sequence[str]) -> dict[str, str]:
        """Return RELION's options for picking the same sizes."""
        low, high = parameters.particle_diameter
        sizes = {"log_diam_min": f"{low:g}", "log_diam_max": f"{high:g}"}
        return {**super().relion_options(parameters, optics, inputs), **sizes}

    def process(self, item: Item, parameters: Any, workspace: Workspace) -> Result:
        """Pick the particles of one micrograph."""
        from beamside.jobs.pick_worker import pick

        return pick(item, parameters, workspace)

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return coordinates in both of RELION's conventions: a suffix file (3.1) and a list of files (4 and later)."""
        lines: list[list[Value]] = [[row.item.output("micrograph"), row.result.outputs["coordinates"]] for row in rows]
        summary: list[list[Value]] = [
            [
                row.item.output("micrograph"),
                float(row.result.metrics["pick_score"]),
                int(row.result.metrics["particles"]),
            ]
            for row in rows
        ]
        columns = ["rlnMicrographName", "rlnMicrographCoordinates"]
        micrographs = rows[0].item.results["ctf"].values["micrographs_star"] if rows else ""
        return {
            "autopick.star": [StarBlock("coordinate_files", columns, lines)],
            "coords_suffix_autopick.star": f"{micrographs}\n",
            "summary.star": [
                StarBlock("", ["rlnMicrographName", "rlnAutopickFigureOfMerit", "rlnGroupNrParticles"], summary)
            ],
        }
