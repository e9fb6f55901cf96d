"""The cases of a check as the journal has them: what was known before, their numbers, what is recorded, and what workers are asked for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from beamside.camera.gain.case import JOURNAL_FIELDS, Case, Way
from beamside.camera.gain.looks import Look
from beamside.camera.gain.task import Do, GainTask
from beamside.project.project import Project

Records = Mapping[str, Mapping[str, Any]]
"""The findings of a project's journal, by key; the newest comes last."""


def recall(case: Case, records: Records, gain: str, project: Project) -> None:
    """Let a case know what was found before about its reference; `gain` is the one that the settings name.

    When nothing was, because the file at that path has another content now, a decision about the one before it holds until a person has answered.
    """
    case.record = dict(records.get(case.key, {}))
    if case.record and not case.record.get("replaced_by"):
        return
    for record in reversed(list(records.values())):
        same = (record.get("shape"), record.get("asked"), record.get("reference")) == (
            list(case.shape),
            case.said,
            gain,
        )
        copy = record.get("copy") or _plain_copy(case.reference)
        there = (project.root / copy).exists()
        if same and record["state"] == "decided" and not record.get("replaced_by") and there:
            case.newer = (case.reference, case.digest)
            case.reference, case.digest, case.record = copy, record["reference_sha256"], dict(record)
            return


def _plain_copy(reference: str) -> str:
    """Return where earlier versions kept the reference."""
    path = Path(reference)
    return f"{path.parent.as_posix()}/gain_reference{path.suffix}"


def number_of(case: Case, records: Records, others: Iterable[Case]) -> int:
    """Return the number of a case: the first shape of movies gets the plain names of files, and each keeps its own."""
    known = {tuple(record["shape"]): int(record["number"]) for record in records.values() if record["reference"]}
    known.update((other.shape, other.number) for other in others if other is not case)
    return known.get(case.shape, max(known.values(), default=-1) + 1)


def recorded(case: Case, choice: Mapping[str, Any], gain: str) -> dict[str, Any]:
    """Return the record of a case about which there is this choice."""
    fixed = {
        "shape": list(case.shape),
        "number": case.number,
        "reference": gain,
        "reference_sha256": case.digest,
        "asked": case.said,
        "looked_at": case.looked,
        "unseen": case.unseen,
    }
    return {name: value for name, value in {**choice, **fixed}.items() if name not in JOURNAL_FIELDS}


def task_for(
    case: Case,
    doing: Do,
    movies: list[str],
    *,
    project: Project,
    job: str,
    name: str,
    command: str,
    way: Way | None = None,
    look: Look | None = None,
) -> GainTask:
    """Return what a worker is asked for a case.

    Parameters
    ----------
    case, doing, movies : the case, what is to be done, and with which movies
    project, job : where the files go
    name, command : what the user calls the reference, and what a person types before the options of an answer
    way, look : how the reference is used, and which movies a look is about, when that is known
    """
    suffix = f"_{case.name}" if case.number else ""
    # A decision of an earlier version names the file that its micrographs name.
    plain = f"{job}/gain{suffix}.mrc" if doing == "prepare" and "copy" not in case.record else ""
    return GainTask(
        do=doing,
        root=str(project.root),
        reference=case.reference,
        name=name,
        shape=case.shape,
        asked=case.said,
        movies=movies,
        first=look.first if look else [],
        between=look.between if look else [],
        output=f"{job}/gain{suffix}.mrc",
        plain=plain,
        picture=f"{job}/gain_check{suffix}.png",
        command=command,
        last=case.last,
        decided=way,
    )
