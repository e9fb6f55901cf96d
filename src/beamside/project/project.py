"""A project on disk: where things are, reading its state, and writing to it."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import beamside
from beamside.errors import JournalError, ProjectError, TransitionError
from beamside.project.collecting import without_searches
from beamside.project.fold import FORMAT, apply_item_record, apply_project_record, check_item_record, fold_journal
from beamside.project.journal import JournalFile, Record, read_journal
from beamside.project.lease import Holder, Lease, current_holder
from beamside.project.records import (
    FINAL_STATES,
    FINDING,
    ItemEntry,
    ItemState,
    JobEntry,
    ProjectState,
    Version,
    VersionState,
    Word,
)
from beamside.project.rules import Rule
from beamside.project.story import item_story


class Project:
    """Paths and reading. Writing goes through `ProjectWriter`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self.private = self.root / ".beamside"
        self.journals = self.private / "journal"
        self.lease_path = self.private / "writer.lock"
        self.raw = self.root / "raw"
        self.log = self.private / "session.log"
        self.inbox = self.private / "inbox"
        self.workers = self.private / "workers"
        self.manifest = self.private / "manifest.jsonl"
        self.report = self.root / "report.html"
        self._job_journals: dict[str, Path] = {}

    @property
    def exists(self) -> bool:
        """True when there is a project here."""
        return self.project_journal.exists()

    @property
    def project_journal(self) -> Path:
        """The project's own journal."""
        return self.journals / "project.jsonl"

    def job_journal(self, job: str) -> Path:
        """Return the journal of a job, "MotionCorr/job002"."""
        if job not in self._job_journals:  # asked with every record
            self._job_journals[job] = self.journals / f"{job.replace('/', '-')}.jsonl"
        return self._job_journals[job]

    def require(self) -> Self:
        """Return the project itself, or raise ProjectError when there is none here."""
        if not self.exists:
            raise ProjectError(
                f"{self.root} is not a Beamside project (it has no .beamside/journal); give the folder <target>/<group>/<name>."
            )
        return self

    def writer_process(self) -> Holder | None:
        """Return the process that is writing to this project now, or None."""
        return current_holder(self.lease_path)

    def load(self, *, items: bool = True) -> ProjectState:
        """Fold all journals into the present state; lines that are damaged are passed over, and listed in it.

        Without `items`, only the project's own journal is read: its jobs have empty tables. Of very many items, reading all takes seconds.
        Raises ProjectError when the project was written by a newer version.
        """
        with without_searches():
            return self._load(items=items)

    def _load(self, *, items: bool) -> ProjectState:
        state = ProjectState()
        fold_journal(self.project_journal, lambda record, _sound: apply_project_record(state, record), state.damage)
        for job in state.jobs.values() if items else ():
            apply = functools.partial(_apply_item, job)
            fold_journal(self.job_journal(job.name), apply, state.damage)
        return state

    def story(self, item: str) -> Iterator[tuple[str, Record]]:
        """Yield every transition of `item`, as (job, record), job by job."""
        for job in self.load(items=False).jobs:
            for record, _ in read_journal(self.job_journal(job), damaged=lambda _: None):
                if record.get("item") == item:
                    yield job, record


def _apply_item(job: JobEntry, record: Record, sound: bool) -> None:
    apply_item_record(job, record, sound=sound)


def _check_complete(project: Project, state: ProjectState) -> None:
    """Raise ProjectError when so much of the books is lost that going on would compute everything again without being asked."""
    if state.lost_jobs:
        raise ProjectError(
            f"The records that made the jobs {', '.join(state.lost_jobs)} are not in {project.project_journal}, which is "
            "damaged: restore that file from a backup, or process the data anew in a session with another --name."
        )
    finished = [project.job_journal(job.name) for job in state.jobs.values() if job.status == "Succeeded"]
    missing = [path for path in finished if not path.exists()]
    if not project.exists and any(project.journals.glob("*.jsonl")):
        missing = [project.project_journal]
    if missing:
        raise ProjectError(
            f"The journal {missing[0]} is missing, which says what was done: restore it from a backup. If there is none, make an empty file of "
            "that name; then what it said is computed again."
        )


