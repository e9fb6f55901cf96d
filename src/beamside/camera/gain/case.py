"""What is known of a gain reference for one shape of movies: the case, its record in the journal, and what a person's answers make of that record.

A record says ``state`` ("open", "asked" or "decided") and, when decided, how the reference is used: ``rotate``, ``flip``, ``use``. Movies in one of
its ``sets`` are processed in another way than that; of a ``mixed`` stream, later movies that are found so, too. A ``doubt`` is a question about a
decision that is in force; the signatures of those that were answered are in ``answered``, and ``asked_last`` is the one that was answered last, with
the answer and its picture. ``replaced_by`` names the content of the reference that a person has chosen instead. Of a question, ``offers`` are the
ways that it offers; ``any_way`` says that a person may also say another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from beamside.acquisition.gain_choice import words
from beamside.flow.source_thread import FileImported
from beamside.formats.orientation import Orientation
from beamside.project.records import ItemEntry, ItemState

VERSION = 1
"""Version of the way in which it is decided: with another one, what was decided before is looked at anew."""

JOURNAL_FIELDS = frozenset({"event", "time", "key"})
"""What the journal adds to a record."""

Way = tuple[int, str, str]
"""How a reference is used: rotate, flip, use."""

FIRST_LOOK, LOOK_STEP = 12, 200
"""With so many movies it is looked at again whether they bear out what was decided; then at each doubling, and at least so often."""


@dataclass(frozen=True)
class Seen:
    """What matters here of a movie: its path in the project is its name."""

    frames: int
    sha256: str
    source: str = ""


@dataclass
class Case:
    """One gain reference for one shape of movies.

    Attributes
    ----------
    shape, number : of the movies; the first shape gets the plain names of files
    said : what a person has said of the reference at the start
    reference, digest : the project's copy of it, and its content
    entry : where it is among the items of the check
    record : the newest record of it in the journal
    prepared : what movies get for each way of use whose file is there
    movies, held : the movies there are; and those that wait
    doing, preparing : what a worker does for it, and for which way of use
    checked, looked : with how many movies it was tried to decide, and looked at again; before the look that is under way, `looked_before`
    unseen : movies that looks have passed over; before the look that is under way, `unseen_before`
    followed, answered : how often it was looked at since a question is open; a person has just answered, and what came meanwhile is looked at
    newer : a reference with another content that has come to the same path
    last : there will be no more movies
    closing_failures : attempts that a passing fault has spoiled since there are no more movies
    resettle : movies that were given on are to be given on again, where what they get is another now
    """

    shape: tuple[int, int]
    number: int
    said: dict[str, Any]
    reference: str
    digest: str
    entry: ItemEntry = field(default_factory=lambda: ItemEntry("", ItemState.WAITING))
    record: dict[str, Any] = field(default_factory=dict)
    prepared: dict[Way, dict[str, Any]] = field(default_factory=dict)
    movies: dict[str, Seen] = field(default_factory=dict)
    held: list[FileImported] = field(default_factory=list)
    doing: Literal["", "check", "prepare", "look"] = ""
    preparing: Way = (0, "none", "none")
    checked: int = 0
    looked: int = 0
    looked_before: int = 0
    unseen: list[str] = field(default_factory=list)
    unseen_before: list[str] = field(default_factory=list)
    followed: int = 0
    answered: bool = False
    newer: tuple[str, str] | None = None
    last: bool = False
    closing_failures: int = 0
    resettle: bool = False
    _voters: list[str] = field(default_factory=list, repr=False)
    _voters_of: tuple[str, int] = ("", 0)

    @property
    def key(self) -> str:
        """The name of its record in the journal."""
        parts = [VERSION, self.digest, *self.shape, self.said]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    @property
    def name(self) -> str:
        """The name of the case within a session."""
        return f"{self.shape[1]}x{self.shape[0]}"

    @property
    def state(self) -> str:
        """What the journal says: "decided", "asked", "open", or "" when nothing was tried."""
        return str(self.record.get("state", ""))

    @property
    def error(self) -> str:
        """Why the reference cannot be used with these movies, or could not be found to be; "" when nothing is known against it."""
        return self.entry.reason if self.entry.state is ItemState.FAILED else ""

    @property
    def is_prepared(self) -> bool:
        """Whether it is decided how the reference is used, and the files for that are there."""
        return self.state == "decided" and all(way in self.prepared for way in self.ways())

    @property
    def doubt(self) -> dict[str, Any] | None:
        """The open question about a decision that is in force."""
        return self.record.get("doubt") or None

    def ways(self) -> list[Way]:
        """Return how the reference is used, for most movies first."""
        return list(dict.fromkeys([way_of(self.record), *(way_of(each) for each in self.record.get("sets", ()))]))

    def way(self, movie: str) -> Way:
        """Return how the reference is used with one movie."""
        return way_of_movie(self.record, movie)

    def values(self, movie: str) -> dict[str, Any] | None:
        """Return what a movie gets; None when that is not known yet, or the file is not there."""
        if self.error:
            return {"gain_error": self.error}
        return self.prepared.get(self.way(movie)) if self.state == "decided" else None

    def voters(self) -> list[str]:
        """Return the movies that can tell how the reference lies: not a copy of it, and no single images, which may be made of others."""
        now = (self.digest, len(self.movies))
        if self._voters_of != now:
            self._voters = [path for path, seen in self.movies.items() if can_tell(seen, self.digest)]
            self._voters_of = now
        return self._voters

    def add(self, movie: str, seen: Seen) -> None:
        """Note a movie; who can tell is asked at every turn and with every movie, so that it must not take looking at all of them."""
        voters, new = self.voters(), movie not in self.movies
        self.movies[movie] = seen
        if new:
            self._voters_of = (self.digest, len(self.movies))
            voters += [movie] if can_tell(seen, self.digest) else []


def can_tell(seen: Seen, reference: str = "") -> bool:
    """Tell whether a movie shows its camera's pattern.

    A single image may be made of others, and a copy of the reference, known by its content, shows only itself.
    """
    return seen.frames > 1 and seen.sha256 != reference


def way_of(record: Mapping[str, Any]) -> Way:
    """Return how a record, or a part of it, says that the reference is used."""
    return int(record["rotate"]), str(record["flip"]), str(record["use"])


def way_of_movie(record: Mapping[str, Any], movie: str) -> Way:
    """Return how a decided record says that the reference is used with one movie."""
    return next((way_of(each) for each in record.get("sets", ()) if movie in each["movies"]), way_of(record))


def look_due(looked: int) -> int:
    """Return with how many movies it is looked at again, when that was done with `looked` of them."""
    return FIRST_LOOK if looked < FIRST_LOOK else min(2 * looked, looked + LOOK_STEP)


def present_records(records: Iterable[Mapping[str, Any]], gain: str) -> list[dict[str, Any]]:
    """Return of the journal's `records` of gain references the newest for each shape of movies that is about the reference `gain` of the settings."""
    newest = {tuple(record["shape"]): dict(record) for record in records if record["reference"] == gain}
    return [record for record in newest.values() if not record.get("replaced_by")]


