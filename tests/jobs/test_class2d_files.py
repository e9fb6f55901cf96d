"""The files of a round are the same whatever the number of particles that are written at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beamside.formats.star import read_star
from beamside.jobs.base import Optics
from beamside.jobs.class2d_files import Round, write_round
from beamside.jobs.extract import PARTICLE_COLUMNS
from beamside.jobs.optics import optics_table

CLASSES, BOX = 3, 8


def files_of(root: Path, count: int) -> dict[str, bytes]:
    """Write a round of so many particles, three in each micrograph."""
    rng = np.random.default_rng(count)
    groups = np.arange(count) // 3
    found = Round(
        iteration=4,
        pixel_size=4.0,
        mask_diameter=20.0,
        tau2_fudge=2.0,
        seed=1,
        last_iteration=25,
        shift_sd=4.0,
        resolution=12.0,
        references=rng.normal(size=(CLASSES, BOX, BOX)).astype(np.float32),
        weights=np.full(CLASSES, 1 / CLASSES),
        resolutions=np.full(CLASSES, 12.0),
        noise=np.ones((groups[-1] + 1, BOX // 2 + 1)),
        signal=np.ones(BOX // 2 + 1),
        groups=groups,
        labels=rng.integers(0, CLASSES, count),
        psi=rng.uniform(0, 360, count),
        shifts=rng.normal(size=(count, 2)),
        pmax=rng.uniform(0, 1, count),
        evidence=rng.uniform(-100, 100, count),
    )
    rest = [0.5, 0, 0.0]
    tail = [1, 5.0, 0.1, 15000.0, 14900.0, 20.0, 0.0, 1.0, 0.0]
    rows = [
        [float(n), 2.0 * n, *rest, f"{n % 3 + 1:06d}@E/job005/m{n // 3}.mrcs", f"M/job002/m{n // 3}.mrc", *tail]
        for n in range(count)
    ]
    assert len(rows[0]) == len(PARTICLE_COLUMNS)
    (root / "Class2D/job006").mkdir(parents=True)
    outputs = write_round(root, "Class2D/job006", found, rows, optics_table([], Optics(1.0, 300.0, 2.7, 0.1, 1.0)))
    table = read_star(root / outputs["data"], sharing=True)["particles"]
    assert table.integers("rlnClassNumber").tolist() == [label + 1 for label in found.labels]
    assert np.allclose(table.floats("rlnOriginXAngst"), found.shifts[:, 1], atol=1e-5)
    assert table.floats("rlnCoordinateX").tolist() == [float(n) for n in range(count)]
    return {role: (root / path).read_bytes() for role, path in outputs.items()}


@pytest.mark.parametrize("count", [1, 6, 7, 8, 21, 22])
def test_a_round_is_written_in_pieces_as_it_is_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    at_once = files_of(tmp_path / "at once", count)
    monkeypatch.setattr("beamside.jobs.class2d_files.PIECE", 7)
    assert files_of(tmp_path / "in pieces", count) == at_once
