"""What holds for all tests, and fixtures for tests of several rooms."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, and nothing about the program.
settings.register_profile("beamside", deadline=None)
settings.load_profile("beamside")


def load(path: Path) -> ModuleType:
    """Import a file of helpers that is beside tests."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that makes a session with settings, ready to take items; see ``relion_session.py``. Nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    module = load(Path(__file__).with_name("relion_session.py"))

    def make(folder: str = "out", **given: Any) -> Any:
        session = module.MadeSession(tmp_path / folder, **given)
        session.projection.open_jobs()
        return session

    return make
