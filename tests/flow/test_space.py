"""A session waits while its disk is full, and says so as long as it is."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from beamside.flow.problems import Problems
from beamside.flow.space import LOOK_SECONDS, SpaceWatch
from beamside.project.project import Project, ProjectWriter


class Rig:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.free = 0.0, 5.0
        self.writer = ProjectWriter(Project(root))
        monkeypatch.setattr(shutil, "disk_usage", self._usage)
        self.watch = SpaceWatch(root, 1.0, Problems(self.writer), clock=lambda: self.now)

    def _usage(self, _path: Path) -> SimpleNamespace:
        if self.free < 0:
            raise OSError(5, "Input/output error")
        return SimpleNamespace(free=self.free * 1e9)

    def look(self, free: float) -> bool:
        self.free, self.now = free, self.now + LOOK_SECONDS
        return self.watch.look()

    def open(self) -> list[str]:
        return [entry.sentence for entry in self.writer.state.problems.values() if entry.open]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(tmp_path / "p", monkeypatch)
    yield made
    made.writer.close()


def test_too_little_room_is_a_problem_until_there_is_room_again(rig: Rig) -> None:
    assert not rig.look(5.0)
    assert rig.look(0.5)
    assert rig.watch.full
    assert ["0.5 GB are free" in sentence and "waits until there are 1 GB" in sentence for sentence in rig.open()] == [
        True
    ]
    assert not rig.look(0.4)
    assert rig.look(2.0)
    assert not rig.watch.full
    assert rig.open() == []


def test_a_disk_that_cannot_be_asked_is_told_and_changes_nothing(rig: Rig) -> None:
    rig.look(0.5)
    assert not rig.look(-1)
    assert rig.watch.full
    assert any("cannot be asked for its free space (Input/output error)" in sentence for sentence in rig.open())
    assert rig.look(3.0)
    assert rig.open() == []
