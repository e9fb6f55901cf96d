from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    """Return the folder of real data, which is not part of the project."""
    folder = Path(os.environ.get("BEAMSIDE_TEST_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real test data are not at {folder}; set BEAMSIDE_TEST_DATA")
    return folder
