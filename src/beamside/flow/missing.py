"""What is no longer there, or no longer the newest: files of results that were cleaned or lost, results of earlier versions, deleted jobs.

None of it is a reason to compute anything by itself. It is told, with what it means and the command that computes again; a file that is gone is made
again without being asked only where work that is to be done needs it.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from beamside.acquisition.reports import Severity, Trouble
from beamside.flow.stages import Stage
from beamside.jobs.base import JobType, Result
from beamside.project.records import FINAL_STATES
from beamside.project.relion_trash import places_in_trash

WhatAgain = Literal["missing", "outdated", "all"]
"""What is asked to be computed again: results whose files are gone, those of earlier versions of the algorithms, or both."""

TOLD = ("gone:", "outdated:", "deleted:", "ungrouped:")
"""How the keys of what `survey` tells begin."""


class Files:
    """Which files a project has, by one listing of each folder: asking for each of very many files takes long on a network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, frozenset[str]] = {}

    def has(self, path: str) -> bool:
        """Tell whether there is a file of this path."""
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(self.root / folder))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]


@dataclass(frozen=True)
class Gone:
    """A finished result that lacks files.

    Attributes
    ----------
    roles : the files that are gone
    needed : whether a later step may need one of them
    cleaned : whether all of them are in ``Trash/``, where RELION moves what its user cleans or deletes
    """

    name: str
    roles: frozenset[str]
    needed: bool
    cleaned: bool


def gone_results(files: Files, stage: Stage, *, restorable: bool = False) -> list[Gone]:
    """Return the results of a stage that lack files; of an aggregate's rounds only the newest counts.

    With `restorable`, files that a session would write again from its tables when it begins do not count.
    """
    if stage.job_type.aggregate:
        last = stage.newest_round()
        entries = [last] if last is not None else []
    else:
        entries = [entry for entry in stage.job.items.values() if entry.state in FINAL_STATES]
    found = []
    for entry in entries:
        outputs = stage.job_type.written_by_work((entry.result or {}).get("outputs", {}))
        gone = {role: path for role, path in outputs.items() if not files.has(path)}
        if gone and restorable:
            result = Result.from_json(entry.result or {})
            restore = stage.job_type.restorable
            gone = {role: path for role, path in gone.items() if not restore(result, role, stage.job.name, files.root)}
        if gone:
            needed = bool(stage.job_type.needed(gone))
            cleaned = all(any(files.has(place) for place in places_in_trash(path)) for path in gone.values())
            found.append(Gone(entry.name, frozenset(gone), needed, cleaned))
    return found


@dataclass(frozen=True)
class NotThere:
    """A file of the camera's that a result would have to be made from, and that is not in the project."""

    path: str


def to_make_first(root: Path, stage: Stage, item: str) -> tuple[Stage, str] | NotThere | None:
    """Return the stage whose result has to be made again before `stage` can process `item`, because a file that it reads is gone, and of which item.

    None when all files are there.
    """
    for version in [*stage.job.shared.values()] if stage.suppliers else []:
        for path in version.result["outputs"].values():
            if not _is_there(root, path):
                return NotThere(path)
    reads = [(port.name, role) for port in stage.job_type.inputs for role in port.reads]
    for name in stage.members(item) if reads else ():
        for port, role in reads:
            owner, path = stage.owner(name, port, role)
            if owner is None or _is_there(root, path) or not owner.usable(name):
                continue
            if owner.is_source:
                return NotThere(path)
            return to_make_first(root, owner, name) or (owner, name)
    return None


def _is_there(root: Path, path: str) -> bool:
    return os.path.exists(
        os.path.join(root, path)
    )  # asked for each task: `Path` takes longer to join than the system to answer


def without_inputs(root: Path, stage: Stage, items: Iterable[str]) -> list[str]:
    """Return those of `items` of the stage before whose files a round of the aggregate `stage` would read and that are gone."""
    before, files, gone = stage.gathered, Files(root), []
    reads = [role for port in stage.job_type.inputs if port.name in stage.upstreams for role in port.reads]
    for name in items:
        entry = before.job.items[name]
        outputs = entry.result["outputs"] if entry.result is not None else {}
        if not all(files.has(outputs[role]) for role in reads if role in outputs):
            gone.append(name)
    return gone


