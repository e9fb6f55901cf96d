"""The gain reference of a session: movies wait here until it is known how it is used, and the answer is kept in the journal.

For each reference and shape of movies there is a case. It asks a worker to compare the reference with the movies that are there; with more when
these do not settle it; and then a person. What was decided is recorded before any movie is processed with it, and holds for every later session
with the same reference and settings, so that a session that is continued repeats it exactly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from beamside.acquisition.arrivals import Remark
from beamside.acquisition.gain_choice import MOST_MOVIES, Asked, words
from beamside.execution.orphans import process_created
from beamside.flow.arrivals import Taken
from beamside.flow.problems import Problems
from beamside.flow.settings import SessionSettings
from beamside.flow.table import Tables
from beamside.formats.orientation import Orientation
from beamside.jobs.gain_task import GainTask, run_gain_task
from beamside.project.project import Project, ProjectWriter

log = logging.getLogger(__name__)

VERSION = 1
"""Version of the way in which it is decided: with another one, what was decided before is looked at anew."""

SHOWN_MOVIES = 12
"""With so many movies the picture is drawn anew and the decision looked at again: an eye sees the pattern better in more counts."""

UNANSWERED = (
    "It is not known how the gain reference is used, and the session asks: see its status or report. "
    "When that is answered, this movie is processed."
)
"""Why movies of a session that ends with an open question were not processed."""

ATTEMPTS = 3
RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class GainChecked:
    """A worker is done with a case."""

    key: str
    future: Future[dict[str, Any]]


@dataclass
class Case:
    """One gain reference for one shape of movies.

    `record` is the newest record of it in the journal; `values` are what its movies get, once that is known.
    """

    key: str
    number: int
    reference: str
    digest: str
    shape: tuple[int, int]
    record: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] | None = None
    movies: dict[str, None] = field(default_factory=dict)
    held: list[Taken] = field(default_factory=list)
    doing: Literal["", "check", "prepare", "show"] = ""
    checked: int = 0
    shown: int = 0
    last: bool = False
    failures: int = 0
    not_before: float = 0.0

    @property
    def state(self) -> str:
        """What the journal says: "decided", "asked", "open", or "" when nothing was tried."""
        return str(self.record.get("state", ""))

    @property
    def failed(self) -> bool:
        """True when the reference cannot be used with these movies at all."""
        return self.values is not None and "gain_error" in self.values


class GainDesk:
    """Holds movies until the gain reference is settled. Only the session's own thread uses it."""

    def __init__(
        self,
        settings: SessionSettings,
        tables: Tables,
        executor: Executor,
        events: queue.Queue[Any],
        problems: Problems,
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings, self.tables, self.executor, self.events = settings, tables, executor, events
        self.problems, self._settled = problems, settled
        self.asked = Asked.of(settings.acquisition)
        self.cases: dict[str, Case] = {}
        self._session = (os.getpid(), process_created(os.getpid()))

    @property
    def command(self) -> str:
        """What a person types to answer, before the options."""
        return f"beamside session gain {shlex.quote(str(self.settings.root))}"

    def take(self, event: Taken) -> None:
        """Let a movie go on to its jobs, or wait until its gain reference is settled."""
        if event.problem or "gain_reference" not in event.values:
            self.tables.intake_done(event)
            return
        case = self._case(event)
        case.movies[event.outputs["movie"]] = None
        if case.values is not None:
            self._release(case, [event])
        else:
            case.held.append(event)
            self.tables.intake_waits(event, "waits until it is known how the gain reference is used")
        self._work(case)

    def work(self) -> None:
        """Give out what has become due."""
        for case in self.cases.values():
            self._work(case)

    def finished(self, event: GainChecked) -> None:
        """Take what a worker has found."""
        case = self.cases[event.key]
        doing, case.doing = case.doing, ""
        try:
            outcome = event.future.result()
        except Exception as error:
            outcome = {"reason": f"the worker was lost ({type(error).__name__}: {error})", "permanent": False}
        if outcome.get("reason"):
            self._failed(case, outcome, doing)
            return
        case.failures = 0
        if doing == "check":
            self._decided(case, outcome)
        elif doing == "show":
            self._shown(case, outcome)
        else:
            self._use(case, outcome["prepared"])
        self._work(case)

    def answer(self, details: Mapping[str, Any]) -> None:
        """Use the reference as a person says; concerns every case that is not decided."""
        for case in self.cases.values():
            if case.state == "decided" or case.doing == "prepare":
                sentence = (
                    "How the gain reference is used is decided already; to change it, stop the session and start it again with "
                    "--gain-rotate, --gain-flip and --gain-mode."
                )
                self.problems.remark(Remark("gain-answer-late", sentence))
                continue
            self._record(case, answer_record(case.record, details))
            self._work(case)

    def close(self) -> bool:
        """No more movies will come: settle what can be settled; returns True when nothing waits here any more.

        Movies whose reference is still asked about go on with that as the reason why they cannot be processed; an answer, in this session or
        a later one, lets them be processed after all.
        """
        for case in self.cases.values():
            if not case.held:
                continue
            if case.state == "asked" and not case.doing:
                held, case.held = case.held, []
                for event in held:
                    self._pass_on(event, {"gain_error": UNANSWERED})
            elif not case.doing and not case.last and case.state != "decided":
                case.last = True
                self._work(case)
        return not any(case.held or case.doing for case in self.cases.values())

    # -- inside -----------------------------------------------------------------------------------------------------

    def _case(self, event: Taken) -> Case:
        height, width = event.values["shape"]
        digest = event.values["gain_reference_sha256"]
        said = asdict(self.asked)
        key = hashlib.sha256(json.dumps([VERSION, digest, height, width, said]).encode()).hexdigest()[:20]
        if key not in self.cases:
            case = Case(key, len(self.cases), event.values["gain_reference"], digest, (height, width))
            case.record = dict(self.tables.writer.state.gains.get(key, {}))
            case.number = self._number(case)
            case.shown = case.record.get("evidence", {}).get("movies", 0)
            if case.state == "asked":
                log.warning("%s", case.record["sentence"])
            self.cases[key] = case
        return self.cases[key]

    def _number(self, case: Case) -> int:
        """The first shape of movies gets the plain names of files; each shape keeps its own."""
        known = {tuple(record["shape"]): int(record["number"]) for record in self.tables.writer.state.gains.values()}
        known.update((other.shape, other.number) for other in self.cases.values())
        return known.get(case.shape, max(known.values(), default=-1) + 1)

    def _work(self, case: Case) -> None:
        if case.doing or case.failed or time.monotonic() < case.not_before:
            return
        if case.state == "decided":
            if case.values is None:
                self._submit(case, "prepare")
            elif case.record["by"] == "movies" and case.shown < SHOWN_MOVIES <= len(case.movies):
                self._submit(case, "show")
        elif case.state != "asked" and case.movies:
            due = 1
            while due <= case.checked:
                due *= 2
            if len(case.movies) >= min(due, MOST_MOVIES) > case.checked or (case.last and case.held):
                self._submit(case, "check")

    def _submit(self, case: Case, doing: Literal["check", "prepare", "show"]) -> None:
        number = SHOWN_MOVIES if doing == "show" else MOST_MOVIES
        movies = list(case.movies)[: number if doing != "prepare" else 1]
        job, plain = self.tables.stages[0].job.name, not case.number
        suffix = "" if plain else f"_{case.shape[1]}x{case.shape[0]}"
        record = case.record
        task = GainTask(
            root=str(self.tables.writer.project.root),
            reference=case.reference,
            name=Path(self.settings.acquisition.gain).name,
            shape=case.shape,
            asked=asdict(self.asked),
            movies=movies,
            output=f"{job}/gain{suffix}.mrc",
            picture=f"{job}/gain_check{suffix}.png",
            command=self.command,
            last=case.last,
            decided=(record["rotate"], record["flip"], record["use"]) if doing == "prepare" else None,
            session=self._session,
        )
        case.doing = doing
        if doing == "check":
            case.checked = len(movies)
        elif doing == "show":
            case.shown = len(movies)
        future = self.executor.submit(run_gain_task, asdict(task))
        future.add_done_callback(lambda done: self.events.put(GainChecked(case.key, done)))

    def _decided(self, case: Case, outcome: Mapping[str, Any]) -> None:
        if case.state in ("decided", "asked") and case.record.get("by") == "person":
            return  # a person has answered in the meantime
        self._record(case, {**outcome["choice"], "evidence": outcome["evidence"]})
        if case.state == "decided":
            self._use(case, outcome["prepared"])

    def _shown(self, case: Case, outcome: Mapping[str, Any]) -> None:
        """With more movies the picture is better; a decision that they do not bear out is told and not changed under way."""
        choice, record = outcome["choice"], case.record
        same = all(choice[name] == record[name] for name in ("state", "rotate", "flip", "use"))
        if same:
            self._record(case, {**choice, "evidence": outcome["evidence"]})
        else:
            sentence = f"More movies do not bear out how the gain reference is used: {choice['sentence']}"
            self.problems.open(f"gain-contradicted:{case.key}", sentence)

    def _record(self, case: Case, choice: Mapping[str, Any]) -> None:
        fixed = {
            "shape": list(case.shape),
            "number": case.number,
            "reference": self.settings.acquisition.gain,
            "reference_sha256": case.digest,
            "asked": asdict(self.asked),
        }
        record = {**choice, **fixed}
        self.tables.writer.gain(case.key, record)
        case.record = record
        log.log(logging.WARNING if record["state"] == "asked" else logging.INFO, "%s", record["sentence"])

    def _use(self, case: Case, prepared: Mapping[str, Any]) -> None:
        """The file is there: all movies that wait may go on."""
        for sentence in prepared.get("warnings", ()):
            self.problems.remark(Remark("gain-reference", sentence))
        names = ("gain", "gain_sha256", "relion_gain")
        case.values = {name: prepared[name] for name in names if name in prepared}
        held, case.held = case.held, []
        self._release(case, held)
        self._settled()

    def _release(self, case: Case, events: list[Taken]) -> None:
        for event in events:
            self._pass_on(event, case.values or {})

    def _pass_on(self, event: Taken, values: Mapping[str, Any]) -> None:
        own = {name: value for name, value in event.values.items() if not name.startswith("gain_reference")}
        self.tables.intake_done(Taken(event.taken, event.outputs, {**own, **values}, event.problem))

    def _failed(self, case: Case, outcome: Mapping[str, Any], doing: str) -> None:
        case.failures += 1
        reason = str(outcome["reason"])
        log.warning("the gain reference: %s%s", reason, "\n" + outcome["log"] if outcome.get("log") else "")
        if doing == "show":
            return  # only a picture
        if doing == "check":
            case.checked = 0
        if outcome.get("permanent") or case.failures >= ATTEMPTS:
            case.values = {"gain_error": reason}
            held, case.held = case.held, []
            self._release(case, held)
        else:
            case.not_before = time.monotonic() + RETRY_SECONDS * case.failures


def answer_record(record: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of what a person has answered; `details` has rotate, flip and use."""
    orientation = Orientation(details["rotate"], details["flip"]).canonical()
    kept = {name: value for name, value in record.items() if name not in ("event", "time", "key")}
    return {
        **kept,
        "state": "decided",
        "rotate": orientation.rotate,
        "flip": orientation.flip,
        "use": details["use"],
        "by": "person",
        "sentence": f"The gain reference is used as a person said when asked: {words(orientation, details['use'])}.",
    }


def answer_questions(project: Project, details: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Record an answer in a project whose session does not run; returns the new records. Raises ProjectBusyError when it does."""
    with ProjectWriter(project) as writer:
        asked = [(key, record) for key, record in writer.state.gains.items() if record["state"] == "asked"]
        for key, record in asked:
            writer.gain(key, answer_record(record, details))
        return [writer.state.gains[key] for key, _ in asked]
