"""When a job runs: declared by its type, carried out by the flow, which knows triggers and neither particles nor classes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EachItem:
    """For every item, as soon as what it is made from is there."""


@dataclass(frozen=True)
class Increments:
    """Over all items of its input together: at a number of something, at each further increment, and once more at the end.

    Attributes
    ----------
    counts : metric of the input's items that is added up
    done : metric of its own rounds that says how many were taken in
    start, step : parameters that say at how many the first round begins, and after how many more the next; a step of 0 is the start
    fewest : with fewer, no round is made at the end
    too_few : what is said then; {number} stands for how many there are
    """

    counts: str
    done: str
    start: str
    step: str
    fewest: int = 1
    too_few: str = ""


@dataclass(frozen=True)
class EachRound:
    """After each round of the job that it follows: about the newest one."""


Trigger = EachItem | Increments | EachRound
