"""Work that is no job's item: a check asks a worker something, and gets what it found as JSON. It runs as tasks of jobs do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamside.execution.whereabouts import TaskName
from beamside.jobs.loading import load_function
from beamside.jobs.worker import reported


@dataclass(frozen=True)
class Errand:
    """What a worker is asked.

    Attributes
    ----------
    work : the function that does it, as "module:function"; it takes `asked` and returns what it found, both plain JSON
    owner : whose it is, as the beginning of a sentence: "The check of the gain reference"
    job, item, number : its identity among all tasks of the project
    session : how the worker knows its session
    told_in : the folder where workers tell what they begin and end; "" for none
    """

    work: str
    owner: str
    asked: Mapping[str, Any]
    job: str = ""
    item: str = ""
    number: int = 0
    session: tuple[int, float, str, str, str] = (0, 0.0, "", "", "")
    told_in: str = ""


def run_errand(errand: Mapping[str, Any]) -> dict[str, Any]:
    """Do an errand given as the dictionary of an `Errand`; return the dictionary of an `Outcome`. No exception gets out."""
    given = Errand(**errand)
    identity = TaskName(given.job, given.item, given.number)
    return reported(lambda _device: _found(given), given.session, given.told_in, identity)


def _found(errand: Errand) -> dict[str, Any]:
    found: dict[str, Any] = load_function(errand.work, errand.owner)(errand.asked)
    return found
