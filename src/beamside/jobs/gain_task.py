"""What a worker is asked about a gain reference, and what it gives back; all of it is plain JSON.

The session imports this and must stay small: only workers load what does the work.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from beamside.errors import BeamsideError, GainError, NotReadyError
from beamside.jobs.loading import load_function

WORK = "beamside.jobs.gain_worker:settle"
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
    sources : where the movies came from, and their sidecars in the project: references are looked for there
    session : process number and start of the session
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
    sources: Sequence[str] = ()
    session: tuple[int, float] = (0, 0.0)


@dataclass(frozen=True)
class GainOutcome:
    """What came of it: the choice and the evidence; the file; what contradicts a decision; or a reason why there is none of these."""

    choice: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] | None = None
    doubt: Mapping[str, Any] | None = None
    reason: str = ""
    permanent: bool = False
    log: str = ""


def run_gain_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a task given as the dictionary of a `GainTask`; return the dictionary of a `GainOutcome`. No exception gets out.

    Only a reference that does not fit is for good; whatever else goes wrong may be right at the next try.
    """
    try:
        return asdict(load_function(WORK, "The check of the gain reference")(GainTask(**task)))
    except NotReadyError as error:
        return asdict(GainOutcome(reason=str(error)))
    except GainError as error:
        return asdict(GainOutcome(reason=str(error), permanent=True))
    except (BeamsideError, OSError) as error:
        return asdict(GainOutcome(reason=str(error)))
    except Exception as error:
        return asdict(GainOutcome(reason=f"{type(error).__name__}: {error}", log=traceback.format_exc()))
