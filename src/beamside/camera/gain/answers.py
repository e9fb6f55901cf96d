"""A person's answers about the gain reference: recorded in the journal, or told why they are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beamside.camera.gain.case import answered, present_records, question_of
from beamside.errors import ProjectError
from beamside.project.project import ProjectWriter


def no_question(gain: str, other: bool = False) -> str:
    """Return why an answer was not taken: `gain` is the session's reference, and `other` says that it asks something else."""
    if not gain:
        return (
            "No gain reference is used, so nothing is asked about one; to use one, stop the session, "
            "give 'beamside session set --gain FILE', and resume it"
        )
    if other:
        return "The session asks something else about its gain reference: 'beamside session status' shows what, with what to type"
    return (
        "The session asks nothing about its gain reference; to use it in another way, stop the session, give 'beamside session set' with "
        "--gain-rotate, --gain-flip or --gain-mode, and resume it"
    )


def record_answer(writer: ProjectWriter, details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Record an answer to every question that the journal has and that it answers; returns the new records.

    Raises ProjectError when there is none.
    """
    reference = str(writer.state.settings.get("gain") or "")
    present = present_records(writer.state.gains.values(), reference)
    new = {record["key"]: answered(record, details) for record in present}
    if not any(new.values()):
        raise ProjectError(no_question(reference, any(question_of(record) for record in present)) + ".")
    for key, record in new.items():
        if record is not None:
            writer.gain(key, record)
    return [writer.state.gains[key] for key, record in new.items() if record is not None]