def question_of(record: Mapping[str, Any]) -> str:
    """Return what a record asks a person; "" when nothing."""
    if record.get("replaced_by"):
        return ""
    if record.get("state") == "asked":
        return str(record["sentence"])
    return str((record.get("doubt") or {}).get("sentence", ""))


def is_offered(record: Mapping[str, Any], details: Mapping[str, Any]) -> bool:
    """Tell whether a record's question offers an answer: "keep" or "redo" where a decision is doubted, else one of the ways that it names.

    Questions of earlier versions do not say which they are: there, any way is an answer.
    """
    if not question_of(record):
        return False
    if record.get("doubt"):
        return "use" not in details
    if "use" not in details or "offers" not in record:
        return "use" in details
    if details["use"] == "none":
        return any(use == "none" for _, _, use in record["offers"])
    orientation = Orientation(details["rotate"], details["flip"]).canonical()
    offered = [(Orientation(rotate, flip).canonical(), use) for rotate, flip, use in record["offers"]]
    return bool(record.get("any_way")) or (orientation, details["use"]) in offered


def answered(record: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a person's answer makes of a record; None when it is none that the record's question offers.

    `details` has rotate, flip and use; or "keep" or "redo", which answer a doubt.
    """
    if not is_offered(record, details):
        return None
    kept = {name: value for name, value in record.items() if name not in JOURNAL_FIELDS}
    doubt = kept.pop("doubt", None)
    if doubt is None:
        signatures = [*kept.get("answered", ()), *_known_already(record, details)]
        return {**kept, **_as_person_says(details), "sets": [], "answered": signatures}
    kept["answered"] = [*kept.get("answered", ()), doubt["signature"]]
    kept["asked_last"] = {
        "sentence": doubt["sentence"],
        "answer": "keep" if details.get("keep") else "redo",
        "picture": doubt.get("evidence", {}).get("picture", ""),
    }
    return kept if details.get("keep") else _redone(kept, doubt)


def done_again(before: Mapping[str, Any], after: Mapping[str, Any], movies: Iterable[str]) -> int:
    """Return how many of `movies`, which were given on, are processed again after an answer."""
    if after.get("replaced_by"):
        return len(list(movies))
    return sum(way_of_movie(before, movie) != way_of_movie(after, movie) for movie in movies)


def _redone(record: Mapping[str, Any], doubt: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record in which what a doubt says holds for the movies that it is about."""
    if "reference_sha256" in doubt:
        return {**record, "replaced_by": doubt["reference_sha256"]}
    new, sets = {name: doubt[name] for name in ("rotate", "flip", "use")}, list(record.get("sets", ()))
    if doubt["scope"] == "some":
        return {
            **record,
            **with_some(record, way_of(doubt), doubt["movies"]),
            "mixed": [*record.get("mixed", ()), doubt["signature"]],
        }
    old = {name: record[name] for name in ("rotate", "flip", "use")}
    earlier: list[dict[str, Any]] = []
    if doubt["scope"] == "newer":
        concerned = set(doubt["movies"])
        earlier = [{**each, "movies": [movie for movie in each["movies"] if movie not in concerned]} for each in sets]
        own = {
            movie for each in earlier for movie in each["movies"]
        }  # a movie is in one set only: a later answer may move it
        earlier.append({**old, "movies": [movie for movie in doubt["before"] if movie not in own]})
    return {**record, **_as_person_says(new), "sets": [each for each in earlier if each["movies"]]}


def with_some(record: Mapping[str, Any], way: Way, movies: Iterable[str]) -> dict[str, Any]:
    """Return the record in which the reference is used in another way with some movies."""
    concerned, new = set(movies), dict(zip(("rotate", "flip", "use"), way, strict=True))
    others = [
        {**each, "movies": [movie for movie in each["movies"] if movie not in concerned]}
        for each in record.get("sets", ())
    ]
    alike = [movie for each in others if way_of(each) == way for movie in each["movies"]]
    rest = [each for each in others if way_of(each) != way and each["movies"]]
    return {**record, "sets": [{**new, "movies": [*alike, *movies]}, *rest]}


def carried(replaced: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what holds on when another reference takes the place of the one of these records: which movies were corrected already."""
    found: dict[str, Any] = {}
    for record in replaced:
        sets = [each for each in record.get("sets", ()) if each["use"] == "none"]
        found = {"sets": sets, "mixed": list(record.get("mixed", ()))} if sets else {}
    return found


def outcome_words(record: Mapping[str, Any], details: Mapping[str, Any], again: int) -> str:
    """Return what becomes of an answer, in words; so many movies are processed `again`."""
    if details.get("keep"):
        return "All stays as it is."
    said = "It is done as the question says." if details.get("redo") else str(record["sentence"])
    return f"{said} {again_words(again)}".rstrip()


def again_words(number: int) -> str:
    """Return how many movies are processed again, in a sentence; "" for none."""
    return "" if not number else f"{'1 movie is' if number == 1 else f'{number} movies are'} processed again."


def signature_of(scope: str, way: Way) -> str:
    """Return by what a doubt is known again: which movies it is about, and what it says of them."""
    return ":".join([scope, *(str(part) for part in way)])


def _known_already(record: Mapping[str, Any], details: Mapping[str, Any]) -> list[str]:
    """Return the doubts that a person has answered with this, who was shown what the movies say: these are not raised again."""
    evidence = record.get("evidence", {})
    ways: list[Way] = [(details["rotate"], details["flip"], "none")] if evidence.get("kind") == "absent" else []
    if evidence.get("kind") == "clear":
        rotate, flip, slope, _ = evidence["matches"][0]
        ways = [(rotate, flip, "multiply" if slope < 0 else "divide")]
    return [signature_of(scope, way) for way in ways for scope in ("all", "newer", "some")]


def _as_person_says(details: Mapping[str, Any]) -> dict[str, Any]:
    orientation = Orientation(details["rotate"], details["flip"]).canonical()
    return {
        "state": "decided",
        "rotate": orientation.rotate,
        "flip": orientation.flip,
        "use": details["use"],
        "by": "person",
        "sentence": f"The gain reference is used as a person said when asked: {words(orientation, details['use'])}.",
    }
