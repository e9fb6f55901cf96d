"""The page about items that belong together is true: its code is run as it stands there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from beamside import testing
from beamside.formats.mrc import write_mrc
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.ctf import CtfEstimation

PAGE = (Path(__file__).parents[1] / "docs/how-to/groups.md").read_text("utf-8")
FILES = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
EXAMPLE = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)[-1]


class LightCtf(CtfEstimation):
    """Stands for CTF estimation; the name of a micrograph says how good it is."""

    work = f"{__name__}:fit"


def fit(item: Item, parameters: Any, workspace: Workspace) -> Result:
    spectrum = workspace.path(item, ".ctf")
    spectrum.write_text("a spectrum")
    values = {"micrograph_pixel_size": 1.2, "defocus_u": 15050.0, "defocus_v": 14950.0, "defocus_angle": 10.0}
    resolution = float(item.name.rpartition("_")[2])
    metrics = {"astigmatism": 100.0, "ctf_score": 0.1, "ctf_resolution": resolution, "defocus": 15000.0}
    return Result(metrics, {"ctf_spectrum": workspace.relative(spectrum)}, values)


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "beamside_squares.py").write_text(FILES["beamside_squares.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("beamside.jobs.worker._limit_threads", lambda _threads: None)
    import beamside_squares  # type: ignore[import-not-found]

    with testing.known_job_types(beamside_squares.Squares, LightCtf):
        yield beamside_squares
    del sys.modules["beamside_squares"]


@pytest.mark.usefixtures("squares")
def test_the_workflow_of_the_page_summarises_each_grid_square(tmp_path: Path) -> None:
    places = {"GridSquare_1/Data/m_3": 1, "GridSquare_1/Data/m_5": 2, "GridSquare_2/Data/m_8": 3, "atlas/m_9": 4}
    for place, seed in places.items():
        path = tmp_path / "camera" / f"{place}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mrc(path, np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32), pixel_size=1.2)
    workflow = json.loads(FILES["squares.json"])
    state = testing.run_session(workflow, [tmp_path / "camera/**/*.mrc"], tmp_path, pixel_size=1.2)
    job = state.job_labelled("squares")
    assert job is not None
    made = {entry.name: entry.result["metrics"] for entry in job.items.values() if entry.result}
    assert made == {
        "squares/GridSquare_1": {"exposures": 2.0, "lost": 0.0, "square_resolution": 4.0},
        "squares/GridSquare_2": {"exposures": 1.0, "lost": 0.0, "square_resolution": 8.0},
    }


@pytest.mark.usefixtures("squares")
def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(EXAMPLE, names)
    names["test_the_median_is_that_of_the_square"](tmp_path)
