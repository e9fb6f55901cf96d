"""The tables of jobs: which rows and columns they have, in which units, and under which optics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.formats.star import StarBlock, format_star, parse_star
from beamside.jobs.base import OPTICS_VALUES, Item, Optics, RelionContext, Result, Row
from beamside.jobs.ctf import CtfEstimation
from beamside.jobs.importing import ImportMicrographs, ImportMovies
from beamside.jobs.motion import MotionCorrection, MotionParameters
from beamside.jobs.optics import OPTICS_GROUP_NAME, optics_table
from beamside.jobs.pick import Picking
from beamside.jobs.ports import Given
from beamside.jobs.registry import job_type

OPTICS = Optics(0.5, 300.0, 2.7, 0.1, 1.0)
TILTED = replace(OPTICS, group="tilted", pixel_size=1.0, beam_tilt_y=-0.5)


def blocks_of(name: str, file: str, rows: list[Row], **parameters: Any) -> dict[str, StarBlock]:
    """Return the blocks of a job's table as they are read back."""
    kind = job_type(name)
    given = kind.Parameters(**parameters)
    content = kind.star_files(rows, given, OPTICS, f"{kind.directory}/job003", Path("/nowhere"))[file]
    assert isinstance(content, list)
    return parse_star(format_star(content))


# -- optics -------------------------------------------------------------------------------------------------------------

numbers = st.floats(0, 1e6) | st.floats(-5, 5)
groups = st.sampled_from(["", "-", "--", "a", "a_2", OPTICS_GROUP_NAME]) | st.from_regex(
    r"[A-Za-z0-9_.-]{1,6}", fullmatch=True
)
optics = st.builds(Optics, **dict.fromkeys(OPTICS_VALUES, numbers), group=groups)


@given(optics)
def test_optics_are_read_from_their_line_as_they_were(one: Optics) -> None:
    """The journal keeps this line: a group of another name, or a value off by a digit, would make all results old."""
    assert Optics.from_text(one.to_text()) == one
    assert "\n" not in one.to_text()


def test_lines_of_earlier_versions_say_what_they_said() -> None:
    assert Optics.from_text("- 0.5 300 2.7 0.1 1") == OPTICS
    assert OPTICS.to_text() == "- 0.5 300 2.7 0.1 1"


@given(st.lists(st.none() | st.sampled_from([OPTICS, TILTED]) | optics, max_size=6))
def test_every_row_is_in_a_group_with_its_values_and_no_two_groups_have_one_name(given: list[Optics | None]) -> None:
    table = optics_table([Row(Item("m"), Result(), one) for one in given], OPTICS)
    names = [str(name) for name in table.block().column("rlnOpticsGroupName")]
    assert len(set(names)) == len(names) == len(table.groups) >= 1
    assert len(table.numbers) == len(given)
    for number, one in zip(table.numbers, given, strict=True):
        found, wanted = table.groups[number - 1], one or OPTICS
        assert replace(found, group="") == replace(wanted, group="")
        assert names[number - 1].startswith(wanted.group)


# -- import -------------------------------------------------------------------------------------------------------------


def test_movies_are_listed_with_their_groups() -> None:
    rows = [Row(Item(f"raw/{name}"), Result(outputs={"movie": f"raw/{name}.tiff"})) for name in "ab"]
    blocks = blocks_of("import", "movies.star", [rows[0], replace(rows[1], optics=TILTED)])
    assert list(blocks) == ["optics", "movies"]
    assert blocks["movies"].records() == [
        {"rlnMicrographMovieName": "raw/a.tiff", "rlnOpticsGroup": "1"},
        {"rlnMicrographMovieName": "raw/b.tiff", "rlnOpticsGroup": "2"},
    ]
    assert "rlnMicrographPixelSize" not in blocks["optics"], "which movies have none of"
    assert blocks["optics"].floats("rlnMicrographOriginalPixelSize").tolist() == [0.5, 1.0]


