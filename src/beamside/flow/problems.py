"""What people are told of a session: outages are states that open and close, remarks about files are grouped by subject.

All of it goes to the journal, so that a session that goes on, `status` and the report know it. An outage is recorded when it opens and when it
closes; of further news (another file of the same group, an outage that is told again) a record is made now and then, so that ten thousand files do
not make ten thousand records.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from beamside.acquisition.reports import Remark, Severity, Trouble
from beamside.project.problems import SEVERITIES
from beamside.project.project import ProjectWriter

log = logging.getLogger(__name__)

RECORD_SECONDS = 10.0
"""So often, at most, is it recorded that an outage was told again or that a group of remarks has grown."""

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Problems:
    """The problems of a session. Only the session's own thread uses it.

    Parameters
    ----------
    writer : the project's writer; its state has what earlier sessions recorded
    clock : monotonic seconds
    """

    def __init__(self, writer: ProjectWriter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._writer, self._clock = writer, clock
        self._entries = writer.state.problems
        self._again: dict[str, dict[str, Any]] = {}
        self._grown: dict[str, dict[str, Remark]] = {}
        self._flushed = clock()

    def is_open(self, key: str) -> bool:
        """Tell whether the outage `key` is open now."""
        entry = self._entries.get(key)
        return entry is not None and entry.open and not entry.grouped

    def open(self, key: str, sentence: str, severity: Severity = "warning") -> None:
        """Say that something is so now. With a key that is open already, its count and time move on, and the sentence is the new one."""
        entry = self._entries.get(key)
        told = self._again.get(key) or {"count": entry.count if entry is not None else 0}
        count = int(told["count"]) + 1
        record = {"key": key, "state": "open", "sentence": sentence, "severity": severity, "count": count}
        if entry is None or not entry.open or entry.severity != severity:
            log.log(_LEVELS[severity], "%s", sentence)
            self._writer.problem(record)
            self._again.pop(key, None)
        else:
            self._again[key] = record

    def close(self, key: str, sentence: str = "") -> None:
        """Say that it is over; nothing happens when it was not so."""
        if not self.is_open(key):
            return
        if key in self._again:
            self._writer.problem(self._again[key])
            del self._again[key]
        entry = self._entries[key]
        log.info("%s", sentence or f"this is over: {entry.sentence}")
        self._writer.problem({"key": key, "state": "closed", "sentence": ""} | ({"over": sentence} if sentence else {}))

    def hold(self, prefix: str, troubles: Iterable[Trouble]) -> None:
        """Say that of the outages whose key starts with `prefix` exactly these are so now; the others close.

        A key that does not start with the prefix gets it. An outage that goes on is counted once.
        """
        now = {_with_prefix(prefix, trouble.key): trouble for trouble in troubles}
        for key in [key for key in self._entries if key.startswith(prefix) and key not in now]:
            self.close(key)
        for key, trouble in now.items():
            entry = self._entries.get(key)
            same = entry is not None and entry.open and entry.severity == trouble.severity
            if same and entry is not None and entry.sentence == trouble.sentence:
                continue
            if same and entry is not None:
                self._again[key] = _record(key, trouble.sentence, trouble.severity, entry.count)
            else:
                self.open(key, trouble.sentence, trouble.severity)

    def remark(self, remark: Remark) -> None:
        """Note what was seen of a file, in the group of its subject; of each file once."""
        entry = self._entries.get(remark.subject)
        named = remark.item or remark.sentence
        waiting = self._grown.setdefault(remark.subject, {})
        if named in waiting or (entry is not None and named in entry.items):
            return
        waiting[named] = remark
        log.log(_LEVELS[remark.severity], "%s", remark.sentence)
        if entry is None or SEVERITIES.index(remark.severity) > SEVERITIES.index(entry.severity):
            self._write_remarks(remark.subject)

    def forget(self, prefix: str) -> None:
        """Forget the remarks whose subject starts with `prefix`: what they are about is looked at anew, or has a newer result."""
        for subject in [key for key, entry in self._entries.items() if entry.grouped and key.startswith(prefix)]:
            self._writer.problem({"subject": subject, "state": "closed"})
            self._grown.pop(subject, None)

    def withdraw(self, prefix: str, item: str, but: Collection[str] = ()) -> None:
        """Take an item out of the groups whose subject starts with `prefix`, `but` those: it was looked at again, and this no longer holds."""
        found = [key for key, entry in self._entries.items() if entry.grouped and key.startswith(prefix)]
        for subject in [key for key in found if key not in but]:
            grown = self._grown.get(subject, {})
            if item in grown or item in self._entries[subject].items:
                if grown:  # a group that loses its last item is gone, and what still waits to be recorded with it
                    self._write_remarks(subject)
                self._writer.problem({"subject": subject, "state": "without", "items": [item]})

    def begin(self) -> None:
        """A session begins: what the one before saw last is looked at again, and is open only when it is still so."""
        for key in [key for key, entry in self._entries.items() if entry.open and not entry.grouped]:
            self._writer.problem({"key": key, "state": "unseen", "sentence": ""})

    def flush(self, *, force: bool = False) -> None:
        """Record what has come together since; with `force`, also when that was a moment ago."""
        if not force and self._clock() - self._flushed < RECORD_SECONDS:
            return
        self._flushed = self._clock()
        while self._again:
            key = next(iter(self._again))
            self._writer.problem(self._again[key])
            del self._again[key]
        for subject in list(self._grown):
            self._write_remarks(subject)

    def _write_remarks(self, subject: str) -> None:
        entry, remarks = self._entries.get(subject), list(self._grown[subject].values())
        if not remarks:
            return
        severities = [remark.severity for remark in remarks] + ([entry.severity] if entry else [])
        values = [remark.value for remark in remarks if remark.value is not None]
        values += [value for value in ((entry.low, entry.high) if entry else ()) if value is not None]
        record: dict[str, Any] = {
            "subject": subject,
            "items": list(self._grown[subject]),
            "severity": max(severities, key=SEVERITIES.index),
        }
        if entry is None:
            record["sentence"] = remarks[0].sentence
        if values:
            record |= {"low": min(values), "high": max(values), "unit": remarks[-1].unit}
        self._writer.problem(record)
        self._grown[subject] = {}


def _record(key: str, sentence: str, severity: str, count: int) -> dict[str, Any]:
    return {"key": key, "state": "open", "sentence": sentence, "severity": severity, "count": count}


def _with_prefix(prefix: str, key: str) -> str:
    return key if key.startswith(prefix) else prefix + key
