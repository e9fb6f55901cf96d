"""Particle extraction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

from beamside.errors import InputError, ProcessingError
from beamside.formats.star import StarBlock, Value, format_rows, format_star, read_star, write_star
from beamside.formats.star_parts import Part, StarParts
from beamside.imaging.boxes import BACKGROUND_FRACTION, choose_box, good_size
from beamside.jobs.base import (
    JobType,
    Metric,
    Node,
    Optics,
    Picture,
    RelionContext,
    Result,
    Row,
    StarContent,
    relion_value,
)
from beamside.jobs.item_kinds import COORDINATES, FITTED_MICROGRAPH
from beamside.jobs.item_kinds import PARTICLES as PARTICLE_KIND
from beamside.jobs.optics import OpticsTable, optics_table
from beamside.jobs.ports import Given, Input, Output
from beamside.parameters import ParameterModel, parameter


class ExtractParameters(ParameterModel):
    """Parameters of extraction."""

    box_size: int = parameter(
        0,
        "Box size in pixels of the micrograph; 0: 1.5 times the largest diameter. In all optics groups it is as wide as in the session's own.",
        unit="px",
        ge=0,
        le=4096,
        relion="extract_size",
    )
    class_box: int = parameter(
        64,
        "Box size to which extracted particles are scaled for 2D classification.",
        unit="px",
        ge=16,
        le=512,
        multiple_of=2,
        relion="rescale",
    )
    background_diameter: float = parameter(
        0.0,
        "Diameter of the circle outside which the background is measured; 0: 75 % of the box.",
        unit="Å",
        ge=0,
        le=10000,
        advanced=True,
    )
    invert_contrast: bool = parameter(
        True, "Make particles white (they are black in micrographs).", advanced=True, relion="do_invert"
    )


class ParticleTables(JobType):
    """A job that writes the particles of each micrograph, with a STAR file of each; the table of all has the rows of these."""

    table: ClassVar[str]
    """Name of the table of all particles, in the job directory."""

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return the table of all particles: the rows of all micrographs' own STAR files."""
        parts = list[Part]()
        before: dict[str, list[list[Value]]] | None = None
        listed = [row for row in rows if "particles_star" in row.result.outputs]
        found = optics_table(listed, optics)
        for row, number in zip(listed, found.numbers, strict=True):
            outputs = row.result.outputs
            path = root / outputs["particles_star"]
            try:
                identity = (outputs["particles_star"], path.stat().st_mtime_ns, number)
                parts.append(Part(identity, partial(particle_lines, path, number)))
            except FileNotFoundError:  # the table keeps what it has of files that were cleaned, as RELION's does
                before = particles_by_stack(root / job / self.table) if before is None else before
                kept = format_rows(of_group(before.get(outputs["particles"], []), number))
                parts.append(Part((outputs["particles_star"], tuple(kept)), partial("".join, kept)))
        return {self.table: StarParts(particles_star(list(PARTICLE_COLUMNS), [], found, rows), parts)}

    def restorable(self, result: Result, role: str, job: str, root: Path) -> bool:
        """The STAR file of a micrograph's particles, while the particles and the table of all are there."""
        return (
            role == "particles_star"
            and (root / result.outputs["particles"]).exists()
            and (root / job / self.table).exists()
        )

    def restore(self, results: Sequence[Result], job: str, root: Path) -> int:
        """Write the STAR files of micrographs whose particles are there, from the table of all: RELION's gentle cleaning takes these files away."""
        gone = [
            result
            for result in results
            if "particles_star" in result.outputs
            and not (root / result.outputs["particles_star"]).exists()
            and (root / result.outputs["particles"]).exists()
        ]
        kept = particles_by_stack(root / job / self.table) if gone else {}
        restored = 0
        for result in gone:
            rows = kept.get(result.outputs["particles"], [])
            if len(rows) == int(result.metrics["extracted"]):
                write_star(root / result.outputs["particles_star"], [particles_block(of_group(rows, 1))])
                restored += 1
        return restored


