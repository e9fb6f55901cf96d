"""A person's answers about the gain reference: recorded in the journal, or told why they are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beamside.camera.gain.case import answered, done_again, outcome_words, present_records, question_of
from beamside.camera.gain.giving_on import given_on
from beamside.errors import ProjectError
from beamside.project.project import ProjectWriter
from beamside.project.records import ProjectState


def no_question(gain: str, other: bool = False) -> str:
    """Return why an answer was not taken: `gain` is the session's reference, and `other` says that it asks something, and does not offer this."""
    if not gain:
        return (
            "No gain reference is used, so nothing is asked about one; to use one, stop the session, "
            "give 'beamside session set --gain FILE', and resume it"
        )
    if other:
        return "This is no answer that the session's question about its gain reference offers: 'beamside session status' shows it, with what to type"
    return (
        "The session asks nothing about its gain reference; to use it in another way, stop the session, give 'beamside session set' with "
        "--gain-rotate, --gain-flip or --gain-mode, and resume it"
    )


def told(state: ProjectState, before: Mapping[str, Any], after: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Return what an answer means that makes the record `after` of the one `before`, with the number of movies that it concerns."""
    movies = given_on(state, before["shape"])
    again = done_again(before, after, movies) if before["state"] == "decided" else len(movies)
    return outcome_words(after, details, again)


def record_answer(writer: ProjectWriter, details: Mapping[str, Any]) -> list[str]:
    """Record an answer to every question that the journal has and that offers it; returns what that means, in sentences.

    Raises ProjectError when there is none.
    """
    reference = str(writer.state.settings.get("gain") or "")
    present = present_records(writer.state.findings.values(), reference)
    new = {record["key"]: (record, answered(record, details)) for record in present}
    if not any(after for _, after in new.values()):
        raise ProjectError(no_question(reference, any(question_of(record) for record in present)) + ".")
    sentences = []
    for key, (before, after) in new.items():
        if after is not None:
            writer.finding(key, after)
            sentences.append(told(writer.state, before, after, details))
    return sentences
