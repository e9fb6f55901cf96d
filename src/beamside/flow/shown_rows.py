"""The rows of a job's tables that were made already, so that only those are made anew of which something was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from beamside.jobs.base import Row

if TYPE_CHECKING:
    from beamside.flow.stages import Stage


@dataclass
class ShownRows:
    """The rows that a stage has shown, and up to which records of the jobs that they are made from."""

    found: dict[str, Row | None] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    common: tuple[int, ...] = ()

    def changed(self, line: Sequence[Stage], revisions: tuple[int, ...]) -> list[str]:
        """Return the items whose rows must be made anew: those of which something was recorded, or all when anything else has changed."""
        common = (*revisions[:2], *revisions[3::2])
        items = dict.fromkeys(line[-1].job.items) if common != self.common else {}
        for stage in line:
            seen = self.seen.get(stage.job.name, 0)
            for name in reversed(stage.job.newest) if common == self.common else ():
                if stage.job.items[name].recorded <= seen:
                    break
                items[name] = None
            self.seen[stage.job.name] = stage.job.records
        self.common = common
        return list(items)
