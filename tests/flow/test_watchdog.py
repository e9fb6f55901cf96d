"""Nothing waits for ever in silence: workers that do nothing are told, started anew, and given up in the end. The clocks are made up."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from beamside.execution.executors import LocalWorkers, WorkersLostError
from beamside.flow.problems import Problems
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.watchdog import IDLE_SECONDS, LONG_SECONDS, SAMPLE_SECONDS, SOURCE_SECONDS, Mendable, Watchdog, Work
from beamside.monitor.status import read_status
from beamside.project.problems import open_problems
from beamside.project.project import Project, ProjectWriter


class MadeUpWorkers(Executor):
    """Workers that use processor time at a rate."""

    def __init__(self) -> None:
        self.trouble = self.broken = ""
        self.used, self.restarts = 100.0, 0

    def restart(self, reason: str) -> None:
        self.restarts += 1

    def cpu_seconds(self) -> float:
        return self.used


class GivenUp(ThreadPoolExecutor):
    """Workers that could not be started."""

    trouble, broken = "", "The worker processes could not be started (no module)."

    def restart(self, reason: str) -> None:
        raise AssertionError

    def cpu_seconds(self) -> float:
        return 0.0


@pytest.mark.usefixtures("light_workflow")
def test_a_session_whose_workers_are_given_up_ends_as_failed_with_the_reason(
    session_settings: Callable[..., SessionSettings],
    write_movie: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_movie("a")
    settings = session_settings()
    monkeypatch.setattr("beamside.flow.scheduler.start_executor", lambda *_given: GivenUp(1))
    with pytest.raises(WorkersLostError):
        Session(settings, until_empty=True).run()
    status = read_status(Project(settings.root))
    assert (status.state, status.attention()) == ("failed", "down")
    assert "no module" in status.message
    assert ["no module" in problem.text for problem in status.problems] == [True]


class Rig:
    def __init__(self, root: Path) -> None:
        self.now = 1000.0
        self.writer = ProjectWriter(Project(root))
        self.workers = MadeUpWorkers()
        self.problems = Problems(self.writer, clock=lambda: self.now)
        self.watchdog = Watchdog(self.problems, self.workers, clock=lambda: self.now)

    def pass_time(self, seconds: float, work: Work, *, rate: float = 0.0) -> None:
        """Let time pass in small steps while the workers use processor time at a `rate`."""
        end = self.now + seconds
        while self.now < end:
            self.watchdog.look(work)
            self.now += SAMPLE_SECONDS / 2
            self.workers.used += rate * SAMPLE_SECONDS / 2
        self.watchdog.look(work)

    def told(self) -> list[tuple[str, str]]:
        return [(entry.severity, entry.sentence) for entry in open_problems(self.writer.state.problems.values())]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "p")
    yield made
    made.writer.close()


BUSY = Work(given=["motion raw/m1", "motion raw/m2"], waiting=7, finished=3)


def test_the_workers_of_a_session_can_be_watched() -> None:
    assert issubclass(LocalWorkers, Executor)
    assert {"restart", "cpu_seconds"} <= set(dir(LocalWorkers))
    assert isinstance(MadeUpWorkers(), Mendable)


def test_workers_that_do_nothing_are_started_anew_and_given_up_in_the_end(rig: Rig) -> None:
    rig.pass_time(IDLE_SECONDS - SAMPLE_SECONDS, BUSY)
    assert rig.told() == []
    rig.pass_time(3 * SAMPLE_SECONDS, BUSY)
    assert rig.workers.restarts == 1
    ((severity, sentence),) = rig.told()
    assert severity == "error"
    assert "Nothing was finished for " in sentence
    assert "min, though motion raw/m1 and 1 more wait for a result" in sentence
    with pytest.raises(WorkersLostError, match="restarted 2 times"):
        rig.pass_time(3 * IDLE_SECONDS, BUSY)
    assert rig.workers.restarts == 2


def test_what_goes_on_again_is_no_problem_any_more(rig: Rig) -> None:
    rig.pass_time(2 * IDLE_SECONDS, BUSY)
    assert rig.told()
    rig.pass_time(1, Work(BUSY.given, 7, finished=4))
    assert rig.told() == []
    rig.pass_time(IDLE_SECONDS + 3 * SAMPLE_SECONDS, Work(BUSY.given, 7, finished=4))
    assert rig.told(), "a second time it is told again"


def test_that_what_the_workers_had_is_given_to_the_next_ones_is_no_progress(rig: Rig) -> None:
    for _ in range(2):
        rig.pass_time(IDLE_SECONDS + 2 * SAMPLE_SECONDS, BUSY)
        rig.pass_time(1, Work([], 7, finished=3))
    with pytest.raises(WorkersLostError):
        rig.pass_time(IDLE_SECONDS + 2 * SAMPLE_SECONDS, BUSY)


def test_a_restart_is_told_as_one_problem_until_something_is_finished(rig: Rig) -> None:
    rig.pass_time(IDLE_SECONDS + 2 * SAMPLE_SECONDS, BUSY)
    (told,) = [entry.opened for entry in open_problems(rig.writer.state.problems.values())]
    rig.pass_time(SAMPLE_SECONDS, Work([], 9, finished=3))
    rig.pass_time(IDLE_SECONDS / 2, BUSY, rate=1.0)
    (entry,) = open_problems(rig.writer.state.problems.values())
    assert (entry.count, entry.opened) == (1, told)
    rig.pass_time(1, Work(BUSY.given, 7, finished=4))
    assert rig.told() == []


def test_long_work_is_told_and_left_alone(rig: Rig) -> None:
    rig.pass_time(LONG_SECONDS + 60, BUSY, rate=1.0)
    assert rig.workers.restarts == 0
    ((severity, sentence),) = rig.told()
    assert severity == "info"
    assert "busy" in sentence


def test_a_session_with_nothing_to_do_is_left_alone(rig: Rig) -> None:
    rig.pass_time(10 * LONG_SECONDS, Work([], 0, 3))
    assert rig.told() == []
    rig.pass_time(60, BUSY)
    assert rig.workers.restarts == 0, "the time before there was work does not count"


def test_items_that_are_never_given_out_are_told(rig: Rig) -> None:
    rig.pass_time(IDLE_SECONDS + 60, Work([], 4, 3))
    assert "though 4 items wait" in rig.told()[0][1]


def test_troubles_of_the_workers_are_problems_and_their_end_is_the_end(rig: Rig) -> None:
    rig.workers.trouble = "The worker processes cannot be started: no module"
    rig.pass_time(1, BUSY)
    assert rig.told() == [("error", rig.workers.trouble)]
    rig.workers.trouble = ""
    rig.pass_time(1, BUSY)
    assert rig.told() == []
    rig.workers.broken = "They could not be started."
    with pytest.raises(WorkersLostError, match="could not be started"):
        rig.pass_time(1, Work([], 0, 0))
    assert rig.told() == [("error", "They could not be started.")]


def test_a_source_that_does_not_answer_is_told(rig: Rig) -> None:
    look = Work([], 0, 0, ("looking at the source", rig.now))
    rig.pass_time(SOURCE_SECONDS - 30, look)
    assert rig.told() == []
    rig.pass_time(90, look)
    assert "looking at the source for 5 min" in rig.told()[0][1]
    rig.pass_time(1, Work([], 0, 0))
    assert rig.told() == []
