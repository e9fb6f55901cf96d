"""Particle picking: from a range of diameters alone, with references, or with Topaz."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from beamside.errors import BeamsideError
from beamside.formats.mrc import read_header
from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import (
    JobType,
    Metric,
    Node,
    Optics,
    Picture,
    RelionContext,
    RelionViewer,
    Row,
    StarContent,
    relion_value,
)
from beamside.jobs.item_kinds import AVERAGES, COORDINATES, FITTED_MICROGRAPH
from beamside.jobs.ports import Input, Output
from beamside.parameters import ParameterModel, parameter
from beamside.project.relion_options import OPTIONS
from beamside.project.relion_types import JOB_LABELS

MANUAL_PICKING = 3
"""Number of RELION's manual picking, with which it shows picks."""
SHOWN_PIXELS = 1000
"""Width in which a micrograph is shown by it."""
FROM_WORKFLOW = "workflow"
"""What stands instead of a file where the workflow says whose class averages are the references."""
CLOSEST = 0.75
"""Least distance of two picks as a fraction of the mean diameter."""


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
        "or `classes` for the class averages that are selected in this session when it is started (`classes:LABEL` where several jobs select). "
        "In a workflow the input `references` names a job instead.",
    )
    pick_reference_pixel_size: float = parameter(
        0.0, "Pixel size of the references; 0: that of their file.", unit="Å", ge=0, le=50, advanced=True
    )
    pick_reference_protein: Literal["auto", "white", "black"] = parameter(
        "auto",
        "Contrast of the references: protein is white or black; auto compares their centres with their edges.",
        advanced=True,
    )
    pick_angle_step: float = parameter(
        5.0,
        "Angle between two rotations of a reference.",
        unit="°",
        ge=1,
        le=90,
        advanced=True,
        relion="psi_sampling_autopick",
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
        "Picks wanted per unit area (without carbon, contamination and edges): the best picks of each neighbourhood are taken instead of those "
        "above a threshold; 0 uses the threshold.",
        unit="1/µm²",
        ge=0,
        le=100_000,
        advanced=True,
    )
    pick_border: float = parameter(
        0.0,
        "Distance of picks from the edges of the micrograph; 0: half of the smallest diameter.",
        unit="Å",
        ge=0,
        le=5000,
        advanced=True,
    )
    pick_resolution: float = parameter(
        20.0,
        "Resolution to which micrographs are filtered for picking.",
        unit="Å",
        ge=5,
        le=100,
        advanced=True,
        relion="log_maxres",
    )
    mask_contamination: bool = parameter(True, "Leave out ice crystals, carbon and other contamination.", advanced=True)
    topaz_program: str = parameter(
        "topaz", "Program to run for picking with Topaz.", advanced=True, affects_result=False, relion="fn_topaz_exe"
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
    inputs = (
        Input("micrographs", FITTED_MICROGRAPH, reads=("micrograph",), relion_option="fn_input_autopick"),
        Input(
            "references",
            AVERAGES,
            takes="one",
            optional=True,
            reads=("averages",),
            presets={"pick_method": "template", "pick_references": FROM_WORKFLOW},
        ),
    )
    outputs = (Output("coordinates", COORDINATES),)
    work = "beamside.jobs.pick_worker:pick"
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
        # RELION 3.1 takes any coordinates for a suffix file; RELION 4 and 5 read both.
        Node("autopick.star", None, "MicrographsCoords.star.relion.autopick"),
    )
    spare = ("candidates",)
    pictures = (Picture("picks_image", "Picked particles", micrograph=True),)

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return RELION's options for picking the same sizes with the nearest method that it has."""
        given, options = context.parameters, super().relion_options(context)
        low, high = given.particle_diameter
        resolution = float(given.pick_resolution)
        if pixel_size := context.newest("micrograph_pixel_size"):
            resolution = max(resolution, 2.1 * float(pixel_size))
        options |= {
            "do_log": relion_value(given.pick_method == "blob"),
            "do_refs": relion_value(given.pick_method == "template"),
            "do_topaz": relion_value(given.pick_method == "topaz"),
            "do_topaz_pick": relion_value(given.pick_method == "topaz"),
            "log_diam_min": relion_value(float(low)),
            "log_diam_max": relion_value(float(high)),
            "log_maxres": relion_value(resolution),
        }
        if given.pick_method == "template":
            references = given.pick_references
            if references == FROM_WORKFLOW:
                shared = context.shared.get("references")
                references = shared.outputs["averages"] if shared is not None else ""
            options |= {
                "fn_refs_autopick": references,
                "angpix_ref": _pixel_size_of(context.root / references),
                "particle_diameter": relion_value(float(high)),
                "lowpass": relion_value(resolution),
                "mindist_autopick": relion_value(CLOSEST * (low + high) / 2),
            }
        if given.pick_method == "topaz":
            options |= {
                "topaz_particle_diameter": relion_value(float(high)),
                "fn_topaz_exec": given.topaz_program,  # RELION 4's name of it
            }
        else:
            options.pop("fn_topaz_exe")  # the site's own
        return options

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say what RELION's pickers do differently."""
        given = context.parameters
        sentences = {
            "blob": [
                "RELION picks with its Laplacian-of-Gaussian filter and its own threshold instead of Beamside's detector."
            ],
            "template": [
                "RELION matches the references with its own program and a threshold of 0.05 instead of Beamside's automatic one."
            ],
            "topaz": [
                "RELION 4 and 5 run Topaz through their own wrapper; RELION 3.1 has no Topaz and refuses to start the job."
            ],
        }[given.pick_method]
        if given.mask_contamination:
            sentences.append("RELION also picks on ice crystals, carbon and other contamination.")
        if given.picks_per_area:
            sentences.append(f"RELION cannot be asked for {given.picks_per_area:g} picks per µm².")
        if given.pick_border:
            sentences.append(f"RELION does not stay {given.pick_border:g} Å away from the edges.")
        return sentences

    def relion_viewer(self, context: RelionContext) -> RelionViewer:
        """Return the options of RELION's manual picking with which it shows our picks: RELION 3.1 shows none without them."""
        low, high = context.parameters.particle_diameter
        pixel_size = context.newest("micrograph_pixel_size")
        shape = context.newest("shape")
        options = {
            **OPTIONS[MANUAL_PICKING],
            "fn_in": next(iter(context.inputs.values()), ""),
            "diameter": relion_value(float(round((low + high) / 2))),
            "angpix": relion_value(float(pixel_size)) if pixel_size else "-1",
            "lowpass": relion_value(float(context.parameters.pick_resolution)),
        }
        if shape:
            options["micscale"] = relion_value(min(1.0, max(0.05, round(SHOWN_PIXELS / max(shape), 2))))
        return RelionViewer(MANUAL_PICKING, JOB_LABELS[MANUAL_PICKING], options)

    def contradiction(self, parameters: Any, connected: Collection[str]) -> str:
        """Say where references would come from two places, from none, or would not be used."""
        asked = parameters.pick_method == "template" and parameters.pick_references == FROM_WORKFLOW
        if "references" in connected and not asked:
            return (
                "the workflow says where the references come from, so --pick-method and --pick-references stay as they are; "
                "take the input out of the workflow to pick in another way"
            )
        if asked and "references" not in connected:
            return f"--pick-references {FROM_WORKFLOW} needs a workflow that connects the input `references`"
        return ""

    def adopt(self, parameters: Any, root: Path) -> Any:
        """Keep a copy of the references in the project, named by their content."""
        if parameters.pick_method != "template" or parameters.pick_references == FROM_WORKFLOW:
            return parameters
        from beamside.jobs.pick_references import adopt_references

        return adopt_references(parameters, root)

    def automatic(self, given: Mapping[str, Any], newest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the distance from the edges."""
        diameters = given.get("particle_diameter")
        return {"pick_border": automatic_border(diameters[0])} if diameters else {}

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
        micrographs = rows[0].item.value("micrographs_star") if rows else ""
        return {
            "autopick.star": [StarBlock("coordinate_files", columns, lines)],
            "coords_suffix_autopick.star": f"{micrographs}\n",
            "summary.star": [
                StarBlock("", ["rlnMicrographName", "rlnAutopickFigureOfMerit", "rlnGroupNrParticles"], summary)
            ],
        }


def _pixel_size_of(path: Path) -> str:
    """Return the pixel size in Å of a stack of references as RELION takes it, -1 where it is not known."""
    try:
        return relion_value(float(read_header(path).pixel_size))
    except (BeamsideError, OSError):
        return "-1"
