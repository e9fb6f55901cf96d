"""Movies that no gain reference is used for: whether they need one is looked at early, and at intervals, and told. No movie waits for it.

These are all movies of a session without a reference, and of one with a reference those that it does not fit, as long as that is a question, or for
which a person has said that it is not to be used.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamside.acquisition.reports import Trouble
from beamside.camera.gain.case import Seen, can_tell, look_due
from beamside.camera.gain.task import GainTask, errand
from beamside.flow.check_items import CheckItems
from beamside.flow.checks import Surroundings
from beamside.flow.source_thread import FileImported
from beamside.jobs.errands import Errand

FIRST, MOST = 2, 16
"""The fewest movies that can tell, and the most that are looked at at once."""

SHOWN = 12
"""Once it is known, it is drawn again with so many movies: an eye sees the pattern better in more counts."""

LOOKED_AT = 4
"""So many movies are looked at again later: the newest."""

PREFIX = "need:"
"""Keys of these records in the journal begin so."""


@dataclass
class Watched:
    """The movies of one shape, of which the `voters` can tell.

    `tried` are as many as were looked at in vain, `looked` as there were when it was told last, `before` both before the look that is under way.
    """

    shape: tuple[int, int]
    number: int
    record: dict[str, Any]
    movies: dict[str, Seen] = field(default_factory=dict)
    voters: list[str] = field(default_factory=list)
    sidecars: tuple[str, ...] = ()
    tried: int = 0
    looked: int = 0
    doing: list[str] = field(default_factory=list)
    before: tuple[int, int] = (0, 0)

    @property
    def case(self) -> str:
        """Its name."""
        return f"{PREFIX}{self.shape[1]}x{self.shape[0]}"

    def add(self, movie: str, seen: Seen) -> None:
        """Note a movie."""
        if movie not in self.movies and can_tell(seen):
            self.voters.append(movie)
        self.movies[movie] = seen

    def drop(self, movie: str) -> bool:
        """Note a movie no more; returns True when it was the last one."""
        seen = self.movies.pop(movie, None)
        if seen is not None and can_tell(seen):
            self.voters.remove(movie)
        return seen is not None and not self.movies


class PatternWatch:
    """Looks whether movies that came without a gain reference need one. Only the session's own thread uses it."""

    def __init__(self, around: Surroundings, items: CheckItems) -> None:
        self.settings, self.tables, self.problems = around.settings, around.tables, around.problems
        self.items = items
        self.shapes: dict[str, Watched] = {}

    def see(self, event: FileImported) -> None:
        """Note a movie for which no reference is used."""
        if "movie" in event.outputs:
            taken, (height, width) = event.file, event.values["shape"]
            seen = Seen(taken.frames, taken.sha256, taken.source)
            self.note((height, width), event.outputs["movie"], seen, tuple(taken.sidecars))

    def note(self, shape: tuple[int, int], movie: str, seen: Seen, sidecars: tuple[str, ...] = ()) -> None:
        """Note a movie for which no reference is used, by what is known of it."""
        if not self.settings.acquisition.gain_check:
            return
        name = f"{PREFIX}{shape[1]}x{shape[0]}"
        if name not in self.shapes:
            record = dict(self.tables.writer.state.findings.get(name, {}))
            self.shapes[name] = Watched(shape, len(self.shapes), record)
            self.items.add(name)
            if record.get("state") == "needed":
                self._tell(self.shapes[name])
        watched = self.shapes[name]
        watched.add(movie, seen)
        watched.sidecars = watched.sidecars or sidecars

    def forget(self, movie: str) -> None:
        """A reference is used for the movie after all."""
        for watched in self.shapes.values():
            if watched.drop(movie):
                watched.record, watched.tried, watched.looked = {}, 0, 0
                self.problems.hold(_key(watched), [])

    def wanted(self, name: str) -> Errand | None:
        """Return the next look at the movies of a shape; None when none is due."""
        watched = self.shapes[name]
        watched.before = watched.tried, watched.looked
        due = {"needed": _drawn_again, "not needed": _looked_at_later}.get(watched.record.get("state", ""), _first)
        movies = due(watched)
        return self._look(watched, movies) if movies else None

    def _look(self, watched: Watched, movies: list[str]) -> Errand:
        job = self.tables.source.job.name
        suffix = f"_{watched.shape[1]}x{watched.shape[0]}" if watched.number else ""
        sources = [watched.movies[movie].source for movie in (movies[0], movies[-1])]
        task = GainTask(
            do="need",
            root=str(self.tables.writer.project.root),
            shape=watched.shape,
            movies=movies,
            picture=f"{job}/gain_needed{suffix}.png",
            refused=self._refused(),
            sources=[*dict.fromkeys(sources), *watched.sidecars],
        )
        watched.doing = movies
        return errand(task)

    def _refused(self) -> list[str]:
        """Return the content of the references that were compared with movies, or refused by a person, and are not used."""
        records = self.tables.writer.state.findings.values()
        unused = [one for one in records if one["state"] == "asked" or one.get("use") == "none"]
        return [one["reference_sha256"] for one in unused if "reference_sha256" in one]

    def spoiled(self, name: str, reason: str) -> None:
        """A look has failed. It is made again after a pause that grows: nothing waits for it."""
        watched = self.shapes[name]
        watched.doing = []
        watched.tried, watched.looked = watched.before
        self.problems.open(
            _fault(name), f"It could not be looked at whether the movies need a gain reference: {reason}"
        )

    def found(self, name: str, result: Mapping[str, Any]) -> None:
        """Take what a worker has found."""
        watched = self.shapes[name]
        movies, watched.doing = watched.doing, []
        self.problems.close(_fault(name))
        if not watched.movies:  # they have got a reference meanwhile
            return
        evidence = result["evidence"]
        if evidence["kind"] == "unsure":
            return
        state = "needed" if evidence["kind"] == "needed" else "not needed"
        before = watched.record.get("state")
        if before == "needed" != state or (
            before == state and evidence["movies"] <= watched.record["evidence"]["movies"]
        ):
            return
        record = {
            "state": state,
            "shape": list(watched.shape),
            "number": watched.number,
            "reference": "",
            "sentence": self._sentence(watched, movies, evidence),
            "evidence": evidence,
            "later": before == "not needed",
        }
        self.tables.writer.finding(name, record)
        watched.record = record
        if state == "needed":
            self._tell(watched)

    def _tell(self, watched: Watched) -> None:
        key = _key(watched)
        self.problems.hold(key, [Trouble(key, watched.record["sentence"], "error")])

    def _sentence(self, watched: Watched, movies: list[str], evidence: Mapping[str, Any]) -> str:
        number, given = evidence["movies"], self.settings.acquisition.gain
        unused = f"The gain reference {Path(given).name} is not used" if given else "No gain reference is used"
        if evidence["kind"] == "clean":
            return (
                f"{unused}, and the movies need none: {number} of them share no pattern of pixels "
                f"(below {max(evidence['limit'], 0.001):.1%})."
            )
        which = f"the first {number} movies"
        if watched.record.get("state") == "not needed" or movies[0] != next(iter(watched.movies)):
            which = (
                f"the newest {number} movies ({Path(movies[0]).name} to {Path(movies[-1]).name}; earlier ones did not)"
            )
        command = f"beamside session set {shlex.quote(str(self.settings.root))}"
        none = "--gain '' " if given else ""
        without = f"type there instead: {command} {none}--no-gain-check"
        return (
            f"{unused}, but the movies need one: {which} show the same pattern of pixels, which differ by "
            f"{evidence['strength']:.1%} (one standard deviation) whatever the specimen is; see {evidence['picture']}. "
            "Until this is corrected, particles may be missed and noise may be picked. "
            f"{_candidate_words(evidence.get('candidate') or {}, command, another=bool(given))}"
            f"If the pattern is known and should stay, {without}."
        )