class ProjectWriter:
    """The one writer of a project: appends to the journals and keeps the folded state in memory.

    Raises ProjectBusyError when another process is the writer. When a record cannot be written, ``hold`` is asked whether to try again; it may
    wait first; ``held_seconds`` is how long it has waited in all. Without it, or when it says no, JournalError is raised, and memory is as it was.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        project.root.mkdir(parents=True, exist_ok=True)
        self._lease = Lease(project.lease_path)
        self._files: dict[str, JournalFile] = {}
        self.hold: Callable[[JournalError], bool] = lambda _error: False
        self.held_seconds = 0.0
        try:
            self.state = project.load()
            _check_complete(project, self.state)
            if not self.state.identity:
                self._project_record(
                    {
                        "event": "project",
                        "identity": uuid.uuid4().hex,
                        "format": FORMAT,
                        "version": beamside.__version__,
                    }
                )
            elif self.state.format < FORMAT:
                self._project_record({"event": "format", "format": FORMAT, "version": beamside.__version__})
        except BaseException:
            self._lease.release()
            raise

    def settings(self, settings: Mapping[str, Any]) -> None:
        """Record the session's settings, when they differ from the last ones."""
        if settings != self.state.settings:
            self._project_record({"event": "settings", "settings": dict(settings)})

    def create_job(
        self,
        name: str,
        type_name: str,
        parameters: Mapping[str, Any],
        ports: Mapping[str, str],
        *,
        alias: str = "",
        label: str = "",
    ) -> JobEntry:
        """Record a new job; `ports` says for each of its inputs which output of which job it takes ("CtfFind/job003.micrographs")."""
        if name in self.state.jobs:
            raise ProjectError(f"The project {self.project.root} has a job {name} already.")
        self._project_record(
            {
                "event": "job",
                "job": name,
                "type": type_name,
                "parameters": dict(parameters),
                "inputs": list(dict.fromkeys(target.rsplit(".", 1)[0] for target in ports.values())),
                "ports": dict(ports),
                "label": label or type_name,
                "alias": alias,
            }
        )
        return self.state.jobs[name]

    def set_parameters(self, job: str, parameters: Mapping[str, Any]) -> None:
        """Record a change of a job's parameters."""
        self._project_record({"event": "parameters", "job": job, "parameters": dict(parameters)})

    def set_status(self, job: str, status: str) -> None:
        """Record a job's status (RELION's words), when it changes."""
        if self.state.jobs[job].status != status:
            self._project_record({"event": "status", "job": job, "status": status})

    def session(self, state: str, **details: Any) -> None:
        """Record what happens to the session: started, paused, resumed, finishing, finished, stopped."""
        self._project_record({"event": "session", "state": state, **details})

    def note(self, level: str, message: str, **details: Any) -> None:
        """Record something that a person should know."""
        self._project_record({"event": "note", "level": level, "message": message, **details})

    def problem(self, record: Mapping[str, Any]) -> None:
        """Record what became of a problem; see `beamside.project.problems` for what `record` says."""
        self._project_record({"event": "problem", **record})

    def command(
        self, identity: str, command: str, details: Mapping[str, Any], outcome: str, sentence: str, *, who: str = ""
    ) -> None:
        """Record what became of a command that `who` gave; once that is recorded, it is not carried out again."""
        self._project_record(
            {
                "event": "command",
                "id": identity,
                "command": command,
                "details": dict(details),
                "outcome": outcome,
                "sentence": sentence,
                **({"who": who} if who else {}),
            }
        )

    def verdict(self, job: str, item: str, word: Word, who: str) -> None:
        """Record a person's word on an item of a job's output; the newest holds."""
        self._project_record({"event": "verdict", "job": job, "item": item, "word": word, "who": who})

    def rules(self, job: str, rules: Sequence[Rule]) -> None:
        """Record what the results of a job must keep to from now on, when it is something else than before."""
        if tuple(rules) != self.state.jobs[job].rules:
            self._project_record({"event": "rules", "job": job, "rules": [rule.to_json() for rule in rules]})

    def version(self, job: str, port: str, state: VersionState, version: Version, who: str = "") -> None:
        """Record what becomes of a version of one thing that a job takes for all its items through a port."""
        self._project_record(
            {
                "event": "version",
                "job": job,
                "port": port,
                "state": state,
                "identity": version.identity,
                "from": version.job,
                "made": version.item,
                "result": dict(version.result),
                **({"who": who} if who else {}),
            }
        )

    def finding(self, key: str, found: Mapping[str, Any]) -> None:
        """Record what a check of the source has found, decided or asks; the newest record of a `key` holds."""
        self._project_record({"event": FINDING, "key": key, **found})

    def item(
        self,
        job: str,
        item: str,
        state: ItemState,
        *,
        attempt: int | None = None,
        key: str | None = None,
        reason: str = "",
        result: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        made_from: int | None = None,
        task: int | None = None,
        where: Mapping[str, Any] | None = None,
        members: Sequence[str] | None = None,
        optics: str | None = None,
    ) -> ItemEntry:
        """Record an item's transition. Final ones are on disk when this returns; a lost intermediate one costs nothing.

        `where` has the host, the process and the device of the worker; it is for people, and nothing follows from it. A record that gives an item out
        with other `optics` than its result was made with is on disk, too: the result's files are about to be written over.

        Memory follows the journal: when the record cannot be written, nothing has changed, and the same transition can be tried again.
        """
        record: Record = {"time": time.time(), "item": item, "state": state.value}
        optional = {
            "attempt": attempt,
            "key": key,
            "reason": reason or None,
            "result": result,
            "seconds": seconds,
            "made_from": made_from,
            "task": task,
            "where": where or None,
            "members": members,
            "optics": optics or None,
        }
        record.update({name: value for name, value in optional.items() if value is not None})
        try:
            check_item_record(self.state.jobs[job], record)
        except TransitionError as error:
            raise TransitionError(f"{error} {item_story(self.project.job_journal(job), item)}") from error
        before = self.state.jobs[job].items.get(item)
        others = bool(optics and before is not None and before.result is not None and before.made_with != optics)
        self._append(job, record, sync=state in FINAL_STATES or others)
        return apply_item_record(self.state.jobs[job], record, sound=False)  # it was checked before it was written

    def close(self) -> None:
        """Close the journals and give the lease back."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _project_record(self, record: Record) -> None:
        record = {"time": time.time(), **record}
        self._append("", record, sync=True)
        apply_project_record(self.state, record)

    def _append(self, job: str, record: Record, *, sync: bool) -> None:
        """Add a record to the journal of a job, or to the project's own where `job` is ""."""
        while True:
            try:
                return self._file(job).append(record, sync=sync)
            except JournalError as error:
                began = time.monotonic()
                again = self.hold(error)
                self.held_seconds += time.monotonic() - began
                if not again:
                    raise

    def _file(self, job: str) -> JournalFile:
        if job not in self._files:
            self._files[job] = JournalFile(self.project.job_journal(job) if job else self.project.project_journal)
        return self._files[job]
