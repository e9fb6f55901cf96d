"""Folding journal records into the state of a project: the one place that says what each record means."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beamside.errors import ProjectError, TransitionError
from beamside.project.journal import IMPOSSIBLE, NO_RECORD, Damage, Record, read_journal
from beamside.project.problems import apply_problem_record
from beamside.project.records import (
    ALLOWED,
    FINAL_STATES,
    FINDING,
    STATES,
    ItemEntry,
    ItemState,
    JobEntry,
    ProjectState,
    Version,
)
from beamside.project.rules import Rule

FORMAT = 4
"""Number of the way in which projects are written; it grows when an earlier version would misread what is new.

1 : the first one
2 : problems, commands with their outcomes, and the revision that a round was made from; all that a project of format 1 has means the same
3 : a person's word on items; labels and ports of jobs, so that there may be several of a type. All that a project of format 2 has means the
    same; a job without a label is called by its type
4 : rules on what jobs have measured; optics groups, and the optics with which an item was given out. All that a project of format 3 has means
    the same
"""


def check_format(record: Record) -> int:
    """Return the format that a record states; raise ProjectError when it is one that this version cannot read."""
    number = int(record.get("format", 1))
    if number > FORMAT:
        version = f" {record['version']}" if "version" in record else ""
        raise ProjectError(
            f"The project was written by a newer version of Beamside{version} (its format is {number}, this version knows {FORMAT}): "
            "use that version, or a later one."
        )
    return number


def fold_journal(path: Path, apply: Callable[[Record, bool], object], damage: list[Damage]) -> None:
    """Give every record of a journal to `apply`, and whether the journal is sound up to there; add to `damage` what says nothing.

    Behind a damaged line, records may follow from what is lost, so `apply` must not expect them to fit together.
    """
    begin, already = 0, len(damage)
    for record, behind in read_journal(path, damaged=damage.append):
        sound = len(damage) == already
        try:
            apply(record, sound)
        except (KeyError, TypeError, ValueError, TransitionError) as error:
            begin = begin if sound else max(begin, damage[-1].behind)
            impossible = isinstance(error, TransitionError)
            damage.append(Damage(path, begin, IMPOSSIBLE if impossible else NO_RECORD, behind))
            if impossible:  # what it says is taken all the same; what went before it must be lost or changed
                apply(record, False)
        begin = behind


def apply_project_record(state: ProjectState, record: Record) -> None:
    """Take one record of the project's own journal into `state`."""
    event = record["event"]
    if event == "project":
        state.identity, state.format = record["identity"], check_format(record)
    elif event == "format":
        state.format = check_format(record)
    elif event == "settings":
        state.settings = record["settings"]
    elif event == "job":
        state.jobs[record["job"]] = JobEntry(
            name=record["job"],
            type_name=record["type"],
            parameters=record["parameters"],
            inputs=tuple(record["inputs"]),
            ports=record.get("ports", {}),
            label=record.get("label", ""),
            alias=record.get("alias", ""),
            created=record["time"],
            had=[record["parameters"]],
        )
    elif event in ("parameters", "rules", "status"):
        _apply_to_job(_job(state, record), record)
    elif event == "session":
        state.session_state, state.message = record["state"], record.get("message", "")
        state.sessions.append(record)
    elif event == "note":
        state.notes.append(record)
    elif event == "problem":
        apply_problem_record(state.problems, record)
    elif event == "command":
        state.commands[record["id"]] = record
    elif event in (FINDING, "verdict", "version"):
        _apply_newest(state, record)
    else:
        raise ProjectError(
            f"The project's journal has a record of an unknown kind, {event!r}; it was written by a newer version of Beamside."
        )


def _apply_to_job(job: JobEntry, record: Record) -> None:
    """Take a record of what holds of a job from now on."""
    if record["event"] == "parameters":
        job.parameters = record["parameters"]
        job.had += [job.parameters] if job.parameters not in job.had else []
    elif record["event"] == "rules":
        job.rules = tuple(Rule.from_json(rule) for rule in record["rules"])
        job.gate_changes += 1
    else:
        job.status = record["status"]


