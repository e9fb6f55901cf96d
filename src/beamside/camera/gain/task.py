"""What a worker is asked about a gain reference, and what it gives back; all of it is plain JSON.

The session imports this and must stay small: only workers load what does the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from beamside.jobs.errands import Errand

WORK = "beamside.camera.gain.worker:settle"
"""The function that does these tasks; only workers load its module."""

Do = Literal["check", "look", "prepare", "need"]


@dataclass(frozen=True)
class GainTask:
    """What a worker is asked about a gain reference; paths are relative to the project.

    Attributes
    ----------
    do : "check": compare the reference with movies; "look": whether the newest movies bear out what was decided;
        "prepare": write the file that jobs multiply by; "need": whether movies without a reference need one
    root : the project
    reference : the project's copy of the reference
    name : what the user calls it
    shape : (height, width) of the movies
    asked : the fields of what a person has said
    movies : the movies to look at
    first : the session's first movies, to be looked at when the newest contradict a decision
    between : movies between the last look and these, to be looked at for the one from which it is so
    output : where the prepared file goes; its digest is put into the name
    plain : a prepared file of an earlier version, whose name has no digest: it is used on when it has the right content, or is gone
    picture : the picture of what the movies say
    command : what a person types before the options of an answer
    last : there will be no more movies than these
    decided : (rotate, flip, use) when that is known already
    refused : contents of references that are not used: none of them is proposed unless the movies have its pattern
    sources : where the movies came from, and their sidecars in the project: references are looked for there
    """

    do: Do
    root: str
    shape: tuple[int, int]
    movies: Sequence[str]
    picture: str
    reference: str = ""
    name: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    first: Sequence[str] = ()
    between: Sequence[str] = ()
    output: str = ""
    plain: str = ""
    command: str = ""
    last: bool = False
    decided: tuple[int, str, str] | None = None
    refused: Sequence[str] = ()
    sources: Sequence[str] = ()


@dataclass(frozen=True)
class GainOutcome:
    """What came of it: the choice and the evidence; the file; or what contradicts a decision."""

    choice: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] | None = None
    doubt: Mapping[str, Any] | None = None


def errand(task: GainTask) -> Errand:
    """Return what a worker is given for a task."""
    return Errand(WORK, "The check of the gain reference", asdict(task))