class Extraction(ParticleTables):
    """Cut out, normalise and scale particles."""

    name = "extract"
    title = "Extraction"
    directory = "Extract"
    relion_type = 5
    relion_label = "relion.extract"
    version = "2"
    optics_used = ("pixel_size", "common_pixel_size")
    inputs = (
        Input("micrographs", FITTED_MICROGRAPH, reads=("micrograph",), relion_option="star_mics"),
        Input("coordinates", COORDINATES, reads=("coordinates",), relion_option="coords_suffix"),
    )
    outputs = (Output("particles", PARTICLE_KIND),)
    work = "beamside.jobs.extract_worker:extract"
    Parameters = ExtractParameters
    metrics = (
        Metric("extracted", "Extracted", good="high", digits=0, description="Particles extracted from the micrograph."),
        Metric(
            "at_edge",
            "Too near the edge",
            good="low",
            digits=0,
            description="Picks left out because their box leaves the micrograph.",
        ),
    )
    table = "particles.star"
    nodes = (Node("particles.star", 3, "ParticlesData.star.relion"),)
    pictures = (Picture("particles_image", "Extracted particles"),)

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return RELION's options for the same particles; sizes are those that were used, or will be."""
        box, small, pixel_size = sizes(context)
        background = float(context.parameters.background_diameter) / pixel_size or BACKGROUND_FRACTION * box
        return {
            **super().relion_options(context),
            "extract_size": str(box),
            "do_rescale": relion_value(small != box),
            "rescale": str(small),
            "bg_diameter": relion_value(min(background, float(box))),
        }

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say which particles RELION extracts differently."""
        sentences = [
            "RELION also extracts particles whose boxes reach over the edge of the micrograph, which Beamside leaves out."
        ]
        if context.setting("ctf_tilt"):
            sentences.append(
                "RELION gives all particles of a micrograph the same defocus, whatever the tilt of the specimen."
            )
        if any(row.optics is not None and row.optics.common_pixel_size for row in context.rows):
            sentences.append(
                "RELION scales boxes of one number of pixels; Beamside brought the particles of all optics groups to pixels of one size."
            )
        return sentences

    def automatic(self, given: Mapping[str, Any], newest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the box, and the circle outside which the background is measured."""
        if not {"box", "image_pixel_size", "image_size"} <= newest.keys():
            return {}
        box = float(newest["image_pixel_size"] * newest["image_size"])
        return {"box_size": int(newest["box"]), "background_diameter": BACKGROUND_FRACTION * box}


@dataclass(frozen=True)
class Sizes:
    """Box in pixels of the micrograph, and size and pixel size (Å) of the particles; `resampled` when no cropping of a transform leads to that."""

    box: int
    size: int
    pixel_size: float
    resampled: bool = False


def particle_sizes(parameters: ExtractParameters, optics: Optics, pixel_size: float, max_diameter: float) -> Sizes:
    """Return how particles of up to `max_diameter` Å are cut out of a micrograph with pixels of `pixel_size` Å.

    Those of all optics groups get pixels of one size, so that they can be classified together: what they have in the session's own group.
    """
    reference = pixel_size * optics.reference_pixel_size / optics.pixel_size
    box = parameters.box_size or default_box(max_diameter, reference, parameters.class_box)
    small = min(parameters.class_box, box)
    wanted = reference * box / small
    if not optics.common_pixel_size:
        return Sizes(box, small, wanted)
    if wanted < pixel_size * (1 - 1e-6):
        raise ProcessingError(
            f"Particles get pixels of {wanted:.4g} Å in all optics groups, and this micrograph's are {pixel_size:.4g} Å: extract them with a smaller "
            "--class-box or a larger --box-size."
        )
    return Sizes(good_size(reference * box / pixel_size), small, wanted, resampled=True)


def default_box(max_diameter: float, pixel_size: float, class_box: int) -> int:
    """Return a box of one and a half times the largest diameter; never smaller than the size it is scaled to."""
    return max(choose_box(max_diameter, pixel_size), good_size(class_box))


def micrograph_pixel_size(given: Given) -> float:
    """Return the pixel size in Å of the micrographs in whose pixels particles have their coordinates; 0 where it is not told."""
    if (known := given.value("micrograph_pixel_size")) is not None:
        return float(known)
    pixel_size, size, box = (given.value(name) for name in ("image_pixel_size", "image_size", "box"))
    return float(pixel_size) * int(size) / int(box) if box else 0.0


