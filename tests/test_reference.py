"""The generated reference pages say what the code declares."""

import runpy
from pathlib import Path

GENERATOR = Path(__file__).parents[1] / "tools" / "make-reference"


def test_the_reference_pages_are_those_of_this_code() -> None:
    for path, text in runpy.run_path(str(GENERATOR))["pages"]().items():
        assert path.read_text() == text, f"{path} is out of date: run tools/make-reference"
