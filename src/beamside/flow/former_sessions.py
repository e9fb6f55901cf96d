"""How the session before this one ended, as the journal tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamside.project.records import SESSION_ENDS, WAITS_FOR_ANSWER


def died(sessions: Sequence[Mapping[str, Any]]) -> bool:
    """Tell from the records of a project's sessions whether the last one has not come to an end."""
    return bool(sessions) and sessions[-1]["state"] not in SESSION_ENDS


def left_unfinished(sessions: Sequence[Mapping[str, Any]]) -> bool:
    """Tell from the records of a project's sessions whether the last one neither finished nor was stopped; it may have failed, or be asking."""
    return bool(sessions) and sessions[-1]["state"] not in ("finished", "stopped")


def left_finishing(sessions: Sequence[Mapping[str, Any]]) -> bool:
    """Tell from the records of a project's sessions whether the last one was asked to finish and has not come to an end, or waits for an answer."""
    for record in reversed(sessions):
        if record["state"] in ("finished", "stopped", "started"):
            return False
        if record["state"] in ("finishing", WAITS_FOR_ANSWER):
            return True
    return False
