"""The parameters of acquisition: where movies come from, and how they are taken in."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from beamside.parameters import ParameterModel, parameter

GainFlip = Literal["auto", "none", "up-down", "left-right"]
GainRotation = Literal["auto", 0, 90, 180, 270]
GainMode = Literal["auto", "multiply", "divide"]


class AcquisitionSettings(ParameterModel):
    """Where the microscope writes, and how its files are taken into the project."""

    data: tuple[str, ...] = parameter(
        ...,
        "Where the movies (or micrographs) appear: a path with wildcards, ** for any depth of folders, {a,b} for either; may be given several times",
        flag="--data",
        affects_result=False,
        min_length=1,
    )
    gain: str = parameter(
        "",
        "Gain reference of the camera: MRC, TIFF, .gain, DM3 or DM4; empty when the camera has applied it",
        flag="--gain",
        relion="fn_gain_ref",
    )
    gain_wait: bool = parameter(
        False,
        "Start although the gain reference is not there yet: movies are taken in, and wait for it before they are processed",
        flag="--gain-wait",
        advanced=True,
        affects_result=False,
    )
    gain_rotate: GainRotation = parameter(
        "auto",
        "Rotation of the gain reference, clockwise as seen with row 0 at the top (RELION's gain_rot x 90, MotionCor2's -RotGain), before the flip; "
        "auto determines it from the first movies",
        unit="°",
        flag="--gain-rotate",
        advanced=True,
        relion="gain_rot",
    )
    gain_flip: GainFlip = parameter(
        "auto",
        "Mirroring of the gain reference, after the rotation: up-down reverses rows, left-right columns; auto determines it from the first movies",
        flag="--gain-flip",
        advanced=True,
        relion="gain_flip",
    )
    gain_mode: GainMode = parameter(
        "auto",
        "Whether frames are multiplied or divided by the gain reference; auto determines it from the first movies",
        flag="--gain-mode",
        advanced=True,
    )
    gain_check: bool = parameter(
        True,
        "Compare the gain reference with the first movies, and ask before using one that does not fit them. Without this check the reference is "
        "used as the options say; by default in the orientation of its file, as a multiplier. When no reference is given, the check tells whether "
        "the movies need one",
        flag="--gain-check",
        advanced=True,
        affects_result=False,
    )
    defects: str = parameter(
        "",
        "Defective pixels of the camera: an MRC or TIFF mask (not 0 = defective), a text file with lines 'x y width height', "
        "or SerialEM's defect file",
        flag="--defects",
        advanced=True,
        relion="fn_defect",
    )
    remove_source: bool = parameter(
        False,
        "Remove each file from the source after its copy was verified and recorded, and its number of frames confirmed: by a record of the "
        "microscope's software, or by other movies with as many; what nothing confirms is kept, and the status says so",
        flag="--remove-source",
        affects_result=False,
    )
    remove_after: float = parameter(
        60.0,
        "Time without a change after which a file may be removed when no record but only other movies confirm its number of frames",
        unit="s",
        flag="--remove-after",
        advanced=True,
        affects_result=False,
        ge=0,
        le=86400,
    )
    compress: bool = parameter(
        True,
        "Recompress uncompressed integer movies as LZW TIFF, verified pixel by pixel",
        flag="--compress",
        affects_result=False,
    )
    sidecars: tuple[str, ...] = parameter(
        (".xml", ".mdoc"),
        "Endings of the files that belong to a movie and travel with it",
        flag="--sidecars",
        advanced=True,
        affects_result=False,
    )
    poll_seconds: float = parameter(
        3.0,
        "Time between two looks at the source",
        unit="s",
        flag="--poll-seconds",
        advanced=True,
        affects_result=False,
        gt=0,
        le=3600,
    )
    settle_seconds: float = parameter(
        2.0,
        "Time for which a file's size and date must stay the same, over at least two looks, before it counts as complete",
        unit="s",
        flag="--settle-seconds",
        advanced=True,
        affects_result=False,
        ge=0,
        le=3600,
    )
    attempts: int = parameter(
        5,
        "Attempts at a file that is truncated or cannot be copied before it is set aside until it changes",
        flag="--attempts",
        advanced=True,
        affects_result=False,
        ge=1,
        le=1000,
    )

    @field_validator("data", "sidecars", mode="before")
    @classmethod
    def _one_is_a_tuple_too(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("sidecars")
    @classmethod
    def _sidecars_start_with_a_dot(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(suffix if suffix.startswith(".") else "." + suffix for suffix in value)

    @field_validator("gain_rotate", mode="before")
    @classmethod
    def _angles_may_be_text(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.strip().isdigit() else value