def survey(root: Path, stages: Sequence[Stage], *, restorable: bool = False) -> list[Trouble]:
    """Return what is to be told of a project's results: which lack files, are of earlier versions, or belong to jobs that were deleted.

    See `gone_results` for `restorable`.
    """
    files = Files(root)
    command = f"beamside session resume {shlex.quote(str(root))} --recompute"
    found = [_deleted(stage, command) for stage in stages if stage.gone]
    for stage in (stage for stage in stages if not stage.gone):
        found += _gone_files(stage, stages, gone_results(files, stage, restorable=restorable), command)
        found += _outdated(stage, command)
        found += _ungrouped(stage)
    return found


def _ungrouped(stage: Stage) -> list[Trouble]:
    names = stage.groups.ungrouped() if stage.groups is not None else []
    if stage.groups is None or not names:
        return []
    which = f"{names[0]} belongs" if len(names) == 1 else f"{len(names)} items, the first of them {names[0]}, belong"
    sentence = f"{stage.title}: {which} to no group, and {'is' if len(names) == 1 else 'are'} not used there."
    if fault := stage.groups.fault:
        sentence += f" The job type could not say where an item belongs ({fault}): tell whoever provides it."
    return [Trouble(f"ungrouped:{stage.name}", sentence, "warning" if fault else "info")]


def _deleted(stage: Stage, command: str) -> Trouble:
    return Trouble(
        f"deleted:{stage.job.name}",
        f"{stage.job.name} ({stage.title}) was deleted in RELION. Neither this job nor those that follow go on unless it is undeleted "
        f"there. To make a new job in its place and compute its results again: {command} missing",
    )


def _gone_files(stage: Stage, stages: Sequence[Stage], gone: Sequence[Gone], command: str) -> list[Trouble]:
    found = []
    for cleaned in (True, False):
        for needed in (False, True):
            some = [one for one in gone if (one.cleaned, one.needed) == (cleaned, needed)]
            if some:
                found.append(_files_trouble(stage, stages, some, command))
    return found


def _files_trouble(stage: Stage, stages: Sequence[Stage], gone: list[Gone], command: str) -> Trouble:
    cleaned, needed = gone[0].cleaned, gone[0].needed
    what = "were cleaned: they are in Trash/" if cleaned else "are gone, and are not in Trash/"
    key = f"gone:{stage.name}:{'cleaned' if cleaned else 'lost'}:{'needed' if needed else 'spare'}"
    whose = f"{stage.title}: files of {_results(len(gone))} {what}."
    again = f"To compute them again: {command} missing"
    if stage.is_source:
        meaning = (
            "What was made from them stays; nothing can be computed from them again until they are back in their place."
        )
        return Trouble(key, f"{whose} {meaning}", "warning")
    if not needed:
        return Trouble(key, f"{whose} Nothing needs them. {again}", "info")
    roles = frozenset().union(*(one.roles for one in gone))
    readers = [
        other.title for other in stages if stage in other.upstreams.values() and _reads_all(other.job_type, roles)
    ]
    if readers:
        meaning = (
            f"The results of {' and '.join(readers)} stay as they are, and no new round is made without these files."
        )
    else:
        meaning = "What was made from them stays; they are made again where something has to be computed from them."
    severity: Severity = "warning" if readers or not cleaned else "info"
    return Trouble(key, f"{whose} {meaning} {again}", severity)


def _reads_all(job_type: JobType, roles: frozenset[str]) -> bool:
    return job_type.aggregate and any(not roles.isdisjoint(port.reads) for port in job_type.inputs)


def _outdated(stage: Stage, command: str) -> list[Trouble]:
    counts = Counter(stage.outdated().values())
    if not counts:
        return []
    versions = " and ".join(sorted(counts))
    number = counts.total()
    come, stay, them = ("comes", "stays", "it") if number == 1 else ("come", "stay", "them")
    return [
        Trouble(
            f"outdated:{stage.name}",
            f"{stage.title}: {_results(number)} {come} from an earlier version of the algorithm "
            f"({versions}; now it is {stage.job_type.version}), and {stay} valid. To compute {them} again: "
            f"{command} outdated",
            "info",
        )
    ]


def _results(number: int) -> str:
    return "1 result" if number == 1 else f"{number} results"
