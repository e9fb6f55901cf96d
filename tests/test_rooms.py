"""The rooms that carry any work know no job type: neither its name nor what it makes, in words of their own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamside.jobs.base import JobType
from beamside.jobs.registry import job_types

SOURCE = Path(__file__).parents[1] / "src/beamside"
ROOMS = ("flow", "project", "execution", "monitor")

KNOWN = {
    # What taking in measures of a file, whatever it is.
    "flow/table.py": {"gigabytes", "megabytes_per_second"},
    "monitor/status.py": {"megabytes_per_second"},
    # The columns of the table of classes, and a key of the page.
    "monitor/report_gallery.py": {"particles"},
    "monitor/report.py": {"classes"},
}
"""What still is there, by module. RELION's own tables are left out: their words are RELION's."""


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
    assert texts & WORDS == KNOWN.get(str(module.relative_to(SOURCE)), set())


def test_there_are_words_to_look_for() -> None:
    assert {"motion", "extracted", "micrograph", "class2d"} <= WORDS
