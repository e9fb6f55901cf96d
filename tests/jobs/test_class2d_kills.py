"""A worker that dies in a round of 2D classification, wherever it is, and the round that is done again after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.formats.star import read_star
from beamside.formats.star_parts import PartsWriter
from beamside.jobs import class2d_files, class2d_worker
from beamside.jobs.base import Item, Optics, Result, Workspace
from beamside.jobs.class2d import Class2dParameters
from beamside.jobs.class2d_worker import Checkpoint, classify_round
from beamside.jobs.ports import Given

JOB = "Class2D/job006"
PARAMETERS = Class2dParameters(classes=2, class_iterations=4)


class KilledError(BaseException):
    """Stands for the end of the process."""


def items_of(small: Any, *counts: int) -> list[Item]:
    found = []
    for number, count in enumerate(counts):
        extracted = small.particles([(50.0 * place, 50.0) for place in range(count)], f"p{number}")
        found.append(Item(f"raw/m{number}", {"particles": Given(extracted)}))
    return found


def classified(small: Any, items: list[Item], name: str = "round001") -> Result:
    workspace = Workspace(small.root, JOB, Optics(2.0, 300.0, 2.7, 0.1, 1.0))
    return classify_round(items, PARAMETERS, workspace, round_name=name, final=False)


def fits(root: Path, result: Result, count: int) -> None:
    """Fail unless the files of a round are all there and of one round."""
    data, model = (read_star(root / result.outputs[role]) for role in ("data", "model"))
    optimiser = read_star(root / result.outputs["optimiser"])["optimiser_general"]
    assert optimiser.single("rlnModelStarFile") == result.outputs["model"]
    assert optimiser.single("rlnExperimentalDataStarFile") == result.outputs["data"]
    labels = data["particles"].integers("rlnClassNumber")
    assert len(labels) == result.metrics["classified"] == count
    listed = [entry["particles"] for entry in result.values["class_table"]]
    assert np.bincount(labels, minlength=len(listed) + 1)[1:].tolist() == listed
    assert len(model["model_classes"]) == len(listed)


def dying_at(calls: Iterator[int], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does as `function`, as long as there are `calls` left."""

    def do(*given: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise KilledError
        return function(*given, **named)

    return do


def test_what_was_done_before_the_end_is_gone_on_from(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of(small, 12)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", dying_at(iter(range(2)), Checkpoint.save))
        with pytest.raises(KilledError):
            classified(small, items)
    state, members = Checkpoint(small.root / JOB).load()
    assert state is not None
    assert (state.iteration, members) == (2, [("p0.mrcs", 12)])
    begun = list[Any]()

    def classify(*given: Any, **named: Any) -> Any:
        begun.append(given[4])
        return original(*given, **named)

    original = class2d_worker.classify
    monkeypatch.setattr(class2d_worker, "classify", classify)
    fits(small.root, classified(small, items), 12)
    assert [one.iteration for one in begun] == [2]


@pytest.mark.parametrize("files", range(5))
def test_a_round_whose_files_are_not_all_there_is_written_over(
    small: Any, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    """The last of them is the optimiser, which names the others."""
    items = items_of(small, 12)
    with monkeypatch.context() as patched:
        calls = iter(range(files))
        for owner, name in ((class2d_files, "write_mrc"), (PartsWriter, "write"), (class2d_files, "write_star")):
            patched.setattr(owner, name, dying_at(calls, getattr(owner, name)))
        with pytest.raises(KilledError):
            classified(small, items)
    job = small.root / JOB
    assert len(list(job.glob("run_*"))) == files
    assert not list(job.glob("*_optimiser.star"))
    result = classified(small, items)
    fits(small.root, result, 12)
    assert len(list(job.glob("*_optimiser.star"))) == 1
    assert not [path for path in job.iterdir() if "partial" in path.name or path.name.startswith(".")]


def test_a_round_whose_record_was_lost_is_made_beside_it(small: Any) -> None:
    """What the session has published may be of the first, so its files stay as they are."""
    items = items_of(small, 12)
    first = classified(small, items)
    before = {path: (small.root / path).read_bytes() for path in first.outputs.values()}
    second = classified(small, items)
    assert set(second.outputs.values()).isdisjoint(before)
    assert {path: (small.root / path).read_bytes() for path in before} == before
    fits(small.root, second, 12)


def test_particles_that_come_and_go_between_rounds_keep_files_that_fit(small: Any) -> None:
    all_items = items_of(small, 8, 6, 4, 7)
    fits(small.root, classified(small, all_items[:2]), 14)
    fits(small.root, classified(small, all_items, "round002"), 25)
    fits(small.root, classified(small, [all_items[3], all_items[0], all_items[2]], "round003"), 19)
    fits(small.root, classified(small, all_items[1:2], "round004"), 6)
    state, members = Checkpoint(small.root / JOB).load()
    assert state is not None
    assert (members, len(state.noise)) == ([("p1.mrcs", 6)], 1)


def test_one_particle_of_a_micrograph_is_taken_in(small: Any) -> None:
    fits(small.root, classified(small, items_of(small, 1, 11, 1)), 13)
