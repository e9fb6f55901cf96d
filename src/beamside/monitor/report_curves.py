"""What the session did over time, from the journal's passages: what was finished, how fast, and how much was left.

The state of an item says how it is now, so curves made from it would change their past when items are computed again: what was finished hours ago
would have been a backlog all the time since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamside.monitor import report_series as series
from beamside.monitor.job_views import JobView
from beamside.monitor.report_items import ItemView
from beamside.project.index import Index
from beamside.project.records import ItemState

Passage = tuple[str, float, str]
"""Item, time, and the state it came into."""

USED = (ItemState.DONE, ItemState.REJECTED)
ENDS = (*USED, ItemState.FAILED)


@dataclass(frozen=True)
class Backlog:
    """When items came into the chain of jobs, or back into it to be done again, and when nothing more was to be done with them."""

    opened: tuple[float, ...]
    closed: tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """A job with the passages of its items, and the numbers of those before it: of all that it needs, and of those of which one will do."""

    passages: Sequence[Passage]
    needs: Sequence[int] = ()
    one_of: Sequence[int] = ()

    def has_to_do(self, state: str, others: Sequence[str]) -> bool:
        """Tell whether an item that is in this `state`, and in these in all jobs, is now this job's to do."""
        done = [each == ItemState.DONE for each in others]
        return (
            state not in ENDS
            and all(done[number] for number in self.needs)
            and (not self.one_of or any(done[number] for number in self.one_of))
        )


def backlog_of(steps: Sequence[Step], over: Collection[str] = ()) -> Backlog:
    """Return when items began to be in work, and when no job had anything left to do with them. Nothing more comes of those that are `over`, such as
    what is held back."""
    events = sorted(
        (
            (moment, job, item, state)
            for job, step in enumerate(steps)
            for item, moment, state in _forward(step.passages)
        ),
        key=lambda event: event[0],
    )
    states: dict[str, list[str]] = {}
    is_open: dict[str, bool] = {}
    opened: list[float] = []
    closed: list[float] = []
    latest: dict[str, float] = {}
    for moment, job, item, state in events:
        now = states.setdefault(item, [""] * len(steps))
        now[job], latest[item] = state, moment
        in_work = any(step.has_to_do(each, now) for step, each in zip(steps, now, strict=True))
        if in_work != is_open.get(item, False):
            is_open[item] = in_work
            (opened if in_work else closed).append(moment)
    closed += [latest[item] for item, still in is_open.items() if still and item in over]
    return Backlog(tuple(opened), tuple(closed))


def _forward(passages: Sequence[Passage]) -> Iterator[Passage]:
    """Yield the passages with times that never go back: a clock that is set back does not change the order of what happened."""
    latest = 0.0
    for item, moment, state in passages:
        latest = max(latest, moment)
        yield item, latest, state


def finished_steps(passages: Sequence[Passage]) -> list[tuple[float, int]]:
    """Return when a job had one finished item more (1), or one less because it is done again (-1)."""
    finished: dict[str, bool] = {}
    steps = []
    for item, moment, state in passages:
        now = state in USED
        if now != finished.get(item, False):
            finished[item] = now
            steps.append((moment, 1 if now else -1))
    return steps


def curves(
    kinds: Sequence[JobView], index: Index, jobs: Mapping[str, str], start: float, items: Sequence[ItemView]
) -> dict[str, Any]:
    """Return the curves that the page's script draws, with times in seconds since `start`."""
    chain = [kind for kind in kinds if not kind.aggregate and kind.name in jobs]
    passages = {kind.title: index.passages(jobs[kind.name]) for kind in chain}
    moments = [moment for many in passages.values() for _, moment, state in many if state != ItemState.WAITING]
    if not moments:
        return {"progress": [], "rates": [], "backlog": []}
    first, last = min([start, *moments]), max(moments)
    width = series.bin_width(last - first, len(items))
    over = {item.name for item in items if item.state != "waiting"}
    work = backlog_of(_steps(chain, passages), over)

    def relative(points: series.Points) -> list[list[float]]:
        return [[round(moment - start, 1), round(value, 2)] for moment, value in points]

    progress, rates = [], []
    for kind in chain:
        title, many = kind.title, passages[kind.title]
        ended = [(item, moment) for item, moment, state in many if state in USED]
        # a file comes once: what is made of it may be made again, and then is no new arrival
        done = [moment for _, moment in ended] if not kind.is_source else list(dict(reversed(ended)).values())
        if done:
            progress.append({"name": title, "points": relative(series.level(finished_steps(many), last))})
            rates.append({"name": title, "points": relative(series.hourly_rate(done, first, last, width))})
    return {"progress": progress, "rates": rates, "backlog": relative(series.backlog(work.opened, work.closed))}


def _steps(chain: Sequence[JobView], passages: Mapping[str, Sequence[Passage]]) -> list[Step]:
    """Return the jobs that take what acquisition takes in, one by one: of groups of files it is not asked how many are left."""
    source = next((kind.name for kind in chain if kind.is_source), "")
    taken = [kind for kind in chain if kind.items_of == source]
    place = {kind.name: number for number, kind in enumerate(taken)}
    return [
        Step(
            passages[kind.title],
            [place[name] for name, optional in kind.made_from if name in place and not optional],
            [place[name] for name, optional in kind.made_from if name in place and optional],
        )
        for kind in taken
    ]
