"""Movies that no gain reference is used for: whether they need one is looked at early, and at intervals, and told. No movie waits for it.

These are all movies of a session without a reference, and of one with a reference those that it does not fit, as long as that is a question, or for
which a person has said that it is not to be used.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamside.acquisition.arrivals import Trouble
from beamside.camera.gain.case import Seen, can_tell, look_due
from beamside.flow.arrivals import Taken
from beamside.flow.problems import Problems
from beamside.flow.settings import SessionSettings
from beamside.flow.table import Tables
from beamside.jobs.gain_task import GainTask

FIRST, MOST = 2, 16
"""The fewest movies that can tell, and the most that are looked at at once."""

SHOWN = 12
"""Once it is known, it is drawn again with so many movies: an eye sees the pattern better in more counts."""

LOOKED_AT = 4
"""So many movies are looked at again later: the newest."""

RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 300.0
"""Pause after a look that a passing fault has spoiled; it doubles with each."""

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
    failures: int = 0
    not_before: float = 0.0

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

    def __init__(
        self,
        settings: SessionSettings,
        tables: Tables,
        problems: Problems,
        submit: Callable[[str, GainTask], None],
        session: tuple[int, float],
    ) -> None:
        self.settings, self.tables, self.problems = settings, tables, problems
        self._submit, self._session = submit, session
        self.shapes: dict[str, Watched] = {}

    def see(self, event: Taken) -> None:
        """Note a movie for which no reference is used."""
        if "movie" in event.outputs:
            taken, (height, width) = event.taken, event.values["shape"]
            seen = Seen(taken.frames, taken.sha256, taken.source)
            self.note((height, width), event.outputs["movie"], seen, tuple(taken.sidecars))

    def note(self, shape: tuple[int, int], movie: str, seen: Seen, sidecars: tuple[str, ...] = ()) -> None:
        """Note a movie for which no reference is used, by what is known of it."""
        if not self.settings.acquisition.gain_check:
            return
        name = f"{PREFIX}{shape[1]}x{shape[0]}"
        if name not in self.shapes:
            record = dict(self.tables.writer.state.gains.get(name, {}))
            self.shapes[name] = Watched(shape, len(self.shapes), record)
            if record.get("state") == "needed":
                self._tell(self.shapes[name])
        watched = self.shapes[name]
        watched.add(movie, seen)
        watched.sidecars = watched.sidecars or sidecars
        self._work(watched)

    def forget(self, movie: str) -> None:
        """A reference is used for the movie after all."""
        for watched in self.shapes.values():
            if watched.drop(movie):
                watched.record, watched.tried, watched.looked = {}, 0, 0
                self.problems.hold(_key(watched), [])

    def work(self) -> None:
        """Give out what has become due."""
        for watched in self.shapes.values():
            self._work(watched)

    def retry(self) -> None:
        """Look again at once where a passing fault has spoiled it."""
        for watched in self.shapes.values():
            watched.failures, watched.not_before = 0, 0.0

    @property
    def busy(self) -> bool:
        """Whether a worker looks at movies now; a session does not end before it is known."""
        return any(watched.doing for watched in self.shapes.values())

    def _work(self, watched: Watched) -> None:
        state = watched.record.get("state")
        if watched.doing or time.monotonic() < watched.not_before:
            return
        watched.before = watched.tried, watched.looked
        voters = watched.voters
        if state == "needed":
            known = watched.record["evidence"]["movies"]
            if known < SHOWN <= len(voters) and watched.looked < SHOWN and not watched.record.get("later"):
                watched.looked = SHOWN
                self._look(watched, voters[:SHOWN])
            return
        if state == "not needed":
            if watched.looked == 0:  # an earlier session knew it
                watched.looked = int(watched.record["evidence"]["movies"])
            if len(voters) >= look_due(watched.looked):
                watched.looked = len(voters)
                self._look(watched, voters[-LOOKED_AT:])
            return
        due = FIRST
        while due <= watched.tried:
            due *= 2
        if len(voters) >= due and watched.tried < MOST:
            watched.tried = watched.looked = len(voters)
            self._look(watched, voters[:MOST])
        elif watched.tried >= MOST and len(voters) >= look_due(watched.looked):
            watched.looked = len(voters)
            self._look(watched, voters[-MOST:])

    def _look(self, watched: Watched, movies: list[str]) -> None:
        job = self.tables.source.job.name
        suffix = f"_{watched.shape[1]}x{watched.shape[0]}" if watched.number else ""
        sources = [watched.movies[movie].source for movie in (movies[0], movies[-1])]
        task = GainTask(
            do="need",
            root=str(self.tables.writer.project.root),
            shape=watched.shape,
            movies=movies,
            picture=f"{job}/gain_needed{suffix}.png",
            sources=[*dict.fromkeys(sources), *watched.sidecars],
            session=self._session,
        )
        watched.doing = movies
        self._submit(watched.case, task)

    def finished(self, name: str, future: Future[dict[str, Any]]) -> None:
        """Take what a worker has found. A look that failed is made again after a pause that grows: nothing waits for it."""
        watched = self.shapes[name]
        movies, watched.doing = watched.doing, []
        if not watched.movies:  # they have got a reference meanwhile
            return
        try:
            outcome = future.result()
        except Exception as error:
            outcome = {"reason": f"the worker was lost ({type(error).__name__}: {error})"}
        fault = f"gain-need-fault:{name}"
        if outcome.get("reason"):
            watched.tried, watched.looked = watched.before
            watched.failures += 1
            pause = min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2 ** (watched.failures - 1))
            watched.not_before = time.monotonic() + pause
            self.problems.open(
                fault, f"It could not be looked at whether the movies need a gain reference: {outcome['reason']}"
            )
            return
        self.problems.close(fault)
        watched.failures = 0
        evidence = outcome["evidence"]
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
        self.tables.writer.gain(name, record)
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
        without = "start it without --gain and with --no-gain-check" if given else "add --no-gain-check instead"
        return (
            f"{unused}, but the movies need one: {which} show the same pattern of pixels, which differ by "
            f"{evidence['strength']:.1%} (one standard deviation) whatever the specimen is; see {evidence['picture']}. "
            "Until this is corrected, particles may be missed and noise may be picked. "
            f"{_candidate_words(evidence.get('candidate') or {})}"
            f"If the pattern is known and should stay, {without}."
        )


def _key(watched: Watched) -> str:
    return f"gain-needed:{watched.case}:"


def _candidate_words(candidate: Mapping[str, Any]) -> str:
    if not candidate:
        return (
            "No reference was found beside the data that fits: ask for the camera's, stop the session, and start it again with "
            "--gain FILE --recompute and otherwise the same options. "
        )
    path = candidate["path"]
    why = (
        f"whose pattern is that of the movies (slope {candidate['slope']:+.2f}, and ±1 is right)"
        if candidate["slope"]
        else "which has the right size"
    )
    return (
        f"There is {path} beside the data, {why}: stop the session, and start it again with "
        f"--gain {shlex.quote(path)} --recompute and otherwise the same options. "
    )
