"""Fixtures: a session of light jobs on small movies."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile

from beamside.flow.rounds import Rounds, _count, _finished
from beamside.flow.settings import SessionSettings
from beamside.flow.workflow import SHIPPED

STANDARD_MOVIES = SHIPPED["movies"]
LIGHT_JOBS = Path(__file__).with_name("light_jobs.py")


def load_jobs(name: str = "light_jobs") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, LIGHT_JOBS.with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # workers find the work of job types by its name
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def load_flow_jobs() -> Callable[[str], ModuleType]:
    return load_jobs


@pytest.fixture
def light_jobs_program() -> Path:
    return LIGHT_JOBS


@pytest.fixture
def light_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = load_jobs()
    jobs.install(monkeypatch.setitem, jobs.LIGHT_TYPES, jobs.LIGHT_WORKFLOW)
    monkeypatch.setattr("beamside.jobs.worker._limit_threads", lambda _threads: None)
    monkeypatch.setattr("beamside.flow.retries.RETRY_SECONDS", 0.01)


@pytest.fixture
def whole_chain(light_workflow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All seven job types with their real declarations and light work; see `whole_chain.py`."""
    jobs = load_jobs("light_jobs")
    jobs.install(monkeypatch.setitem, load_jobs("whole_chain").WHOLE_CHAIN, STANDARD_MOVIES)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Tables of a toy workflow, without a session; see `toy.py`."""
    toy = load_jobs("toy")
    toy.install(monkeypatch.setitem)
    monkeypatch.setattr("beamside.flow.retries.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)  # what a power cut takes is not asked here
    quick = Rounds._may_be_due

    def checked(rounds: Rounds, stage: Any, trigger: Any) -> bool:
        """Whatever happens in a test: where the quick look finds no round due, none is."""
        found = quick(rounds, stage, trigger)
        if not found:
            number = sum(_count(entry, trigger.counts) for entry in _finished(stage.gathered))
            assert not rounds._due(stage, trigger, number)
        return found

    monkeypatch.setattr(Rounds, "_may_be_due", checked)
    return toy


@pytest.fixture
def relion_window() -> ModuleType:
    return load_jobs("relion_window")


@pytest.fixture
def write_movie(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, shape: tuple[int, int, int] = (3, 64, 64), value: int = 1) -> Path:
        path = tmp_path / "camera" / f"{name}_fractions.tiff"
        path.parent.mkdir(parents=True, exist_ok=True)
        counts = np.full(shape, value, np.uint8)
        counts[0, 0, :4] = list(zlib.crc32(name.encode()).to_bytes(4, "big"))  # equal content would be one item
        tifffile.imwrite(path, counts, compression="lzw", photometric="minisblack")
        return path

    return write


@pytest.fixture
def session_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SessionSettings]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def make(**values: Any) -> SessionSettings:
        usual = {
            "target": tmp_path / "out put",
            "name": "run1",
            "data": (str(tmp_path / "camera/**/*_fractions.tiff"),),
            "pixel_size": 1.0,
            "voltage": 300,
            "poll_seconds": 0.05,
            "settle_seconds": 0.0,
            "attempts": 2,
            "executor": "inline",
            "class_min": 20,
        }
        return SessionSettings.from_flat({**usual, **values})

    return make
