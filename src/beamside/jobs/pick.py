"""Particle picking: from a range of diameters alone, with references, or with Topaz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import (
    Item,
    JobType,
    Metric,
    Node,
    Optics,
    Picture,
    Result,
    Row,
    StarContent,
    Workspace,
    relion_value,
)
from beamside.parameters import ParameterModel, parameter


class PickParameters(ParameterModel):
    """Parameters of picking."""

    particle_diameter: tuple[float, float] = parameter(
        (120.0, 180.0), "Smallest and largest diameter of the particles, as MIN:MAX.", unit="Å"
    )
    pick_method: Literal["blob", "template", "topaz"] = parameter(
        "blob",
        "How particles are found: by size alone (blob), with references (template), or with the program Topaz (topaz).",
    )
    pick_references: str = parameter(
        "",
        "References for picking with templates: a stack of class averages (.mrc, .mrcs), a STAR file that lists some (class_averages.star), "
        "or `classes` for the class averages that are selected in this session when it is started.",
    )
    pick_reference_pixel_size: float = parameter(
        0.0, "Pixel size of the references; 0 takes what their file says.", unit="Å", ge=0, le=50, advanced=True
    )
    pick_reference_protein: Literal["auto", "white", "black"] = parameter(
        "auto", "How protein looks in the references; auto compares their middles with their rims.", advanced=True
    )
    pick_angle_step: float = parameter(
        5.0, "Step of the references' rotation.", unit="°", ge=1, le=90, advanced=True, relion="psi_sampling_autopick"
    )
    pick_threshold: float = parameter(
        0.0,
        "Moves the automatic threshold: higher picks fewer, lower picks more. Micrographs are not searched again for that.",
        ge=-5,
        le=5,
        relion="log_adjust_thr",
    )
    picks_per_area: float = parameter(
        0.0,
        "Picks wanted per area (without carbon, contamination and edges): the best ones of each neighbourhood are taken instead of those above a "
        "threshold; 0 does not.",
        unit="1/µm²",
        ge=0,
        le=100_000,
        advanced=True,
    )
    pick_border: float = parameter(
        0.0,
        "Distance that picks keep from the edges of the micrograph; 0 is half of the smallest diameter.",
        unit="Å",
        ge=0,
        le=5000,
        advanced=True,
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
    topaz_program: str = parameter(
        "topaz", "Program that is run to pick with Topaz.", advanced=True, affects_result=False, relion="fn_topaz_exec"
    )
    topaz_model: str = parameter(
        "resnet16",
        "Topaz's model: one that comes with it, or a trained file (.sav).",
        advanced=True,
        relion="topaz_model",
    )

    @field_validator("particle_diameter", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        """Accept "100:160" and a single number."""
        if isinstance(value, str):
            parts = value.replace("-", ":").replace(",", ":").split(":")
            return tuple(parts if len(parts) > 1 else parts * 2)
        return (value, value) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _has_references(self) -> PickParameters:
        if self.pick_method == "template" and not self.pick_references:
            raise ValueError("picking with templates needs references: give pick_references, a stack of class averages")
        return self

    @field_validator("particle_diameter")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 10 <= value[0] <= value[1] <= 5000:
            raise ValueError(f"must be MIN:MAX with 10 <= MIN <= MAX <= 5000 (Å), not {value[0]:g}:{value[1]:g}")
        return value


def automatic_border(min_diameter: float) -> float:
    """Return the distance in Å that picks keep from the edges of the micrograph."""
    return min_diameter / 2


class Picking(JobType):
    """Find particles: by their size, with references, or with Topaz."""

    name = "pick"
    title = "Picking"
    directory = "AutoPick"
    relion_type = 4
    relion_label = "relion.autopick"
    version = "3"
    optics_used = ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast")
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
    reads = ("micrograph",)
    spare = ("candidates",)
    pictures = (Picture("picks_image", "Picked particles", micrograph=True),)
    inputs = ("ctf",)
    input_options = ("fn_input_autopick",)
    fixed_options = {"do_ref3d": "No", "angpix": "-1", "log_upper_thr": "999", "log_invert": "No"}

    def relion_options(self, parameters: Any, optics: Optics, inputs: Sequence[str]) -> dict[str, str]:
        """Return RELION's options for picking the same sizes."""
        low, high = parameters.particle_diameter
        sizes = {"log_diam_min": f"{low:g}", "log_diam_max": f"{high:g}", "topaz_particle_diameter": f"{high:g}"}
        method = {
            "do_log": relion_value(parameters.pick_method == "blob"),
            "do_refs": relion_value(parameters.pick_method == "template"),
            "do_topaz": relion_value(parameters.pick_method == "topaz"),
            "fn_refs_autopick": parameters.pick_references if parameters.pick_method == "template" else "",
        }
        return {**super().relion_options(parameters, optics, inputs), **sizes, **method}

    def adopt(self, parameters: Any, root: Path) -> Any:
        """Keep a copy of the references in the project, named by their content."""
        if parameters.pick_method != "template":
            return parameters
        from beamside.jobs.pick_references import adopt_references

        return adopt_references(parameters, root)

    def process(self, item: Item, parameters: Any, workspace: Workspace) -> Result:
        """Pick the particles of one micrograph."""
        from beamside.jobs.pick_worker import pick

        return pick(item, parameters, workspace)

    def automatic(self, settings: Mapping[str, Any], newest: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the distance from the edges."""
        return {"pick_border": automatic_border(settings["particle_diameter"][0])}

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
