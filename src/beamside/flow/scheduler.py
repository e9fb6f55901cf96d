"""The scheduler: one loop that gives work to the executor, records what became of it, and does what it is told, whatever its items come from.

It is the only writer of the project. Everything it knows is in the journals, so it may be killed at any moment: the next one folds them and goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from beamside.errors import JournalError, in_words
from beamside.execution.pools import start_executor
from beamside.flow import control
from beamside.flow.check_items import CheckItems
from beamside.flow.checks import Surroundings
from beamside.flow.commands import Recompute, Stop
from beamside.flow.control import Message
from beamside.flow.dispatch import Dispatcher, Finished, failure
from beamside.flow.former_sessions import left_finishing, left_unfinished
from beamside.flow.inbox import Inbox
from beamside.flow.offers import Offers
from beamside.flow.places import largest_gpu_memory
from beamside.flow.problems import Problems
from beamside.flow.projection import Pace, Projection
from beamside.flow.recovery import Recovery
from beamside.flow.rounds import Rounds
from beamside.flow.settings import SessionSettings
from beamside.flow.source import Source
from beamside.flow.sources import METADATA
from beamside.flow.space import SpaceWatch
from beamside.flow.stages import Stage
from beamside.flow.steering import Steering
from beamside.flow.steps import ENDING, Steps
from beamside.flow.sweeping import Sweeper
from beamside.flow.table import Tables
from beamside.flow.waiting import waits
from beamside.flow.watchdog import Watchdog, Work
from beamside.project.collecting import without_searches
from beamside.project.guard import guard
from beamside.project.journal import damage_sentences
from beamside.project.live import write_live
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import WAITS_FOR_ANSWER

log = logging.getLogger(__name__)

TICK = 0.5
"""Longest time, in seconds, after which the loop looks at commands and clocks."""

LISTEN = 0.25
"""Time, in seconds, between two looks at what the workers say, at commands, and at whether the work goes on."""

GONE = frozenset({errno.ESTALE, errno.EBADF, errno.ENODEV, errno.ENXIO, errno.ENOTCONN})
"""What says that an open file will not be written again, however long one waits."""


class Scheduler(Steering):
    """Work on a project's items until all is done, or until told to stop.

    Parameters
    ----------
    settings : of the session
    source : where further items come from
    write_report : writes the report; the flag says that it is the last one
    until_empty : whether to end when the source has no more
    """

    def __init__(
        self,
        settings: SessionSettings,
        source: Source,
        *,
        write_report: Callable[[Project, bool], None] | None = None,
        until_empty: bool = False,
    ) -> None:
        super().__init__(settings, source, write_report, until_empty)
        self.events: queue.Queue[Any] = queue.Queue()
        self._rounds_pace, self._listening_pace, self._inbox_pace, self._watch_pace = (
            Pace(seconds, lambda: self.writer.held_seconds) for seconds in (0.0, LISTEN, LISTEN, LISTEN)
        )
        self._held = ""
        self._completed = 0

    def run(self) -> str:
        """Run until the end; returns "finished", "stopped", or "waiting for an answer" when a person has not answered what is asked."""
        guard(self.project)
        for_another = control.receive(self.project)
        with ProjectWriter(self.project) as writer:
            with without_searches():
                self._open(writer, for_another)
            with self._failing():
                with without_searches():
                    self.projection.open_jobs()
                    self.recovery.begin()
                self.finishing = self.finishing or left_finishing(writer.state.sessions)
                executor = start_executor(self.settings.execution, largest_gpu_memory(self.tables.stages))
                around = Surroundings(self.settings, self.tables, self.problems, self.projection.write_options)
                self.check = self.source.check(around)
                self.dispatcher = Dispatcher(
                    self.settings, self.tables, self.recovery, executor, self.events, self.check
                )
                self.watchdog = Watchdog(self.problems, executor)
                self.rounds = Rounds(self.settings, self.tables, self.recovery, self.dispatcher)
                self.source.begin(around, self.check, self.events, self.steps)
                writer.session("started", pid=os.getpid())
                writer.hold = self._wait_for_journal
            self.sweeper = Sweeper(self.project.root)
            self.sweeper.start()
            try:
                with self._failing():
                    self._loop()
                    return self._end()
            finally:
                self.source.end()
                executor.shutdown(wait=False)
                self.sweeper.close()
                self.source.close()

    def _open(self, writer: ProjectWriter, for_another: Sequence[Message]) -> None:
        """Open the project's tables; `for_another` are the commands that waited before this began."""
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
        self.projection = Projection(
            self.settings, writer, self.tables.stages, self.problems, deleted=self.recovery.tell
        )

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

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while self.state != "stopping":
            self._take_events()
            self.steps.run("what the workers say", self._listen, None)
            self.steps.run("the inbox of commands", self._look_into_inbox, None)
            self.steps.run("the watch over free disk space", self._watch_space, None)
            if self.state == "running" and not self.space.full:
                self.steps.run("what jobs take once for all items", self.offers.consider, None)
                self.steps.run("the rounds over all items", self._consider_rounds, None)
                self.steps.run(self.check.title, self._settle, None)
                self.steps.run("the giving out of work", self.dispatcher.fill, None)
            self.steps.run("the list of what is computed again", self.recovery.tell_again, None)
            self._watch_work()
            self.problems.flush()
            self.steps.run("the files for other programs", self._refresh, None)
            self.steps.run("the report", self._periodic_report, None)
            if self.steps.run("the search for what is left to do", self._all_done, False):
                return

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
            reason = in_words(error)
            if isinstance(event, Finished):
                fail = partial(self.dispatcher.take_outcome, event, failure(reason))
                instead: tuple[str, Callable[[], None]] | None = f"the result of {event.name}", fail
            else:
                instead = self.source.instead(event, reason)
            if instead is None:
                self.steps.failed(f"the news of a {type(event).__name__}", error)
                return
            what, fail_item = instead
            log.exception("%s could not be taken", what)
            self.steps.run(what, fail_item, None)

    def _take(self, event: Any) -> None:
        if isinstance(event, Finished):
            self._completed += event.future.exception() is None
            self.dispatcher.finished(event)
        elif isinstance(event, BaseException):
            raise event
        else:
            self.source.take(event)

    def _listen(self) -> None:
        if self._listening_pace.due():
            self.dispatcher.listen()
            self._listening_pace.done()

    def _look_into_inbox(self) -> None:
        if self._inbox_pace.due():  # a busy loop turns hundreds of times a second
            self.inbox.work(self.ask)
            self._inbox_pace.done()

    def _watch_work(self) -> None:
        if self._watch_pace.due():
            self.watchdog.look(self._work())
            self._watch_pace.done()

    def _watch_space(self) -> None:
        if self.space.look():
            self.let_arrive()
            if not self.space.full:
                self.check.retry(all_=False)
                self.source.retry(all_=False)

    def _consider_rounds(self) -> None:
        if self._rounds_pace.due():  # it looks at every item
            self.rounds.consider(final=False)
            self._rounds_pace.done()

    def _settle(self) -> None:
        self.check.work()
        self.dispatcher.fill_check()

    def _work(self) -> Work:
        """Return what there is to do, for the watchdog."""
        tables: list[Stage | CheckItems] = [*self.tables.stages, self.check.items]
        given = [self.dispatcher.described(table, name) for table in tables for name in table.in_flight]
        works = self.state == "running" and not self.space.full
        stages = [stage for stage in self.tables.stages if not stage.job_type.aggregate and not stage.deleted]
        waiting = sum(stage.to_do() for stage in stages) if works else 0
        return Work(given, waiting, self._completed, self.source.doing)

    def _refresh(self) -> None:
        self.projection.refresh(self._live)
        if self.projection.abort_asked():
            log.info("RELION asked a job to stop; the session stops")
            self.state = "stopping"

    def _periodic_report(self) -> None:
        if time.monotonic() - self._last_report > self.settings.session.report_minutes * 60:
            self.report()

    # -- the end ----------------------------------------------------------------------------------------------------

    def _all_done(self) -> bool:
        if self.state == "running" and not self.finishing and self.source.is_idle():
            self.finish()
        if not self.finishing or self.state != "running" or not self.source.is_empty() or not self.events.empty():
            return False
        if not self._is_settled():
            return False
        self.tables.set_source_ended(True)
        if not all(stage.settled() for stage in self.tables.stages):
            return False
        return not self.rounds.consider(final=True) and not self._has_heard_more()

    def _has_heard_more(self) -> bool:
        """Carry out commands that have come since the inbox was looked into last; tells whether there were any."""
        waiting = len(control.receive(self.project))
        if waiting:
            self.inbox.work(self.ask)
        return waiting > 0 and len(control.receive(self.project)) < waiting

    def _is_settled(self) -> bool:
        """Tell whether the check has no more to do, but for what a person has to answer."""
        if not self.check.close() or (not self.space.full and self.dispatcher.fill_check()):
            return False
        return not self.check.items.in_flight

    def _end(self) -> str:
        state = "finished" if self.state != "stopping" else "stopped"
        if state == "finished" and self.check.unanswered:
            state = WAITS_FOR_ANSWER
        self.source.end()
        self.tables.release_in_flight()
        self.recovery.tell()
        self.tables.tell_optics(final=state == "finished")
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
            "waiting_at_source": self.source.waiting,
            "in_flight": {stage.name: sorted(stage.in_flight) for stage in self.tables.stages if stage.in_flight},
            "at_work": self.dispatcher.shown(),
            "optics": self.tables.source.item_optics.counts(),
            "waits": waits(
                root=self.project.root,
                state=self.state,
                space=self.settings.execution.min_free_space if self.space.full else 0.0,
                held=self.check.waits(),
                busy=not all(stage.settled() for stage in self.tables.stages),
                source=partial(self.source.waits, finishing=self.finishing),
            ),
        }

    def _shown_state(self) -> str:
        if self.state != "running":
            return self.state
        return "waiting for disk space" if self.space.full else "finishing" if self.finishing else self.state
