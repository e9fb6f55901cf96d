"""A project without a microscope: nothing in the session may need one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beamside.acquisition import kinds
from beamside.acquisition.manifest import Manifest
from beamside.acquisition.transfer import hash_file
from beamside.cli.resolution import resolve_session
from beamside.errors import ConfigError
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings, sections
from beamside.flow.start import prepare
from beamside.flow.stored_settings import load_settings
from beamside.flow.workflow import find_workflow
from beamside.monitor.report import write_report
from beamside.monitor.status import read_status
from beamside.project.project import Project
from beamside.project.records import ItemState


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_flow_jobs: Callable[[str], Any]) -> Path:
    load_flow_jobs("text_jobs").install(monkeypatch.setitem)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("beamside.jobs.worker._limit_threads", lambda _threads: None)
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "one.txt").write_text("a few words\nend\n")
    (folder / "two.txt").write_text("words\nand more\nend\n")
    (folder / "picture.tiff").write_text("none")
    return folder


def settings(folder: Path, **values: Any) -> SessionSettings:
    usual = {
        "target": folder.parent / "out put",
        "name": "run1",
        "workflow": "words",
        "data": (str(folder),),
        "poll_seconds": 0.05,
        "settle_seconds": 0.0,
        "executor": "inline",
    }
    return SessionSettings.from_flat({**usual, **values})


def test_texts_are_taken_in_and_counted_in_a_project_that_knows_no_microscope(texts: Path) -> None:
    given = settings(texts)
    assert Session(given, until_empty=True).run() == "finished"
    project = Project(given.root)
    words = project.load().job_of_type("words")
    assert words is not None
    assert {name: entry.state for name, entry in words.items.items()} == dict.fromkeys(
        ("raw/one", "raw/two"), ItemState.DONE
    )
    assert {name: entry.result["metrics"]["words"] for name, entry in words.items.items()} == {
        "raw/one": 4,
        "raw/two": 4,
    }
    for entry in Manifest(project.root).entries:
        copy = project.root / entry.destination
        assert entry.sha256 == entry.destination_sha256 == hash_file(Path(entry.source)) == hash_file(copy)
    files = [path for path in project.root.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".star"], "no table of RELION's is in it"
    assert not (project.root / "default_pipeline.star").exists()


def test_a_second_session_takes_in_what_is_new_and_computes_nothing_again(texts: Path) -> None:
    given = settings(texts)
    assert Session(given, until_empty=True).run() == "finished"
    (texts / "three.txt").write_text("end\n")
    again = load_settings(Project(given.root))
    assert Session(again, until_empty=True).run() == "finished"
    words = Project(given.root).load().job_of_type("words")
    assert words is not None
    assert sorted(words.items) == ["raw/one", "raw/three", "raw/two"]
    assert {entry.state for entry in words.items.values()} == {ItemState.DONE}
    counted = (again.root / "calls.txt").read_text().split()
    assert sorted(counted) == ["raw/one", "raw/three", "raw/two"], "each once"


@pytest.mark.usefixtures("texts")
def test_a_workflow_without_optics_does_not_ask_for_them(texts: Path) -> None:
    keys = [section.key for section in sections(find_workflow("words"))]
    assert "optics" not in keys
    assert "optics" in [section.key for section in sections(find_workflow("movies"))]
    given = settings(texts, pixel_size=1.1)  # of a file of settings for several workflows
    assert not {"pixel_size", "voltage"} & given.to_json().keys()


@pytest.mark.usefixtures("texts")
def test_the_command_line_asks_for_no_pixel_size_or_voltage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"target": "out", "name": "run1", "workflow": "words", "data": ("texts/*.txt",)}
    assert resolve_session(given).settings.source_kind.name == "text"
    with pytest.raises(ConfigError, match="--pixel-size"):
        resolve_session({**given, "workflow": "movies"})


def test_its_report_and_status_are_made_without_a_microscope(texts: Path) -> None:
    given = settings(texts)
    assert Session(given, until_empty=True).run() == "finished"
    project = Project(given.root)
    assert {stage.title: stage.done for stage in read_status(project).stages} == {"Texts": 2, "Words": 2}
    assert not read_status(project).has_particles
    assert "Words" in write_report(project).read_text("utf-8")


@pytest.mark.parametrize("field", ["prepare", "compare"])
def test_a_kind_that_names_what_is_not_there_stops_the_start_with_a_sentence(
    texts: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    named: dict[str, Any] = {field: "texts.that_are_missing:make"}
    monkeypatch.setitem(kinds.BUILT_IN, "text", replace(kinds.BUILT_IN["text"], **named))
    with pytest.raises(ConfigError, match=r"kind of source 'text' names 'texts\.that_are_missing:make'"):
        Session(settings(texts), until_empty=True).run()


def test_the_start_speaks_of_the_formats_of_what_is_taken_in(texts: Path) -> None:
    assert prepare(settings(texts)) == []
    for path in texts.glob("*.txt"):
        path.unlink()
    (said,) = prepare(settings(texts))
    assert said.startswith(f"No text file matches --data '{texts}' so far. 1 file matches, but .tiff is not text")
