"""The status with what has become of a project's results since its session ended."""

from __future__ import annotations

from dataclasses import replace

from beamside.errors import BeamsideError
from beamside.flow.again import AGAIN
from beamside.flow.missing import TOLD
from beamside.flow.start import state_of_results
from beamside.flow.stored_settings import load_settings
from beamside.monitor.status import ProblemStatus, SessionStatus, read_status
from beamside.project.project import Project


def status_now(project: Project) -> SessionStatus:
    """Return the status; of a session that does not run, with what has become of its results since.

    Files that were cleaned, jobs that were deleted and what was brought back are in no journal, so they are looked at; what the session said of them
    at its end is left out.
    """
    status = read_status(project)
    if status.pid:
        return status
    try:
        results = state_of_results(project, load_settings(project, tell=lambda _sentence: None))
    except (BeamsideError, OSError, ValueError):  # the journals and the index say what they can
        return status
    said = [problem for problem in status.problems if not problem.key.startswith((*TOLD, AGAIN))]
    found = [ProblemStatus(trouble.key, trouble.sentence, trouble.severity, 1, status.since) for trouble in results]
    return replace(status, problems=(*said, *found))
