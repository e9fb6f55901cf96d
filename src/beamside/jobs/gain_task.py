"""What a worker is asked about a gain reference, and what it gives back; all of it is plain JSON.

The session imports this and must stay small: what does the work is imported in the worker.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from beamside.errors import BeamsideError, GainError


@dataclass(frozen=True)
class GainTask:
    """What a worker is asked about a gain reference; paths are relative to the project.

    Attributes
    ----------
    root : the project
    reference : the project's copy of the reference
    name : what the user calls it
    shape : (height, width) of the movies
    asked : the fields of what a person has said
    movies : the movies to compare it with
    last : there will be no more movies than these
    decided : (rotate, flip, use) when that is known already
    output : the file that jobs multiply by
    picture : the picture of what the movies say
    command : what a person types before the options of an answer
    session : process number and start of the session
    """

    root: str
    reference: str
    name: str
    shape: tuple[int, int]
    asked: Mapping[str, Any]
    movies: Sequence[str]
    output: str
    picture: str
    command: str
    last: bool = False
    decided: tuple[int, str, str] | None = None
    session: tuple[int, float] = (0, 0.0)


@dataclass(frozen=True)
class GainOutcome:
    """What came of it: the choice, the evidence, and the file when it is decided; or a reason why there is none."""

    choice: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    prepared: Mapping[str, Any] | None = None
    reason: str = ""
    permanent: bool = False
    log: str = ""


def run_gain_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do a task given as the dictionary of a `GainTask`; return the dictionary of a `GainOutcome`. No exception gets out."""
    from beamside.jobs.gain_worker import settle

    try:
        return asdict(settle(GainTask(**task)))
    except GainError as error:
        return asdict(GainOutcome(reason=str(error), permanent=True))
    except (BeamsideError, OSError) as error:
        return asdict(GainOutcome(reason=str(error)))
    except Exception as error:
        return asdict(GainOutcome(reason=f"{type(error).__name__}: {error}", log=traceback.format_exc()))
