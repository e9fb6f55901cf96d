"""A worker does errands as it does tasks of jobs: the same report, the same errors, told in the same place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.errors import GainError, NotReadyError
from beamside.execution.whereabouts import Listener
from beamside.jobs.errands import Errand, run_errand


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], str]:
    def give(function: Callable[..., Any]) -> str:
        module = ModuleType("errands_of_a_test")
        module.work = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "errands_of_a_test", module)
        return "errands_of_a_test:work"

    return give


def done(work: str, **more: Any) -> dict[str, Any]:
    return run_errand(asdict(Errand(work, "A test", {"number": 3}, **more)))


def test_what_was_found_comes_back_and_is_told_where_workers_tell(work: Callable[..., str], tmp_path: Path) -> None:
    def double(asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"double": 2 * asked["number"]}

    listener = Listener(tmp_path)
    outcome = done(work(double), job="gain", item="64x64", number=5, told_in=str(tmp_path))
    assert (outcome["result"], outcome["reason"], outcome["permanent"]) == ({"double": 6}, "", False)
    said = list(listener.news())
    assert [(one.task.job, one.task.item, one.task.number, one.begins) for one in said] == [
        ("gain", "64x64", 5, True),
        ("gain", "64x64", 5, False),
    ]


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (GainError("it does not fit"), True),
        (NotReadyError("not yet"), False),
        (OSError(28, "No space left on device"), False),
        (ValueError("odd"), False),
    ],
)
def test_only_what_another_attempt_would_repeat_is_for_good(
    work: Callable[..., str], error: Exception, permanent: bool
) -> None:
    def fail(_asked: Mapping[str, Any]) -> dict[str, Any]:
        raise error

    outcome = done(work(fail))
    assert (outcome["result"], outcome["permanent"]) == (None, permanent)
    assert outcome["reason"]


def test_work_that_is_not_there_is_named() -> None:
    assert "A test names 'nowhere_at_all:work'" in done("nowhere_at_all:work")["reason"]
