"""What authors of job types test with runs the work as a worker does, and says what is wrong with a declaration or a result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from beamside.errors import ConfigError, ProcessingError
from beamside.flow.workflow import find_workflow
from beamside.jobs.base import Item, JobType, Result, Workspace
from beamside.jobs.item_kinds import FITTED_MICROGRAPH, MICROGRAPH
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.jobs.registry import job_type
from beamside.jobs.triggers import EachItem, EachRound, Trigger
from beamside.parameters import ParameterModel, parameter
from beamside.testing import given, known_job_types, known_workflow, run_item, run_items

SCORED = ItemKind("scored", "Scored", files={"note": "a text"}, metrics={"score": "its length"})
MICROGRAPH_RESULT = Result(outputs={"micrograph": "m1.mrc"}, values={"shape": (4, 4), "pixel_size": 1.5})


class ScoreParameters(ParameterModel):
    how: str = parameter("well", "How it ends.")
    factor: float = parameter(1.0, "Of the score.", ge=0)


class Score(JobType):
    """Its parameter says how it ends."""

    name, title, directory, version = "score", "Score", "Score", "1"
    inputs = (Input("micrographs", MICROGRAPH), Input("before", SCORED, optional=True))
    outputs = (Output("scores", SCORED),)
    trigger: Trigger = EachItem()
    work = f"{__name__}:score"
    Parameters = ScoreParameters


class Sum(Score):
    name, inputs, outputs, trigger, work = "sum", (Input("scores", SCORED),), (), EachRound(), f"{__name__}:add"


def score(item: Item, parameters: Any, workspace: Workspace) -> Result:
    if parameters.how == "fails":
        raise ProcessingError(f"{item.name} is not worth a score.")
    if parameters.how == "breaks":
        raise ZeroDivisionError("by nothing")
    micrograph = item.inputs["micrographs"]
    note = workspace.path(item, ".txt")
    if parameters.how != "no file":
        note.write_text(micrograph.output("micrograph"))
    metrics = {} if parameters.how == "no metric" else {"score": parameters.factor * micrograph.value("pixel_size")}
    values = {"of": {1}} if parameters.how == "a set" else {"shape": micrograph.value("shape")}
    return Result(metrics, {"note": workspace.relative(note)}, values, "odd" if parameters.how == "odd" else "")


def add(items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool) -> Result:
    total = sum(item.inputs["scores"].metric("score") or 0 for item in items)
    return Result({"total": total}, {}, {"round": round_name, "final": final})


def test_the_work_is_done_as_json_in_a_job_directory_of_the_project(tmp_path: Path) -> None:
    result = run_item(Score, {"factor": 2}, {"micrographs": MICROGRAPH_RESULT}, root=tmp_path)
    assert result.metrics == {"score": 3.0}
    assert result.values == {"shape": [4, 4]}, "JSON has no tuples"
    assert (tmp_path / result.outputs["note"]).read_text() == "m1.mrc"
    assert result.outputs["note"] == "Score/job001/raw/m1.txt"


def test_what_an_input_was_made_from_is_found(tmp_path: Path) -> None:
    fit = given(
        Result(
            {"ctf_resolution": 4.0},
            values={"micrograph_pixel_size": 1.5, "defocus_u": 1.0, "defocus_v": 1.0, "defocus_angle": 0.0},
        ),
        micrographs=MICROGRAPH_RESULT,
    )
    assert FITTED_MICROGRAPH.lacks(fit) == []
    before = given(Result({"score": 1.0}, {"note": "a.txt"}), micrographs=fit.inputs["micrographs"])
    result = run_item(Score(), inputs={"micrographs": fit, "before": before}, root=tmp_path, name="raw/a/m7")
    assert result.outputs["note"] == "Score/job001/raw/a/m7.txt"
    assert result.metrics == {"score": 1.5}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("fails", "raw/m1 is not worth a score."),
        ("breaks", "ZeroDivisionError: by nothing"),
        ("no file", "and there is no such file"),
        ("no metric", "as 'scored' it must have the metric 'score'"),
        ("a set", "The result of the job type 'score' cannot be kept as JSON"),
    ],
)
def test_work_that_fails_is_told_as_a_session_tells_it(tmp_path: Path, how: str, words: str) -> None:
    with pytest.raises(ProcessingError, match=re.escape(words)) as told:
        run_item(Score, {"how": how}, {"micrographs": MICROGRAPH_RESULT}, root=tmp_path)
    notes = getattr(told.value, "__notes__", [])
    assert any("Traceback" in note for note in notes) is (how == "breaks")


def test_an_item_may_be_rejected_and_a_parameter_be_wrong(tmp_path: Path) -> None:
    assert run_item(Score, {"how": "odd"}, {"micrographs": MICROGRAPH_RESULT}, root=tmp_path).rejected == "odd"
    with pytest.raises(ProcessingError, match="factor"):
        run_item(Score, {"factor": -1}, {"micrographs": MICROGRAPH_RESULT}, root=tmp_path)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "needs its input 'micrographs'"),
        ({"movies": MICROGRAPH_RESULT}, "has no input 'movies': it has micrographs, before"),
        ({"micrographs": Result()}, "lacks the file 'micrograph'"),
    ],
)
def test_ports_are_given_what_they_take(tmp_path: Path, inputs: dict[str, Result], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_item(Score, inputs=inputs, root=tmp_path)


def test_a_round_gets_all_items(tmp_path: Path) -> None:
    items = {f"raw/m{number}": {"scores": Result({"score": 1.0}, {"note": "a"})} for number in range(3)}
    result = run_items(Sum, None, items, root=tmp_path, round_name="round002", final=True)
    assert (result.metrics, result.values) == ({"total": 3.0}, {"round": "round002", "final": True})


def test_what_is_the_same_for_all_items_is_given_by_its_port_alone(tmp_path: Path) -> None:
    class Compare(Score):
        name, work = "compare", f"{__name__}:compare"
        inputs = (Input("micrographs", MICROGRAPH), Input("model", SCORED, takes="one"))

    model = Result({"score": 2.0}, {"note": "model.txt"}, {"pixel_size": 9.0})
    result = run_item(Compare, inputs={"model": model, "micrographs": MICROGRAPH_RESULT}, root=tmp_path)
    assert result.metrics == {"score": 3.0}
    assert (tmp_path / result.outputs["note"]).read_text() == "m1.mrc and model.txt"
    with pytest.raises(ConfigError, match="needs its input 'model'"):
        run_item(Compare, inputs={"micrographs": MICROGRAPH_RESULT}, root=tmp_path)


def compare(item: Item, parameters: Any, workspace: Workspace) -> Result:
    note, model = workspace.path(item, ".txt"), item.shared["model"]
    note.write_text(f"{item.output('micrograph')} and {model.output('note')}")
    score = (model.metric("score") or 0) * item.value("pixel_size")  # of the micrograph, and never of the model
    return Result({"score": score}, {"note": workspace.relative(note)})


def test_types_and_workflows_are_known_only_inside() -> None:
    content = {
        "jobs": {
            "import": {"type": "import_micrographs"},
            "s": {"type": "score", "inputs": {"micrographs": "import.micrographs"}},
        }
    }
    with known_job_types(Score), known_workflow("scores", content):
        assert isinstance(job_type("score"), Score)
        assert [job.label for job in find_workflow("scores").jobs] == ["import", "s"]
    with pytest.raises(ConfigError):
        job_type("score")
    with pytest.raises(ConfigError):
        find_workflow("scores")
