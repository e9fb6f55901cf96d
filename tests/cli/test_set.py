"""`session set` shows what other settings cost, asks, and changes them; the project is one of `test_resume`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beamside.flow import control
from beamside.flow.settings import SessionSettings
from beamside.flow.start import prepare
from beamside.flow.stored_settings import load_settings
from beamside.flow.table import Tables
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState


@pytest.fixture
def project(home: Path) -> Project:
    """A stopped session of two movies: each took 90 s in motion correction and 30 s in the CTF."""
    settings = SessionSettings.from_flat(
        {"target": home / "out", "group": "lab", "name": "run1", "data": (str(home / "*.tiff"),), "pixel_size": 1.0}
        | {"voltage": 300}
    )
    prepare(settings)
    found = Project(settings.root)
    with ProjectWriter(found) as writer:
        writer.settings(settings.to_json())
        tables = Tables(settings, writer)
        for name in ("a", "b"):
            for stage, seconds in zip(tables.stages[:3], (0.0, 90.0, 30.0), strict=True):
                writer.item(stage.job.name, name, ItemState.WAITING)
                writer.item(stage.job.name, name, ItemState.QUEUED)
                key = "content" if stage is tables.stages[0] else stage.expected_key(name)
                result: dict[str, Any] = {"metrics": {}, "outputs": {}, "values": {}}
                writer.item(stage.job.name, name, ItemState.DONE, key=key, result=result, seconds=seconds)
        writer.session("stopped")
    return found


TWO_FITS = {
    "jobs": {
        "micrographs": {"type": "import_micrographs"},
        "coarse": {"type": "ctf", "inputs": {"micrographs": "micrographs.micrographs"}},
        "fine": {"type": "ctf", "inputs": {"micrographs": "micrographs.micrographs"}},
    }
}


def test_a_session_of_another_workflow_has_the_options_of_its_own_jobs(beamside, home: Path) -> None:
    settings = SessionSettings.from_flat(
        {"target": home / "out", "group": "lab", "name": "two", "data": (str(home / "*.mrc"),), "pixel_size": 1.0}
        | {"voltage": 300, "workflow": TWO_FITS}
    )
    prepare(settings)
    found = Project(settings.root)
    with ProjectWriter(found) as writer:
        writer.settings(settings.to_json())
        Tables(settings, writer)
    code, out, err = beamside("session", "set", "two", "--fine.max-defocus", "40000")
    assert code == 0, err
    assert "--fine.max-defocus: 50000 -> 40000" in out
    assert (stored(found)["fine.max_defocus"], stored(found)["coarse.max_defocus"]) == (40000.0, 50000.0)
    code, _, err = beamside("session", "set", "two", "--binning", "2")
    assert code == 2
    assert "--binning" in err


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    return


def stored(project: Project) -> dict[str, Any]:
    return load_settings(project).to_json()


COST = """--max-defocus: 50000 -> 40000
This is computed again:
  CTF estimation: 2 results, which took 1 min 0 s of the workers' time
"""


def test_what_it_costs_is_shown_and_without_a_terminal_it_wants_yes(beamside, project: Project) -> None:
    before = stored(project)
    code, out, err = beamside("session", "set", "run1", "--max-defocus", "40000")
    assert (code, out) == (2, COST)
    assert "add --yes" in err
    assert stored(project) == before
    assert control.receive(project) == []
    code, out, err = beamside("session", "set", "run1", "--max-defocus", "40000", "--yes")
    assert code == 0, err
    assert out.startswith(COST)
    assert "2 results are computed again when the session goes on." in out
    assert stored(project) == {**before, "max_defocus": 40000.0}
    _, out, _ = beamside("session", "show-config", "run1", "--json")
    assert json.loads(out)["max_defocus"] == {"value": 40000.0, "origin": "session set"}


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_asks(beamside, project: Project, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    import click

    def confirm(*_words: object, abort: bool) -> bool:
        if not answer:
            raise click.Abort
        return abort

    monkeypatch.setattr(click, "confirm", confirm)
    beamside("session", "set", "run1", "--binning", "2")
    assert stored(project)["binning"] == (2 if answer else 1)


def test_what_costs_nothing_is_done_at_once(beamside, project: Project) -> None:
    code, out, err = beamside("session", "set", "run1", "--workers", "3", "--report-minutes", "9")
    assert code == 0, err
    assert "Nothing is computed again." in out
    assert (stored(project)["workers"], stored(project)["report_minutes"]) == (3, 9.0)
    code, out, _ = beamside("session", "set", "run1", "--workers", "3")
    assert (code, "already" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing to change"),
        (["--binning", "99"], "--binning 99: must be"),
        (["--name", "other"], "unknown option --name"),
        (["--gain-rotate", "90"], "--gain-rotate 90"),
        (["--gain", "nowhere.mrc"], "nowhere.mrc does not exist; check --gain"),
    ],
)
def test_what_cannot_be_set_is_refused(beamside, project: Project, words: list[str], sentence: str) -> None:
    before = stored(project)
    code, _, err = beamside("session", "set", "run1", *words)
    assert code == 2
    assert sentence in err
    assert stored(project) == before


def test_of_a_session_that_runs_the_source_stays(beamside, project: Project) -> None:
    with ProjectWriter(project):
        code, _, err = beamside("session", "set", "run1", "--data", "elsewhere/*.tiff")
    assert code == 2
    assert "--data can be changed only while the session does not run" in err


def test_paths_are_those_of_where_this_is_typed(beamside, project: Project, home: Path) -> None:
    code, _, err = beamside("session", "set", "run1", "--data", "elsewhere/*.tiff", "--yes")
    assert code == 0, err
    assert stored(project)["data"] == [str(home / "elsewhere/*.tiff")]
