"""What a worker does on a GPU, and on the CPU when the GPU cannot do it. The GPU is made up: the work only sees what it is to compute on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from beamside.execution.gpus import PINS
from beamside.execution.whereabouts import Listener
from beamside.jobs import registry
from beamside.jobs.base import JobType, Optics
from beamside.jobs.item_kinds import MICROGRAPH
from beamside.jobs.ports import Input
from beamside.jobs.resources import Resources
from beamside.jobs.worker import Task, run_task
from beamside.parameters import ParameterModel

WORK = """
from pathlib import Path
from beamside.errors import ProcessingError
from beamside.jobs.base import Result

class OutOfMemoryError(RuntimeError):
    pass

def measure(item, parameters, workspace):
    with (workspace.root / "calls").open("a") as calls:
        calls.write(workspace.device + "\\n")
    fault = (workspace.root / "fault").read_text()
    if fault == "always":
        raise RuntimeError("CUDA or not, it is odd")
    if fault == "work":
        raise ProcessingError("There is nothing on it.")
    if fault and workspace.device != "cpu":
        raise OutOfMemoryError(fault)
    return Result(metrics={"brightness": 1.0})
"""


class Bright(JobType):
    """Looks how bright a micrograph is."""

    name, title, directory, version = "bright", "Brightness", "Bright", "1"
    inputs = (Input("micrographs", MICROGRAPH),)
    work = "bright_work:measure"
    resources = Resources(gpu_memory=1.0)
    Parameters = ParameterModel


@pytest.fixture
def do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, Any], list[str]]]:
    """A function that does a task; returns its outcome, and on what its work was called."""
    (tmp_path / "bright_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bright_work", raising=False)
    monkeypatch.setitem(registry.BUILT_IN, "bright", Bright)
    monkeypatch.delenv(PINS, raising=False)

    def do_(device: str, fault: str = "") -> tuple[dict[str, Any], list[str]]:
        (tmp_path / "fault").write_text(fault)
        (tmp_path / "calls").write_text("")
        optics = asdict(Optics(1.0, 300.0, 2.7, 0.1, 1.0))
        task = Task("bright", "bright", str(tmp_path), "Bright/job002", {}, optics, [("raw/m", {})], {"bright": {}})
        told = {**asdict(task), "device": device, "number": 1, "told_in": str(tmp_path / "told")}
        return run_task(told), (tmp_path / "calls").read_text().split()

    return do_


def test_the_work_is_told_what_to_compute_on(do: Any) -> None:
    for device in ("cpu", "cuda:1"):
        outcome, calls = do(device)
        assert calls == [device]
        assert outcome["where"]["device"] == device
        assert (outcome["gpu_fault"], outcome["reason"]) == ({}, "")


@pytest.mark.parametrize(
    ("fault", "memory"), [("CUDA out of memory. Tried to allocate 9 GiB", True), ("CUDA error: launch failure", False)]
)
def test_what_a_gpu_cannot_do_is_done_on_the_cpu(do: Any, tmp_path: Path, fault: str, memory: bool) -> None:
    listener = Listener(tmp_path / "told")
    outcome, calls = do("cuda:1", fault)
    assert calls == ["cuda:1", "cpu"]
    assert outcome["result"]["metrics"] == {"brightness": 1.0}
    assert outcome["where"]["device"] == "cpu"
    assert outcome["gpu_fault"]["memory"] is memory
    assert "cuda:1 of" in outcome["gpu_fault"]["sentence"]
    heard = [(said.where.device, said.begins) for said in listener.news()]
    assert heard == [("cuda:1", True), ("cuda:1", False), ("cpu", True), ("cpu", False)]


def test_a_fault_of_the_work_is_no_fault_of_the_gpu(do: Any) -> None:
    outcome, calls = do("cuda:1", "work")
    assert calls == ["cuda:1"]
    assert outcome["permanent"]
    assert outcome["gpu_fault"] == {}


def test_what_the_cpu_cannot_do_either_has_failed(do: Any) -> None:
    outcome, calls = do("cuda:1", "always")
    assert calls == ["cuda:1", "cpu"]
    assert outcome["result"] is None
    assert "RuntimeError: CUDA or not, it is odd" in outcome["reason"]
    assert outcome["where"]["device"] == "cpu"


def test_on_the_cpu_nothing_is_tried_twice(do: Any) -> None:
    outcome, calls = do("cpu", "always")
    assert calls == ["cpu"]
    assert outcome["gpu_fault"] == {}


def test_whether_a_job_gains_by_a_gpu_is_declared() -> None:
    gains = {name for name, kind in registry.job_types().items() if kind.resources.gpu}
    assert gains == {"motion", "class2d"}
