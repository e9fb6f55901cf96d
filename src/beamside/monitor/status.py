"""The status of a session, for terminals, pages and reports: read from the index, without asking the session."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from beamside.acquisition.reports import RATE
from beamside.flow.checks import Account
from beamside.flow.settings import source_of
from beamside.flow.sources import accounts
from beamside.jobs.base import Metric
from beamside.monitor.at_work import AtWork, read_at_work
from beamside.monitor.held_back import HeldBack, read_held_back
from beamside.monitor.job_views import JobView, job_views, session_workflow
from beamside.monitor.liveness import ENDED, NOT_RESPONDING, session_state
from beamside.monitor.report_items import HELD_BACK, group_problems
from beamside.project.index import Index
from beamside.project.live import age, read_live
from beamside.project.problems import ProblemEntry, fold_problems, open_problems
from beamside.project.project import Project
from beamside.project.records import FINDING, ItemState

COPY_WINDOW = 60.0
"""The copying rate is that of files that arrived in the last so many seconds."""

RATE_WINDOW = 600.0
"""Rates are those of the last so many seconds."""

SHORTEST_RATE_SPAN = 5.0
"""A rate from fewer seconds, such as that of files that were there when the session began, says nothing."""

JOURNAL_WAITS = "waiting for the disk"
"""What the live file says of a session that waits until its journal can be written."""

FULL_BYTES = 1e5
"""A disk with less room than this takes no more results."""

OVER_SECONDS = 3600.0
"""So long after it ended is a problem still shown."""


@dataclass(frozen=True)
class LastValue:
    """The newest value of a metric, as people read it."""

    label: str
    text: str
    unit: str


@dataclass(frozen=True)
class ProblemStatus:
    """A problem in words: an outage, or a group of remarks.

    ``since`` is when it began and ``over`` when it ended (0: it has not), in seconds since 1970; ``count`` is how often it was so, or of how many
    files it was said.
    """

    key: str
    text: str
    severity: str
    count: int
    since: float
    over: float = 0.0


@dataclass(frozen=True)
class FailureGroup:
    """Items that failed, were rejected or are held back in one job for the same reason."""

    title: str
    state: str
    reason: str
    count: int
    first: str
    last: str

    def text(self) -> str:
        """Return it in words: "19 × no Thon rings (CTF estimation, failed: raw/m1 to raw/m30)"."""
        if self.count == 1:
            return f"{self.first} ({self.title}, {self.state}): {self.reason}"
        return f"{self.count} × {self.reason} ({self.title}, {self.state}: {self.first} to {self.last})"


Attention = Literal["", "error", "question", "down"]
"""Why a session needs a person: a problem that is an error, a question, or its process is not at work as it should."""


@dataclass(frozen=True)
class StageStatus:
    """One stage of a session; ``held`` are the results that its gate holds back, and what other gates keep from it does not wait."""

    name: str
    title: str
    job: str
    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    rejected: int = 0
    held: int = 0
    per_hour: float = 0.0
    last: tuple[LastValue, ...] = ()

    @property
    def total(self) -> int:
        """All items of the stage."""
        return self.waiting + self.running + self.done + self.failed + self.rejected


@dataclass(frozen=True)
class SessionStatus:
    """Everything that a status display shows.

    ``state`` is "running", "paused", "finishing", "finished", "stopped", "failed", "waiting for disk space", "waiting for an answer" (it has ended,
    and goes on when a person has answered), "dead" when the session process is gone without having ended in order, or "not responding" when it is
    there and gives no sign of life. ``problems`` are the open ones, errors first, and ``over`` those that ended lately. ``questions`` wait for a
    person's answer; ``gain`` says how gain references are used, and ``optics`` how many files each optics group has; ``waits`` says what the session
    waits for; ``at_work`` is what the workers have in hand, the longest first. Ages are in seconds, -1 where there is none; ``free_bytes`` is what
    the target's disk has. ``has_particles`` is False where no job of the workflow gives any.
    """

    name: str
    root: str
    state: str
    stages: tuple[StageStatus, ...] = ()
    waiting_at_source: int = 0
    backlog: int = 0
    copied_bytes_per_second: float = 0.0
    particles: int = 0
    has_particles: bool = True
    message: str = ""
    problems: tuple[ProblemStatus, ...] = ()
    over: tuple[ProblemStatus, ...] = ()
    failures: tuple[FailureGroup, ...] = ()
    held_back: tuple[FailureGroup, ...] = ()
    questions: tuple[str, ...] = ()
    gain: tuple[str, ...] = ()
    optics: Mapping[str, int] = field(default_factory=dict)
    waits: tuple[str, ...] = ()
    sign_of_life_age: float = -1.0
    newest_file_age: float = -1.0
    newest_result_age: float = -1.0
    free_bytes: float = -1.0
    pid: int = 0
    since: float = 0.0
    at_work: tuple[AtWork, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def unaccounted(self) -> int:
        """Items that are neither done nor rejected nor failed, and files at the source that were not taken."""
        return self.backlog + self.waiting_at_source

    def attention(self) -> Attention:
        """Return why the session needs a person, the worst first; "" when it does not."""
        if self.state in ("dead", "failed", NOT_RESPONDING):
            return "down"
        # Without a journal that can be written, a problem cannot be recorded: the live file says it.
        if self.state == JOURNAL_WAITS or any(problem.severity == "error" for problem in self.problems):
            return "error"
        return "question" if self.questions else ""


def read_status(project: Project) -> SessionStatus:
    """Return the present status of a project's session."""
    index = Index(project.require())
    try:
        index.catch_up()
        return _status(project, index)
    finally:
        index.close()


