"""What has to be settled about a source before its items may flow: a check, which the kind of source names. The flow knows only that there is one.

A check holds items until it knows what they need; what it cannot know by itself it asks a person, and it keeps what it has found in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from beamside.flow.check_items import CheckItems, Settling
from beamside.flow.problems import Problems
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import FileImported
from beamside.flow.table import Tables
from beamside.jobs.errands import Errand


class Check(Settling, Protocol):
    """Holds items until they may flow. Only the session's own thread uses it.

    Attributes
    ----------
    title : what it settles, in words
    items : what it has to settle, with its states
    """

    title: str
    items: CheckItems

    @property
    def unanswered(self) -> bool:
        """Whether a person has to answer something."""

    def waits(self) -> list[str]:
        """Return what items wait for here, in words, the most important first."""

    def take(self, arrival: FileImported) -> None:
        """Let an item go on to its jobs, or hold it."""

    def work(self) -> None:
        """Go on with what needs no worker."""

    def answer(self, answer: Mapping[str, Any]) -> list[str]:
        """Do as a person says; returns what that means, in sentences. [] when that is no answer to anything that is asked here."""

    def retry(self, *, all_: bool = True) -> None:
        """Try again at once what a passing fault has spoiled; with `all_`, whatever failed."""

    def close(self) -> bool:
        """No more items will come: settle what can be settled; returns False while items wait here for what is not a person's answer."""


@dataclass(frozen=True)
class Surroundings:
    """What a check works with: the session's settings, tables and problems.

    ``settled`` is to be called when it has become known what items get, or that is something else now.
    """

    settings: SessionSettings
    tables: Tables
    problems: Problems
    settled: Callable[[], None] = lambda: None


class NoCheck:
    """For a kind of source of which nothing has to be settled: every item goes on."""

    title = "the source"
    unanswered = False

    def __init__(self, around: Surroundings) -> None:
        self._tables = around.tables
        self.items = CheckItems("check", self.title)

    def waits(self) -> list[str]:
        """Nothing waits."""
        return []

    def take(self, arrival: FileImported) -> None:
        """Let an item go on to its jobs."""
        self._tables.intake_done(arrival)

    def work(self) -> None:
        """There is nothing to do."""

    def wanted(self, name: str) -> Errand | None:
        """Nothing is due."""
        return None

    def found(self, name: str, result: Mapping[str, Any]) -> None:
        """Nothing was asked of a worker."""

    def spoiled(self, name: str, reason: str, *, permanent: bool) -> None:
        """Nothing was asked of a worker."""

    def answer(self, answer: Mapping[str, Any]) -> list[str]:
        """Nothing was asked."""
        return []

    def retry(self, *, all_: bool = True) -> None:
        """Nothing fails here."""

    def close(self) -> bool:
        """Nothing goes on."""
        return True


@dataclass(frozen=True)
class Account:
    """What a check has found, for status and report.

    Attributes
    ----------
    subject, title : what the check settles, and what of it this is about
    sentence : what was found, or what is asked
    question : what a person is asked; "" when nothing
    told : the sentence for a status display; "" when it is told there as a question or a problem
    urgent : whether a person has to do something
    facts : labels with values
    headings, rows : a table; none without headings
    pictures : files in the project, each with its caption
    values : what settings that were left to the program became, by parameter name
    """

    subject: str
    title: str
    sentence: str
    question: str = ""
    told: str = ""
    urgent: bool = False
    facts: tuple[tuple[str, str], ...] = ()
    headings: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()
    values: Mapping[str, Any] | None = None
