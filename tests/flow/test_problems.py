"""What people are told: outages open and close, remarks are grouped, and the journal knows all of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.acquisition.reports import Remark, Trouble
from beamside.flow.problems import RECORD_SECONDS, Problems
from beamside.project.journal import read_journal
from beamside.project.problems import ProblemEntry, fold_problems, open_problems
from beamside.project.project import Project, ProjectWriter


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """Problems of a project, with a made-up clock; `entry` is what the journal says."""

    def __init__(self, root: Path) -> None:
        self.project, self.clock = Project(root), Clock()
        self.writer = ProjectWriter(self.project)
        self.problems = Problems(self.writer, clock=self.clock)

    def again(self) -> None:
        """The session dies, and another one goes on."""
        self.writer.close()
        self.writer = ProjectWriter(self.project)
        self.problems = Problems(self.writer, clock=self.clock)
        self.problems.begin()

    def records(self) -> list[dict[str, object]]:
        return [record for record, _ in read_journal(self.project.project_journal) if record["event"] == "problem"]

    def entries(self) -> dict[str, ProblemEntry]:
        return fold_problems(self.records())

    def shown(self) -> list[str]:
        return [entry.text() for entry in open_problems(self.entries().values())]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "p")
    yield made
    made.writer.close()


LOST = Trouble("source-missing:/camera", "The folder /camera cannot be found.", "error")


def test_a_disk_that_is_lost_a_second_time_is_told_again(rig: Rig) -> None:
    for standing in ([LOST], [LOST], [], [LOST]):
        rig.problems.hold("look:", standing)
    assert rig.shown() == ["The folder /camera cannot be found. (for the 2nd time)"]
    assert [record["state"] for record in rig.records()] == ["open", "closed", "open"]
    rig.problems.hold("look:", [])
    assert rig.shown() == []


def test_what_one_holds_does_not_close_what_another_one_opened(rig: Rig) -> None:
    rig.problems.open("disk-space", "The disk is full.", "error")
    rig.problems.hold("look:", [LOST])
    rig.problems.hold("look:", [])
    assert rig.shown() == ["The disk is full."]


def test_an_outage_that_is_told_again_moves_on_without_a_record_for_each(rig: Rig) -> None:
    for number in range(100):
        rig.problems.open("report", f"The report could not be written: {number}")
        rig.problems.flush()
    assert len(rig.records()) == 1
    rig.clock.now += RECORD_SECONDS
    rig.problems.flush()
    assert rig.shown() == ["The report could not be written: 99 (for the 100th time)"]
    assert len(rig.records()) == 2


def test_errors_come_first(rig: Rig) -> None:
    rig.problems.open("a", "small", "info")
    rig.problems.open("b", "some")
    rig.problems.open("c", "bad", "error")
    assert rig.shown() == ["bad", "some", "small"]


def dose(number: int, value: float) -> Remark:
    return Remark("metadata-total-dose", f"The dose is {value}.", f"raw/m{number}", value, "e/Å²")


def test_remarks_on_many_files_are_one_line_with_count_and_range(rig: Rig) -> None:
    for number in range(16):
        rig.problems.remark(dose(number, 40 + number / 10))
    rig.problems.remark(Remark("metadata-pixel-size", "The pixel size is 0.415 Å.", "raw/m0", 0.415, "Å"))
    rig.problems.flush(force=True)
    assert rig.shown() == [
        "The dose is 40.0. (16 items, raw/m0 to raw/m15, 40 to 41.5 e/Å²)",
        "The pixel size is 0.415 Å.",
    ]
    assert len(rig.records()) == 3


def test_a_file_is_counted_once_also_by_a_session_that_goes_on(rig: Rig) -> None:
    for number in (0, 1, 1, 0):
        rig.problems.remark(dose(number, 40))
    rig.problems.flush(force=True)
    rig.again()
    for number in (0, 1, 2):
        rig.problems.remark(dose(number, 40))
    rig.problems.flush(force=True)
    assert rig.entries()["metadata-total-dose"].count == 3


def test_an_item_that_was_done_again_is_no_longer_in_groups_that_it_was_in(rig: Rig) -> None:
    for number in (0, 1, 2):
        rig.problems.remark(dose(number, 40))
    rig.problems.withdraw("metadata-", "raw/m2", but=["metadata-total-dose"])
    for name in ("raw/m0", "raw/m1", "raw/m1", "raw/other"):
        rig.problems.withdraw("metadata-", name)
    rig.problems.flush(force=True)
    assert list(rig.entries()["metadata-total-dose"].items) == ["raw/m2"]
    rig.problems.withdraw("metadata-", "raw/m2")
    assert rig.entries() == {}
    rig.problems.remark(dose(2, 40))
    assert rig.entries()["metadata-total-dose"].count == 1


def test_what_is_compared_anew_is_forgotten_before(rig: Rig) -> None:
    rig.problems.remark(dose(0, 40))
    rig.problems.remark(Remark("motion-few", "Few."))
    rig.problems.forget("metadata-")
    assert rig.shown() == ["Few."]


def test_a_session_that_goes_on_opens_only_what_it_sees_itself(rig: Rig) -> None:
    rig.problems.hold("look:", [LOST])
    rig.again()
    assert rig.shown() == []
    rig.problems.hold("look:", [LOST])
    assert rig.shown() == ["The folder /camera cannot be found. (for the 2nd time)"]


def test_a_group_is_as_bad_as_its_worst_member_at_once(rig: Rig) -> None:
    rig.problems.remark(Remark("s", "fine", "a", severity="info"))
    rig.problems.remark(Remark("s", "bad", "b", severity="error"))
    assert rig.entries()["s"].severity == "error"


KEYS = st.sampled_from(["look:a", "look:b", "disk"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), KEYS),
        st.tuples(st.just("close"), KEYS),
        st.tuples(st.just("hold"), st.sets(st.sampled_from(["look:a", "look:b"]))),
        st.tuples(st.just("wait"), st.just("")),
        st.tuples(st.just("again"), st.just("")),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(steps=STEPS)
def test_the_journal_says_what_is_open_whatever_happened(
    steps: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rig, expected = Rig(tmp_path_factory.mktemp("p")), set[str]()
    for what, about in steps:
        if what == "open":
            rig.problems.open(about, about)
            expected.add(about)
        elif what == "close":
            rig.problems.close(about)
            expected.discard(about)
        elif what == "hold":
            rig.problems.hold("look:", [Trouble(key, key) for key in about])
            expected = {key for key in expected if not key.startswith("look:")} | set(about)
        elif what == "wait":
            rig.clock.now += RECORD_SECONDS
            rig.problems.flush()
        else:
            rig.again()
            expected = set()
        assert {entry.key for entry in rig.entries().values() if entry.open} == expected
    rig.writer.close()
