"""CTF estimation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import (
    JobType,
    Limit,
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
from beamside.jobs.ctffind_log import log_path, write_missing_logs
from beamside.jobs.item_kinds import FITTED_MICROGRAPH, MICROGRAPH, MOVIE
from beamside.jobs.optics import optics_table
from beamside.jobs.ports import Given, Input, Output
from beamside.parameters import ParameterModel, parameter


class CtfParameters(ParameterModel):
    """Parameters of CTF estimation."""

    ctf_min_resolution: float = parameter(
        30.0, "Lowest resolution used in the fit.", unit="Å", ge=10, le=200, advanced=True, relion="resmin"
    )
    ctf_max_resolution: float = parameter(
        4.0, "Highest resolution used in the fit.", unit="Å", ge=1, le=20, advanced=True, relion="resmax"
    )
    min_defocus: float = parameter(3000.0, "Smallest defocus searched.", unit="Å", ge=0, le=200000, relion="dfmin")
    max_defocus: float = parameter(50000.0, "Largest defocus searched.", unit="Å", ge=0, le=200000, relion="dfmax")
    max_astigmatism: float = parameter(
        3000.0, "Largest astigmatism allowed in the fit.", unit="Å", ge=0, le=20000, advanced=True
    )
    phase_shift: bool = parameter(
        False, "Also determine the phase shift of a phase plate.", flag="--ctf-phase-shift", relion="do_phaseshift"
    )
    min_phase_shift: float = parameter(
        0.0, "Smallest phase shift searched.", unit="°", ge=-180, le=180, advanced=True, relion="phase_min"
    )
    max_phase_shift: float = parameter(
        170.0, "Largest phase shift searched.", unit="°", ge=-180, le=180, advanced=True, relion="phase_max"
    )
    phase_shift_step: float = parameter(
        10.0, "Step of the search for the phase shift.", unit="°", gt=0, le=90, advanced=True, relion="phase_step"
    )
    ctf_tilt: bool = parameter(
        False, "Also determine the tilt of the specimen, and give each particle the defocus at its position."
    )
    reject_resolution: float = parameter(
        0.0,
        "Hold back micrographs whose CTF fit is worse than this; 0 keeps all whose fit succeeded.",
        unit="Å",
        ge=0,
        le=100,
        affects_result=False,
    )


class CtfEstimation(JobType):
    """Estimate defocus and astigmatism from the power spectrum; on request also a phase plate's shift and the specimen's tilt."""

    name = "ctf"
    title = "CTF estimation"
    directory = "CtfFind"
    relion_type = 2
    relion_label = "relion.ctffind"
    version = "3"
    optics_used = ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast")
    inputs = (
        Input("micrographs", MICROGRAPH, reads=("power_spectrum", "micrograph"), relion_option="input_star_mics"),
    )
    outputs = (Output("micrographs", FITTED_MICROGRAPH),)
    work = "beamside.jobs.ctf_worker:fit"
    Parameters = CtfParameters
    metrics = (
        Metric("defocus", "Defocus", "µm", scale=1e-4, description="Mean of the two defoci.", main=True),
        Metric("astigmatism", "Astigmatism", "Å", good="low", digits=0, description="Difference of the two defoci."),
        Metric(
            "ctf_resolution",
            "CTF resolution",
            "Å",
            good="low",
            digits=1,
            description="How far the fit holds.",
            main=True,
        ),
        Metric("ctf_score", "CTF score", good="high", digits=3, description="Correlation of spectrum and fit."),
        Metric(
            "ice_ring", "Ice ring", good="low", digits=3, description="Power near 3.7 Å relative to its surroundings."
        ),
        Metric("phase_shift", "Phase shift", "°", digits=0, description="Of the phase plate, when it is searched."),
        Metric("tilt_angle", "Tilt", "°", digits=1, description="Of the specimen, when it is searched."),
    )
    limits = (Limit("reject_resolution", "ctf_resolution", "<="),)
    nodes = (Node("micrographs_ctf.star", 1, "MicrographsData.star.relion.ctf"),)
    spare = ("ctf_spectrum",)
    pictures = (
        Picture("thumbnail", "Micrograph", micrograph=True),
        Picture("ctf_plot", "CTF fit, 1-D"),
        Picture("ctf_image", "CTF fit, 2-D: spectrum and model"),
    )
    fixed_options = {"use_ctffind4": "Yes", "use_gctf": "No", "box": "512"}

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return RELION's options for a fit of the same range; from the power spectra of movies where there are any, as ours."""
        options = {**super().relion_options(context), "use_given_ps": relion_value(MOVIE.name in context.lineage)}
        pixel_size = context.newest("spectrum_pixel_size") or context.newest("micrograph_pixel_size")
        if pixel_size:
            options["resmax"] = relion_value(max(float(context.parameters.ctf_max_resolution), 2.1 * float(pixel_size)))
        return options

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say what CTFFIND, which RELION runs, does differently."""
        given = context.parameters
        sentences = ["RELION runs CTFFIND-4.1 instead of Beamside's own fit."]
        ends = (*context.rows[:1], *context.rows[-1:])
        if not all((context.root / log_path(row.item, context.job)).exists() for row in ends):
            sentences.append(
                "Continue runs it again on all micrographs, as the log files that RELION looks for were cleaned or never written."
            )
        if given.ctf_tilt:
            sentences.append("RELION does not look for the tilt of the specimen.")
        if given.reject_resolution:
            sentences.append(
                f"RELION keeps all micrographs; Beamside holds back those whose fit is worse than {given.reject_resolution:g} Å."
            )
        return sentences

    def rejected_by_limit(self, result: Result) -> bool:
        """Tell whether an earlier version rejected a fit that had succeeded."""
        return result.rejected.startswith("the CTF fit holds to ")

    def write_for_relion(self, rows: Sequence[Row], optics: Optics, job: str, root: Path) -> int:
        """Write CTFFIND's logs of the micrographs that are used."""
        return write_missing_logs([row for row in rows if not row.result.rejected], optics, job, root)

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return ``micrographs_ctf.star``; rejected micrographs are left out, and counted by the session."""
        used = [row for row in rows if not row.result.rejected]
        # RELION wants all columns in all rows; these two are not always there to be measured
        extra = [
            (label, metric)
            for label, metric in (("rlnPhaseShift", "phase_shift"), ("rlnCtfIceRingDensity", "ice_ring"))
            if used and all(metric in row.result.metrics for row in used)
        ]
        columns = ["rlnMicrographName", "rlnOpticsGroup", "rlnCtfImage", *CTF_COLUMNS, *(label for label, _ in extra)]
        found = optics_table(used, optics)
        lines: list[list[Value]] = [
            [
                row.item.output("micrograph"),
                number,
                row.result.outputs["ctf_spectrum"] + ":mrc",
                *ctf_values(row.result),
                *(float(row.result.metrics[metric]) for _, metric in extra),
            ]
            for row, number in zip(used, found.numbers, strict=True)
        ]

        def micrograph(group: Optics, row: Row | None) -> dict[str, Value]:
            if row is None and rows:  # all were rejected
                row = rows[0]
            known = row.result.values["micrograph_pixel_size"] if row is not None else group.pixel_size
            return {"rlnMicrographPixelSize": float(known)}

        return {"micrographs_ctf.star": [found.block(micrograph), StarBlock("micrographs", columns, lines)]}


CTF_COLUMNS = (
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnCtfAstigmatism",
    "rlnDefocusAngle",
    "rlnCtfFigureOfMerit",
    "rlnCtfMaxResolution",
)


def fit_of(given: Given) -> Result:
    """Return the CTF result that what a port gives was made from; raises KeyError where there is none."""
    for result in given.lineage():
        if "defocus_u" in result.values:
            return result
    raise KeyError("defocus_u")


def ctf_values(result: Result) -> list[Value]:
    """Return the values of `CTF_COLUMNS` of a CTF result, which may be of another job type: a score that it has not is 0."""
    values, metrics = result.values, result.metrics
    defocus_u, defocus_v = float(values["defocus_u"]), float(values["defocus_v"])
    return [
        defocus_u,
        defocus_v,
        float(metrics.get("astigmatism", abs(defocus_u - defocus_v))),
        float(values["defocus_angle"]),
        float(metrics.get("ctf_score", 0.0)),
        float(metrics["ctf_resolution"]),
    ]


def defocus_offset(result: Result, x: float, y: float) -> float:
    """Return by how many Å the defocus at `x`, `y` (pixels of the micrograph) exceeds the fitted one, which is that of its middle.

    Zero unless the tilt of the specimen was searched and found.
    """
    values = result.values
    if "tilt_slope" not in values:
        return 0.0
    slope_y, slope_x = (float(value) for value in values["tilt_slope"])
    middle_y, middle_x = (float(value) for value in values["tilt_centre"])
    return float(values["micrograph_pixel_size"]) * (slope_y * (y - middle_y) + slope_x * (x - middle_x))
