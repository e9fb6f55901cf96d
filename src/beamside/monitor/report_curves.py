"""What the session did over time, from the journal's passages: what was finished, how fast, and how much was left.

The state of an item says how it is now, so curves made from it would change their past when items are computed again: what was finished hours ago
would have been a backlog all the time since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beamside.monitor import report_series as series
from beamside.monitor.job_views import JobView
from beamside.project.index import Index
from beamside.project.records import ItemState

Passage = tuple[str, float, str]
"""Item, time, and the state it came into."""

USED = (ItemState.DONE, ItemState.REJECTED)


@dataclass(frozen=True)
class Backlog:
    """When items came into the chain of jobs, or back into it to be done again, and when nothing more was to be done with them."""

    opened: tuple[float, ...]
    closed: tuple[float, ...]


def backlog_of(chain: Sequence[Sequence[Passage]]) -> Backlog:
    """Return when items began and ended to be in work, by the passages of each job of the chain, the first one first."""
    events = sorted(
        (
            (moment, job, item, state)
            for job, passages in enumerate(chain)
            for item, moment, state in _forward(passages)
        ),
        key=lambda event: event[0],
    )
    states: dict[str, list[str]] = {}
    is_open: dict[str, bool] = {}
    opened: list[float] = []
    closed: list[float] = []
    for moment, job, item, state in events:
        now = states.setdefault(item, [""] * len(chain))
        now[job] = state
        first = next((each for each in now if each != ItemState.DONE), ItemState.DONE)
        in_work = first not in (ItemState.DONE, ItemState.REJECTED, ItemState.FAILED)
        if in_work != is_open.get(item, False):
            is_open[item] = in_work
            (opened if in_work else closed).append(moment)
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


def curves(kinds: Sequence[JobView], index: Index, jobs: Mapping[str, str], start: float, items: int) -> dict[str, Any]:
    """Return the curves that the page's script draws, with times in seconds since `start`."""
    chain = [kind for kind in kinds if not kind.aggregate and kind.name in jobs]
    passages = {kind.title: index.passages(jobs[kind.name]) for kind in chain}
    moments = [moment for many in passages.values() for _, moment, state in many if state != ItemState.WAITING]
    if not moments:
        return {"progress": [], "rates": [], "backlog": []}
    first, last = min([start, *moments]), max(moments)
    width = series.bin_width(last - first, items)
    work = backlog_of(list(passages.values()))

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
