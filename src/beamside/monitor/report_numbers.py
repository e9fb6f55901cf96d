"""The report's numbers: tiles, accounting, problems, tables, and the data of the plots."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from beamside.jobs.base import Metric
from beamside.monitor import report_series as series
from beamside.monitor.job_views import JobView
from beamside.monitor.report_curves import curves
from beamside.monitor.report_items import HELD_BACK, ItemView, ProblemGroup, RoundView, group_problems, metric_values
from beamside.monitor.report_text import clock, count, duration, metric_heading, metric_text, plural, volume
from beamside.monitor.status import SessionStatus, StageStatus
from beamside.project.index import Index
from beamside.project.records import FINDING


@dataclass(frozen=True)
class Tile:
    """One of the large numbers on top; `tone` is "bad", "warn" or ""."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Accounting:
    """Whether every file is accounted for, in one sentence."""

    sentence: str
    complete: bool


@dataclass(frozen=True)
class StageRow:
    """A line of the table of stages; `devices` says what the results were computed on: "cpu", or "900 on cuda:0, 3 on cpu"."""

    status: StageStatus
    seconds: str
    devices: str


@dataclass(frozen=True)
class MetricRow:
    """A line of the table of metrics, with the item that has the worst value."""

    heading: str
    description: str
    number: int
    median: str
    quartiles: str
    lowest: str
    highest: str
    worst: str


@dataclass(frozen=True)
class MetricTable:
    """The metrics of one job."""

    title: str
    job: str
    rows: tuple[MetricRow, ...]


@dataclass(frozen=True)
class HistoryRow:
    """Something that happened to the session."""

    time: str
    level: str
    text: str


def tiles(
    status: SessionStatus,
    kinds: Sequence[JobView],
    items: Sequence[ItemView],
    rounds: Mapping[str, Sequence[RoundView]],
) -> list[Tile]:
    """Return the tiles: stages, particles, data volume, and what went wrong."""
    by_name = {kind.name: kind for kind in kinds}
    found: list[Tile] = []
    single = [stage for stage in status.stages if not by_name[stage.name].aggregate]
    found += [_stage_tile(stage, by_name[stage.name], kinds[0]) for stage in single]
    if status.stages and status.has_particles:
        finished = sum(item.state == "done" for item in items if item.taken_in)
        mean = f"{status.particles / finished:.0f} per finished file" if finished else ""
        found.append(Tile("Particles", count(status.particles), mean))
    for stage in status.stages:
        if by_name[stage.name].aggregate:
            found.append(_aggregate_tile(by_name[stage.name], rounds.get(stage.name, ())))
    gigabytes = _total(items, kinds[0], "GB")
    if gigabytes is not None:
        found.append(Tile("Data volume", volume(gigabytes), "raw data"))
    ends = Counter(item.state for item in items)
    failed, rejected = ends["failed"], ends["rejected"]
    failed += sum(1 for many in rounds.values() for one in many if one.state == "failed")
    found.append(Tile("Failed", count(failed), "reasons below" if failed else "none", "bad" if failed else ""))
    found.append(
        Tile(
            "Rejected",
            count(rejected),
            "not used further" if rejected else "none",
            "bad" if rejected else "",
        )
    )
    if held := ends[HELD_BACK]:
        found.append(Tile("Held back", count(held), "by rules or a person"))
    return found


def _stage_tile(stage: StageStatus, kind: JobView, source: JobView) -> Tile:
    if kind == source:
        rate = f"{stage.per_hour:.0f} files/h" if stage.per_hour else ""
        return Tile("Files taken in", count(stage.done), rate)
    what = "file" if kind.items_of == source.name else "group"
    part = f"{100 * stage.done / stage.total:.0f} % of {plural(stage.total, what)}" if stage.total else "not begun"
    return Tile(stage.title, count(stage.done), part)


def _aggregate_tile(kind: JobView, rounds: Sequence[RoundView]) -> Tile:
    newest = next((one for one in reversed(rounds) if one.metrics), None)
    metric = kind.metrics[0] if kind.metrics else None
    if newest is None or metric is None or metric.name not in newest.metrics:
        return Tile(metric.label if metric else kind.title, "0", "not begun")
    note = f"{newest.name}, {clock(newest.ended).split()[1]}"
    return Tile(metric.label, metric_text(metric, newest.metrics[metric.name]), note)


def _total(items: Sequence[ItemView], kind: JobView, unit: str) -> float | None:
    metric = next((metric for metric in kind.metrics if metric.unit == unit), None)
    return sum(item.values.get((kind.name, metric.name), 0.0) for item in items) if metric else None


def accounting(items: Sequence[ItemView], status: SessionStatus) -> Accounting:
    """Say whether the files that came are the same number as those that are done, rejected, failed or in work. A group of them is no file."""
    ends = Counter(item.state for item in items if item.taken_in)
    if not ends and not status.waiting_at_source:
        return Accounting("No file has been taken in yet.", True)
    parts = [f"{count(ends['done'])} done"]
    parts += [f"{count(ends[state])} {state}" for state in ("rejected", "failed", HELD_BACK) if ends[state]]
    total = f"{plural(ends.total(), 'file')} = {' + '.join(parts)}"
    open_parts = []
    if ends["waiting"]:
        open_parts.append(f"{count(ends['waiting'])} still to be processed")
        total += f" + {open_parts[0]}"
    if status.waiting_at_source:
        open_parts.append(f"{count(status.waiting_at_source)} waiting at the source")
    if open_parts:
        number = ends["waiting"] + status.waiting_at_source
        verb = "is" if number == 1 else "are"
        return Accounting(f"{plural(number, 'file')} {verb} not finished: {', '.join(open_parts)}. {total}.", False)
    return Accounting(f"Every file is accounted for: {total}.", True)


