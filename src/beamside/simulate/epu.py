"""The XML file that EPU writes beside an exposure, as far as programs read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree

SHARED = "http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
ARRAYS = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
SCHEMA = "http://www.w3.org/2001/XMLSchema"
DRAWING = "http://schemas.datacontract.org/2004/07/System.Drawing"
UNITS = "http://schemas.datacontract.org/2004/07/Fei.Common.Types"
TYPES = "http://schemas.datacontract.org/2004/07/Fei.Types"


@dataclass(frozen=True)
class Exposure:
    """What the microscope knew when it took the exposure.

    Attributes
    ----------
    identifier : EPU's unique id
    time : when it was taken
    size : height and width in pixels
    pixel_size : Å
    voltage : kV
    dose : total, e/Å²
    exposure_time : seconds
    applied_defocus, measured_defocus : Å, underfocus positive (EPU writes metres, underfocus negative)
    beam_shift : x, y in EPU's own unit
    stage : x, y, z in metres, and the tilt in radians
    magnification : nominal
    """

    identifier: str
    time: datetime
    size: tuple[int, int]
    pixel_size: float
    voltage: float
    dose: float
    exposure_time: float
    applied_defocus: float
    measured_defocus: float
    beam_shift: tuple[float, float]
    stage: tuple[float, float, float, float]
    magnification: int = 105000


class _Node:
    """An XML element that is built downwards; names are in its namespace unless told otherwise."""

    def __init__(self, element: ElementTree.Element, namespace: str = SHARED) -> None:
        self.element = element
        self.namespace = namespace

    def add(self, name: str, value: object = None, namespace: str | None = None) -> _Node:
        """Append an element, with text unless `value` is None, and return it; its children take the parent's namespace."""
        child = ElementTree.SubElement(self.element, f"{{{namespace or self.namespace}}}{name}")
        if value is not None:
            child.text = str(value).lower() if isinstance(value, bool) else str(value)
        return _Node(child, self.namespace)

    def within(self, namespace: str) -> _Node:
        """Return the same element, whose children are in `namespace`."""
        return _Node(self.element, namespace)


def epu_xml(exposure: Exposure) -> bytes:
    """Return the ``MicroscopeImage`` XML document of an exposure."""
    for prefix, namespace in (
        ("", SHARED),
        ("i", INSTANCE),
        ("a", ARRAYS),
        ("b", SCHEMA),
        ("d", DRAWING),
        ("u", UNITS),
        ("t", TYPES),
    ):
        ElementTree.register_namespace(prefix, namespace)
    root = _Node(ElementTree.Element(f"{{{SHARED}}}MicroscopeImage"))
    # prefixes inside attribute values (i:type="b:double") are not seen by ElementTree, so the prefix is bound by hand
    root.element.set("xmlns:b", SCHEMA)
    root.add("name", "Empty")
    root.add("uniqueID", exposure.identifier)
    _custom_data(root.add("CustomData").within(ARRAYS), exposure)
    _spatial_scale(root.add("SpatialScale"), exposure)
    data = root.add("microscopeData")
    _acquisition(data.add("acquisition"), exposure)
    core = data.add("core")
    core.add("ApplicationSoftware", "EPU")
    core.add("ApplicationSoftwareVersion", "2.6.0.59")
    gun = data.add("gun")
    gun.add("AccelerationVoltage", round(exposure.voltage * 1000))
    gun.add("Sourcetype", "FieldEmission")
    data.add("instrument").add("InstrumentModel", "SIMULATED-1")
    _optics(data.add("optics"), exposure)
    stage = data.add("stage").add("Position")
    for name, value in zip(("A", "X", "Y", "Z"), (exposure.stage[3], *exposure.stage[:3]), strict=True):
        stage.add(name, value)
    return bytes(ElementTree.tostring(root.element, encoding="utf-8", xml_declaration=True))


def _custom_data(node: _Node, exposure: Exposure) -> None:
    entries = (
        ("Dose", "double", exposure.dose * 1e20),
        ("DoseOnCamera", "double", exposure.dose * exposure.pixel_size**2),
        ("PhasePlateUsed", "boolean", False),
        ("BinaryResult.Detector", "string", "SIM-Counting"),
        ("AppliedDefocus", "double", -exposure.applied_defocus * 1e-10),
    )
    for key, kind, value in entries:
        entry = node.add("KeyValueOfstringanyType")
        entry.add("Key", key)
        entry.add("Value", value).element.set(f"{{{INSTANCE}}}type", f"b:{kind}")


def _spatial_scale(node: _Node, exposure: Exposure) -> None:
    for group, value in (("offset", 0.0), ("pixelSize", exposure.pixel_size * 1e-10)):
        part = node.add(group)
        for axis in ("x", "y"):
            entry = part.add(axis)
            entry.add("numericValue", value)
            unit = entry.add("unit").within(UNITS)
            unit.add("_x003C_PrefixExponent_x003E_k__BackingField", 1)
            unit.add("_x003C_Symbol_x003E_k__BackingField", "m")


def _acquisition(node: _Node, exposure: Exposure) -> None:
    node.add("acquisitionDateTime", exposure.time.isoformat())
    camera = node.add("camera")
    binning = camera.add("Binning").within(DRAWING)
    binning.add("x", 1)
    binning.add("y", 1)
    camera.add("ExposureTime", exposure.exposure_time)
    camera.add("Name", "SIM-Counting")
    area = camera.add("ReadoutArea").within(DRAWING)
    for name, value in (("height", exposure.size[0]), ("width", exposure.size[1]), ("x", 0), ("y", 0)):
        area.add(name, value)


def _optics(node: _Node, exposure: Exposure) -> None:
    shift = node.add("BeamShift").within(TYPES)
    shift.add("_x", exposure.beam_shift[0])
    shift.add("_y", exposure.beam_shift[1])
    tilt = node.add("BeamTilt").within(TYPES)
    tilt.add("_x", 0.0)
    tilt.add("_y", 0.0)
    node.add("Defocus", -exposure.measured_defocus * 1e-10)
    node.add("IlluminationMode", "Parallel")
    node.add("ProbeMode", "NanoProbe")
    node.add("TemMagnification").add("NominalMagnification", exposure.magnification)
