"""The rooms that carry any work know no job type: neither its name nor what it makes, in words of their own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamside.jobs.base import JobType
from beamside.jobs.registry import job_types

SOURCE = Path(__file__).parents[1] / "src/beamside"
ROOMS = ("flow", "project", "execution", "monitor")


def words_of(kind: JobType) -> Iterator[str]:
    """Yield a job type's name, its metrics, and the kinds and roles of what it takes and gives."""
    yield kind.name
    yield from (metric.name for metric in kind.metrics)
    yield from (picture.role for picture in kind.pictures)
    for port in (*kind.inputs, *kind.outputs):
        yield port.kind.name
        yield from (*port.kind.files, *port.kind.metrics)
    for taken in kind.inputs:
        yield from taken.reads


WORDS = {word for kind in job_types().values() for word in words_of(kind)}


def modules() -> list[Path]:
    return [
        path for room in ROOMS for path in sorted((SOURCE / room).rglob("*.py")) if not path.name.startswith("relion_")
    ]


@pytest.mark.parametrize("module", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_that_carries_any_work_names_no_job_type_and_nothing_that_one_makes(module: Path) -> None:
    texts = {
        node.value
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not texts & WORDS


def test_there_are_words_to_look_for() -> None:
    assert {"motion", "extracted", "micrograph", "class2d"} <= WORDS


OF_A_CAMERA = re.compile(r"\b(gains?|movies?|micrographs?)\b|gain_|_gain|movie_|_movie|micrograph_|_micrograph")

SAID = {
    # The names of the workflows that come with the package, and what people read of their settings.
    "flow/workflow.py": {"movies", "micrographs"},
    "flow/settings.py": {"movies", "movie", "micrographs"},
}
"""Where the flow still speaks of a camera's files."""


@pytest.mark.parametrize("module", sorted((SOURCE / "flow").glob("*.py")), ids=lambda path: path.name)
def test_the_code_of_the_flow_has_no_word_of_what_a_camera_writes(module: Path) -> None:
    tree = ast.parse(module.read_text())
    prose = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        if isinstance(node.body[0], ast.Expr)
    }
    words = set[str]()
    for node in ast.walk(tree):
        said = node.value if isinstance(node, ast.Constant) and node not in prose else ""
        named = getattr(node, "id", "") or getattr(node, "attr", "") or getattr(node, "arg", "")
        for text in (said, named, getattr(node, "name", "")):
            if isinstance(text, str):
                words |= {found.group().strip("_") for found in OF_A_CAMERA.finditer(text)}
    assert words == SAID.get(f"flow/{module.name}", set())