def test_micrographs_say_their_pixel_size() -> None:
    rows = [Row(Item(f"raw/{name}"), Result(outputs={"micrograph": f"raw/{name}.mrc"})) for name in "ab"]
    blocks = blocks_of("import_micrographs", "micrographs.star", [rows[0], replace(rows[1], optics=TILTED)])
    assert blocks["optics"].floats("rlnMicrographPixelSize").tolist() == [0.5, 1.0]
    assert blocks["micrographs"].texts("rlnMicrographName") == ["raw/a.mrc", "raw/b.mrc"]


def test_relion_is_told_of_files_in_other_optics_groups_than_its_one() -> None:
    rows = [Row(Item(f"raw/{name}"), Result(outputs={"movie": f"raw/{name}.tiff"})) for name in "abc"]
    kind, parameters = ImportMovies(), ImportMovies.Parameters()
    one = RelionContext(parameters, OPTICS, rows=rows)
    assert kind.relion_differences(one) == []
    two = RelionContext(parameters, OPTICS, rows=[*rows[:2], replace(rows[2], optics=TILTED)])
    (said,) = kind.relion_differences(two)
    assert "opticsGroup1 (2 files, 0.5 Å), tilted (1 file, 1 Å)" in said


def test_what_is_imported_is_no_movie_where_micrographs_are() -> None:
    options = [
        kind.relion_options(RelionContext(kind.Parameters(), OPTICS, job="Import/job001"))
        for kind in (ImportMovies(), ImportMicrographs())
    ]
    assert [one["is_multiframe"] for one in options] == ["Yes", "No"]
    assert [one["fn_in_raw"] for one in options] == ["raw/*.tif*", "Import/job001/raw/*.mrc"]
    assert [options[0][name] for name in ("angpix", "kV", "Cs", "Q0")] == ["0.5", "300", "2.7", "0.1"]


# -- motion correction --------------------------------------------------------------------------------------------------

SUMS = {"micrograph": "a.mrc", "power_spectrum": "a_PS.mrc", "motion_star": "a.star"}


def corrected(name: str, pixel_size: float = 0.5, **more: str) -> Row:
    outputs = {role: f"MotionCorr/job002/raw/{name}{file[1:]}" for role, file in {**SUMS, **more}.items()}
    metrics = {"motion_total": 8.0, "motion_early": 6.0, "motion_late": 2.0, "local_motion": 1.0}
    return Row(Item(f"raw/{name}"), Result(metrics, outputs, {"pixel_size": pixel_size}))


def test_motion_is_in_pixels_of_the_camera_whatever_the_binning() -> None:
    rows = [corrected("a", 1.0), replace(corrected("b", 2.0), optics=TILTED)]
    blocks = blocks_of("motion", "corrected_micrographs.star", rows, binning=2.0)
    table = blocks["micrographs"]
    assert table.floats("rlnAccumMotionTotal").tolist() == [16.0, 8.0]
    assert table.floats("rlnAccumMotionEarly").tolist() == [12.0, 6.0]
    assert table.floats("rlnAccumMotionLate").tolist() == [4.0, 2.0]
    assert blocks["optics"].floats("rlnMicrographPixelSize").tolist() == [1.0, 2.0]
    assert blocks["optics"].floats("rlnMicrographOriginalPixelSize").tolist() == [0.5, 1.0]


def test_the_pixel_size_is_that_of_the_sums_and_not_what_was_asked_for() -> None:
    """Whole pixels do not allow every binning."""
    blocks = blocks_of("motion", "corrected_micrographs.star", [corrected("a", 0.7503)], binning=1.5)
    assert blocks["optics"].floats("rlnMicrographPixelSize").tolist() == [0.7503]
    empty = blocks_of("motion", "corrected_micrographs.star", [], binning=1.5)
    assert empty["optics"].floats("rlnMicrographPixelSize").tolist() == [0.75]


def test_a_sum_that_not_all_micrographs_have_has_no_column() -> None:
    """RELION reads a table with the same columns in all rows; a change of parameters in mid-session leaves some without."""
    rows = [corrected("a", unweighted="a_noDW.mrc"), corrected("b")]
    assert "rlnMicrographNameNoDW" not in blocks_of("motion", "corrected_micrographs.star", rows)["micrographs"]
    table = blocks_of("motion", "corrected_micrographs.star", rows[:1])["micrographs"]
    assert table.texts("rlnMicrographNameNoDW") == ["MotionCorr/job002/raw/a_noDW.mrc"]
    assert table.texts("rlnMicrographMetadata") == ["MotionCorr/job002/raw/a.star"]
    assert table.texts("rlnCtfPowerSpectrum") == ["MotionCorr/job002/raw/a_PS.mrc"]


