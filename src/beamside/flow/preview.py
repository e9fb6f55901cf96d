"""What other rules would do: which results they hold back or let through, before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from beamside.flow.gate import GateState, judged
from beamside.flow.opening import open_stages
from beamside.flow.rules import rules_in
from beamside.flow.settings import SessionSettings
from beamside.flow.stages import Stage
from beamside.project.records import ItemEntry, ItemState, ProjectState, Word
from beamside.project.rules import Rule


@dataclass(frozen=True)
class GateChange:
    """What would change at the gate of one job: items that are held back, and items that are let through, of so many that have a result.

    ``to_process`` are those let through that jobs which follow have not processed yet.
    """

    title: str
    results: int
    held: tuple[str, ...]
    opened: tuple[str, ...]
    to_process: int


@dataclass(frozen=True)
class CountChange:
    """How many of what a job counts, such as particles, would be used before and after."""

    title: str
    what: str
    before: int
    after: int


@dataclass(frozen=True)
class Preview:
    """What a change of rules would do; ``again`` are the jobs that make something of several, with the number of results that are made again."""

    gates: tuple[GateChange, ...] = ()
    counts: tuple[CountChange, ...] = ()
    again: tuple[tuple[str, int], ...] = ()

    def __bool__(self) -> bool:
        """Tell whether it would change anything."""
        return bool(self.gates)


def preview(settings: SessionSettings, state: ProjectState) -> Preview:
    """Return what would change at the gates of a project in `state` with the rules of `settings`. The state has these rules afterwards."""
    rules = rules_in(settings)

    def change(stages: Sequence[Stage]) -> None:
        for stage in stages:
            new = rules.get(stage.label, ())
            if new != stage.job.rules:
                stage.job.rules = new
                stage.job.gate_changes += 1

    return _preview(settings, state, change)


def preview_words(
    settings: SessionSettings, state: ProjectState, word: Word, about: Mapping[str, Sequence[str]]
) -> Preview:
    """Return what would change with a person's word on items, by job. The state has these words afterwards."""

    def change(_stages: Sequence[Stage]) -> None:
        for job, names in about.items():
            entry = state.jobs[job]
            entry.gate_changes += 1
            for name in names:
                entry.words.pop(name, None)
                if word != "none":
                    entry.words[name] = word

    return _preview(settings, state, change)


def _preview(settings: SessionSettings, state: ProjectState, change: Callable[[Sequence[Stage]], None]) -> Preview:
    stages = [stage for stage in open_stages(settings, state) if not stage.job_type.aggregate]
    counting = [stage for stage in stages if _counted(stage)]
    counting = [stage for stage in counting if not any(stage in other.before for other in counting)]
    before = [_count(stage) for stage in counting]
    gates = {stage.label: GateState.of(stage.job) for stage in stages}
    joining = [stage for stage in stages if stage.optional or stage.groups is not None]
    stale = [set(stage.stale()) for stage in joining]
    change(stages)
    for stage in joining:
        if stage.groups is not None:
            stage.groups.forget()
    more = [(stage.title, len(set(stage.stale()) - was)) for stage, was in zip(joining, stale, strict=True)]
    found = [_change(stage, gates[stage.label], stages) for stage in stages]
    counts = [
        CountChange(stage.title, _what(stage), was, now)
        for stage, was in zip(counting, before, strict=True)
        if (now := _count(stage)) != was
    ]
    again = tuple((title, number) for title, number in more if number)
    return Preview(tuple(change for change in found if change is not None), tuple(counts), again)


def _change(stage: Stage, before: GateState, stages: Sequence[Stage]) -> GateChange | None:
    job = stage.job
    changed = [entry for name in before.changed(job) if (entry := job.items.get(name)) is not None]
    was = [_is_out(before.words, before.rules, entry) for entry in changed]
    now = [_is_out(job.words, job.rules, entry) for entry in changed]
    held = [entry.name for entry, before, after in zip(changed, was, now, strict=True) if after and not before]
    opened = [entry.name for entry, before, after in zip(changed, was, now, strict=True) if before and not after]
    if not held and not opened:
        return None
    followers = [other for other in stages if stage in other.alongside]
    to_process = [
        name
        for name in opened
        if any((entry := other.entry(name)) is None or entry.result is None for other in followers)
    ]
    results = sum(entry.result is not None for entry in job.items.values())
    return GateChange(stage.title, results, tuple(held), tuple(opened), len(to_process))


def _is_out(words: Mapping[str, Word], rules: Sequence[Rule], entry: ItemEntry) -> bool:
    """Tell whether what a job has made of an item goes no further: it is held back, or the job has rejected it and nobody accepts it."""
    rejected = entry.state is ItemState.REJECTED and words.get(entry.name) != "accept"
    return rejected or judged(words, rules, entry, entry.name)


def _counted(stage: Stage) -> str:
    """Return the metric that says how many of what the session is after are in an item; "" when the job gives nothing of the sort."""
    return next((output.kind.counted for output in stage.job_type.outputs if output.kind.counted), "")


def _what(stage: Stage) -> str:
    return next((output.kind.title for output in stage.job_type.outputs if output.kind.counted), "")


def _count(stage: Stage) -> int:
    metric, rows = _counted(stage), (entry for entry in stage.job.items.values() if entry.result is not None)
    return sum(
        int(entry.result["metrics"].get(metric, 0)) for entry in rows if entry.result and stage.usable(entry.name)
    )
