import os
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from beamside.simulate.epu import Exposure, epu_xml

EXPOSURE = Exposure(
    identifier="20c58b40-4be5-40df-a7a5-0771788a30c5",
    time=datetime(2026, 1, 12, 9, 0, 5, tzinfo=UTC),
    size=(1024, 2048),
    pixel_size=1.25,
    voltage=300,
    dose=40.0,
    exposure_time=2.0,
    applied_defocus=15000,
    measured_defocus=15210,
    beam_shift=(0.01, -0.02),
    stage=(1e-5, 2e-5, -3e-5, 0.1),
)
NAMES = {
    "f": "http://schemas.datacontract.org/2004/07/Fei.SharedObjects",
    "a": "http://schemas.microsoft.com/2003/10/Serialization/Arrays",
    "t": "http://schemas.datacontract.org/2004/07/Fei.Types",
    "d": "http://schemas.datacontract.org/2004/07/System.Drawing",
}


def number(root: ElementTree.Element, path: str) -> float:
    found = root.find(path, NAMES)
    assert found is not None, path
    assert found.text, path
    return float(found.text)


def custom(root: ElementTree.Element, key: str) -> float:
    entries = root.findall("f:CustomData/a:KeyValueOfstringanyType", NAMES)
    return float(
        next(
            entry.findtext("a:Value", namespaces=NAMES) or ""
            for entry in entries
            if entry.findtext("a:Key", namespaces=NAMES) == key
        )
    )


def test_programs_find_the_values_in_epus_units() -> None:
    root = ElementTree.fromstring(epu_xml(EXPOSURE))
    assert number(root, "f:SpatialScale/f:pixelSize/f:x/f:numericValue") == pytest.approx(1.25e-10)
    assert number(root, "f:microscopeData/f:gun/f:AccelerationVoltage") == 300000
    assert number(root, "f:microscopeData/f:optics/f:BeamShift/t:_x") == 0.01
    assert number(root, "f:microscopeData/f:stage/f:Position/f:X") == 1e-5
    assert number(root, "f:microscopeData/f:acquisition/f:camera/f:ReadoutArea/d:width") == 2048
    assert (
        root.findtext("f:microscopeData/f:acquisition/f:acquisitionDateTime", namespaces=NAMES)
        == "2026-01-12T09:00:05+00:00"
    )
    assert custom(root, "Dose") == pytest.approx(40e20)
    assert custom(root, "AppliedDefocus") == pytest.approx(-1.5e-6)


def test_typed_values_have_a_bound_prefix() -> None:
    text = epu_xml(EXPOSURE).decode()
    assert 'type="b:double"' in text
    assert text.count("xmlns:b=") == 1


@pytest.mark.data
def test_every_element_is_where_a_real_file_has_it() -> None:
    folder = Path(os.environ.get("BEAMSIDE_TEST_DATA", Path(__file__).parents[3] / "shared/data")) / "em/epu"
    files = sorted(path for path in folder.rglob("FoilHole_*.xml") if not path.stem.endswith("_Fractions"))
    if not files:
        pytest.skip(f"no EPU files under {folder}")

    def paths(element: ElementTree.Element, above: str = "") -> set[str]:
        here = f"{above}/{element.tag}"
        return {here}.union(*(paths(child, here) for child in element))

    real, ours = paths(ElementTree.parse(files[0]).getroot()), paths(ElementTree.fromstring(epu_xml(EXPOSURE)))
    assert ours <= real, ours - real
