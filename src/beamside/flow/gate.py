"""The gate of a job's output: which of its results go on to the tables and to the jobs that follow.

Rules hold back what was measured to break them, and a person's word wins over rules. A result that is held back stays as it is, and so does what was
made of it. Keys know nothing of gates, so nothing is computed again when one opens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from beamside.project.records import ItemEntry, ItemState, JobEntry, Word
from beamside.project.rules import Rule


def shuts_nothing(job: JobEntry) -> bool:
    """Return True when nobody has said anything of a job's items, and there are no rules: nothing is held back, and nobody need look at each."""
    return not job.words and not job.rules


def gate_revision(job: JobEntry) -> int:
    """Return a number that grows whenever the gate of a job lets through something else."""
    return job.gate_changes


def is_shut(job: JobEntry, item: str) -> bool:
    """Return True when what the job has made of an item is held back: by a person's word, or by a rule."""
    if shuts_nothing(job):
        return False
    return judged(job.words, job.rules, job.items.get(item), item)


def judged(words: Mapping[str, Word], rules: Sequence[Rule], entry: ItemEntry | None, item: str) -> bool:
    """Return True when such words and rules hold an item back."""
    word = words.get(item)
    if word is not None:
        return word == "reject"
    return broken_rule(rules, entry) is not None


def broken_rule(rules: Sequence[Rule], entry: ItemEntry | None) -> Rule | None:
    """Return the first of the rules that the result of an item breaks; None where there is no result, or the job itself has rejected it."""
    if not rules or entry is None or entry.result is None or entry.result.get("rejected"):
        return None
    metrics = entry.result["metrics"]
    return next((rule for rule in rules if not rule.allows(metrics)), None)


@dataclass(frozen=True)
class GateState:
    """The words and rules of a job at one moment."""

    revision: int
    words: Mapping[str, Word]
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, job: JobEntry) -> GateState:
        """Return those that hold now."""
        return cls(gate_revision(job), dict(job.words), job.rules)

    def changed(self, job: JobEntry) -> Iterator[str]:
        """Yield the items of which something else holds now."""
        if self.revision == gate_revision(job):
            return
        if self.rules == job.rules:
            yield from (name for name in {**self.words, **job.words} if self.words.get(name) != job.words.get(name))
            return
        for name, entry in job.items.items():
            said = self.words.get(name) != job.words.get(name)
            if said or judged(self.words, self.rules, entry, name) != judged(job.words, job.rules, entry, name):
                yield name


def is_accepted(job: JobEntry, entry: ItemEntry) -> bool:
    """Return True when the job itself has rejected a result that it has, and a person wants it used all the same."""
    return entry.state is ItemState.REJECTED and entry.result is not None and job.words.get(entry.name) == "accept"


def counts_as_done(job: JobEntry, entry: ItemEntry | None) -> bool:
    """Return True when there is a result to go on with, were the gate open."""
    return entry is not None and (entry.state is ItemState.DONE or is_accepted(job, entry))


def counts_as_given_up(job: JobEntry, entry: ItemEntry | None) -> bool:
    """Return True when there is no result to go on with, and none will come unless something is tried again."""
    return entry is not None and entry.state in (ItemState.REJECTED, ItemState.FAILED) and not is_accepted(job, entry)