def _status(project: Project, index: Index) -> SessionStatus:
    live, holder = read_live(project), project.writer_process()
    sessions = index.events("session")
    views = job_views(index.settings())
    jobs = index.jobs()
    counts = index.counts()
    held = read_held_back(index, session_workflow(index.settings()))
    stages = tuple(
        _stage(index, kind, jobs[kind.name], counts.get(jobs[kind.name], {}), held)
        for kind in views
        if kind.name in jobs
    )
    source = next((view.name for view in views if view.is_source), "")
    singly = {view.name for view in views if not view.aggregate and view.items_of == source}
    per_item = [stage for stage in stages if stage.name in singly]
    ended = sessions[-1]["state"] if sessions else "new"
    live_age, now = age(live) if live else -1.0, time.time()
    state, silence = session_state(
        live, holder, ended, live_age=live_age, held_for=max(0.0, now - holder.since) if holder else 0.0
    )
    works = holder is not None and state not in (*ENDED, NOT_RESPONDING)
    problems = fold_problems(index.events("problem"))
    down = [ProblemStatus("session-process", silence, "error", 1, float(live.get("time", now)))] if silence else []
    counting = [view for view in views if view.counted and not view.aggregate and view.name in jobs]
    found = read_accounts(index)
    return SessionStatus(
        name=f"{project.root.parent.name}/{project.root.name}",
        root=str(project.root),
        state=state,
        stages=stages,
        waiting_at_source=int(live.get("waiting_at_source", 0)),
        backlog=sum(stage.waiting + stage.running for stage in per_item),
        copied_bytes_per_second=_copy_rate(index, jobs.get(source, "")) if holder else 0.0,
        particles=_counted(index, counting[-1], jobs, held) if counting else 0,
        has_particles=any(view.counted for view in views),
        message=str(sessions[-1].get("message", "")) if sessions else "",
        problems=(
            *down,
            *_full_disk(project, state, holder is not None),
            *(_problem_status(entry) for entry in open_problems(_still_news(problems.values(), now))),
        ),
        over=tuple(_over_lately(problems.values(), now)),
        failures=tuple(_failure_groups(index, stages)),
        held_back=tuple(_held_groups(stages, held)),
        questions=tuple(account.question for account in found if account.question),
        gain=tuple(account.told for account in found if account.told),
        optics=dict(live.get("optics", {})),
        waits=tuple(live.get("waits", ())) if works else (),
        at_work=tuple(read_at_work(live)) if works else (),
        sign_of_life_age=live_age,
        newest_file_age=_age(index.newest(jobs.get(source, ""), "arrived"), now),
        newest_result_age=_age(
            max((index.newest(stage.job, "changed") for stage in stages if stage.name != source), default=0.0), now
        ),
        free_bytes=_free_bytes(project),
        pid=holder.pid if holder else 0,
        since=float(sessions[-1]["time"]) if sessions else 0.0,
    )


def _counted(index: Index, view: JobView, jobs: Mapping[str, str], held: HeldBack) -> int:
    """Return how many of what the session is after are used, as the last job that counts them says."""
    out = held.at(view.name)
    return int(sum(value for item, _, value in index.metric(jobs[view.name], view.counted) if item not in out))


def _full_disk(project: Project, state: str, runs: bool) -> list[ProblemStatus]:
    """Tell of a disk that is full to the last byte: a session cannot record there that it waits, nor anything else."""
    if not runs or state in ENDED or not 0 <= _free_bytes(project) < FULL_BYTES:
        return []
    sentence = f"The disk of {project.root} is full: nothing can be written there. Make room; the session then goes on by itself."
    return [ProblemStatus("disk-full", sentence, "error", 1, time.time())]


