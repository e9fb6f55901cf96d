import json
import subprocess
import sys
from pathlib import Path

import pytest

from beamside.cli.demo import Places, _problems, _settings
from beamside.monitor.status import SessionStatus, StageStatus
from beamside.project.project import Project

SMALL = ("demo", "--movies", "3", "--size", "768", "--rate", "60", "--output", "demo output")


def status(**changes: object) -> SessionStatus:
    stages = (
        StageStatus("import", "Import", "Import/job001", done=3),
        StageStatus("motion", "Motion", "MotionCorr/job002", done=3),
    )
    return SessionStatus(**{"name": "demo/session", "root": "/", "state": "finished", "stages": stages, **changes})  # type: ignore[arg-type]


class TestAccounting:
    def test_nothing_is_missing_when_all_is_done(self) -> None:
        assert list(_problems(status(), 3, 3)) == []

    @pytest.mark.parametrize(
        ("changes", "movies", "written", "expected"),
        [
            ({"state": "dead"}, 3, 3, "the session is dead"),
            ({}, 4, 3, "only 3 of 4 movies were written"),
            ({}, 4, 4, "1 movies at the source were not taken in"),
            ({"backlog": 2}, 3, 3, "2 items are neither done nor set aside"),
            ({"stages": (StageStatus("import", "Import", "j", done=2, failed=1),)}, 3, 3, "Import: 1 failed"),
        ],
    )
    def test_whatever_is_unaccounted_for_is_said(
        self, changes: dict[str, object], movies: int, written: int, expected: str
    ) -> None:
        assert any(expected in problem for problem in _problems(status(**changes), movies, written))


def test_the_demo_does_not_depend_on_the_facility(home: Path) -> None:
    (home / "beamside.toml").write_text("[stream]\nvoltage = 120\nclasses = 3\n")
    settings = _settings(Places(home / "demo")).settings
    assert settings.optics.voltage == 300
    assert settings.root == home / "demo" / "demo" / "session"


def test_other_settings_on_the_same_output_are_refused_in_a_sentence(beamside_process, home: Path) -> None:
    places = Places(home / "demo output")
    command = [sys.executable, "-m", "beamside.simulate.microscope", "--output", places.camera, "--truth", places.truth]
    numbers = ["--movies", "1", "--size", "512", "--frames", "24", "--rate", "600", "--pixel-size", "1.3"]
    subprocess.run([*map(str, command), *numbers], check=True, capture_output=True)
    code, _, err = beamside_process(*SMALL)
    assert code == 2
    assert err.count("\n") == 1
    assert "other settings" in err


@pytest.mark.slow
def test_the_demo_accounts_for_everything_and_can_be_repeated(beamside_process, home: Path) -> None:
    code, out, err = beamside_process(*SMALL)
    assert code == 0, out + err
    project = Project(home / "demo output" / "demo" / "session")
    assert "All 3 movies are accounted for" in out
    assert str(project.root) in out
    assert str(project.report) in out
    for what in ("Motion", "Defocus", "Picking"):
        assert any(line.startswith(what) for line in out.splitlines())
    assert project.report.exists()
    first = project.load()

    code, out, err = beamside_process(*SMALL)
    assert code == 0, out + err
    second = project.load()
    for name, job in first.jobs.items():
        again = second.jobs[name]
        assert {item: entry.attempt for item, entry in again.items.items()} == {
            item: entry.attempt for item, entry in job.items.items()
        }
        assert json.dumps([entry.result for entry in job.items.values()]) == json.dumps(
            [entry.result for entry in again.items.values()]
        )
