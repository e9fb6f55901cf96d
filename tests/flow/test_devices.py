"""Sessions on GPUs that are made up: what is done where, what stands in keys, and what a GPU that is not there means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from beamside.errors import ConfigError
from beamside.execution.gpus import Gpu, NoGpuError
from beamside.flow.changing import changes_between, check_running, with_values
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.start import prepare
from beamside.jobs import registry
from beamside.jobs.base import JobType
from beamside.jobs.resources import Resources
from beamside.project.project import Project

Settings = Callable[..., SessionSettings]
WriteMovie = Callable[..., Path]


@pytest.fixture(autouse=True)
def _jobs(light_workflow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the light jobs the first gains by a GPU, and nothing else does."""
    measure: type[JobType] = registry.BUILT_IN["motion"]
    monkeypatch.setattr(measure, "resources", Resources())
    kind = type("MeasureOnGpu", (measure,), {"resources": Resources(gpu_memory=1.0)})
    monkeypatch.setitem(registry.BUILT_IN, "motion", kind)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that sets how many GPUs this machine has."""

    def have(number: int) -> None:
        def find() -> tuple[Gpu, ...]:
            if not number:
                raise NoGpuError("this machine shows no NVIDIA GPU")
            return tuple(Gpu(index, "a card", 24.0, str(index)) for index in range(number))

        monkeypatch.setattr("beamside.execution.gpus.find_gpus", find)

    return have


def run(settings: SessionSettings) -> Project:
    assert Session(settings, until_empty=True).run() == "finished"
    return Project(settings.root)


def where(project: Project, item: str = "raw/a_fractions") -> dict[str, list[str]]:
    """On what an item was made, by the directory of the job, as often as it was."""
    found: dict[str, list[str]] = {}
    for job, record in project.story(item):
        if record["state"] == "done" and "where" in record:
            found.setdefault(job.split("/")[0], []).append(record["where"]["device"])
    return found


@pytest.mark.parametrize(("device", "used"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_what_gains_by_a_gpu_is_done_on_the_one_that_is_asked_for(
    session_settings: Settings, write_movie: WriteMovie, gpus: Callable[[int], None], device: str, used: str
) -> None:
    gpus(2)
    write_movie("a")
    assert where(run(session_settings(device=device))) == {"MotionCorr": [used], "Extract": ["cpu"]}


def test_another_device_computes_nothing_again(
    session_settings: Settings, write_movie: WriteMovie, gpus: Callable[[int], None]
) -> None:
    write_movie("a")
    gpus(1)
    run(session_settings(device="cuda"))
    gpus(0)
    for device in ("cpu", "auto"):
        project = run(session_settings(device=device))
        assert where(project) == {"MotionCorr": ["cuda:0"], "Extract": ["cpu"]}


def test_auto_without_a_gpu_is_the_cpu_and_nothing_is_said(
    session_settings: Settings, write_movie: WriteMovie, gpus: Callable[[int], None]
) -> None:
    gpus(0)
    write_movie("a")
    project = run(session_settings())
    assert where(project) == {"MotionCorr": ["cpu"], "Extract": ["cpu"]}
    assert not any("gpu" in json.dumps(vars(entry)).lower() for entry in project.load().problems.values())


def test_a_session_that_is_to_use_a_gpu_that_is_not_there_does_not_begin(
    session_settings: Settings, write_movie: WriteMovie, gpus: Callable[[int], None]
) -> None:
    gpus(0)
    write_movie("a")
    settings = session_settings(device="cuda")
    for begin in (lambda: prepare(settings), lambda: Session(settings).run()):
        with pytest.raises(ConfigError, match=r"--device cuda cannot be had: .* use --device cpu, or auto"):
            begin()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:0,1", ""])
def test_other_words_are_refused(session_settings: Settings, device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        session_settings(device=device)


def test_a_session_that_runs_gives_its_gpus_back_and_takes_others_when_it_begins_again(
    session_settings: Settings,
) -> None:
    settings = session_settings(device="cuda")
    check_running(changes_between(settings, with_values(settings, {"device": "cpu"})))
    for values in ({"device": "auto"}, {"device": "cuda:1"}, {"gpu_workers": 3}):
        with pytest.raises(ConfigError, match="only while the session does not run"):
            check_running(changes_between(settings, with_values(settings, values)))
