"""A session: a scheduler with a source that is watched, so that it takes in what appears there until it is told to end."""

from __future__ import annotations

from collections.abc import Callable

from beamside.flow.scheduler import Scheduler
from beamside.flow.settings import SessionSettings
from beamside.flow.watched_source import WatchedSource
from beamside.project.project import Project


class Session(Scheduler):
    """Run one session until it is finished or told to stop."""

    def __init__(
        self,
        settings: SessionSettings,
        *,
        write_report: Callable[[Project, bool], None] | None = None,
        until_empty: bool = False,
    ) -> None:
        super().__init__(settings, WatchedSource(), write_report=write_report, until_empty=until_empty)
