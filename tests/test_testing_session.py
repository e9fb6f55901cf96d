"""Small sessions for the tests of job types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.errors import ProcessingError
from beamside.flow.session import Session
from beamside.formats.mrc import write_mrc
from beamside.jobs.base import Item, JobType, Result, Workspace
from beamside.jobs.item_kinds import MICROGRAPH
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.parameters import ParameterModel, parameter
from beamside.project.records import ItemState
from beamside.testing import known_job_types, project_in, run_session


class SizeParameters(ParameterModel):
    factor: float = parameter(1.0, "What the size is multiplied by.", gt=0)


class Size(JobType):
    """Measures micrographs."""

    name, title, directory, version = "size", "Size", "Size", "1"
    inputs = (Input("micrographs", MICROGRAPH),)
    outputs = (Output("sizes", ItemKind("size", "Sizes", metrics={"size": "bytes"})),)
    work = f"{__name__}:measure"
    Parameters = SizeParameters


def measure(item: Item, parameters: Any, workspace: Workspace) -> Result:
    if "bad" in item.name:
        raise ProcessingError("It is bad.")
    return Result({"size": parameters.factor * workspace.absolute(item.output("micrograph")).stat().st_size})


WORKFLOW = {
    "jobs": {
        "import": {"type": "import_micrographs"},
        "size": {"type": "size", "inputs": {"micrographs": "import.micrographs"}},
    }
}


def micrographs(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        write_mrc(folder / f"{name}.mrc", np.full((64, 64), len(name), np.float32), 1.0)
    return sorted(folder.glob("*.mrc"))


def test_a_session_runs_to_its_end_and_a_second_one_does_only_what_is_new(tmp_path: Path) -> None:
    with known_job_types(Size):
        state = run_session(WORKFLOW, micrographs(tmp_path / "camera", "a", "bad"), tmp_path, factor=0.5)
        before = state.job_labelled("size")
        state = run_session(WORKFLOW, micrographs(tmp_path / "camera", "other"), tmp_path, factor=0.5)
    after = state.job_labelled("size")
    assert before is not None
    assert after is not None
    assert {name: entry.state for name, entry in before.items.items()} == {
        "raw/a": ItemState.DONE,
        "raw/bad": ItemState.FAILED,
    }
    assert before.items["raw/bad"].reason == "It is bad."
    assert before.items["raw/a"].result is not None
    assert before.items["raw/a"].result["metrics"] == {"size": (1024 + 4 * 64 * 64) / 2}
    assert after.items["raw/other"].state is ItemState.DONE
    assert after.items["raw/a"].finished == before.items["raw/a"].finished, "it was not done again"
    assert project_in(tmp_path).exists


def test_a_session_that_does_not_finish_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "run", lambda _session: "stopped")
    with pytest.raises(ProcessingError, match="is stopped, and not finished"):
        run_session("micrographs", micrographs(tmp_path / "camera", "a"), tmp_path)
