"""What a kind of items demands is enough for every job type that takes it: results of other packages' job types have nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.formats.mrc import write_mrc
from beamside.formats.star import read_star
from beamside.jobs.base import JobType, Optics, RelionContext, Result
from beamside.jobs.registry import BUILT_IN
from beamside.testing import given, run_item, run_items

JOBS = [pytest.param(kind(), id=name) for name, kind in BUILT_IN.items()]
OPTICS = Optics(2.0, 300.0, 2.7, 0.1, 1.0)


@pytest.mark.parametrize("kind", JOBS)
def test_relions_options_are_texts_also_while_nothing_is_known(kind: JobType, tmp_path: Path) -> None:
    context = RelionContext(kind.Parameters(), OPTICS, root=tmp_path, job=f"{kind.directory}/job001")
    assert all(isinstance(value, str) for value in kind.relion_options(context).values())
    assert all(sentence.endswith(".") for sentence in kind.relion_differences(context))
    assert kind.automatic({}, {}) == {}, "an earlier version may have recorded nothing of it"


@pytest.mark.parametrize("kind", JOBS)
def test_a_job_without_finished_items_has_tables_without_rows_and_no_files_for_relion(
    kind: JobType, tmp_path: Path
) -> None:
    job = f"{kind.directory}/job001"
    assert kind.current_nodes([]) == ()
    assert kind.write_for_relion([], OPTICS, job, tmp_path) == 0
    for content in kind.star_files([], kind.Parameters(), OPTICS, job, tmp_path).values():
        if not isinstance(content, str):
            blocks = content if isinstance(content, list) else list(content.blocks)
            assert blocks[-1].rows == []
            assert [(block.name, len(block)) for block in blocks[:-1]] in ([], [("optics", 1)])


def test_a_micrograph_of_another_program_is_fitted(small: Any) -> None:
    inputs = {"micrographs": small.micrograph()}
    parameters = {"min_defocus": 14000, "max_defocus": 16000, "max_astigmatism": 500}
    result = run_item(BUILT_IN["ctf"], parameters, inputs, root=small.root, optics=OPTICS)
    assert result.values["micrograph_pixel_size"] == OPTICS.pixel_size
    assert (small.root / result.outputs["thumbnail"]).is_file(), "nobody else has drawn it"


def test_picks_of_another_program_are_extracted(small: Any) -> None:
    """They have no scores and a block of another name; the fit has no score, no astigmatism and no phase shift."""
    inputs = {"micrographs": small.fitted(), "coordinates": small.coordinates([(64.0, 60.0), (1.0, 1.0)])}
    result = run_item(BUILT_IN["extract"], {"class_box": 16}, inputs, root=small.root, optics=OPTICS)
    assert result.metrics == {"extracted": 1.0, "at_edge": 1.0}
    (row,) = read_star(small.root / result.outputs["particles_star"])["images"].records()
    expected = {
        "rlnCoordinateX": 64.0,
        "rlnCoordinateY": 60.0,
        "rlnAutopickFigureOfMerit": 0.0,
        "rlnDefocusU": 15100.0,
        "rlnDefocusV": 15000.0,
        "rlnDefocusAngle": 20.0,
        "rlnCtfMaxResolution": 5.0,
        "rlnCtfFigureOfMerit": 0.0,
        "rlnPhaseShift": 0.0,
    }
    assert {name: float(row[name]) for name in expected} == expected


@pytest.mark.parametrize("method", ["blob", "template"])
def test_a_micrograph_with_another_programs_fit_is_picked(small: Any, method: str) -> None:
    y, x = np.mgrid[:16, :16] - 8
    write_mrc(small.root / "r.mrcs", np.exp(-(x**2 + y**2) / 12.0).astype(np.float32)[None], 4.0)
    parameters = {
        "pick_method": method,
        "pick_references": "r.mrcs",
        "particle_diameter": [30, 40],
        "pick_angle_step": 90,
    }
    inputs = {"micrographs": small.fitted()}
    result = run_item(BUILT_IN["pick"], parameters, inputs, root=small.root, optics=OPTICS)
    assert len(read_star(small.root / result.outputs["coordinates"])[""]) == result.metrics["particles"]
    assert result.values["max_diameter"] == 40


def test_particles_of_other_programs_are_joined(small: Any) -> None:
    """What has none need not say how large they are."""
    some = [(100.0, 100.0), (300.0, 100.0)]
    inputs = {"first": small.particles([]), "second": small.particles(some), "third": small.particles(some, "p2")}
    result = run_item(BUILT_IN["join"], None, inputs, root=small.root, optics=OPTICS)
    assert result.metrics == {"extracted": 2.0, "duplicates": 2.0}
    assert result.values == {"image_pixel_size": 4.0, "image_size": 16}
    nothing = run_item(BUILT_IN["join"], None, {"first": small.particles([])}, root=small.root)
    assert (nothing.metrics["extracted"], nothing.outputs) == (0.0, {})


def test_particles_of_micrographs_with_different_pixels_are_compared_by_their_places_in_angstrom(small: Any) -> None:
    places = {"first": [(100.0, 100.0)], "second": [(100.0, 100.0), (200.0, 200.0)]}
    inputs = {
        port: given(small.particles(places[port], port), fit=Result(values={"micrograph_pixel_size": pixel_size}))
        for port, pixel_size in (("first", 2.0), ("second", 1.0))
    }
    result = run_item(BUILT_IN["join"], None, inputs, root=small.root, optics=OPTICS)
    rows = read_star(small.root / result.outputs["particles_star"])["images"]
    assert rows.texts("rlnMicrographName") == ["first.mrc", "second.mrc"]
    assert rows.floats("rlnCoordinateX").tolist() == [100, 100], "each in the pixels of its own micrograph"


def test_particles_without_a_word_of_diameter_or_micrographs_are_classified_and_selected(small: Any) -> None:
    places = [(100.0 * number, 100.0) for number in range(12)]
    items = {"raw/m1": {"particles": small.particles(places)}, "raw/m2": {"particles": small.particles([])}}
    parameters = {"classes": 2, "class_iterations": 2}
    found = run_items(BUILT_IN["class2d"], parameters, items, root=small.root, optics=OPTICS)
    assert found.values["mask_diameter"] == pytest.approx(0.95 * 16 * 4.0)
    assert "micrograph_pixel_size" not in found.values
    needed = {role: found.outputs[role] for role in ("classes", "data", "model")}
    bare = Result({"classified": 12.0}, needed)
    selected = run_item(BUILT_IN["select"], {"select_score": 0.0}, {"classes": bare}, root=small.root)
    assert selected.metrics["selected"] == 12
    assert "does not tell the pixel size" in selected.values["warnings"]["duplicates"]