def problem_groups(
    items: Sequence[ItemView], kinds: Sequence[JobView], rounds: Mapping[str, Sequence[RoundView]]
) -> list[ProblemGroup]:
    """Return what failed, was rejected or is held back, each item once, with the job in which that happened."""
    found: list[tuple[str, str, str, str]] = [
        (item.stage, item.state, item.name, item.reason)
        for item in items
        if item.state in ("failed", "rejected", HELD_BACK)
    ]
    titles = {kind.name: kind.title for kind in kinds}
    for name, many in rounds.items():
        found += [(titles[name], one.state, one.name, one.reason) for one in many if one.state == "failed"]
    return group_problems(found)


def history(index: Index) -> list[HistoryRow]:
    """Return what happened to the session and what it noted, in order."""
    events = [(record["time"], "session", _sentence(record)) for record in index.events("session")]
    notes = [
        (record["time"], str(record.get("level", "info")), str(record.get("message", "")))
        for record in index.events("note")
    ]
    for record in index.events("problem"):
        if record.get("sentence") and record.get("state") != "closed":
            notes.append((record["time"], "problem", str(record["sentence"])))
    found = [(record["time"], FINDING, str(record["sentence"])) for record in index.events(FINDING)]
    return [HistoryRow(clock(moment), level, text) for moment, level, text in sorted(events + notes + found)]


def present_warnings(happened: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Return the notes that warn, since the session was started last; those of before are told again when they still hold."""
    begin = _sentence({"state": "started"})
    last = max((number for number, row in enumerate(happened) if row.text == begin), default=0)
    return [row for row in happened[last:] if row.level == "warning"]


def _sentence(record: Mapping[str, Any]) -> str:
    message = record.get("message")
    return f"The session {record['state']}: {message}" if message else f"The session: {record['state']}."


def stage_rows(status: SessionStatus, index: Index) -> list[StageRow]:
    """Return the stages with the usual time of processing of one item."""
    rows = []
    for stage in status.stages:
        seconds = [row["seconds"] for row in index.items(stage.job) if row["seconds"] > 0]
        rows.append(StageRow(stage, duration(median(seconds)) if seconds else "", _devices(index.devices(stage.job))))
    return rows


def _devices(found: Sequence[tuple[str, int]]) -> str:
    if len(found) == 1:
        return found[0][0]
    return ", ".join(f"{number} on {device}" for device, number in found)


def metric_tables(items: Sequence[ItemView], kinds: Sequence[JobView]) -> list[MetricTable]:
    """Return the distribution of every metric of the jobs that work on single items."""
    tables = []
    for kind in kinds:
        rows = tuple(
            _metric_row(metric, values, items)
            for metric in kind.metrics
            if not kind.aggregate and (values := metric_values(items, kind, metric))
        )
        if rows:
            tables.append(MetricTable(kind.title, kind.name, rows))
    return tables


def _metric_row(metric: Metric, values: Sequence[tuple[int, float]], items: Sequence[ItemView]) -> MetricRow:
    found = series.spread([value for _, value in values])
    worst = ""
    if metric.good:
        extreme = (max if metric.good == "low" else min)(values, key=lambda pair: pair[1])
        worst = items[extreme[0]].short
    return MetricRow(
        heading=metric_heading(metric),
        description=metric.description,
        number=found.number,
        median=metric_text(metric, found.median),
        quartiles=f"{metric_text(metric, found.lower_quartile)} – {metric_text(metric, found.upper_quartile)}",
        lowest=metric_text(metric, found.lowest),
        highest=metric_text(metric, found.highest),
        worst=worst,
    )


def plot_data(items: Sequence[ItemView], kinds: Sequence[JobView], index: Index) -> dict[str, Any]:
    """Return what the page's script draws: items, curves over time, and every metric of every item, in shown units."""
    start = items[0].taken if items else 0.0
    return {
        "start": start,
        "written": time.time(),
        "zone": time.localtime(start or time.time()).tm_gmtoff,
        "names": [item.short for item in items],
        "taken": [round(item.taken - start, 1) for item in items],
        "states": "".join(item.state[0] for item in items),
        "problems": {
            number: f"{item.stage}: {item.reason}"
            for number, item in enumerate(items)
            if item.state in ("failed", "rejected", HELD_BACK)
        },
        **curves(kinds, index, index.jobs(), start, items),
        "metrics": [
            _metric_data(kind, metric, values)
            for kind in kinds
            for metric in kind.metrics
            if not kind.aggregate and (values := metric_values(items, kind, metric))
        ],
    }


def _metric_data(kind: JobView, metric: Metric, values: Sequence[tuple[int, float]]) -> dict[str, Any]:
    return {
        "key": f"{kind.name}.{metric.name}",
        "label": metric.label,
        "unit": metric.unit,
        "digits": metric.digits,
        "good": metric.good,
        "items": [number for number, _ in values],
        "values": [round(value * metric.scale, metric.digits + 2) for _, value in values],
    }
