"""CTFFIND's logs, from which RELION knows what is done and takes its numbers by their places."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.jobs.base import Item, Optics, Result, Row
from beamside.jobs.ctf import CtfEstimation
from beamside.jobs.ctffind_log import log_path, log_text, root_name, write_missing_logs
from beamside.jobs.ports import Given

OPTICS = Optics(1.4, 300.0, 2.7, 0.1, 1.0)
JOB = "CtfFind/job003"


def fitted(name: str, **values: float) -> Row:
    found = {"defocus_u": 15200.0, "defocus_v": 15000.0, "defocus_angle": 30.0, "micrograph_pixel_size": 1.4}
    return Row(Item(f"raw/{name}"), Result({"ctf_score": 0.2, "ctf_resolution": 3.5}, values={**found, **values}))


def as_relion_reads(text: str) -> dict[str, float]:
    """Return the numbers as RELION 3.1 takes them from a log: by where words stand in the lines of the summary."""
    summary = text.splitlines()
    head = next(line.split() for line in summary if line.startswith("# Pixel size:"))
    numbers = next(line.split() for line in summary if not line.startswith(("#", "Summary")))
    names = ("defocus_u", "defocus_v", "defocus_angle", "phase_shift", "score", "resolution")
    found = dict(zip(names, map(float, numbers[1:7]), strict=True))
    found |= {"pixel_size": float(head[3]), "voltage": float(head[8]), "cs": float(head[13]), "q0": float(head[18])}
    return {**found, "phase_shift": math.degrees(found["phase_shift"])}


defocus = st.floats(0, 2e5)


@given(defocus, defocus, st.floats(-180, 180), st.floats(-180, 180), st.floats(0, 1), st.floats(1, 100))
def test_relion_reads_what_was_fitted(
    u: float, v: float, angle: float, phase: float, score: float, limit: float
) -> None:
    values = {"defocus_u": u, "defocus_v": v, "defocus_angle": angle, "phase_shift": phase}
    result = Result({"ctf_score": score, "ctf_resolution": limit}, values={**values, "micrograph_pixel_size": 2.8})
    found = as_relion_reads(log_text(Item("raw/m"), result, JOB, OPTICS))
    wanted = {**values, "score": score, "resolution": limit, "pixel_size": 2.8, "voltage": 300, "cs": 2.7, "q0": 0.1}
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_fit_without_a_phase_shift_or_a_limit_is_written_too() -> None:
    row = fitted("m")
    unlimited = replace(row.result, metrics={"ctf_score": 0.2, "ctf_resolution": math.inf})
    found = as_relion_reads(log_text(row.item, unlimited, JOB, OPTICS))
    assert (found["phase_shift"], found["resolution"]) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("spectrum", "name", "log"),
    [
        ("", "raw/grid 1/m1", "raw/grid 1/m1_ctffind4.log"),
        ("MotionCorr/job002/raw/m1_PS.mrc", "raw/m1", "raw/m1_PS_ctffind4.log"),
        ("MotionCorr/job002/raw/a.b_PS.mrc", "raw/a.b", "raw/a.b_PS_ctffind4.log"),
    ],
)
def test_a_log_is_named_as_relion_names_it(spectrum: str, name: str, log: str) -> None:
    given = Given(Result(outputs={"power_spectrum": spectrum} if spectrum else {}))
    item = Item(name, {"micrographs": given})
    assert log_path(item, JOB) == f"{JOB}/{log}"
    assert f"Summary of results: {JOB}/{log}\n" in log_text(item, fitted("m").result, JOB, OPTICS)
    assert Path(name).parent == Path(root_name(item)).parent


def test_only_logs_that_are_not_there_are_written(tmp_path: Path) -> None:
    rows = [fitted("a"), fitted("b"), fitted("squares/c")]
    assert write_missing_logs(rows, OPTICS, JOB, tmp_path) == 3
    relions_own = tmp_path / log_path(rows[0].item, JOB)
    relions_own.write_text("of CTFFIND itself")
    (tmp_path / log_path(rows[1].item, JOB)).unlink()
    assert write_missing_logs(rows, OPTICS, JOB, tmp_path) == 1
    assert relions_own.read_text() == "of CTFFIND itself"
    assert write_missing_logs(rows, OPTICS, JOB, tmp_path) == 0
    assert {path.suffix for path in (tmp_path / JOB).rglob("*") if path.is_file()} == {".log"}, "nothing else is left"


def test_a_log_says_the_optics_that_its_micrograph_was_made_with(tmp_path: Path) -> None:
    slow = replace(fitted("b"), optics=replace(OPTICS, group="slow", voltage=200.0))
    write_missing_logs([fitted("a"), slow], OPTICS, JOB, tmp_path)
    logs = [(tmp_path / JOB / "raw" / f"{name}_ctffind4.log").read_text() for name in "ab"]
    assert [as_relion_reads(text)["voltage"] for text in logs] == [300, 200]


def test_rejected_micrographs_get_none(tmp_path: Path) -> None:
    """RELION would put them into its table when the job is continued."""
    failed: Any = Result(
        {"ctf_score": 0.0}, values={"micrograph_pixel_size": 1.4}, rejected="the CTF fit failed: no rings"
    )
    rows = [fitted("a"), Row(Item("raw/b"), failed)]
    assert CtfEstimation().write_for_relion(rows, OPTICS, JOB, tmp_path) == 1


def test_a_name_of_any_bytes_can_be_written(tmp_path: Path) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert write_missing_logs([fitted(name)], OPTICS, JOB, tmp_path) == 1
    assert write_missing_logs([fitted(name)], OPTICS, JOB, tmp_path) == 0