def _problem_status(entry: ProblemEntry) -> ProblemStatus:
    over = 0.0 if entry.open else entry.changed
    return ProblemStatus(entry.key, entry.text(), entry.severity, entry.count, entry.opened, over)


def _still_news(problems: Iterable[ProblemEntry], now: float) -> list[ProblemEntry]:
    """Return all but remarks that were only for information, such as that a file was tried again, and are old."""
    return [
        entry
        for entry in problems
        if not (entry.grouped and entry.severity == "info" and now - entry.changed > OVER_SECONDS)
    ]


def _over_lately(problems: Iterable[ProblemEntry], now: float) -> list[ProblemStatus]:
    """Return what has ended within the last hour, which nobody may have seen."""
    ended = [entry for entry in problems if entry.over and entry.severity != "info"]
    ended = [entry for entry in ended if now - entry.changed < OVER_SECONDS]
    return [_problem_status(entry) for entry in sorted(ended, key=lambda entry: entry.changed)]


def _failure_groups(index: Index, stages: Iterable[StageStatus]) -> list[FailureGroup]:
    """Return what failed or was rejected, by reason, the largest groups first; what only follows from another job's failure is not told twice."""
    titles = {stage.job: stage.title for stage in stages}
    follows = {f"{title} was {state}" for title in titles.values() for state in ("failed", "rejected")}
    found = [
        (titles.get(job, job), state, item, reason)
        for job, item, state, reason in index.problems()
        if reason not in follows
    ]
    return _groups(found)


def _held_groups(stages: Iterable[StageStatus], held: HeldBack) -> list[FailureGroup]:
    """Return what is held back, by the rule or the person."""
    titles = {stage.name: stage.title for stage in stages}
    found = [
        (titles.get(label, label), HELD_BACK, item, reason)
        for label, items in held.own.items()
        for item, reason in items.items()
    ]
    return _groups(found)


def _groups(found: Sequence[tuple[str, str, str, str]]) -> list[FailureGroup]:
    return [
        FailureGroup(group.stage, group.state, group.reason, len(group.items), group.items[0][0], group.items[-1][0])
        for group in group_problems(found)
    ]


def _age(moment: float, now: float) -> float:
    return max(0.0, now - moment) if moment else -1.0


def _free_bytes(project: Project) -> float:
    try:
        return float(shutil.disk_usage(project.root).free)
    except OSError:
        return -1.0


def read_accounts(index: Index) -> list[Account]:
    """Return what the check of a session's source has found, with the settings that the session has now."""
    settings = index.settings()
    return list(accounts(source_of(session_workflow(settings)), index.events(FINDING), settings))


def _stage(index: Index, kind: JobView, job: str, counts: Mapping[str, int], held: HeldBack) -> StageStatus:
    kept = held.kept.get(kind.name, frozenset())
    behind = sum(name in kept for name in index.waiting(job)) if kept else 0

    def number(*states: ItemState) -> int:
        return sum(counts.get(state.value, 0) for state in states)

    return StageStatus(
        name=kind.name,
        title=kind.title,
        job=job,
        waiting=number(ItemState.WAITING, ItemState.QUEUED) - behind,
        running=number(ItemState.RUNNING),
        done=number(ItemState.DONE),
        failed=number(ItemState.FAILED),
        rejected=number(ItemState.REJECTED),
        held=len(held.own.get(kind.name, ())),
        per_hour=_per_hour(index.last_finished(job, RATE_WINDOW, again=not kind.is_source)),
        last=tuple(_last_values(index, kind, job)),
    )


def _per_hour(times: Sequence[float]) -> float:
    """Return how many items an hour were finished, over the last window that has any; 0 when too few were for a rate."""
    if not times:
        return 0.0
    span = times[-1] - times[0]
    return 3600.0 * (len(times) - 1) / span if span >= SHORTEST_RATE_SPAN else 0.0


def _last_values(index: Index, kind: JobView, job: str) -> list[LastValue]:
    newest = index.newest_metrics(job)
    return [
        LastValue(metric.label, format_metric(metric, newest[metric.name]), metric.unit)
        for metric in kind.metrics
        if newest.get(metric.name) is not None
    ]


def format_metric(metric: Metric, value: float) -> str:
    """Return a metric's value in the unit that people read, without the unit."""
    return f"{value * metric.scale:.{metric.digits}f}"


def _copy_rate(index: Index, job: str) -> float:
    now = time.time()
    rates = [value for _, moment, value in index.metric(job, RATE) if now - moment < COPY_WINDOW][-10:]
    return 1e6 * sum(rates) / len(rates) if rates else 0.0
