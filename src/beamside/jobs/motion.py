"""Motion correction: movies become dose-weighted micrographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from beamside.errors import ConfigError
from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import (
    JobType,
    Metric,
    Node,
    Optics,
    Picture,
    RelionContext,
    Row,
    StarContent,
    relion_value,
)
from beamside.jobs.fractions import fractions
from beamside.jobs.item_kinds import MICROGRAPH, MOVIE
from beamside.jobs.optics import optics_table
from beamside.jobs.ports import Input, Output
from beamside.jobs.resources import Resources
from beamside.parameters import ParameterModel, parameter


class MotionParameters(ParameterModel):
    """Parameters of motion correction."""

    patches_x: int = parameter(
        5, "Number of patches in x for local motion; 1 turns local motion off.", ge=1, le=20, relion="patch_x"
    )
    patches_y: int = parameter(
        5, "Number of patches in y for local motion; 1 turns local motion off.", ge=1, le=20, relion="patch_y"
    )
    dose_weighting: bool = parameter(
        True, "Weight frames by their accumulated dose, as radiation damage grows with it.", relion="do_dose_weighting"
    )
    pre_exposure: float = parameter(
        0.0, "Dose before the first frame.", unit="e/Å²", ge=0, le=1000, advanced=True, relion="pre_exposure"
    )
    motion_b_factor: float = parameter(
        150.0,
        "B-factor applied when frames are aligned.",
        unit="Å²",
        ge=0,
        le=5000,
        advanced=True,
        relion="bfactor",
    )
    binning: float = parameter(
        1.0,
        "Factor by which the corrected micrograph is binned (2 for super-resolution movies).",
        ge=1,
        le=8,
        relion="bin_factor",
    )
    eer_upsampling: Literal[1, 2] = parameter(
        1,
        "Sampling at which EER movies are rendered: 1 for the camera's physical pixels (4K), 2 for pixels of half that size (8K). --pixel-size is "
        "that of the rendered pixels, as in RELION: with 2, give half of the camera's.",
        advanced=True,
    )
    eer_dose: float = parameter(
        1.0,
        "Dose of one fraction of an EER movie: raw frames are summed in groups whose dose comes nearest to this. Raw frames at the end that do "
        "not fill a group are left out, and reported.",
        unit="e/Å²",
        gt=0,
        le=20,
    )
    save_unweighted: bool = parameter(
        False,
        "Also save the sum without dose weighting (`_noDW.mrc`).",
        relion="do_save_noDW",
    )
    even_odd: bool = parameter(
        False,
        "Also save the sums of even and of odd frames (`_EVN.mrc`, `_ODD.mrc`), which denoising programs are trained on.",
        relion="do_even_odd_split",
    )
    float16: bool = parameter(
        False,
        "Write the sums as 16-bit floating-point numbers (MRC mode 12): half the size. RELION 4 and 5 read them, RELION 3.1 does not.",
        relion="do_float16",
    )


class MotionCorrection(JobType):
    """Correct beam-induced motion, weight by dose, sum."""

    name = "motion"
    title = "Motion correction"
    directory = "MotionCorr"
    relion_type = 1
    relion_label = "relion.motioncorr"
    version = "6"
    optics_used = ("pixel_size", "voltage", "dose_per_frame", "total_dose")
    inputs = (Input("movies", MOVIE, reads=("movie",), relion_option="input_star_mics"),)
    outputs = (Output("micrographs", MICROGRAPH),)
    work = "beamside.jobs.motion_worker:correct"
    resources = Resources(gpu_memory=4.0)
    Parameters = MotionParameters
    metrics = (
        Metric(
            "motion_total",
            "Total motion",
            "Å",
            good="low",
            digits=1,
            description="Length of the path of all frames.",
            main=True,
        ),
        Metric("motion_early", "Early motion", "Å", good="low", digits=1, description="Path during the first 4 e/Å²."),
        Metric("motion_late", "Late motion", "Å", good="low", digits=1, description="Path after the first 4 e/Å²."),
        Metric(
            "local_motion", "Local motion", "Å", good="low", digits=1, description="Largest local motion in the field."
        ),
        Metric(
            "left_over",
            "Raw frames left out",
            good="low",
            digits=0,
            description="Raw frames at the end of an EER movie that do not fill a fraction.",
        ),
    )
    nodes = (Node("corrected_micrographs.star", 1, "MicrographsData.star.relion.motioncorr"),)
    pictures = (Picture("thumbnail", "Corrected micrograph", micrograph=True), Picture("motion_plot", "Motion track"))
    fixed_options = {
        "do_own_motioncor": "Yes",
        "do_save_ps": "Yes",
        "first_frame_sum": "1",
        "last_frame_sum": "-1",
    }

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return RELION's options for the same correction."""
        dose = context.newest("dose_per_frame") or context.optics.dose_per_frame
        return {**super().relion_options(context), "dose_per_frame": relion_value(float(dose))}

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say what RELION's own motion correction does not do."""
        asked, optics, sentences = context.parameters, context.optics, []
        given = [row.item.inputs["movies"].result.values for row in context.rows if "movies" in row.item.inputs]
        gains = Counter(map(relion_gain, given))
        if len(gains) > 1:
            listed = ", ".join(f"{number} with {name or 'none'}" for name, number in gains.most_common())
            sentences.append(
                f"RELION takes one gain reference for all movies; Beamside corrected {listed}, as each micrograph's STAR file says."
            )
        if optics.total_dose > 0:
            sentences.append(
                f"RELION takes one dose for the frames of all movies; Beamside divided {optics.total_dose:g} e/Å² among each movie's frames."
            )
        if min(asked.patches_x, asked.patches_y) <= 2 < asked.patches_x * asked.patches_y:
            sentences.append("RELION fits local motion only with three or more patches in both directions.")
        if asked.even_odd:
            sentences.append("RELION does not save the sums of even and odd frames of these movies.")
        if asked.float16:
            sentences.append("RELION 3.1 writes 32-bit sums.")
        if asked.save_unweighted and not asked.dose_weighting:
            sentences.append("RELION does not save a second sum when doses are not weighted.")
        return sentences

    def camera_options(self, values: Mapping[str, Any], parameters: Any, optics: Optics) -> dict[str, str]:
        """Return RELION's gain reference and defects, the prepared files, which need no turning; and how movies are divided into fractions."""
        return {
            **_fraction_options(values, parameters, optics),
            "fn_gain_ref": relion_gain(values),
            "gain_rot": "No rotation (0)",
            "gain_flip": "No flipping (0)",
            "fn_defect": str(values.get("defects", "")),
        }

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return ``corrected_micrographs.star``. Accumulated motion is in unbinned pixels, as in RELION."""
        files = {
            "rlnMicrographNameNoDW": "unweighted",
            "rlnCtfPowerSpectrum": "power_spectrum",
            "rlnMicrographNameEven": "even",
            "rlnMicrographNameOdd": "odd",
            "rlnMicrographName": "micrograph",
            "rlnMicrographMetadata": "motion_star",
        }
        files = {column: role for column, role in files.items() if all(role in row.result.outputs for row in rows)}
        parts = ("total", "early", "late")
        columns = [*files, "rlnOpticsGroup", *(f"rlnAccumMotion{part.title()}" for part in parts)]
        found = optics_table(rows, optics)
        lines: list[list[Value]] = [
            [
                *(row.result.outputs[role] for role in files.values()),
                number,
                *(float(row.result.metrics[f"motion_{part}"]) / (row.optics or optics).pixel_size for part in parts),
            ]
            for row, number in zip(rows, found.numbers, strict=True)
        ]

        def micrograph(group: Optics, row: Row | None) -> dict[str, Value]:
            # Binning by an odd factor is done by the nearest that whole pixels allow.
            pixel_size = row.result.values["pixel_size"] if row is not None else group.pixel_size * parameters.binning
            return {"rlnMicrographPixelSize": float(pixel_size)}

        return {"corrected_micrographs.star": [found.block(micrograph), StarBlock("micrographs", columns, lines)]}


def _fraction_options(values: Mapping[str, Any], parameters: Any, optics: Optics) -> dict[str, str]:
    movie, frames = str(values.get("source", "")), int(values.get("frames", 0))
    if not frames:
        return {}
    try:
        found = fractions(movie, frames, parameters, optics)
    except ConfigError:  # the movie cannot be processed as it is, and its own job says so
        return {}
    options = {"dose_per_frame": f"{found.dose:g}"}
    if found.rendering is not None:
        options["eer_grouping"] = str(found.rendering.group)
        if found.rendering.upsampling > 1:
            options["other_args"] = f"--eer_upsampling {found.rendering.upsampling}"
    return options


def relion_gain(values: Mapping[str, Any]) -> str:
    """Return the gain reference that RELION uses rightly: the reciprocal for EER movies, which RELION divides by a reference in MRC; "" for none."""
    return str(values.get("relion_gain") or values.get("gain") or "")
