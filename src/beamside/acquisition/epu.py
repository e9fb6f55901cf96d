"""What the microscope's software says of an exposure: EPU's XML and SerialEM's mdoc.

The fields are taken tolerantly (any can be absent, and an unreadable file gives nothing), into one dictionary of plain numbers:

========================  ==========================================================
``pixel_size``            Å, of the image that the record is about
``image_width``           pixels along a row of that image
``voltage``               kV
``total_dose``            e/Å², of the whole exposure, at the specimen
``frames``                number of frames (fractions) that were recorded
``fractions``             number of fractions that the camera was set to
``exposure_time``         s
``defocus``               Å, as set on the microscope, underfocus positive
``beam_shift_x``, ``_y``  as EPU gives them; equal for exposures of one beam-image-shift group
``stage_x``, ``_y``       µm
``tilt``                  degrees
``magnification``         nominal
``time``                  ISO 8601
========================  ==========================================================
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from pathlib import Path

_MAX_BYTES = 16 << 20
Metadata = dict[str, float | str]

# path of local names below the root, key here, factor from EPU's SI units
_EPU_FIELDS: tuple[tuple[str, str, float], ...] = (
    ("SpatialScale/pixelSize/x/numericValue", "pixel_size", 1e10),
    ("microscopeData/gun/AccelerationVoltage", "voltage", 1e-3),
    ("microscopeData/acquisition/camera/ExposureTime", "exposure_time", 1.0),
    ("microscopeData/acquisition/camera/ReadoutArea/width", "image_width", 1.0),
    ("microscopeData/optics/BeamShift/_x", "beam_shift_x", 1.0),
    ("microscopeData/optics/BeamShift/_y", "beam_shift_y", 1.0),
    ("microscopeData/optics/TemMagnification/NominalMagnification", "magnification", 1.0),
    ("microscopeData/stage/Position/X", "stage_x", 1e6),
    ("microscopeData/stage/Position/Y", "stage_y", 1e6),
    ("microscopeData/stage/Position/A", "tilt", 180 / math.pi),
)
_MDOC_FIELDS: dict[str, tuple[str, float]] = {
    "PixelSpacing": ("pixel_size", 1.0),
    "Voltage": ("voltage", 1.0),
    "ExposureDose": ("total_dose", 1.0),
    "ExposureTime": ("exposure_time", 1.0),
    "NumSubFrames": ("frames", 1.0),
    "Defocus": ("defocus", -1e4),
    "Magnification": ("magnification", 1.0),
    "TiltAngle": ("tilt", 1.0),
}
NUMBERS = tuple(
    dict.fromkeys([*(key for _, key, _ in _EPU_FIELDS), *(key for key, _ in _MDOC_FIELDS.values()), "fractions"])
)
"""Names of all numbers that a record may give."""


def read_epu_xml(path: Path) -> Metadata:
    """Read an EPU record of an exposure (``X.xml``) or of its fractions (``X_Fractions.xml``); empty when it is neither."""
    if path.stat().st_size > _MAX_BYTES:
        return {}
    try:
        root = ET.fromstring(path.read_bytes())
    except (ET.ParseError, ValueError, LookupError):  # a LookupError: an encoding that nobody knows
        return {}
    name = _local(root)
    if name == "MicroscopeImage":
        return _read_exposure(root)
    return _read_fractions(root) if name == "Acquisition" else {}


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _find(element: ET.Element, path: str) -> str | None:
    """Return the text at a path of names without namespaces, which differ between EPU versions."""
    for name in path.split("/"):
        below = next((child for child in element if _local(child) == name), None)
        if below is None:
            return None
        element = below
    return element.text


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_exposure(root: ET.Element) -> Metadata:
    found: Metadata = {}
    for path, key, factor in _EPU_FIELDS:
        value = _number(_find(root, path))
        if value is not None:
            found[key] = value * factor
    custom = {
        _find(pair, "Key"): _find(pair, "Value") for data in root if _local(data) == "CustomData" for pair in data
    }
    dose = _number(custom.get("Dose"))
    if dose is not None and dose > 0:
        found["total_dose"] = dose * 1e-20  # e/m²
    defocus = _number(custom.get("AppliedDefocus"))
    if defocus is not None:
        found["defocus"] = -defocus * 1e10
    time = _find(root, "microscopeData/acquisition/acquisitionDateTime")
    if time:
        found["time"] = time
    if fractions := _fractions(root):
        found["fractions"] = fractions
    return {key: value for key, value in found.items() if key not in _POSITIVE or float(value) > 0}


def _fractions(root: ET.Element) -> float:
    """Return the number of fractions that the camera was set to: given as one, or as a list of which frames each has; 0 when it is not there."""
    for pair in root.iter():
        if _find(pair, "Key") == "FractionationSettings":
            elements = list(pair.iter())
            number = next((_number(one.text) for one in elements if _local(one).lower() == "numberoffractions"), None)
            return number or float(sum(_local(one) == "StartFrameNumber" for one in elements))
    return 0.0


_POSITIVE = ("pixel_size", "image_width", "voltage", "total_dose", "exposure_time", "frames")


def _read_fractions(root: ET.Element) -> Metadata:
    found: Metadata = {}
    frames = _number(_find(root, "Info/RecordedNumberOfFractions"))
    if frames is not None and frames > 0:
        found["frames"] = frames
    time = _find(root, "Info/DateTimeWithTimeZone")
    if time:
        found["time"] = time
    return found


def read_mdoc(path: Path) -> Metadata:
    """Read the values that SerialEM gives in an mdoc, the first of each; for a file of several images they are those of the first.

    The mdoc of an image, which has a section ``[ZValue = 0]``, also tells of the movie that the image is the sum of: its number of frames is that
    of the file in ``SubFramePath``, and given here only when that is the mdoc's own.
    """
    if path.stat().st_size > _MAX_BYTES:
        return {}
    found: Metadata = {}
    sections: list[str] = []
    movie, doses = "", ""
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        if section := re.match(r"\s*\[(ZValue|FrameSet)\s*=", line):
            sections.append(section[1])
        key, separator, text = (part.strip() for part in line.partition("="))
        if not separator or len(sections) > 1:
            continue
        if key == "DateTime":
            found.setdefault("time", text)
        elif key == "ImageSize" and (width := _number(text.split()[0] if text else "")) and width > 0:
            found.setdefault("image_width", width)
        elif key == "SubFramePath":
            movie = text
        elif key == "FrameDosesAndNumber":
            doses = text
        name, factor = _MDOC_FIELDS.get(key, ("", 0.0))
        value = _number(text)
        if name and value is not None and (value > 0 or name not in _POSITIVE):
            found.setdefault(name, value * factor)
    if number := _frames_of_doses(doses):
        found.setdefault("frames", number)
    if movie and "FrameSet" not in sections[:1] and _stem(movie) != _stem(path.stem):
        found.pop("frames", None)
    return found


def _frames_of_doses(text: str) -> float:
    """Return the sum of the frames in ``dose number dose number ...``; 0 when it is something else."""
    numbers = [_number(part) for part in text.split()]
    if not numbers or len(numbers) % 2 or any(number is None or number < 0 for number in numbers):
        return 0.0
    return sum(number for number in numbers[1::2] if number is not None)


def _stem(path: str) -> str:
    """Return the name of a file without folders, of Windows too, and without its ending."""
    return re.sub(r"\.(tiff?|mrcs?|eer)$", "", re.split(r"[\\/]", path)[-1], flags=re.IGNORECASE)


_READERS: dict[str, Callable[[Path], Metadata]] = {".xml": read_epu_xml, ".mdoc": read_mdoc}


def read_metadata(paths: Iterable[Path]) -> Metadata:
    """Read all sidecars of a movie into one dictionary; where two speak of the same, an exposure's record comes before the others."""
    merged: Metadata = {}
    found = [reader(path) for path in sorted(paths) if (reader := _READERS.get(path.suffix.lower()))]
    for values in sorted(found, key=len, reverse=True):
        merged = {**values, **merged}
    return merged
