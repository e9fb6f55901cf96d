"""Fixtures: a session of light jobs on movies of a camera with a gain pattern."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"beside_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


flow = load(Path(__file__).parents[1] / "flow/conftest.py")
light_jobs_program, light_workflow, session_settings = (
    flow.light_jobs_program,
    flow.light_workflow,
    flow.session_settings,
)
write_movie, whole_chain = flow.write_movie, flow.whole_chain


@pytest.fixture
def camera(tmp_path: Path) -> Any:
    return load(Path(__file__).with_name("gain_camera.py")).Camera(tmp_path / "camera")
