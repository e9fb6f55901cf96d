"""A person's word on items: which item of which job's output is meant, and the record of it.

Rules may hold an item back by what was measured; a person's word wins over them, until it is taken back. It is no input of any result: nothing is
computed again because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from beamside.errors import ProjectError
from beamside.flow.gate import broken_rule
from beamside.jobs.registry import job_types
from beamside.project.project import ProjectWriter
from beamside.project.records import ItemState, JobEntry, ProjectState, Word


def give_word(
    writer: ProjectWriter, word: Word, items: Sequence[str], job: str, who: str
) -> list[tuple[JobEntry, list[str]]]:
    """Record a person's word on items; returns the items that it is about, by job. What is so already is not recorded again.

    Without a `job`, an item is rejected in the first job that has it, so nothing is made from it; it is accepted in those that hold it back; and a
    word is taken back wherever there is one.

    Raises
    ------
    ProjectError
        when a name means no item, or several: then nothing is recorded, also of the others
    """
    state = writer.state
    found = meant(state, word, items, job)
    for job_name, names in found.items():
        for name in names:
            before = state.verdicts.get((job_name, name))
            if (before["word"] if before else "none") != word:
                writer.verdict(job_name, name, word, who)
    return [(state.jobs[name], names) for name, names in found.items()]


def meant(state: ProjectState, word: Word, items: Sequence[str], job: str) -> dict[str, list[str]]:
    """Return the items that a person's word is about, by job. Raises ProjectError, see `give_word`."""
    among = [_job(state, job)] if job else list(state.jobs.values())
    found: dict[str, list[str]] = {}
    for given in items:
        name, having = _item(among, given)
        concerned = having if job else _concerned(state, word, name, having)
        if not concerned:
            raise ProjectError(_nothing(word, name))
        for entry in concerned:
            if word != "none":
                _check_no_round(entry, name)
            found.setdefault(entry.name, []).append(name)
    return {name: list(dict.fromkeys(names)) for name, names in found.items()}


def _job(state: ProjectState, given: str) -> JobEntry:
    """Return the job that a person means: by its name, its number, its label, or its type, of which the newest counts."""
    for job in reversed(state.jobs.values()):
        if given in (job.name, PurePosixPath(job.name).name, job.label, job.type_name):
            return job
    listed = ", ".join(f"{job.label or job.type_name} ({job.name})" for job in state.jobs.values()) or "none yet"
    raise ProjectError(f"There is no job {given!r}; the project's jobs: {listed}.")


def _item(jobs: Iterable[JobEntry], given: str) -> tuple[str, list[JobEntry]]:
    """Return the name of the item that a person means, and the jobs that have it: a whole name, or the end of a path that only one item has."""
    jobs = list(jobs)
    names = dict.fromkeys(name for job in jobs for name in job.items)
    stem = str(PurePosixPath(given).with_suffix("")) if PurePosixPath(given).name else given
    for wanted in dict.fromkeys((given, stem)):
        meant = [wanted] if wanted in names else [name for name in names if name.endswith(f"/{wanted}")]
        if len(meant) == 1:
            return meant[0], [job for job in jobs if meant[0] in job.items]
        if meant:
            raise ProjectError(
                f"{given!r} may be any of {len(meant)} items, such as {meant[0]} and {meant[1]}: say more of its path."
            )
    where = f" in {jobs[0].name}" if len(jobs) == 1 else ""
    raise ProjectError(f"There is no item {given!r}{where}; status, report and the STAR files show the items' names.")


def _concerned(state: ProjectState, word: Word, item: str, having: list[JobEntry]) -> list[JobEntry]:
    """Return the jobs in which a word on an item holds when none is named."""
    if word == "reject":
        return having[:1]
    said = {job.name: state.verdicts.get((job.name, item)) for job in having}
    if word == "none":
        return [job for job in having if said[job.name]]
    return [
        job
        for job in having
        if said[job.name] or job.items[item].state is ItemState.REJECTED or broken_rule(job.rules, job.items[item])
    ]


def _check_no_round(job: JobEntry, name: str) -> None:
    """Raise ProjectError when what is meant is a round: the next one goes on from it, and has taken its place already or soon will."""
    job_type = job_types().get(job.type_name)
    if job_type is not None and job_type.aggregate:
        raise ProjectError(
            f"{name} of {job.name} ({job_type.title}) is a round, and rounds are neither accepted nor rejected: what has followed was made from it. "
            "Reject items that are in it, or change what is chosen with 'beamside session set'."
        )


def _nothing(word: Word, item: str) -> str:
    if word == "none":
        return f"Nobody has given a word on {item}, so there is none to take back."
    return f"Nothing holds {item} back; to say beforehand that it is to be accepted, name the job with --job."
