"""The report's pictures of items and of aggregates, such as 2D classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from beamside.jobs.base import Metric, Parts
from beamside.monitor.job_views import JobView
from beamside.monitor.report_items import ItemView, RoundView, metric_values
from beamside.monitor.report_pictures import (
    BUDGET,
    LARGE,
    MICROGRAPH_BUDGET,
    MICROGRAPH_SIZES,
    SHOWN_ITEMS,
    SIZES,
    Embedded,
    PictureStore,
    choose_items,
)
from beamside.monitor.report_text import clock, duration, metric_heading, metric_text


@dataclass(frozen=True)
class Card:
    """An item of the gallery; `number` is its place among all items."""

    number: int
    item: ItemView
    taken: str
    pictures: tuple[Embedded, ...]
    values: tuple[tuple[str, str], ...]
    main: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Gallery:
    """The items whose pictures are shown."""

    cards: tuple[Card, ...]
    total: int


@dataclass(frozen=True)
class AggregateView:
    """An aggregate job: the pictures of its newest round, its rounds, and what the newest has several of, as tables of text."""

    title: str
    caption: str
    pictures: tuple[Embedded, ...]
    round_headings: tuple[str, ...]
    rounds: tuple[tuple[str, ...], ...]
    parts_title: str
    part_headings: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]


def gallery_view(items: Sequence[ItemView], kinds: Sequence[JobView], store: PictureStore) -> Gallery:
    """Choose items and make their cards, the newest first."""
    order = [item.name for item in items]
    problems = [item.name for item in items if item.state in ("failed", "rejected")]
    metrics = [
        (metric, [(items[number].name, value) for number, value in metric_values(items, kind, metric)])
        for kind in kinds
        for metric in kind.metrics
        if not kind.aggregate
    ]
    shown = choose_items(order, problems, metrics, SHOWN_ITEMS)
    chosen = [(number, item) for number, item in enumerate(items) if item.name in shown][::-1]
    pictures_of = [picture for _, item in chosen for picture in item.pictures]
    sizes = {
        whole: store.fitting_size([path for _, path, shows_it in pictures_of if shows_it is whole], steps, budget)
        for whole, steps, budget in ((True, MICROGRAPH_SIZES, MICROGRAPH_BUDGET), (False, SIZES, BUDGET))
    }
    embedded = iter(store.embed([(caption, path, sizes[whole]) for caption, path, whole in pictures_of]))
    cards = []
    for number, item in chosen:
        made = [(whole, next(embedded)) for _, _, whole in item.pictures]
        pictures = tuple(replace(picture, micrograph=whole) for whole, picture in made if picture is not None)
        cards.append(
            Card(number, item, clock(item.taken), pictures, _values(item, kinds), _values(item, kinds, main=True))
        )
    return Gallery(tuple(cards), len(items))


def _values(item: ItemView, kinds: Sequence[JobView], *, main: bool = False) -> tuple[tuple[str, str], ...]:
    """Return an item's metrics as text: all of them, or those that tell most."""
    found = []
    for kind in kinds:
        for metric in kind.metrics:
            if (kind.name, metric.name) in item.values and (metric.main or not main):
                found.append((metric.label, metric_text(metric, item.values[kind.name, metric.name])))
    return tuple(found)


def aggregates_view(
    kinds: Sequence[JobView], rounds: Mapping[str, Sequence[RoundView]], store: PictureStore
) -> list[AggregateView]:
    """Return the aggregate jobs that have a finished round."""
    found = []
    for kind in kinds:
        finished = [one for one in rounds.get(kind.name, ()) if one.state in ("done", "rejected") and one.metrics]
        if finished:
            found.append(_aggregate(kind, finished, store))
    return found


def _aggregate(kind: JobView, rounds: Sequence[RoundView], store: PictureStore) -> AggregateView:
    newest = rounds[-1]
    wanted = [(each.caption, newest.outputs[each.role], LARGE) for each in kind.pictures if each.role in newest.outputs]
    parts = kind.type.parts
    headings, listed = _parts_table(parts, newest.values.get(parts.value) if parts is not None else None)
    return AggregateView(
        title=kind.title,
        caption=f"{newest.name}, {clock(newest.ended)}"
        + (" – over all particles of the session" if newest.values.get("final") else ""),
        pictures=tuple(picture for picture in store.embed(wanted) if picture is not None),
        round_headings=("Round", "Finished", "Took", *(metric_heading(metric) for metric in kind.metrics)),
        rounds=tuple(_round_row(kind, one) for one in reversed(rounds)),
        parts_title=parts.several if parts is not None else "",
        part_headings=headings,
        parts=listed,
    )


def _round_row(kind: JobView, one: RoundView) -> tuple[str, ...]:
    values = (
        metric_text(metric, one.metrics[metric.name]) if metric.name in one.metrics else "" for metric in kind.metrics
    )
    return (one.name, clock(one.ended), duration(one.seconds), *values)


def _parts_table(parts: Parts | None, table: Any) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return headings and rows of what a round has several of, in the order that its job type declares."""
    if parts is None or not isinstance(table, list) or not table:
        return (), ()
    known = [column for column in parts.columns if column.name in table[0]]
    numbered = [(number, row) for number, row in enumerate(table, 1) if row.get(parts.counted, 1) > 0]
    numbered.sort(key=lambda pair: tuple(-pair[1].get(name, 0) for name in parts.order))
    rows = tuple(
        (str(number), *(_cell(column, row[column.name]) for column in known if row.get(column.name) is not None))
        for number, row in numbered
    )
    return (parts.one, *(column.label for column in known)), rows


def _cell(column: Metric, value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return metric_text(column, value)