def _drawn_again(watched: Watched) -> list[str]:
    """Return the movies with which the picture is drawn again, once there are more; [] when it was, or there are not."""
    known = watched.record["evidence"]["movies"]
    if watched.record.get("later") or watched.looked >= SHOWN or not known < SHOWN <= len(watched.voters):
        return []
    watched.looked = SHOWN
    return watched.voters[:SHOWN]


def _looked_at_later(watched: Watched) -> list[str]:
    """Return the newest movies when it is time to see whether they still need none."""
    if watched.looked == 0:  # an earlier session knew it
        watched.looked = int(watched.record["evidence"]["movies"])
    if len(watched.voters) < look_due(watched.looked):
        return []
    watched.looked = len(watched.voters)
    return watched.voters[-LOOKED_AT:]


def _first(watched: Watched) -> list[str]:
    """Return the movies that are looked at while it is not known; when many could not tell, the newest now and then."""
    number, due = len(watched.voters), FIRST
    while due <= watched.tried:
        due *= 2
    if number >= due and watched.tried < MOST:
        watched.tried = watched.looked = number
        return watched.voters[:MOST]
    if watched.tried >= MOST and number >= look_due(watched.looked):
        watched.looked = number
        return watched.voters[-MOST:]
    return []


def _fault(name: str) -> str:
    return f"gain-need-fault:{name}"


def _key(watched: Watched) -> str:
    return f"gain-needed:{watched.case}:"


def _candidate_words(candidate: Mapping[str, Any], command: str, *, another: bool) -> str:
    """Return which file may be the reference, and how it comes to be used; `another` says that the session has one, and does not use it."""
    setting = f"{command} --gain"
    if not candidate:
        none = "No other reference" if another else "No reference"
        return (
            f"{none} was found beside the data that fits: ask for the camera's, stop the session, type: {setting} FILE, "
            "and resume it. "
        )
    path = candidate["path"]
    why = (
        f"whose pattern is that of the movies (slope {candidate['slope']:+.2f}, and ±1 is right)"
        if candidate["slope"]
        else "which has the right size"
    )
    return f"There is {path} beside the data, {why}: stop the session, type: {setting} {shlex.quote(path)}, and resume it. "