@pytest.mark.parametrize(
    ("parameters", "optics", "says"),
    [
        ({"patches_x": 2, "patches_y": 5}, OPTICS, "three or more patches"),
        ({"patches_x": 1, "patches_y": 1}, OPTICS, ""),
        ({}, replace(OPTICS, total_dose=40.0), "divided 40 e/Å²"),
        ({"even_odd": True}, OPTICS, "even and odd"),
        ({"float16": True}, OPTICS, "32-bit"),
        ({"save_unweighted": True}, OPTICS, ""),
        ({"save_unweighted": True, "dose_weighting": False}, OPTICS, "second sum"),
    ],
)
def test_what_relions_motion_correction_does_not_do_is_told(
    parameters: dict[str, Any], optics: Optics, says: str
) -> None:
    said = MotionCorrection().relion_differences(RelionContext(MotionParameters(**parameters), optics))
    assert len(said) == (1 if says else 0)
    assert says in " ".join(said)


# -- CTF ----------------------------------------------------------------------------------------------------------------


def fitted(name: str, *, failed: bool = False, **metrics: float) -> Row:
    before = Given(Result(outputs={"micrograph": f"MotionCorr/job002/raw/{name}.mrc"}))
    item = Item(f"raw/{name}", {"micrographs": before})
    outputs, values = {"ctf_spectrum": f"CtfFind/job003/raw/{name}_PS.ctf"}, {"micrograph_pixel_size": 0.75}
    if failed:
        return Row(item, Result({"ctf_score": 0.01}, outputs, values, "the CTF fit failed: no rings"))
    found = {"ctf_resolution": 3.5, "astigmatism": 120.0, "ctf_score": 0.2, "defocus": 15000.0, **metrics}
    defocus = {"defocus_u": 15060.0, "defocus_v": 14940.0, "defocus_angle": 33.0}
    return Row(item, Result(found, outputs, {**values, **defocus}))


def test_a_fit_has_a_row_with_relions_columns_and_a_failed_one_none() -> None:
    blocks = blocks_of("ctf", "micrographs_ctf.star", [fitted("a"), fitted("b", failed=True), fitted("c")])
    table = blocks["micrographs"]
    assert table.texts("rlnMicrographName") == ["MotionCorr/job002/raw/a.mrc", "MotionCorr/job002/raw/c.mrc"]
    expected = {
        "rlnCtfImage": "CtfFind/job003/raw/a_PS.ctf:mrc",
        "rlnDefocusU": "15060.000000",
        "rlnDefocusV": "14940.000000",
        "rlnCtfAstigmatism": "120.000000",
        "rlnDefocusAngle": "33.000000",
        "rlnCtfFigureOfMerit": "0.200000",
        "rlnCtfMaxResolution": "3.500000",
    }
    assert {name: table.records()[0][name] for name in expected} == expected
    assert blocks["optics"].floats("rlnMicrographPixelSize").tolist() == [0.75]


def test_when_all_fits_failed_the_table_still_says_the_pixel_size() -> None:
    blocks = blocks_of("ctf", "micrographs_ctf.star", [fitted("a", failed=True)])
    assert len(blocks["micrographs"]) == 0
    assert blocks["optics"].floats("rlnMicrographPixelSize").tolist() == [0.75]


def test_what_was_not_measured_in_all_micrographs_has_no_column() -> None:
    rows = [fitted("a", ice_ring=0.3, phase_shift=80.0), fitted("b", phase_shift=90.0), fitted("c", failed=True)]
    table = blocks_of("ctf", "micrographs_ctf.star", rows)["micrographs"]
    assert "rlnCtfIceRingDensity" not in table
    assert table.floats("rlnPhaseShift").tolist() == [80.0, 90.0]


