"""The gain reference of a session: movies wait here until it is known how it is used, and the answer is kept in the journal.

For each shape of movies there is a case. It asks a worker to compare the reference with the movies that are there; with more when
these do not settle it; and then a person. What was decided is recorded before any movie is processed with it, and holds for every later session
with the same reference and settings, so that a session that is continued repeats it exactly. It is looked at again as movies come; what contradicts
it is a question, and movies go on as before until a person has answered.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beamside.acquisition.gain_choice import MOST_MOVIES, Asked
from beamside.acquisition.gain_doubt import changed_sentence
from beamside.acquisition.reports import Remark
from beamside.camera.gain.answers import told
from beamside.camera.gain.case import (
    Case,
    Seen,
    Way,
    answered,
    carried,
    question_of,
    way_of,
)
from beamside.camera.gain.casebook import number_of, recall, recorded, task_for
from beamside.camera.gain.giving_on import give_on, give_on_again, given_on
from beamside.camera.gain.looks import Look, after_look, next_look
from beamside.camera.gain.need import PREFIX, PatternWatch
from beamside.camera.gain.task import Do, errand
from beamside.flow.check_items import CheckItems
from beamside.flow.checks import Surroundings
from beamside.flow.source_thread import FileImported
from beamside.formats.orientation import Orientation
from beamside.jobs.errands import Errand
from beamside.project.records import ItemState

log = logging.getLogger(__name__)

ERROR_FROM = 3
"""After so many attempts in a row that a passing fault has spoiled, a person should look."""


class GainCheck:
    """Holds movies until the gain reference is settled. Only the session's own thread uses it."""

    title = "the gain reference"

    def __init__(self, around: Surroundings) -> None:
        self.settings, self.tables = around.settings, around.tables
        self.problems, self._settled = around.problems, around.settled
        self.asked = Asked.of(self.settings.acquisition)
        self.cases: dict[str, Case] = {}
        self.items = CheckItems("gain", "Gain reference")
        self._closing = False
        self.needs = PatternWatch(around, self.items)

    @property
    def command(self) -> str:
        """What a person types to answer, before the options."""
        return f"beamside session gain {shlex.quote(str(self.settings.root))}"

    @property
    def unanswered(self) -> bool:
        """Whether a person has to answer something."""
        return any(question_of(case.record) for case in self.cases.values())

    def waits(self) -> list[str]:
        """Return what movies wait for here."""
        held = sum(len(case.held) for case in self.cases.values())
        if not held:
            return []
        many = f"{held} movie{'' if held == 1 else 's'}"
        if any(case.state == "asked" for case in self.cases.values()):
            return [f"an answer about the gain reference, with {many}"]
        return [f"the check of the gain reference, with {many}"]

    def take(self, event: FileImported) -> None:
        """Let a movie go on to its jobs, or wait until its gain reference is settled."""
        if event.problem or "gain_reference" not in event.values:
            self.tables.intake_done(event)
            if not event.problem and "gain_error" not in event.values and not self.settings.acquisition.gain:
                self.needs.see(event)
            return
        case, movie = self._case(event), event.outputs["movie"]
        taken = event.file
        case.add(movie, Seen(taken.frames, taken.sha256, taken.source))
        digest = event.values["gain_reference_sha256"]
        if digest != case.digest:
            case.newer = (event.values["gain_reference"], digest)
        if case.values(movie) is not None:
            self._release(case, [event])
        else:
            case.held.append(event)
            self._watch_need(case, [event])
            self.tables.intake_waits(event, "waits until it is known how the gain reference is used")

    def work(self) -> None:
        """Go on with what needs no worker: another reference, and movies that are given on again."""
        for case in self.cases.values():
            if not case.doing:
                self._consider_newer(case)
                if case.resettle and case.is_prepared and not case.error:
                    self._settle_again(case)
                    self._settled()

    def wanted(self, name: str) -> Errand | None:
        """Return what a worker is to do for a case, or for movies that no reference is used for."""
        if name.startswith(PREFIX):
            return self.needs.wanted(name)
        case = self.cases[name]
        self._consider_newer(case)
        if case.state == "decided":
            missing = next((way for way in case.ways() if way not in case.prepared), None)
            if missing is not None:
                return self._errand(case, "prepare", list(case.movies)[:1], missing)
            return None if case.resettle else self._look_again(case)
        return self._check(case) if case.movies else None

    def found(self, name: str, result: Mapping[str, Any]) -> None:
        """Take what a worker has found."""
        if name.startswith(PREFIX):
            self.needs.found(name, result)
            return
        case = self.cases[name]
        doing, case.doing = case.doing, ""
        case.closing_failures = 0
        self.problems.close(f"gain-fault:{case.name}")
        if doing == "check":
            self._decided(case, result)
        elif doing == "look":
            self._looked(case, result)
        elif doing == "prepare" and case.preparing in case.ways():
            self._use(case, case.preparing, result["prepared"])
        self._rest(case)

    def answer(self, details: Mapping[str, Any]) -> list[str]:
        """Do as a person says, for every case whose question offers that; returns what that means, in sentences."""
        taken = []
        for case in self.cases.values():
            before, after = case.record, answered(case.record, details)
            if after is not None:
                taken.append(told(self.tables.writer.state, before, after, details))
                self._record(case, after)
                case.resettle = case.answered = True
        return taken

    def retry(self, *, all_: bool = True) -> None:
        """Try again at once what a passing fault has spoiled; with `all_`, also what was said not to fit."""
        for name in self.items.entries:
            case = self.cases.get(name)
            if case is None:
                self.items.again(name)
                continue
            case.closing_failures = 0
            if not case.error:
                self.items.again(name)
            elif all_:
                self._try_anew(case)

    def close(self) -> bool:
        """No more movies will come: settle what can be settled; returns False while some wait for more than a person's answer.

        Movies whose reference is still asked about wait, also for a later session.
        """
        self._closing = True
        for case in self.cases.values():
            case.last = case.last or bool(case.held and not case.doing and case.state != "asked")
        return not any(case.held and case.state != "asked" for case in self.cases.values())

    # -- cases ------------------------------------------------------------------------------------------------------

    def _case(self, event: FileImported) -> Case:
        height, width = event.values["shape"]
        name = f"{width}x{height}"
        if name not in self.cases:
            reference, digest = event.values["gain_reference"], event.values["gain_reference_sha256"]
            self.items.add(name)
            case = Case((height, width), 0, asdict(self.asked), reference, digest, self.items.entries[name])
            self.cases[name] = case
            records = self.tables.writer.state.findings
            recall(case, records, self.settings.acquisition.gain, self.tables.writer.project)
            case.number = number_of(case, records, self.cases.values())
            if case.record and case.record["reference"] != self.settings.acquisition.gain:
                self._record(case, case.record)  # the same reference, from another place
            former = max(int(case.record.get("evidence", {}).get("movies", 0)), self._processed(case))
            case.looked = int(case.record.get("looked_at", former))  # versions before this one did not note it
            case.unseen = list(case.record.get("unseen", ()))
            if question := question_of(case.record):
                log.warning("%s", question)
            self._rest(case)
        return self.cases[name]

    # -- work -------------------------------------------------------------------------------------------------------

    def _check(self, case: Case) -> Errand | None:
        voters = case.voters()
        due = 1
        while due <= case.checked:
            due *= 2
        enough = len(voters) >= min(due, MOST_MOVIES) > case.checked
        if not (enough or (case.last and case.held) or not self.asked.check):
            return None
        case.checked = len(voters)
        return self._errand(case, "check", voters[:MOST_MOVIES])

    def _rest(self, case: Case) -> None:
        """Let a case be in the state that its record says, unless it was given up."""
        if not case.error:
            state = {"asked": ItemState.ASKED, "decided": ItemState.DONE}.get(case.state, ItemState.WAITING)
            done = state is not ItemState.DONE or case.is_prepared
            self.items.rest(case.name, state if done else ItemState.WAITING)

    def _try_anew(self, case: Case) -> None:
        """Forget what was found of a reference, whether or not it could be used."""
        self.items.again(case.name)
        case.checked, case.resettle = 0, True
        case.prepared.clear()

    def _consider_newer(self, case: Case) -> None:
        """A reference with another content is used when nothing was decided with the one before; else a person is asked."""
        if case.newer is None:
            return
        copy, digest = case.newer
        replaces = case.record.get("replaced_by") == digest
        if case.state != "decided" or case.error or replaces:
            case.reference, case.digest, case.newer = copy, digest, None
            case.record = dict(self.tables.writer.state.findings.get(case.key, {}))
            case.record.pop("replaced_by", None)
            case.looked, case.unseen = 0, []
            self._try_anew(case)
            self._rest(case)
            return
        signature = f"changed:{digest}"
        if case.doubt is None and signature not in case.record.get("answered", ()):
            rotate, flip, use = way_of(case.record)
            sentence = changed_sentence(
                self._reference_name(),
                Orientation(rotate, flip),  # type: ignore[arg-type]
                use,  # type: ignore[arg-type]
                processed=self._processed(case),
                command=self.command,
            )
            doubt = {"signature": signature, "sentence": sentence, "reference_sha256": digest, "copy": copy}
            self._record(case, {**case.record, "doubt": doubt})

    def _processed(self, case: Case) -> int:
        """Return how many movies were given on, also by earlier sessions."""
        return len(given_on(self.tables.writer.state, case.shape))

    def _look_again(self, case: Case) -> Errand | None:
        look = next_look(case, closing=self._closing) if self.asked.check else None
        return None if look is None else self._errand(case, "look", look.movies, way_of(case.record), look)

    def _errand(
        self,
        case: Case,
        doing: Do,
        movies: list[str],
        way: Way | None = None,
        look: Look | None = None,
    ) -> Errand:
        task = task_for(
            case,
            doing,
            movies,
            project=self.tables.writer.project,
            job=self.tables.source.job.name,
            name=self._reference_name(),
            command=self.command,
            way=way,
            look=look,
        )
        case.doing = doing  # type: ignore[assignment]
        if doing == "prepare" and way is not None:
            case.preparing = way
        return errand(task)

    def _reference_name(self) -> str:
        return Path(self.settings.acquisition.gain).name

    # -- outcomes ---------------------------------------------------------------------------------------------------

    def _decided(self, case: Case, outcome: Mapping[str, Any]) -> None:
        if case.state in ("decided", "asked") or case.newer is not None:
            return  # a person has answered in the meantime, or there is another reference
        gains = self.tables.writer.state.findings.values()
        known = carried(
            record
            for record in gains
            if record.get("replaced_by") == case.digest and record["shape"] == list(case.shape)
        )
        self._record(case, {**outcome["choice"], "evidence": outcome["evidence"], "copy": case.reference, **known})

    def _looked(self, case: Case, outcome: Mapping[str, Any]) -> None:
        """What contradicts the decision becomes a question, or adds to it; nothing is changed under way that was not agreed to."""
        record = after_look(
            case, outcome, reference=self._reference_name(), processed=self._processed(case), command=self.command
        )
        if record is not None:
            case.resettle = case.resettle or record.get("sets", []) != case.record.get("sets", [])
            self._record(case, record)

    def _record(self, case: Case, choice: Mapping[str, Any]) -> None:
        record = recorded(case, choice, self.settings.acquisition.gain)
        self.tables.writer.finding(case.key, record)
        case.record = record
        self._rest(case)
        self._watch_need(case, case.held)
        question = question_of(record)
        log.log(logging.WARNING if question else logging.INFO, "%s", question or record["sentence"])

    def _use(self, case: Case, way: Way, prepared: Mapping[str, Any]) -> None:
        """The file is there: all movies that wait for it may go on."""
        for sentence in prepared.get("warnings", ()):
            self.problems.remark(Remark("gain-unusual", sentence))
        names = ("gain", "gain_sha256", "relion_gain")
        case.prepared[way] = {name: prepared[name] for name in names if name in prepared}
        ready = [event for event in case.held if case.values(event.outputs["movie"]) is not None]
        case.held = [event for event in case.held if case.values(event.outputs["movie"]) is None]
        self._release(case, ready)
        if case.resettle and case.is_prepared:
            self._settle_again(case)
        self._settled()

    def _settle_again(self, case: Case) -> None:
        """Give on the movies again that were given on with something else."""
        case.resettle = False
        for movie, entry in list(self.tables.taken_in().items()):
            if movie in case.movies and entry.result is not None:
                if case.way(movie)[2] == "none":
                    self.needs.note(case.shape, movie, case.movies[movie])
                else:
                    self.needs.forget(movie)
                give_on_again(self.tables, entry.name, case.values(movie) or {})

    def _watch_need(self, case: Case, events: list[FileImported]) -> None:
        """Have movies looked at that the reference is not used for, or does not fit: they may need another one."""
        asked = case.state == "asked" and case.record.get("evidence", {}).get("kind") == "absent"
        for event in events:
            movie = event.outputs["movie"]
            if asked or (case.state == "decided" and case.way(movie)[2] == "none"):
                self.needs.see(event)
            else:
                self.needs.forget(movie)

    def _release(self, case: Case, events: list[FileImported]) -> None:
        self._watch_need(case, events)
        for event in events:
            give_on(self.tables, event, case.values(event.outputs["movie"]) or {})

    def spoiled(self, name: str, reason: str, *, permanent: bool) -> None:
        """A reference that does not fit fails its movies; after anything else it is tried again, with longer and longer pauses.

        All movies depend on it, so as long as more may come it is never given up for a passing fault. When the session is to finish it is, after as
        many attempts as an item has; then it is tried again when that is asked for.
        """
        if name.startswith(PREFIX):
            self.needs.spoiled(name, reason)
            return
        case = self.cases[name]
        doing, case.doing = case.doing, ""
        if doing == "look":
            case.looked, case.unseen = case.looked_before, case.unseen_before  # nothing waits for it
            self._rest(case)
            return
        if doing == "check":
            case.checked = 0
        case.closing_failures += case.last
        if permanent or case.closing_failures > self.settings.execution.item_attempts:
            self._give_up(case, reason)
            return
        many = "1 movie waits" if len(case.held) == 1 else f"{len(case.held)} movies wait"
        wait = f"{many} for it; it is tried again." if case.held else "It is tried again."
        sentence = f"The gain reference could not be {'compared' if doing == 'check' else 'prepared'}: {reason.rstrip('.')}. {wait}"
        severe = self.items.entries[name].attempt >= ERROR_FROM
        self.problems.open(f"gain-fault:{case.name}", sentence, "error" if severe else "warning")

    def _give_up(self, case: Case, reason: str) -> None:
        self.items.rest(case.name, ItemState.FAILED, reason)
        held, case.held = case.held, []
        self._release(case, held)
