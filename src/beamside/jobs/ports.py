"""What jobs give each other: kinds of items with their contracts, and the ports through which a job takes and gives them.

A job asks for what one of its own ports gives, never for the name of another job type. So a program of somebody else can stand in for ours wherever
what it makes is of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from beamside.jobs.base import Result

Takes = Literal["each", "all", "one"]
"""Whether a port takes every item by itself, all items together, or one thing that is the same for all."""


@dataclass(frozen=True)
class ItemKind:
    """A sort of thing that jobs make, and what everything of this sort must have.

    Attributes
    ----------
    name, title : "micrograph", and what people read
    files : roles in ``Result.outputs`` that must be there, each with what the file is
    values, metrics : names in ``Result.values`` and ``Result.metrics`` that must be there, each with what it is and its unit
    counted : the metric that says how many there are in an item; one with none needs neither files nor values
    base : what an item of this kind also is: a micrograph with a CTF fit is a micrograph
    """

    name: str
    title: str
    files: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    counted: str = ""
    base: ItemKind | None = None

    def is_a(self, other: ItemKind) -> bool:
        """Tell whether an item of this kind can be taken where one of `other` is wanted."""
        return self.name == other.name or (self.base is not None and self.base.is_a(other))

    def lacks(self, given: Given) -> list[str]:
        """Return what an item lacks that everything of this kind must have; what it was made from counts."""
        lacking = [f"the metric {name!r} ({what})" for name, what in self.metrics.items() if given.metric(name) is None]
        if not self.counted or given.metric(self.counted):
            lacking += [f"the file {role!r} ({what})" for role, what in self.files.items() if not given.find(role)]
            lacking += [
                f"the value {name!r} ({what})" for name, what in self.values.items() if given.value(name) is None
            ]
        return [*(self.base.lacks(given) if self.base is not None else ()), *lacking]


@dataclass(frozen=True)
class Input:
    """A port that takes what another job makes.

    Attributes
    ----------
    name, kind : of the port, and what it takes
    takes : each item, all together, or one thing for all
    optional : an item is processed without it where the other job has given the item up, or is not there at all
    reads : roles of the files that are read; one that is gone is made again first. A role that no result has is left out
    presets : parameters that the job has where this port is connected, unless the workflow says otherwise
    relion_option : RELION's option that names the other job's table
    """

    name: str
    kind: ItemKind
    takes: Takes = "each"
    optional: bool = False
    reads: tuple[str, ...] = ()
    presets: Mapping[str, Any] = field(default_factory=dict)
    relion_option: str = ""


@dataclass(frozen=True)
class Output:
    """A port that gives what a job makes."""

    name: str
    kind: ItemKind


@dataclass(frozen=True)
class Given:
    """What a port gives of an item: the result of the job that it is connected to, and what that was made from, by the ports of that job."""

    result: Result
    inputs: Mapping[str, Given] = field(default_factory=dict)

    def lineage(self) -> Iterator[Result]:
        """Yield this result and all that it was made from, the nearest first."""
        return lineage((self,))

    def find(self, role: str) -> str:
        """Return the path of the nearest output `role`; "" when there is none."""
        return next((result.outputs[role] for result in self.lineage() if role in result.outputs), "")

    def output(self, role: str) -> str:
        """Return the path of the nearest output `role`; raises KeyError."""
        if found := self.find(role):
            return found
        raise KeyError(role)

    def value(self, name: str, default: Any = None) -> Any:
        """Return the nearest value of this name."""
        return next((result.values[name] for result in self.lineage() if name in result.values), default)

    def metric(self, name: str) -> float | None:
        """Return the nearest metric of this name; None when there is none."""
        return next((result.metrics[name] for result in self.lineage() if name in result.metrics), None)


def lineage(given: Sequence[Given]) -> Iterator[Result]:
    """Yield the results of `given`, and of what they were made from, step by step back; each once."""
    level, seen = list(given), dict[int, Given]()  # what was seen is kept: some are made when they are asked for
    while level:
        following: list[Given] = []
        for one in level:
            if id(one) not in seen:
                seen[id(one)] = one
                yield one.result
                following += one.inputs.values()
        level = following


Wiring = Mapping[str, Mapping[str, str]]
"""For each job, by its label, the job that each of its ports is connected to."""


def linked(results: Mapping[str, Result], wiring: Wiring, label: str) -> dict[str, Given]:
    """Return what the ports of the job `label` give of an item, from its `results` by job; a port whose job has none is left out."""
    known: dict[str, Given] = {}

    def given(name: str) -> Given:
        if name not in known:
            known[name] = Given(
                results[name], {port: given(job) for port, job in wiring[name].items() if job in results}
            )
        return known[name]

    return {port: given(job) for port, job in wiring[label].items() if job in results}
