"""Folding journal records into the state of a project: the one place that says what each record means."""

from __future__ import annotations

from beamside.errors import ProjectError
from beamside.project.journal import Record
from beamside.project.problems import apply_problem_record
from beamside.project.records import ALLOWED, FINAL_STATES, ItemEntry, ItemState, JobEntry, ProjectState


def apply_project_record(state: ProjectState, record: Record) -> None:
    """Take one record of the project's own journal into `state`."""
    event = record["event"]
    if event == "project":
        state.identity = record["identity"]
    elif event == "settings":
        state.settings = record["settings"]
    elif event == "job":
        state.jobs[record["job"]] = JobEntry(
            name=record["job"],
            type_name=record["type"],
            parameters=record["parameters"],
            inputs=tuple(record["inputs"]),
            alias=record.get("alias", ""),
            created=record["time"],
        )
    elif event == "parameters":
        state.jobs[record["job"]].parameters = record["parameters"]
    elif event == "status":
        state.jobs[record["job"]].status = record["status"]
    elif event == "session":
        state.session_state, state.message = record["state"], record.get("message", "")
        state.sessions.append(record)
    elif event == "note":
        state.notes.append(record)
    elif event == "problem":
        apply_problem_record(state.problems, record)
    elif event == "gain":
        state.gains[record["key"]] = record
    else:
        raise ProjectError(
            f"The project's journal has a record of an unknown kind, {event!r}; it was written by a newer version of Beamside."
        )


def check_item_record(job: JobEntry, record: Record) -> None:
    """Raise ProjectError for a transition that does not exist. Changes nothing, so it can be asked before the record is written."""
    new, entry = ItemState(record["state"]), job.items.get(record["item"])
    if new not in ALLOWED[entry.state if entry else None]:
        before = entry.state.value if entry else "nothing"
        raise ProjectError(f"{job.name}: item {record['item']} cannot go from {before} to {new.value}.")


def apply_item_record(job: JobEntry, record: Record) -> ItemEntry:
    """Take one record of a job's journal into `job`; returns the item's entry."""
    check_item_record(job, record)
    new, entry = ItemState(record["state"]), job.items.get(record["item"])
    job.records += 1
    if new in FINAL_STATES or (entry is not None and entry.state in FINAL_STATES):
        job.revision = job.records
    if entry is None:
        entry = job.items[record["item"]] = ItemEntry(record["item"], new, arrived=record["time"])
    entry.state, entry.changed = new, record["time"]
    entry.attempt = record.get("attempt", entry.attempt)
    entry.reason = record.get("reason", "")
    entry.made_from = record.get("made_from", entry.made_from)
    if new in FINAL_STATES:
        entry.key, entry.result = record.get("key", ""), record.get("result")
        entry.seconds, entry.finished = record.get("seconds", 0.0), job.records
    return entry
