"""Trying again what has failed in a session that does not run."""

from __future__ import annotations

from beamside.flow.settings import SessionSettings
from beamside.flow.table import Tables
from beamside.project.project import Project, ProjectWriter


def retry_ended(project: Project, settings: SessionSettings) -> int:
    """Let all failed items and rounds of a project wait again; returns how many. The next session does them.

    That one tries by itself, too, what could not be taken in, prepared or compared with the gain reference. Raises ProjectBusyError when one runs.
    """
    project.require()
    with ProjectWriter(project) as writer:
        return Tables(settings, writer).retry_failed()
