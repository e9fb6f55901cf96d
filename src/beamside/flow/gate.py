"""The gate of a job's output: which of its results go on to the tables and to the jobs that follow.

A result that is held back stays as it is, and so does what was made of it. Keys know nothing of gates, so nothing is computed again when one opens.
"""

from __future__ import annotations

from beamside.project.records import ItemEntry, ItemState, JobEntry


def shuts_nothing(job: JobEntry) -> bool:
    """Return True when nobody has said anything of a job's items: nothing is held back, and nobody need look at each."""
    return not job.words


def gate_revision(job: JobEntry) -> int:
    """Return a number that grows whenever the gate of a job lets through something else."""
    return job.words_given


def is_shut(job: JobEntry, item: str) -> bool:
    """Return True when a person has rejected what the job has made of an item."""
    return job.words.get(item) == "reject"


def is_accepted(job: JobEntry, entry: ItemEntry) -> bool:
    """Return True when the job itself has rejected a result that it has, and a person wants it used all the same."""
    return entry.state is ItemState.REJECTED and entry.result is not None and job.words.get(entry.name) == "accept"


def counts_as_done(job: JobEntry, entry: ItemEntry | None) -> bool:
    """Return True when there is a result to go on with, were the gate open."""
    return entry is not None and (entry.state is ItemState.DONE or is_accepted(job, entry))


def counts_as_given_up(job: JobEntry, entry: ItemEntry | None) -> bool:
    """Return True when there is no result to go on with, and none will come unless something is tried again."""
    return entry is not None and entry.state in (ItemState.REJECTED, ItemState.FAILED) and not is_accepted(job, entry)
