"""Comparing what the microscope says of an exposure with what the user gave.

Values may differ for good reasons, and a person should hear what fits: a movie has more pixels than the image that the record is about
(super-resolution) or fewer (binning), a calibrated pixel size differs by a few per cent from the nominal one, and the dose of an exposure by some
per cent from that of the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamside.acquisition.remarks import Remark

TOLERANCE = 0.005
"""Values that differ by less are the same."""

CALIBRATION = 0.03
"""Pixel sizes that differ by less do so because one is nominal and the other calibrated."""

DOSE_TOLERANCE = 0.10
"""Doses that differ by less do so from exposure to exposure, and by how each was measured."""

_FACTORS = (2, 4)


@dataclass(frozen=True)
class Given:
    """What the user gave for a movie.

    Attributes
    ----------
    pixel_size : Å, of the pixels that are processed
    voltage : kV
    total_dose : e/Å² of the whole movie; 0 when it is not to be compared
    dose_flag : the option that the dose was given with, "--dose" or "--total-dose"
    frames, width : frames of the movie, and pixels along a row; 0 when it is not known
    upsampling : how many processed pixels, along a side, are one of the camera's
    group : name of the optics group that the values are of; "" for those of the session
    """

    pixel_size: float
    voltage: float
    total_dose: float
    frames: int
    dose_flag: str = "--dose"
    width: int = 0
    upsampling: int = 1
    group: str = ""

    def flag(self, flag: str) -> str:
        """Return by what a value was given: an option, or an optics group."""
        return f"optics group {self.group}" if self.group else flag


def compare_metadata(metadata: Mapping[str, Any], given: Given, *, item: str = "") -> list[Remark]:
    """Return a remark on each value of `metadata` (of `beamside.acquisition.epu`) that differs from what was given for the movie `item`."""
    found = (_pixel_size(metadata, given), _voltage(metadata, given), _dose(metadata, given))
    return [
        Remark(subject, sentence, item, value, unit, "info" if subject.endswith("-calibration") else "warning")
        for subject, sentence, value, unit in filter(None, found)
    ]


_Difference = tuple[str, str, float, str] | None


def _pixel_size(metadata: Mapping[str, Any], given: Given) -> _Difference:
    stated = _number(metadata, "pixel_size")
    if stated is None or given.pixel_size <= 0:
        return None
    camera = given.pixel_size * given.upsampling
    expected, of_image = _of_the_movie(stated, _number(metadata, "image_width"), given.width)
    if _same(expected, camera, TOLERANCE):
        return None
    said = f"The microscope says pixel size {stated:.4g} Å{of_image}, and {given.pixel_size:.4g} Å was given ({given.flag('--pixel-size')})"
    if _same(expected, camera, CALIBRATION):
        why = "as nominal and calibrated sizes do; the given one is used"
        return "metadata-pixel-size-calibration", f"{said}: they differ {why}.", stated, "Å"
    return "metadata-pixel-size", f"{said}{_what_fits(expected, camera, given)}; check which is right.", stated, "Å"


def _of_the_movie(stated: float, image_width: float | None, width: int) -> tuple[float, str]:
    """Return the size of the movie's pixels when the record is about an image of another size, and words for that."""
    if not image_width or not width:
        return stated, ""
    for factor in _FACTORS:
        if width == factor * image_width:
            return (
                stated / factor,
                f" for an image with {factor} times fewer pixels along a side ({stated / factor:.4g} Å in the movie)",
            )
        if width * factor == image_width:
            return (
                stated * factor,
                f" for an image with {factor} times more pixels along a side ({stated * factor:.4g} Å in the movie)",
            )
    return stated, ""


def _what_fits(expected: float, camera: float, given: Given) -> str:
    if given.upsampling > 1 and _same(expected, given.pixel_size, TOLERANCE):
        right = given.pixel_size / given.upsampling
        return (
            f": with --eer-upsampling {given.upsampling} the pixels that are processed are {given.upsampling} times smaller than the camera's, "
            f"so that --pixel-size {right:.4g} would fit"
        )
    for factor in _FACTORS:
        if _same(expected, camera * factor, TOLERANCE):
            return f": {factor} times as much, which fits when the movies have super-resolution pixels, {factor} along a side of the camera's"
        if _same(expected * factor, camera, TOLERANCE):
            return f": {factor} times less, which fits when the movies were binned {factor} times, or the record is about super-resolution pixels"
    return ""


def _voltage(metadata: Mapping[str, Any], given: Given) -> _Difference:
    stated = _number(metadata, "voltage")
    if stated is None or given.voltage <= 0 or _same(stated, given.voltage, TOLERANCE):
        return None
    sentence = f"The microscope says voltage {stated:.4g} kV, and {given.voltage:.4g} kV was given ({given.flag('--voltage')}): check which is right."
    return "metadata-voltage", sentence, stated, "kV"


def _dose(metadata: Mapping[str, Any], given: Given) -> _Difference:
    stated = _number(metadata, "total_dose")
    if stated is None or given.total_dose <= 0 or given.frames <= 0 or _same(stated, given.total_dose, DOSE_TOLERANCE):
        return None
    of_frame = given.total_dose / given.frames
    if given.dose_flag == "--total-dose":
        said = f"{given.total_dose:.4g} e/Å² was given (--total-dose)"
        fits = (
            f": {given.total_dose:.4g} e/Å² in each of the {given.frames} frames would fit, which is given with --dose"
        )
        why = fits if _same(stated, given.total_dose * given.frames, DOSE_TOLERANCE) else ""
    else:
        said = f"{of_frame:.4g} e/Å² a frame was given (--dose), {given.total_dose:.4g} e/Å² for {given.frames} frames"
        fits = f": {of_frame:.4g} e/Å² for the whole movie would fit, which is given with --total-dose"
        why = (
            fits
            if _same(stated, of_frame, DOSE_TOLERANCE) and given.frames > 1
            else f": {stated / given.frames:.3g} e/Å² a frame would fit"
        )
    return (
        "metadata-total-dose",
        f"The microscope says total dose {stated:.4g} e/Å², and {said}{why}; check which is right.",
        stated,
        "e/Å²",
    )


def _same(one: float, other: float, tolerance: float) -> bool:
    return abs(one - other) <= tolerance * other


def _number(metadata: Mapping[str, Any], key: str) -> float | None:
    value = metadata.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
