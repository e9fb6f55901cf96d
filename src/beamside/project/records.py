"""The words of the journal: item states and what is recorded of jobs and items.

States of an item in one job::

    waiting ──► queued ──► running ──► done
       ▲          │           │  ├───► rejected   (processed, and not to be used further)
       │          ▼           ▼  └───► failed     (set aside with the reason, after its attempts are used up)
       └──────── waiting ◄────┘                   (an attempt failed, was lost with its worker, or its result is out of date)

An item of a check, which settles something before others may flow, may also be `asked`: it waits for a person's answer. No job's item is.

`done`, `rejected` and `failed` are final; they are left only when the item's key changes or when a user asks for it to be done again. From
`rejected` to `done` goes what an earlier version rejected by a limit that is a rule now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from beamside.project.journal import Damage
from beamside.project.problems import ProblemEntry
from beamside.project.rules import Rule


class ItemState(StrEnum):
    """Where an item is in one job."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    ASKED = "asked"


VersionState = Literal["used", "offered", "declined", "withdrawn"]
"""What becomes of a version of one thing for all; "withdrawn": what was offered is no longer newer than what is used."""

STATES = {state.value: state for state in ItemState}
"""The states by their words."""

Word = Literal["accept", "reject", "none"]
"""A person's word on an item of a job's output; "none" takes back what was said before."""

FINDING = "gain"
"""The event of a record of what a check has found. It is called by the first of them, as in the journals of all versions."""

WAITS_FOR_ANSWER = "waiting for an answer"
"""How a session ends that has done what it can, while a person has not answered what it asks."""

SESSION_ENDS = ("finished", "stopped", "failed", WAITS_FOR_ANSWER)
"""States in which no process of a session is left, in order."""

FINAL_STATES = frozenset({ItemState.DONE, ItemState.REJECTED, ItemState.FAILED})
IN_FLIGHT_STATES = frozenset({ItemState.QUEUED, ItemState.RUNNING})

ALLOWED: Mapping[ItemState | None, frozenset[ItemState]] = {
    None: frozenset({ItemState.WAITING}),
    ItemState.WAITING: frozenset({ItemState.QUEUED, ItemState.FAILED}),
    ItemState.QUEUED: frozenset({ItemState.RUNNING, ItemState.WAITING}) | FINAL_STATES,
    ItemState.RUNNING: frozenset({ItemState.WAITING}) | FINAL_STATES,
    ItemState.DONE: frozenset({ItemState.WAITING}),
    ItemState.REJECTED: frozenset({ItemState.WAITING, ItemState.DONE}),
    ItemState.FAILED: frozenset({ItemState.WAITING}),
}
"""The transitions that exist; anything else is a mistake of the program."""


@dataclass
class ItemEntry:
    """What is known of one item in one job.

    ``result`` and ``key`` stay those of the last finished attempt until a new one replaces them. Times are for people, as clocks step back; what came
    first is told by ``finished``, the number of the record in the job's journal that gave the present result. ``made_from`` is, for a round of an
    aggregate, the revision of the job before when the round was begun; -1 in journals that do not say it.

    ``members`` are, for a group, the items that the newest attempt was made of.

    ``recorded`` is the number of the newest record of the item in the job's journal.

    ``attempt`` begins anew when an item is done again; ``task``, the number of times that it was given out, never does, so that job, item and this
    number are the identity of one task for ever.

    ``optics`` are those with which the item was given out last, and ``made_with`` those that the present result was made with, each as a line; "" in
    journals that do not say it. While they differ, files of the result may have been written over. ``optics_changed`` is the number of the record
    that last gave the item out with others than before; 0 while none did.
    """

    name: str
    state: ItemState
    attempt: int = 0
    key: str = ""
    reason: str = ""
    result: dict[str, Any] | None = None
    arrived: float = 0.0
    changed: float = 0.0
    seconds: float = 0.0
    finished: int = 0
    made_from: int = -1
    task: int = 0
    recorded: int = 0
    members: tuple[str, ...] = ()
    optics: str = ""
    made_with: str = ""
    optics_changed: int = 0

    def has_in_hand(self, task: int) -> bool:
        """Tell whether this task of the item is the one whose outcome is awaited."""
        return self.state in IN_FLIGHT_STATES and self.task == task


@dataclass(frozen=True)
class Version:
    """One thing that a job takes from another for all its items, as it was at a moment: its files were copied, so it stays as it is.

    Attributes
    ----------
    identity : of the content; equal things have the same
    job, item : the job that has made it, and which of its items it is ("round002")
    result : with the copies as its files
    """

    identity: str
    job: str
    item: str
    result: Mapping[str, Any]


@dataclass
class JobEntry:
    """One job of a project: its declaration and its growing table of items.

    ``label`` is what the workflow calls it, and ``ports`` says for each of its inputs which output of which job it takes
    ("CtfFind/job003.micrographs").

    ``records`` counts the records of its journal. ``revision`` is the number of the last one that changed what the job's tables show, so two equal
    revisions mean equal tables as long as ``gate_changes``, how often a rule was changed or a person has said something of its items, is the
    same too. ``words`` has what holds now of what was said, ``rules`` what its results must keep to, and ``had`` all parameters that it has had.

    ``newest`` has the items in the order of their newest records, and ``shared_changes`` counts what was recorded of the things that all items share.

    Of each port that takes one thing for all items, ``shared`` has the version in use, ``offers`` a newer one, of which nobody has said yet whether
    it is to be taken, and ``declined`` one that is not.
    """

    name: str
    type_name: str
    parameters: dict[str, Any]
    inputs: tuple[str, ...] = ()
    ports: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    alias: str = ""
    status: str = "Running"
    created: float = 0.0
    records: int = 0
    revision: int = 0
    items: dict[str, ItemEntry] = field(default_factory=dict)
    optics_changes: int = 0
    words: dict[str, Word] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    gate_changes: int = 0
    shared_changes: int = 0
    newest: dict[str, None] = field(default_factory=dict)
    had: list[dict[str, Any]] = field(default_factory=list)
    shared: dict[str, Version] = field(default_factory=dict)
    offers: dict[str, Version] = field(default_factory=dict)
    declined: dict[str, Version] = field(default_factory=dict)

    def counts(self) -> Counter[ItemState]:
        """Return how many items are in each state."""
        return Counter(entry.state for entry in self.items.values())


@dataclass
class ProjectState:
    """All jobs of a project and what happened to the session, as folded from the journals.

    ``findings`` are the records of what a check of the source has found, decided or asks, the newest of each key; the newest of all comes last.
    ``verdicts`` are the records of a person's word on an item, the newest of each (job, item) unless that took it back. ``damage`` are the lines that
    say nothing, and ``lost_jobs`` the jobs whose own record was in one of these.
    """

    identity: str = ""
    format: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    session_state: str = "new"
    message: str = ""
    jobs: dict[str, JobEntry] = field(default_factory=dict)
    notes: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: dict[str, ProblemEntry] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    lost_jobs: dict[str, None] = field(default_factory=dict)

    def job_labelled(self, label: str) -> JobEntry | None:
        """Return the newest job that a workflow calls so, or None. A project of an earlier format calls each job by its type."""
        return next((job for job in reversed(self.jobs.values()) if (job.label or job.type_name) == label), None)

    def job_of_type(self, type_name: str) -> JobEntry | None:
        """Return the newest job of a type, or None."""
        return next((job for job in reversed(self.jobs.values()) if job.type_name == type_name), None)
