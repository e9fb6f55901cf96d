"""Sessions with rules: shut and opened while items flow, before and after rounds; in the end all tables are those of a session without."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beamside.flow import control
from beamside.flow.asking import ask
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.stored_settings import load_settings
from beamside.formats.star import read_star
from beamside.monitor.status import read_status
from beamside.project.project import Project

Settings = Callable[..., SessionSettings]

pytestmark = pytest.mark.usefixtures("whole_chain")

TABLES = (
    "MotionCorr/job002/corrected_micrographs.star",
    "CtfFind/job003/micrographs_ctf.star",
    "AutoPick/job004/autopick.star",
    "Extract/job005/particles.star",
    "Select/job007/particles.star",
)
POOR = "ctf.resolution < 6"


@pytest.fixture
def made(session_settings: Settings, write_movie: Callable[..., Path]) -> Callable[..., SessionSettings]:
    """Settings of a session of four movies; the CTF fit of the last one is poor."""
    for name in ("a", "b", "c", "poor"):
        write_movie(name)
    return session_settings


def run(settings: SessionSettings) -> Project:
    assert Session(settings, until_empty=True).run() == "finished"
    return Project(settings.root)


def go_on(project: Project) -> Project:
    return run(load_settings(project))


def tables(project: Project) -> dict[str, bytes]:
    return {name: (project.root / name).read_bytes() for name in TABLES if (project.root / name).exists()}


def micrographs(project: Project, table: str) -> set[str]:
    blocks = read_star(project.root / table)
    block = blocks.get("particles") or blocks.get("micrographs")
    assert block is not None
    return {Path(name).name.split("_")[0] for name in block.texts("rlnMicrographName")}


def calls(project: Project) -> list[str]:
    path = project.root / "calls.txt"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def told(project: Project, **fields: Any) -> str:
    outcome = ask(project, "gate", fields)
    assert outcome is not None
    assert outcome.kind == "done", outcome.sentence
    return outcome.sentence


@pytest.fixture
def undisturbed(made: Callable[..., SessionSettings]) -> dict[str, bytes]:
    project = run(made(name="undisturbed"))
    found = tables(project)
    assert len(found) == len(TABLES)
    return found


def test_a_rule_from_the_beginning_holds_back_and_is_undone_by_taking_it_away(
    made: Callable[..., SessionSettings], undisturbed: dict[str, bytes]
) -> None:
    project = run(made(gate=(POOR,)))
    assert "pick poor_fractions" not in calls(project)
    for table in (TABLES[1], *TABLES[3:]):
        assert micrographs(project, table) == {"a", "b", "c"}
    status = read_status(project)
    assert {stage.name: (stage.held, stage.waiting) for stage in status.stages}["ctf"] == (1, 0)
    assert status.backlog == 0
    assert told(project, remove=["ctf.resolution"]) == "There are no rules now."
    assert micrographs(project, TABLES[1]) == {"a", "b", "c", "poor"}, "at once"
    go_on(project)
    assert calls(project) == ["pick poor_fractions", "extract poor_fractions"]
    assert tables(project) == undisturbed


def test_a_rule_that_comes_after_the_last_round_takes_its_particles_away_and_gives_them_back(
    made: Callable[..., SessionSettings], undisturbed: dict[str, bytes]
) -> None:
    project = run(made())
    calls(project)
    told(project, add=[POOR])
    assert micrographs(project, "Select/job007/particles.star") == {"a", "b", "c"}
    assert micrographs(project, "Extract/job005/particles.star") == {"a", "b", "c"}
    told(project, remove=[POOR])
    assert tables(project) == undisturbed
    assert calls(project) == []


@pytest.mark.parametrize("when", ["classify", "select"])
def test_a_rule_that_comes_during_a_round_and_goes_later(
    made: Callable[..., SessionSettings], undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    chain, settings = sys.modules["whole_chain"], made()
    project, work = Project(settings.root), getattr(chain, when)
    sent: list[str] = []

    def and_then(*args: Any, **more: Any) -> Any:
        result = work(*args, **more)
        if not sent:
            sent.append(control.send(project, "gate", {"add": [POOR]}))
        return result

    monkeypatch.setattr(chain, when, and_then)
    run(settings)
    assert sent
    assert micrographs(project, "Select/job007/particles.star") == {"a", "b", "c"}
    told(project, remove=[POOR])
    go_on(project)
    assert tables(project) == undisturbed
    assert len([call for call in calls(project) if call.startswith("ctf")]) == 4, "each once"


def test_a_session_that_died_with_a_half_written_change_writes_what_holds(
    made: Callable[..., SessionSettings], undisturbed: dict[str, bytes]
) -> None:
    project = run(made())
    told(project, add=[POOR])
    whole = (project.root / "Select/job007/particles_whole.star").read_bytes()
    for left in (b"", whole, b"half of a ta"):
        (project.root / "Select/job007/particles.star").write_bytes(left)
        go_on(project)
        assert micrographs(project, "Select/job007/particles.star") == {"a", "b", "c"}
    (project.root / "Select/job007/particles.star").unlink()
    told(project, remove=[POOR])
    go_on(project)
    assert tables(project) == undisturbed