def _apply_version(job: JobEntry, record: Record) -> None:
    """Take what has become of a version of one thing that a job takes for all its items."""
    port, now = record["port"], record["state"]
    version = Version(record["identity"], record["from"], record["made"], record["result"])
    job.shared_changes += 1
    kept = {"used": job.shared, "offered": job.offers, "declined": job.declined}.get(now)
    job.offers.pop(port, None)
    job.declined.pop(port, None)
    if kept is not None:
        kept[port] = version


def _apply_newest(state: ProjectState, record: Record) -> None:
    """Take a record of which the newest about the same thing holds, and comes last."""
    if record["event"] == "version":
        _apply_version(_job(state, record), record)
    elif record["event"] == FINDING:
        state.findings.pop(record["key"], None)
        state.findings[record["key"]] = record
    else:
        about = (record["job"], record["item"])
        state.verdicts.pop(about, None)
        job = state.jobs.get(record["job"])
        if job is not None:
            job.gate_changes += 1
            job.words.pop(record["item"], None)
        if record["word"] != "none":
            state.verdicts[about] = record
            if job is not None:
                job.words[record["item"]] = record["word"]


def _job(state: ProjectState, record: Record) -> JobEntry:
    if record["job"] not in state.jobs:
        state.lost_jobs[record["job"]] = None
    return state.jobs[record["job"]]


def check_item_record(job: JobEntry, record: Record) -> None:
    """Raise TransitionError for a transition that does not exist. Changes nothing, so it can be asked before the record is written."""
    new, entry = STATES[record["state"]], job.items.get(record["item"])
    if new not in ALLOWED.get(entry.state if entry else None, ()):
        before = entry.state.value if entry else "nothing"
        raise TransitionError(f"{job.name}: item {record['item']} cannot go from {before} to {new.value}.")


def apply_item_record(job: JobEntry, record: Record, *, sound: bool = True) -> ItemEntry:
    """Take one record of a job's journal into `job`; returns the item's entry. Unless the journal is `sound`, any transition is taken."""
    if sound:
        check_item_record(job, record)
    new, entry = STATES[record["state"]], job.items.get(record["item"])
    job.records += 1
    if new in FINAL_STATES or (entry is not None and entry.state in FINAL_STATES):
        job.revision = job.records
    if entry is None:
        entry = job.items[record["item"]] = ItemEntry(record["item"], new, arrived=record["time"])
    entry.state, entry.changed, entry.recorded = new, record["time"], job.records
    job.newest.pop(entry.name, None)
    job.newest[entry.name] = None
    entry.attempt = record.get("attempt", entry.attempt)
    entry.reason = record.get("reason", "")
    entry.made_from = record.get("made_from", entry.made_from)
    if new is ItemState.QUEUED:
        entry.task = record.get("task", entry.task + 1)  # journals of earlier versions do not say it
        entry.members = tuple(map(sys.intern, record.get("members") or ()))
        optics = sys.intern(record.get("optics", ""))
        if entry.optics and optics != entry.optics:
            entry.optics_changed = job.revision = job.records  # tables leave it out until it is made
            job.optics_changes += 1
        entry.optics = optics
    if new in FINAL_STATES:
        entry.key, entry.result = record.get("key", ""), _with_shared_names(record.get("result"))
        entry.seconds, entry.finished = record.get("seconds", 0.0), job.records
        entry.made_with = entry.optics
    return entry


def _with_shared_names(value: Any) -> Any:
    """Return a result whose names are the same objects as those of all others: very many are kept, and names took nearly half of the room."""
    if not isinstance(value, dict):
        return value
    names = tuple(value)
    shared = _SHARED.get(names)
    if shared is None:
        shared = tuple(sys.intern(name) if type(name) is str else name for name in names)
        if len(_SHARED) < MANY_SHAPES:
            _SHARED[shared] = shared
    parts = [_with_shared_names(part) if type(part) is dict else part for part in value.values()]
    return dict(zip(shared, parts, strict=True))


MANY_SHAPES = 1000
"""So many sets of names are remembered; results of one job have few, and names that are data have very many."""

_SHARED: dict[tuple[Any, ...], tuple[Any, ...]] = {}
