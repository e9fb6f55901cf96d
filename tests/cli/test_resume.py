"""What `resume` and `status` say of results before anything is computed, without a session process."""

import json
from pathlib import Path
from typing import Any

import pytest

from beamside.cli import session as commands
from beamside.flow import control
from beamside.flow.settings import SessionSettings
from beamside.flow.start import prepare
from beamside.flow.table import Tables
from beamside.monitor.report import write_report
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A stopped session of two movies: their CTF fits are done, and the pictures of the fits were cleaned in RELION; one more movie was at work."""
    monkeypatch.setattr(commands, "_leave", lambda _project: None)
    settings = SessionSettings.from_flat(
        {"target": home / "out", "group": "lab", "name": "run1", "data": (str(home / "*.tiff"),), "pixel_size": 1.0}
        | {"voltage": 300}
    )
    prepare(settings)
    found = Project(settings.root)
    with ProjectWriter(found) as writer:
        writer.settings(settings.to_json())
        tables = Tables(settings, writer)
        for stage in tables.stages:
            (found.root / stage.job.name).mkdir(parents=True)
        for name in ("a", "b", "c"):
            for stage in tables.stages[:3]:
                writer.item(stage.job.name, name, ItemState.WAITING)
                writer.item(stage.job.name, name, ItemState.QUEUED)
                if (name, stage.name) == ("c", "ctf"):
                    break
                picture = f"{stage.job.name}/{name}.png"
                outputs = {"ctf_plot": picture} if stage.name == "ctf" else {}
                result: dict[str, Any] = {"metrics": {}, "outputs": outputs, "values": {}}
                key = "content" if stage.is_source else stage.expected_key(name)
                writer.item(stage.job.name, name, ItemState.DONE, key=key, result=result)
                (found.root / "Trash" / picture).parent.mkdir(parents=True, exist_ok=True)
                (found.root / "Trash" / picture).touch()
        writer.session("started")
        writer.session("stopped")
    return found


CLEANED = "CTF estimation: files of 2 results were cleaned: they are in Trash/. Nothing needs them."


def test_resume_says_what_is_not_computed_again(beamside, project: Project) -> None:
    code, out, err = beamside("session", "resume", "run1")
    assert code == 0, err
    assert CLEANED in out
    assert control.receive(project) == []


@pytest.mark.parametrize("what", ["missing", "outdated", "all"])
def test_what_is_asked_for_waits_for_the_session(beamside, project: Project, what: str) -> None:
    assert beamside("session", "resume", "run1", "--recompute", what)[0] == 0
    assert [(message.name, message.fields) for message in control.receive(project)] == [("recompute", {"what": what})]


def test_what_cannot_be_asked_for_is_refused(beamside, project: Project) -> None:
    code, _, err = beamside("session", "resume", "run1", "--recompute", "ctf")
    assert code == 2
    assert "'missing', 'outdated', 'all'" in err


def test_status_looks_at_the_results_of_a_session_that_does_not_run(beamside, project: Project) -> None:
    _, out, _ = beamside("session", "status", "run1")
    assert CLEANED in " ".join(out.split())
    assert CLEANED in write_report(project).read_text()
    _, out, _ = beamside("session", "status", "run1", "--json")
    problems = {problem["key"]: problem for problem in json.loads(out)["problems"]}
    assert problems["gone:ctf:cleaned:spare"]["severity"] == "info"
    for name in ("a", "b"):
        (project.root / "Trash/CtfFind/job003" / f"{name}.png").rename(project.root / "CtfFind/job003" / f"{name}.png")
    _, out, _ = beamside("session", "status", "run1")
    assert "cleaned" not in out


def test_start_names_the_settings_that_would_change_results(beamside, home: Path, project: Project) -> None:
    words = ("--data", "*.tiff", "--target", "out", "--group", "lab", "--name", "run1", "--voltage", "300")
    code, _, err = beamside(
        "session", "start", *words, "--pixel-size", "1.0", "--min-defocus", "4000", "--classes", "7"
    )
    assert code == 2
    assert "(--min-defocus 4000, was 3000; --classes 7, was 50)" in err
    assert "CTF estimation of 2 items would be computed again" in err
    assert "--recompute" in err
