"""The session: one loop that takes in what arrives, gives work to the executor, and records what became of it.

It is the only writer of the project. Everything it knows is in the journals, so it may be killed at any moment: the next one folds them and goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from beamside.acquisition.arrivals import LookReport, Remark
from beamside.acquisition.intake import Intake
from beamside.acquisition.manifest import Manifest
from beamside.errors import JournalError
from beamside.execution.executors import start_executor
from beamside.flow import control
from beamside.flow.arrivals import ArrivalThread, Looked, NotTaken, Taken
from beamside.flow.changing import Changed, changes_between, check_running, with_values
from beamside.flow.check_items import CheckItems
from beamside.flow.checks import Check, Surroundings
from beamside.flow.commands import ForHolder, ForSession, Recompute, Stop
from beamside.flow.dispatch import Dispatcher, Finished, failure
from beamside.flow.former_sessions import left_finishing, left_unfinished
from beamside.flow.inbox import Inbox
from beamside.flow.missing import WhatAgain
from beamside.flow.offers import Offers
from beamside.flow.problems import Problems
from beamside.flow.projection import Pace, Projection
from beamside.flow.recovery import Recovery
from beamside.flow.rounds import Rounds
from beamside.flow.settings import SessionSettings
from beamside.flow.sources import METADATA, check, comparison, preparation
from beamside.flow.space import SpaceWatch
from beamside.flow.stages import Stage
from beamside.flow.steps import ENDING, Steps
from beamside.flow.stored_settings import store_settings
from beamside.flow.sweeping import Sweeper
from beamside.flow.table import Tables
from beamside.flow.waiting import waits
from beamside.flow.watchdog import Watchdog, Work
from beamside.project.guard import guard
from beamside.project.journal import damage_sentences
from beamside.project.live import write_live
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import WAITS_FOR_ANSWER

log = logging.getLogger(__name__)

EMPTY_LOOKS = 3
"""So many looks without anything new, after being asked to finish, say that the source has no more: one may have begun before."""

TICK = 0.5
"""Longest time, in seconds, after which the loop looks at commands and clocks."""

LISTEN = 0.25
"""Time, in seconds, between two looks at what the workers say."""

GONE = frozenset({errno.ESTALE, errno.EBADF, errno.ENODEV, errno.ENXIO, errno.ENOTCONN})
"""What says that an open file will not be written again, however long one waits."""


class Session:
    """Run one session until it is finished or told to stop."""

    def __init__(
        self,
        settings: SessionSettings,
        *,
        write_report: Callable[[Project, bool], None] | None = None,
        until_empty: bool = False,
    ) -> None:
        self.settings = settings
        self.project = Project(settings.root)
        self.events: queue.Queue[Any] = queue.Queue()
        self.state = "running"
        self.finishing = until_empty
        self._write_report = write_report or (lambda _project, _final: None)
        self._last_report = time.monotonic()
        self._last_arrival = time.monotonic()
        self._empty_looks = 0
        self._rounds_pace, self._listening_pace = (
            Pace(seconds, lambda: self.writer.held_seconds) for seconds in (0.0, LISTEN)
        )
        self._held = ""
        self.waiting_at_source = self._completed = 0
        self._last_look: LookReport | None = None

    def run(self) -> str:
        """Run until the end; returns "finished", "stopped", or "waiting for an answer" when a person has not answered what the session asks."""
        guard(self.project)
        for_another = control.receive(self.project)
        with ProjectWriter(self.project) as writer:
            self.writer = writer
            self.inbox = Inbox(writer)
            self.inbox.begin(for_another, unfinished=left_unfinished(writer.state.sessions))
            self.problems = Problems(writer)
            self.problems.begin()
            self.steps = Steps(self.problems)
            self.space = SpaceWatch(self.project.root, self.settings.execution.min_free_space, self.problems)
            for sentence in damage_sentences(writer.state.damage).values():  # status and report have it from the index
                log.warning("%s", sentence)
            if writer.state.settings != self.settings.to_json():
                self.problems.forget(METADATA)  # every file is compared again with what is given now
                writer.settings(self.settings.to_json())
            asked = [message.command for message in self.inbox.left(for_another)]
            new_for_deleted = any(isinstance(command, Recompute) and command.replaces_deleted for command in asked)
            self.tables = Tables(self.settings, writer, self.problems, new_for_deleted=new_for_deleted)
            self.recovery = Recovery(self.tables)
            self.offers = Offers(self.tables)
            stages = self.tables.stages
            self.projection = Projection(self.settings, writer, stages, self.problems, deleted=self.recovery.tell)
            with self._failing():
                self.projection.open_jobs()
                self.recovery.begin()
                self.finishing = self.finishing or left_finishing(writer.state.sessions)
                executor = start_executor(self.settings.execution)
                around = Surroundings(self.settings, self.tables, self.problems, self.projection.write_options)
                self.check: Check = check(self.settings.source_kind, around)
                self.dispatcher = Dispatcher(
                    self.settings, self.tables, self.recovery, executor, self.events, self.check
                )
                self.watchdog = Watchdog(self.problems, executor)
                self.rounds = Rounds(self.settings, self.tables, self.recovery, self.dispatcher)
                self.arrivals = self._start_arrivals(self.tables.source)
                writer.session("started", pid=os.getpid())
                writer.hold = self._wait_for_journal
            self.sweeper = Sweeper(self.project.root)
            self.sweeper.start()
            try:
                with self._failing():
                    self._loop()
                    return self._end()
            finally:
                self.arrivals.end.set()
                executor.shutdown(wait=False)
                self.sweeper.close()
                self.arrivals.join(timeout=60)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Record that the session failed, and let its jobs end so, when something goes wrong that it cannot go on with."""
        try:
            yield
        except BaseException as error:
            try:
                self.writer.session("failed", message=str(error) or type(error).__name__)
            finally:
                self._close_failed_jobs()
            raise

    def _close_failed_jobs(self) -> None:
        try:
            self.projection.close_jobs("failed")
        except Exception:  # what went wrong first is what a person must know
            log.exception("RELION could not be told that the jobs failed")

    def ask(self, command: ForSession | ForHolder, who: str) -> str:
        """Do what a command says, for the person `who`, and say what that means."""
        return command.carry_out(self, who)

    def set_state(self, state: str) -> None:
        """Be "running" or "paused"."""
        if state != self.state:
            self.state = state
            self.writer.session({"running": "resumed"}.get(state, state))
        self._let_arrive()

    def finish(self) -> None:
        """Process what is there, then end."""
        self.finishing = True
        self._empty_looks = 0
        self.set_state("running")
        self.writer.session("finishing")

    def stop(self) -> None:
        """End now."""
        self.state = "stopping"

    def retry(self) -> int:
        """Let everything that has failed be tried again; returns how many results that are."""
        number = self.tables.retry_failed()
        self.check.retry()
        self.arrivals.retry()
        return number

    def recompute(self, what: WhatAgain) -> list[str]:
        """Let results be computed again; returns the jobs that RELION has deleted, which stay as they are."""
        self._empty_looks = 0
        return self.recovery.recompute(what)

    def answer_offer(self, job: str, identity: str, who: str, *, decline: bool) -> str:
        """Let a job take what is offered to it, or stay with what it has; returns the sentence of what that means."""
        self._empty_looks = 0
        return self.offers.answer(job, identity, who, decline=decline)

    def change(self, values: Mapping[str, Any]) -> Changed:
        """Go on with other values of settings: what depends on them is computed again, and what is in flight when it comes."""
        new = with_values(self.settings, values)
        changes = changes_between(self.settings, new)
        check_running(changes)
        if not changes:
            return Changed((), 0)
        store_settings(self.project, new)
        self.writer.settings(new.to_json())
        workers = new.execution.workers != self.settings.execution.workers
        self.settings.take_over(new)
        self.problems.forget(METADATA)  # they compare with what was given before
        self._empty_looks = 0
        again = self.tables.take_parameters()
        self.arrivals.prepare.take_settings(new)
        self.space.wanted = new.execution.min_free_space
        later = ""
        if workers and not self.dispatcher.limit(new.execution.worker_count()):
            later = f"The session was started with {self.dispatcher.workers}; more are started when it is stopped and resumed."
        self.projection.write_options()
        return Changed(changes, again, later=later)

    def report(self, *, final: bool = False) -> None:
        """Write the report now."""
        self._last_report = time.monotonic()
        try:
            self._write_report(self.project, final)
        except ENDING:
            raise
        except Exception as error:
            self.problems.open("report", f"The report could not be written: {error}")
        else:
            self.problems.close("report")

    def _wait_for_journal(self, error: JournalError) -> bool:
        """Without a journal nothing can happen, so wait until it can be written again, or the session is told to stop; returns True to try again."""
        if getattr(error.__cause__, "errno", 0) in GONE:
            return False  # an open file of a mount that was lost never comes back; the next session opens it anew
        if self._held != str(error):
            self._held = str(error)
            log.error("%s The session waits until then.", error)
        asked = any(isinstance(message.command, Stop) for message in control.receive(self.project))
        if self.state == "stopping" or asked:
            return False
        with suppress(OSError):
            write_live(self.project, self._live("waiting for the disk"))
        time.sleep(TICK)
        return True

    def _let_arrive(self) -> None:
        """Nothing is taken in while the session is paused or the disk is full."""
        if self.state == "paused" or self.space.full:
            self.arrivals.paused.set()
        else:
            self.arrivals.paused.clear()

    def _start_arrivals(self, stage: Stage) -> ArrivalThread:
        acquisition = self.settings.acquisition
        kind = self.settings.source_kind
        self._compare = comparison(kind)
        prepare = preparation(kind, self.project.root, stage.job.name, self.settings, self.writer.state.gains.values())
        intake = Intake(acquisition, self.project.raw, Manifest(self.project.root), kind=kind)
        thread = ArrivalThread(intake, prepare, self.events, acquisition.poll_seconds)
        thread.start()
        return thread

    def _loop(self) -> None:
        while self.state != "stopping":
            self._take_events()
            self.steps.run("what the workers say", self._listen, None)
            self.steps.run("the inbox of commands", lambda: self.inbox.work(self.ask), None)
            self.steps.run("the watch over free disk space", self._watch_space, None)
            if self.state == "running" and not self.space.full:
                self.steps.run("what jobs take once for all items", self.offers.consider, None)
                self.steps.run("the rounds over all items", self._consider_rounds, None)
                self.steps.run(self.check.title, self._settle, None)
                self.steps.run("the giving out of work", self.dispatcher.fill, None)
            self.steps.run("the list of what is computed again", self.recovery.tell_again, None)
            self.watchdog.look(self._work())
            self.problems.flush()
            self.steps.run("the files for other programs", self._refresh, None)
            self.steps.run("the report", self._periodic_report, None)
            if self.steps.run("the search for what is left to do", self._all_done, False):
                return

    def _listen(self) -> None:
        if self._listening_pace.due():
            self.dispatcher.listen()
            self._listening_pace.done()

    def _settle(self) -> None:
        self.check.work()
        self.dispatcher.fill_check()

    def _consider_rounds(self) -> None:
        if self._rounds_pace.due():  # it looks at every item
            self.rounds.consider(final=False)
            self._rounds_pace.done()

    def _refresh(self) -> None:
        self.projection.refresh(self._live)
        if self.projection.abort_asked():
            log.info("RELION asked a job to stop; the session stops")
            self.state = "stopping"

    def _work(self) -> Work:
        """Return what there is to do, for the watchdog."""
        tables: list[Stage | CheckItems] = [*self.tables.stages, self.check.items]
        given = [self.dispatcher.described(table, name) for table in tables for name in table.in_flight]
        works = self.state == "running" and not self.space.full
        stages = [stage for stage in self.tables.stages if not stage.job_type.aggregate and not stage.deleted]
        waiting = sum(stage.to_do() for stage in stages) if works else 0
        return Work(given, waiting, self._completed, self.arrivals.doing)

    def _take_events(self) -> None:
        """Wait for an event, at most a tick, and take what is there for about a tick: commands and signs of life must not wait for thousands."""
        try:
            event, until = self.events.get(timeout=TICK), time.monotonic() + TICK
            self._take_safely(event)
            while time.monotonic() < until:
                self._take_safely(self.events.get_nowait())
        except queue.Empty:
            return

    def _take_safely(self, event: Any) -> None:
        """Take an event. Whatever that raises fails the item that it is about, and never ends the loop, or every session would die of it again."""
        try:
            self._take(event)
        except ENDING:
            raise
        except Exception as error:
            if isinstance(event, BaseException):
                raise
            reason = f"{type(error).__name__}: {error}"
            if isinstance(event, Finished):
                log.exception("the result of %s could not be taken", event.name)
                what, instead = f"the result of {event.name}", partial(self._fail_item, event, reason)
            elif isinstance(event, Taken):
                log.exception("%s could not be taken", event.taken.name)
                what, instead = f"the arrival of {event.taken.name}", partial(self._fail_arrival, event, reason)
            else:
                self.steps.failed(f"the news of a {type(event).__name__}", error)
                return
            self.steps.run(what, instead, None)

    def _fail_item(self, event: Finished, reason: str) -> None:
        self.dispatcher.take_outcome(event, failure(reason))

    def _fail_arrival(self, event: Taken, reason: str) -> None:
        self.tables.intake_done(Taken(event.taken, {}, {}, reason))

    def _take(self, event: Any) -> None:
        if isinstance(event, Finished) and event.future.exception() is None:
            self._completed += 1
        if isinstance(event, Finished):
            self.dispatcher.finished(event)
        elif isinstance(event, Taken):
            self._last_arrival = time.monotonic()
            self.problems.close("destination")
            self.check.take(event)
            self.steps.run("the comparison with metadata", partial(self._compare_metadata, event), None)
        elif isinstance(event, NotTaken):
            if event.full:
                self.problems.open("destination", event.reason, "error")
            else:
                self.problems.remark(Remark("not-taken", event.reason, event.source, severity="info"))
        elif isinstance(event, Looked):
            self._looked(event)
        elif isinstance(event, BaseException):
            raise event

    def _compare_metadata(self, event: Taken) -> None:
        remarks = list(self._compare(self.settings, event.taken))
        self.problems.withdraw(METADATA, event.taken.name, but=[remark.subject for remark in remarks])
        for remark in remarks:
            self.problems.remark(remark)

    def _looked(self, event: Looked) -> None:
        report = event.report
        # A source that cannot be read is not an empty one, unless there never was anything in it.
        unreadable = not report.complete and bool(self.tables.source.job.items)
        self._empty_looks = (
            0
            if report.new or report.waiting or report.taking or report.to_remove or unreadable
            else self._empty_looks + 1
        )
        self.waiting_at_source, self._last_look = len(report.waiting), report
        if not self._empty_looks:
            self.tables.set_source_ended(False)
        self.tables.intake_set_aside(report)
        self.problems.hold("look:", report.standing)
        for remark in report.remarks:
            self.problems.remark(remark)

    def _all_done(self) -> bool:
        idle = self.settings.session.idle_minutes
        if (
            idle
            and self.state == "running"
            and not self.finishing
            and time.monotonic() - self._last_arrival > idle * 60
        ):
            self.finish()
        if not self.finishing or self.state != "running" or self._empty_looks < EMPTY_LOOKS or not self.events.empty():
            return False
        if (
            not self.check.close()
            or (not self.space.full and self.dispatcher.fill_check())
            or self.check.items.in_flight
        ):
            return False
        self.tables.set_source_ended(True)
        if not all(stage.settled() for stage in self.tables.stages):
            return False
        return not self.rounds.consider(final=True)

    def _end(self) -> str:
        state = "finished" if self.state != "stopping" else "stopped"
        if state == "finished" and self.check.unanswered:
            state = WAITS_FOR_ANSWER
        self.arrivals.end.set()
        self.tables.release_in_flight()
        self.recovery.tell()
        self.inbox.close(state, self.ask)
        self.problems.flush(force=True)
        self.projection.close_jobs("finished" if state == "finished" else "stopped")
        self.writer.session(state)
        self.projection.refresh(lambda: self._live(state), force=True)
        self.report(final=True)
        return state

    def _live(self, state: str = "") -> dict[str, Any]:
        """Return what is known only here, for status displays."""
        return {
            "state": state or self._shown_state(),
            "waiting_at_source": self.waiting_at_source,
            "in_flight": {stage.name: sorted(stage.in_flight) for stage in self.tables.stages if stage.in_flight},
            "at_work": self.dispatcher.shown(),
            "waits": waits(
                root=self.project.root,
                state=self.state,
                space=self.settings.execution.min_free_space if self.space.full else 0.0,
                held=self.check.waits(),
                busy=not all(stage.settled() for stage in self.tables.stages),
                finishing=self.finishing,
                report=self._last_look,
                patterns=self.settings.acquisition.data,
            ),
        }

    def _shown_state(self) -> str:
        if self.state != "running":
            return self.state
        return "waiting for disk space" if self.space.full else "finishing" if self.finishing else self.state

    def _watch_space(self) -> None:
        if self.space.look():
            self._let_arrive()
            if not self.space.full:
                self.check.retry(all_=False)
                self.arrivals.retry(all_=False)

    def _periodic_report(self) -> None:
        if time.monotonic() - self._last_report > self.settings.session.report_minutes * 60:
            self.report()
