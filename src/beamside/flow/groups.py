"""Items that belong together: which group each is in, how far its members are, and whether anything is still missing.

A group is an item of the job that takes it. Its members are items of the first of the jobs before, so one that is still on its way, or was given up
early, is known. Nothing here is kept in journals: it follows from the items, and the key of a group's result says of which members it was made.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from beamside.flow.set_aside import source_of
from beamside.jobs.triggers import Group

if TYPE_CHECKING:
    from beamside.flow.stages import Stage

log = logging.getLogger(__name__)

USED, UNDERWAY = "", "underway"
"""What is said of a member: that the group's result is made of it, or that this will be known later. Anything else says why it is left out."""


class Groups:
    """The groups of one stage, kept up to date by `touch`: whoever records something of an item before it says so."""

    def __init__(self, stage: Stage, trigger: Group, clock: Callable[[], float] = time.monotonic) -> None:
        self.stage, self.trigger, self.clock = stage, trigger, clock
        self.source_ended = False
        self.total = 0
        self.fault = ""
        """What the job type raised when it was asked last where an item belongs, and could not say it."""
        self._group: dict[str, str] = {}
        self._members: dict[str, dict[str, str]] = {}
        self._underway: dict[str, int] = {}
        self._newest: dict[str, float] = {}
        self._revisions: dict[str, int] = {}
        self._touched: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._built = False

    @property
    def _source(self) -> Stage:
        return self.stage.gathered.first

    def touch(self, item: str) -> None:
        """Something was recorded of an item, or said of it."""
        if self._built:
            self._touched[item] = None

    def forget(self) -> None:
        """Another rule may hold for what belongs together, or a gate may have changed: look at all items anew."""
        if self._built:
            self._touched = dict.fromkeys((*self._group, *self._source.job.items))

    def take_changed(self) -> list[str]:
        """Return the groups of which something has changed since this was asked last."""
        self._look()
        changed, self._changed = list(self._changed), {}
        return changed

    def names(self) -> list[str]:
        """Return all groups that have a member."""
        self._look()
        return list(self._members)

    def members(self, group: str) -> Mapping[str, str]:
        """Return the members of a group, each with USED, UNDERWAY, or why it is left out."""
        self._look()
        return self._members.get(group, {})

    def used(self, group: str) -> list[str]:
        """Return the members that a result is made of now, by name: in which order they came must not matter."""
        return sorted(name for name, what in self.members(group).items() if what == USED)

    def left_out(self, group: str) -> dict[str, str]:
        """Return the members that a result would be without, and why."""
        return {name: what for name, what in sorted(self.members(group).items()) if what not in (USED, UNDERWAY)}

    def underway(self, group: str) -> int:
        """Return how many members are still being processed."""
        self._look()
        return self._underway.get(group, 0)

    def revision(self, group: str) -> int:
        """Return a number that stays the same while the group's members do; `total` is the same for all groups."""
        self._look()
        return self._revisions.get(group, 0)

    def is_complete(self, group: str) -> bool:
        """Return True when no further member is expected; one that comes all the same is taken in as soon as it is done."""
        entry = self.stage.job.items.get(group)
        if self.source_ended or (entry is not None and entry.task > 0):
            return True
        expected, quiet = (self._parameter(name) for name in (self.trigger.expected, self.trigger.quiet))
        if 0 < expected <= len(self.members(group)):
            return True
        return 0 < quiet * 60 <= self.clock() - self._newest.get(group, self.clock())

    def _parameter(self, name: str) -> float:
        return float(getattr(self.stage.parameters, name)) if name else 0.0

    def is_ready(self, group: str) -> bool:
        """Return True when a result can be made, of all that belongs to the group."""
        return not self.underway(group) and bool(self.used(group)) and self.is_complete(group)

    def has_nothing(self, group: str) -> bool:
        """Return True when no member is left of which a result could be made, and none is expected."""
        return not self.underway(group) and not self.used(group) and self.is_complete(group)

    def inputs(self, group: str, key: Callable[[str], str]) -> str:
        """Return what a key has of the members: the key of each that is used, by `key`, and what is left out."""
        digest = hashlib.sha256()
        for name in self.used(group):
            digest.update(f"{name}:{key(name)}\n".encode())
        for name, why in self.left_out(group).items():
            digest.update(f"-{name}:{why}\n".encode())
        return digest.hexdigest()[:20]

    def ungrouped(self) -> list[str]:
        """Return the items that are there and belong to no group."""
        self._look()
        return [
            entry.name for entry in self._source.job.items.values() if entry.result and entry.name not in self._group
        ]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if not self._built:
            self._built = True
            self.forget()
        while self._touched:
            touched, self._touched = self._touched, {}
            for item in touched:
                self._look_at(item)

    def _look_at(self, item: str) -> None:
        before, now = self._group.get(item, ""), self._group_of(item)
        if before and before != now:
            self._take_out(before, item)
        if not now:
            return
        members = self._members.setdefault(now, {})
        what = self._what_of(item)
        if members.get(item) == what:
            return
        if item not in members:
            self._newest[now] = self.clock()
        self._count(now, (what == UNDERWAY) - (members.get(item) == UNDERWAY))
        self._group[item], members[item] = now, what

    def _take_out(self, group: str, item: str) -> None:
        what = self._members[group].pop(item)
        self._count(group, -(what == UNDERWAY))
        del self._group[item]
        if not self._members[group]:
            del self._members[group]

    def _count(self, group: str, more: int) -> None:
        self._underway[group] = self._underway.get(group, 0) + more
        self._revisions[group] = self._revisions.get(group, 0) + 1
        self._changed[group] = None
        self.total += 1

    def _group_of(self, item: str) -> str:
        entry = self._source.job.items.get(item)
        if entry is None:
            return ""
        values = entry.result["values"] if entry.result else {"source": source} if (source := source_of(entry)) else {}
        try:
            group = self.stage.job_type.group_of(item, values, self.stage.parameters)
            if not is_path(group):
                raise ValueError(f"{group!r} is no path below the project")
            return group
        except Exception as error:  # a job type of somebody else may do anything
            self.fault = f"{type(error).__name__}: {error}"
            log.exception("%s cannot tell to which group %s belongs: it is left out", self.stage.title, item)
            return ""

    def _what_of(self, item: str) -> str:
        before = self.stage.gathered
        if before.is_shut(item):
            return "taken out"
        if before.is_settled(item) and before.has_usable(item):
            return USED
        return "given up" if before.has_given_up(item) else UNDERWAY


def is_path(group: str) -> bool:
    """Tell whether a group's name can be that of an item: files are named after it. "" is no group, and right."""
    return not group or all(part not in ("", ".", "..") for part in group.split("/"))
