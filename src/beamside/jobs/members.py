"""The items of a round by their names: whoever does the round reads the results from the journals, as far as these went when the round was given out.

A round of very many items would otherwise carry all that was ever found out about each of them. What a worker reads is what the session knew: the
journals only grow, and a mark says how far each went. The digest in the round's key says whether it is all there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from beamside.errors import NotReadyError
from beamside.jobs.base import Item, Result
from beamside.jobs.ports import Given, Wiring
from beamside.project.journal import parse_record, read_lines
from beamside.project.project import Project
from beamside.project.records import FINAL_STATES

DIGEST_LENGTH = 12

_NOT_FINAL = (b"waiting", b"queued", b"running")
_STATE = b'"state":"'
_FINAL = [state.value for state in FINAL_STATES]


@dataclass(frozen=True)
class Members:
    """The items of a round.

    Attributes
    ----------
    port, label : through which they are taken, and the job that has made them
    names : of the items
    digest : of their names and keys, see `digest_of`
    journals : for each job that they were made by, by label, its name and how many bytes of its journal count
    left_out : labels of jobs whose results are not used, by item
    optics : those of items that have others than the session's own, each as a line
    """

    port: str
    label: str
    names: Sequence[str]
    digest: str
    journals: Mapping[str, tuple[str, int]]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    optics: Mapping[str, str] = field(default_factory=dict)


def digest_of(names_and_keys: Iterable[tuple[str, str]], optics: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return what tells a set of results from all others: the part of a round's key that what it is made from makes.

    `optics` are those that some of them are listed under, where they are not the session's own: tables of a round name them.
    """
    digest = hashlib.sha256()
    for name, key in names_and_keys:
        digest.update(f"{name}:{key}\n".encode("utf-8", "surrogatepass"))
    for name, text in optics.items():
        digest.update(f"{name}={text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:DIGEST_LENGTH]


def items_of(members: Members, root: Path, wiring: Wiring) -> list[Item]:
    """Return the items with what was made of them, from the journals of the project at `root`.

    Raises
    ------
    NotReadyError
        when the results are not those that the round is made from: one was made again since, or this machine does not see all of the journals yet
    """
    books = {label: _Book(root, members, label) for label in members.journals}
    made = books[members.label]
    found = [made.key(name) for name in members.names]
    if None in found or digest_of(zip(members.names, map(str, found), strict=True), members.optics) != members.digest:
        lacking = next((name for name, key in zip(members.names, found, strict=True) if key is None), "")
        what = f"has no result of {lacking}" if lacking else "has other results"
        raise NotReadyError(
            f"The journal of {made.job} {what} than those that this round is made from, as it is seen here; the round is tried again."
        )
    if changed := made.changed_since():
        raise NotReadyError(
            f"{changed} was made again in {made.job} after this round had been given out; the round is tried again."
        )
    return [
        Item(name, {members.port: Given(made.result(name), _Inputs(books, wiring, members.label, name))})
        for name in members.names
    ]


class _Book:
    """What the journal of one job says of the members of a round; it is read when the first is asked for."""

    def __init__(self, root: Path, members: Members, label: str) -> None:
        self.job, self.size = members.journals[label]
        self._path = Project(root).job_journal(self.job)
        self._names = frozenset(members.names)
        self._left_out = frozenset(name for name, labels in members.left_out.items() if label in labels)

    @cached_property
    def _lines(self) -> dict[str, bytes]:
        """The newest outcome of each member as it stands in the journal: results are many, and few of them are asked for at a time."""
        return dict(self._outcomes(0, self.size))

    def _outcomes(self, begin: int, end: int | None) -> Iterator[tuple[str, bytes]]:
        for line in read_lines(self._path, begin, end):
            if (found := _outcome(line)) is not None and found["item"] in self._names:
                yield found["item"], line

    def key(self, name: str) -> str | None:
        """Return the key of a member's result; None where there is no result."""
        record = self._record(name)
        return None if record is None or record.get("result") is None else str(record.get("key", ""))

    def has(self, name: str) -> bool:
        """Tell whether there is a result of a member that is used."""
        return name not in self._left_out and self.key(name) is not None

    def result(self, name: str) -> Result:
        """Return the result of a member."""
        record = self._record(name) or {}
        return Result.from_json(record["result"])

    def changed_since(self) -> str:
        """Return the name of a member that has another result since the mark; "" when none has."""
        for name, line in self._outcomes(self.size, None):
            record = _outcome(line)
            if record is not None and record.get("key", "") != self.key(name):
                return name
        return ""

    def _record(self, name: str) -> dict[str, Any] | None:
        line = self._lines.get(name)
        return None if line is None else _outcome(line)


def _outcome(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line that says what became of an item; None for all others, most of them without a closer look."""
    at = line.find(_STATE)
    if at >= 0 and line.startswith(_NOT_FINAL, at + len(_STATE)):
        return None
    record = parse_record(line)
    if isinstance(record, str) or record.get("state") not in _FINAL or not isinstance(record.get("item"), str):
        return None
    return record


class _Inputs(Mapping[str, Given]):
    """What the result of a job was made from, by port; each is looked up when it is asked for."""

    def __init__(self, books: Mapping[str, _Book], wiring: Wiring, label: str, name: str) -> None:
        self._books, self._wiring, self._label, self._name = books, wiring, label, name

    def __getitem__(self, port: str) -> Given:
        job = self._wiring[self._label][port]
        if job not in self._books or not self._books[job].has(self._name):
            raise KeyError(port)
        return Given(self._books[job].result(self._name), _Inputs(self._books, self._wiring, job, self._name))

    def __iter__(self) -> Iterator[str]:
        for port, job in self._wiring[self._label].items():
            if job in self._books and self._books[job].has(self._name):
                yield port

    def __len__(self) -> int:
        return sum(1 for _ in self)
