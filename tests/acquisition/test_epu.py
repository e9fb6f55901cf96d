"""What the microscope's files say, taken tolerantly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.acquisition.epu import read_epu_xml, read_mdoc, read_metadata

EXPOSURE = """<?xml version="1.0"?>
<MicroscopeImage xmlns="http://schemas/a" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
 <CustomData xmlns:b="http://schemas/b">
  <b:KeyValueOfstringanyType><b:Key>Dose</b:Key><b:Value>3.2E+21</b:Value></b:KeyValueOfstringanyType>
  <b:KeyValueOfstringanyType><b:Key>AppliedDefocus</b:Key><b:Value>-1.5E-06</b:Value></b:KeyValueOfstringanyType>
 </CustomData>
 <SpatialScale><pixelSize><x><numericValue>1.08E-10</numericValue></x></pixelSize></SpatialScale>
 <microscopeData>
  <acquisition><acquisitionDateTime>2020-02-06T17:06:46+01:00</acquisitionDateTime><camera><ExposureTime>2.5</ExposureTime></camera></acquisition>
  <gun><AccelerationVoltage>300000</AccelerationVoltage></gun>
  <optics><BeamShift xmlns:c="http://schemas/c"><c:_x>0.01</c:_x><c:_y>-0.02</c:_y></BeamShift></optics>
 </microscopeData>
</MicroscopeImage>"""


def test_an_exposure_is_read_in_the_units_of_the_field(tmp_path: Path) -> None:
    path = tmp_path / "X.xml"
    path.write_text(EXPOSURE)
    found = read_epu_xml(path)
    assert found == {
        "pixel_size": pytest.approx(1.08),
        "voltage": pytest.approx(300),
        "exposure_time": 2.5,
        "beam_shift_x": 0.01,
        "beam_shift_y": -0.02,
        "total_dose": pytest.approx(32),
        "defocus": pytest.approx(15000),
        "time": "2020-02-06T17:06:46+01:00",
    }


def test_values_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "X.xml"
    path.write_text(EXPOSURE.replace("1.08E-10", "0").replace("300000", "NaN").replace("3.2E+21", "unknown"))
    assert not {"pixel_size", "voltage", "total_dose"} & read_epu_xml(path).keys()


@pytest.mark.parametrize("text", ["", "<a", "<html><body/></html>", "\0\1", "<MicroscopeImage/>"])
def test_other_files_give_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.xml").write_text(text)
    assert read_epu_xml(tmp_path / "x.xml") == {}


def test_an_mdoc_gives_its_first_section(tmp_path: Path) -> None:
    path = tmp_path / "X.tif.mdoc"
    lines = [
        "Voltage = 200",
        "[FrameSet = 0]",
        "PixelSpacing = 1.2",
        "ExposureDose = 0",
        "NumSubFrames = 12",
        "Defocus = -2.5",
    ]
    path.write_text("\r\n".join([*lines, "[ZValue = 1]", "PixelSpacing = 9"]))
    assert read_mdoc(path) == {"voltage": 200, "pixel_size": 1.2, "frames": 12, "defocus": 25000}


@given(st.text())
def test_any_mdoc_can_be_read(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mdoc"
    path.write_text(text, encoding="utf-8", errors="replace")
    assert isinstance(read_mdoc(path), dict)


def test_sidecars_are_joined_and_the_exposure_comes_first(tmp_path: Path) -> None:
    (tmp_path / "X.xml").write_text(EXPOSURE)
    (tmp_path / "X_Fractions.xml").write_text(
        "<Acquisition><Info><RecordedNumberOfFractions>22</RecordedNumberOfFractions><DateTimeWithTimeZone>later</DateTimeWithTimeZone></Info></Acquisition>"
    )
    found = read_metadata(tmp_path.iterdir())
    assert found["frames"] == 22
    assert str(found["time"]).startswith("2020")


@pytest.mark.data
def test_real_files_of_epu_and_serialem() -> None:
    data = Path(os.environ.get("BEAMSIDE_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "em"
    if not data.is_dir():
        pytest.skip(f"the real test data are not at {data}; set BEAMSIDE_TEST_DATA")
    exposures = [path for path in sorted(data.glob("epu/**/FoilHole_*.xml")) if "_Fractions" not in path.name]
    found = [read_epu_xml(path) for path in exposures]
    assert len(found) == 21
    assert all(values["pixel_size"] == pytest.approx(0.8708, abs=1e-4) and values["voltage"] == 300 for values in found)
    assert all(10 < float(values["total_dose"]) < 100 for values in found)
    fractions = [read_epu_xml(path) for path in data.glob("epu/**/*_Fractions.xml")]
    assert [values["frames"] for values in fractions] == [22] * 4
    for path in data.glob("mdoc/**/*.mdoc"):
        assert read_mdoc(path)["pixel_size"]