def test_what_relions_fit_does_otherwise_is_told(tmp_path: Path) -> None:
    kind = CtfEstimation()
    given = kind.Parameters(ctf_tilt=True, reject_resolution=6.0)
    said = " ".join(
        kind.relion_differences(RelionContext(given, OPTICS, rows=[fitted("a")], root=tmp_path, job="C/job003"))
    )
    assert "tilt" in said
    assert "worse than 6 Å" in said
    assert "log files that RELION looks for were cleaned" in said


# -- picking ------------------------------------------------------------------------------------------------------------


def test_picks_are_told_in_both_of_relions_conventions() -> None:
    before = Given(
        Result(outputs={"micrograph": "m/a.mrc"}, values={"micrographs_star": "CtfFind/job003/micrographs_ctf.star"})
    )
    metrics = {"particles": 12.0, "pick_score": 0.25}
    rows = [
        Row(
            Item("raw/a", {"micrographs": before}),
            Result(metrics, {"coordinates": "AutoPick/job004/raw/a_autopick.star"}),
        )
    ]
    files = Picking().star_files(rows, Picking.Parameters(), OPTICS, "AutoPick/job004", Path("/nowhere"))
    assert files["coords_suffix_autopick.star"] == "CtfFind/job003/micrographs_ctf.star\n"
    (listed,), (summary,) = files["autopick.star"], files["summary.star"]
    assert isinstance(listed, StarBlock)
    assert listed.name == "coordinate_files"
    assert listed.rows == [["m/a.mrc", "AutoPick/job004/raw/a_autopick.star"]]
    assert isinstance(summary, StarBlock)
    assert summary.rows == [["m/a.mrc", 0.25, 12]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("100:160", (100, 160)), ("100-160", (100, 160)), ("100,160", (100, 160)), ("150", (150, 150)), (150, (150, 150))],
)
def test_diameters_are_a_range_or_one(given: Any, expected: tuple[float, float]) -> None:
    assert Picking.Parameters(particle_diameter=given).particle_diameter == expected


@pytest.mark.parametrize("given", ["160:100", "5", "a:b", "1:2:3", "", "100:9000", (100, float("nan")), None])
def test_other_diameters_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="particle_diameter"):
        Picking.Parameters(particle_diameter=given)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"mask_contamination": False}, 0),
        ({"mask_contamination": True}, 1),
        ({"mask_contamination": False, "picks_per_area": 50.0, "pick_border": 100.0}, 2),
    ],
)
def test_what_relions_pickers_do_not_do_is_told(parameters: dict[str, Any], says: int) -> None:
    for method in ("blob", "template", "topaz"):
        given = Picking.Parameters(pick_method=method, pick_references="a.mrcs", **parameters)
        assert len(Picking().relion_differences(RelionContext(given, OPTICS))) == 1 + says


def test_what_was_automatic_is_told_as_it_was_found() -> None:
    assert Picking().automatic({"particle_diameter": [100.0, 150.0]}, {}) == {"pick_border": 50.0}
    extract, newest = job_type("extract"), {"box": 200, "image_size": 64, "image_pixel_size": 3.125}
    assert extract.automatic({}, newest) == {"box_size": 200, "background_diameter": 150.0}
    assert extract.automatic({}, {"box": 200}) == {}, "of an earlier version"
    class2d = job_type("class2d")
    assert class2d.automatic({"class_min": 500}, {"mask_diameter": 165.0}) == {
        "class_increment": 500,
        "class_mask": 165.0,
    }


def test_a_step_needs_neither_pictures_nor_what_is_spare() -> None:
    """What is needed and gone is made again; what is not is left alone."""
    outputs = {"coordinates": "a.star", "candidates": "b.star", "picks_image": "c.jpg"}
    assert Picking().needed(outputs) == {"coordinates": "a.star"}
    made = {"ctf_spectrum": "a", "ctf_plot": "b", "ctf_image": "c", "thumbnail": "d"}
    assert CtfEstimation().needed(made) == {}
    select, both = job_type("select"), {"particles_star": "a", "whole_star": "b"}
    assert select.written_by_work(both) == {"whole_star": "b"}
    assert select.written_by_work({"particles_star": "a"}) == {"particles_star": "a"}, "of an earlier version"
