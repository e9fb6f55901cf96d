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


@dataclass(frozen=True)
class Group:
    """Over the items that belong together, when all of them are there, and again when one comes late, is lost, taken out, or made again.

    What belongs together is said by the job type, see `JobType.group_of`. Nothing more is expected of a group once the source has ended, and before
    that when one of the rules below says so. Its result stays until the next one is there.

    Attributes
    ----------
    expected : parameter that says how many belong to a group; 0 when that is not known
    quiet : parameter that says after how many minutes without a further one nothing more is expected; 0 for never
    """

    expected: str = ""
    quiet: str = ""


Trigger = EachItem | Increments | EachRound | Group