def sizes(context: RelionContext) -> tuple[int, int, float]:
    """Return box and rescaled box in pixels, and the micrographs' pixel size in Å: of the newest extraction, or as the first one will have them.

    `context` is of extraction or of a job that follows it.
    """
    box, small = context.newest("box"), context.newest("image_size")
    if box and small:
        known = context.newest("micrograph_pixel_size")
        return int(box), int(small), float(known or context.newest("image_pixel_size") * int(small) / int(box))
    pixel_size = float(context.newest("micrograph_pixel_size") or 0.0)
    if not pixel_size:
        pixel_size = context.optics.pixel_size * float(context.setting("binning", 1.0))
    diameter = context.setting("particle_diameter", (0.0, 0.0))[1]
    class_box = int(context.setting("class_box", ExtractParameters().class_box))
    box = int(context.setting("box_size", 0)) or default_box(diameter, pixel_size, class_box)
    return box, min(class_box, box), pixel_size


PARTICLE_COLUMNS = (
    "rlnCoordinateX",
    "rlnCoordinateY",
    "rlnAutopickFigureOfMerit",
    "rlnClassNumber",
    "rlnAnglePsi",
    "rlnImageName",
    "rlnMicrographName",
    "rlnOpticsGroup",
    "rlnCtfMaxResolution",
    "rlnCtfFigureOfMerit",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnCtfBfactor",
    "rlnCtfScalefactor",
    "rlnPhaseShift",
)
_GROUP = PARTICLE_COLUMNS.index("rlnOpticsGroup")
_UNQUOTED = re.compile(rf"^((?:[ ]*\S+){{{_GROUP}}} )[ ]*\S+", re.MULTILINE)
"""The beginning of a row without blanks in its names, up to the number of its optics group."""


def particles_star(
    columns: list[str], lines: list[list[Value]], found: OpticsTable, rows: Sequence[Row] = ()
) -> list[StarBlock]:
    """Return the blocks of a particles STAR file with the optics groups `found`; of `rows`, the first tells the size where no group has a row."""

    def image(group: Optics, row: Row | None) -> dict[str, Value]:
        row = row or next((row for row in rows if "image_pixel_size" in row.result.values), None)
        values = row.result.values if row is not None else {}
        return {
            "rlnImagePixelSize": float(values.get("image_pixel_size", group.pixel_size)),
            "rlnImageSize": int(values.get("image_size", 0)),
            "rlnImageDimensionality": 2,
        }

    return [found.block(image), StarBlock("particles", columns, lines)]


def particles_block(rows: list[list[Value]]) -> StarBlock:
    """Return the table of one micrograph's particles. It has no optics of its own, and all its rows say group 1."""
    return StarBlock("images", list(PARTICLE_COLUMNS), rows)


def of_group(rows: list[list[Value]], number: int) -> list[list[Value]]:
    """Return rows of `PARTICLE_COLUMNS` with the number of their optics group in another table."""
    if all(str(row[_GROUP]) == str(number) for row in rows):
        return rows
    return [[*row[:_GROUP], number, *row[_GROUP + 1 :]] for row in rows]


def particles_by_stack(path: Path) -> dict[str, list[list[Value]]]:
    """Return the rows of the table of all particles by the stack that has their images; nothing where the table is gone or is not ours."""
    try:
        table = read_star(path).get("particles")
    except InputError:
        return {}
    if table is None or not set(PARTICLE_COLUMNS) <= set(table.columns):
        return {}
    places = [table.columns.index(name) for name in PARTICLE_COLUMNS]
    image = PARTICLE_COLUMNS.index("rlnImageName")
    found: dict[str, list[list[Value]]] = {}
    for row in table.rows:
        line = [row[place] for place in places]
        found.setdefault(str(line[image]).split("@", 1)[-1], []).append(line)
    return found


def particle_lines(path: Path, number: int = 1) -> str:
    """Return the lines of one micrograph's particles for the table of all, where its optics group has this `number`."""
    text = path.read_text("utf-8", "surrogateescape")
    lines = text.removeprefix(_head()).removesuffix(" \n")
    if len(lines) == len(text) - len(_head()) - 2 and "\n_" not in lines and "\0" not in lines:
        if number == 1:
            return lines
        if not {'"', "'", "#"} & set(lines):
            return _UNQUOTED.sub(lambda found: f"{found[1]}{number:12d}", lines)
    return "".join(format_rows(of_group(read_star(path)["images"].rows, number)))  # also of another program's file


@cache
def _head() -> str:
    """Return what is before the rows in the table of one micrograph."""
    return format_star([particles_block([])]).removesuffix(" \n")


def particles_of(path: Path) -> StarBlock:
    """Return the particles of one micrograph."""
    return read_star(path, sharing=True)["images"]
