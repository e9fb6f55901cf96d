"""Picking by references from the classes of the same session: blob picking, its classes, and a second picking on the same micrographs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from beamside.cli.main import main
from beamside.errors import ConfigError
from beamside.flow.projection import rebuild
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.start import adopt_files, prepare
from beamside.formats.star import read_star
from beamside.project.project import Project
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]

pytestmark = pytest.mark.usefixtures("whole_chain")

WORKFLOW: dict[str, Any] = {
    "title": "Blobs, then their classes",
    "jobs": {
        "import": {"type": "import"},
        "motion": {"type": "motion", "inputs": {"movies": "import.movies"}},
        "ctf": {"type": "ctf", "inputs": {"micrographs": "motion.micrographs"}},
        "blobs": {"type": "pick", "inputs": {"micrographs": "ctf.micrographs"}},
        "cut": {
            "type": "extract",
            "inputs": {"micrographs": "ctf.micrographs", "coordinates": "blobs.coordinates"},
        },
        "class2d": {"type": "class2d", "inputs": {"particles": "cut.particles"}},
        "select": {"type": "select", "inputs": {"classes": "class2d.classes"}},
        "again": {"type": "pick", "inputs": {"micrographs": "ctf.micrographs", "references": "select.classes"}},
        "recut": {
            "type": "extract",
            "inputs": {"micrographs": "ctf.micrographs", "coordinates": "again.coordinates"},
        },
    },
}


@pytest.fixture
def asked(session_settings: Settings) -> SessionSettings:
    return session_settings(workflow=WORKFLOW)


def run(settings: SessionSettings) -> Project:
    project = Project(settings.root)
    prepare(settings)
    (project.root / "calls.txt").unlink(missing_ok=True)
    assert Session(settings, until_empty=True).run() == "finished"
    return project


def calls(project: Project) -> Counter[str]:
    path = project.root / "calls.txt"
    return Counter(path.read_text().splitlines() if path.exists() else [])


def references(project: Project) -> dict[str, str]:
    """With which references each micrograph was picked."""
    job = project.load().job_labelled("again")
    assert job is not None
    return {
        Path(entry.name).name[0]: (entry.result or {"values": {}})["values"].get("references", "")
        for entry in job.items.values()
    }


def command(*words: str, given: str | None = None) -> str:
    found = CliRunner().invoke(main, ["session", *words], input=given)
    assert found.exit_code == 0, found.output
    return found.output


def test_a_session_picks_again_with_its_own_classes_and_takes_newer_ones_when_it_is_told(
    asked: SessionSettings, write_movie: Callable[..., Path]
) -> None:
    for name in "abc":
        write_movie(name)
    project = run(asked)
    first = references(project)
    assert list(first) == ["a", "b", "c"]
    [used] = set(first.values())
    assert used.startswith("classes of round")
    state = project.load()
    again = state.job_labelled("again")
    assert again is not None
    assert {entry.state for entry in again.items.values()} == {ItemState.DONE}
    name = str(project.root)

    write_movie("d")
    write_movie("e")
    project = run(asked)
    assert calls(project) == Counter(
        {
            f"{job} {item}_fractions": (2 if job in ("pick", "extract") else 1)
            for job in ("motion", "ctf", "pick", "extract")
            for item in "de"
        }
    )
    assert set(references(project).values()) == {used}, "nothing is redone unasked"
    shown = command("offers", name)
    assert shown.startswith("again: Picking (again) uses class averages of Class selection, ")
    assert "5 results of Picking (again) and 5 results of Extraction (recut)" in shown
    assert "beamside session take" in command("status", name)

    said = command("take", name, "--yes")
    assert "Picking (again): 5 results" in said
    assert "10 results are computed again" in said
    assert calls(project)["pick a_fractions"] == 0
    use = "again: Picking (again) uses class averages of Class selection, those of round"
    assert re.fullmatch(rf"{re.escape(use)}\d+\.\nNothing is offered\.\n", command("offers", name))
    project = run(asked)
    assert calls(project) == Counter({f"{job} {item}_fractions": 1 for job in ("pick", "extract") for item in "abcde"})
    [now] = set(references(project).values())
    assert now != used
    run(asked)
    assert calls(project) == Counter()


def test_relion_is_shown_where_the_references_come_from(
    asked: SessionSettings, write_movie: Callable[..., Path]
) -> None:
    write_movie("a")
    write_movie("b")
    project = run(asked)
    state = project.load()
    again, select = state.job_labelled("again"), state.job_labelled("select")
    assert again is not None
    assert select is not None
    edges = read_star(project.root / "default_pipeline.star")["pipeline_input_edges"]
    found = [row[0] for row in edges.rows if row[1] == f"{again.name}/"]
    assert f"{select.name}/class_averages.star" in found
    options = dict(map(tuple, read_star(project.root / again.name / "job.star")["joboptions_values"].rows))
    assert (options["do_refs"], options["do_log"]) == ("Yes", "No")
    assert (project.root / str(options["fn_refs_autopick"])).read_text() == set(references(project).values()).pop()
    rebuild(project)


def test_what_is_not_wanted_is_declined_and_recorded(asked: SessionSettings, write_movie: Callable[..., Path]) -> None:
    for name in "abc":
        write_movie(name)
    run(asked)
    write_movie("d")
    write_movie("e")
    project = run(asked)
    name = str(project.root)
    assert "stays with what it has" in command("take", name, "--decline")
    assert "It was declined before" in command("offers", name)
    assert "beamside session take" not in command("status", name)
    records = [record for record in project.load().commands.values() if record["command"] == "take"]
    assert [record["outcome"] for record in records] == ["done"]
    run(asked)
    assert calls(project) == Counter()


def test_a_session_without_enough_particles_ends_and_says_what_it_waits_for(
    session_settings: Settings, write_movie: Callable[..., Path]
) -> None:
    write_movie("bad")
    project = run(session_settings(workflow=WORKFLOW))
    assert "Picking (again) begins when Class selection has given class averages." in command(
        "status", str(project.root)
    )
    write_movie("a")
    run(session_settings(workflow=WORKFLOW))
    assert references(project) == {"a": "classes of round001"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"again.pick_references": "some.mrcs"}, "the workflow says where the references come from"),
        ({"again.pick_method": "blob"}, "the workflow says where the references come from"),
        ({"blobs.pick_method": "template", "blobs.pick_references": "workflow"}, "needs a workflow that connects"),
    ],
)
def test_references_from_two_places_or_from_none_are_refused(
    session_settings: Settings, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        adopt_files(session_settings(workflow=WORKFLOW, **values))
