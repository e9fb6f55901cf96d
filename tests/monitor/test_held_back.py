"""What gates hold back is counted by itself in status and report, with who or what holds it, and does not count as waiting."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beamside.cli.progress import failure_lines, plain_lines, stage_words
from beamside.flow.rules import parse_rule
from beamside.flow.settings import SessionSettings
from beamside.flow.verdicts import give_word
from beamside.monitor.held_back import read_held_back
from beamside.monitor.job_views import job_views
from beamside.monitor.report import collect
from beamside.monitor.report_items import read_items
from beamside.monitor.status import read_status
from beamside.project.index import Index
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState


def _report_project() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_project", Path(__file__).with_name("report_project.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """Eight files: six are done, one waits for picking, and of one motion correction has failed."""
    session = _report_project().MadeUpSession(tmp_path / "lab" / "run1")
    session.open_jobs()
    for number in range(6):
        session.item(number, name=f"raw/m{number}")
    session.item(6, name="raw/m6", stop="pick", state="waiting")
    session.item(7, name="raw/m7", stop="motion", reason="no frames")
    return session


def rule(session: Any, *texts: str) -> None:
    parsed = [parse_rule(text, session.workflow) for text in texts]
    for label in dict.fromkeys(job.label for job, _ in parsed):
        session.writer.rules(session.jobs[label], [one for job, one in parsed if job.label == label])


def worst(session: Any, metric: str) -> tuple[str, float]:
    items = session.writer.state.jobs[session.jobs["ctf"]].items
    return max(
        ((name, entry.result["metrics"][metric]) for name, entry in items.items() if entry.result),
        key=lambda pair: pair[1],
    )


def test_without_rules_and_words_nothing_is_held_back(session: Any) -> None:
    status = read_status(session.writer.project)
    assert all(stage.held == 0 for stage in status.stages)
    assert status.backlog == 1


def test_a_rule_is_counted_and_named(session: Any) -> None:
    before = read_status(session.writer.project)
    name, value = worst(session, "ctf_resolution")
    rule(session, f"ctf.ctf_resolution < {value - 0.0001!r}")
    status = read_status(session.writer.project)
    [ctf] = [stage for stage in status.stages if stage.name == "ctf"]
    assert (ctf.held, ctf.done) == (1, 7)
    [group] = status.held_back
    assert (group.title, group.count, group.first) == ("CTF estimation", 1, name)
    assert "the rule is ctf.ctf_resolution <" in group.reason
    assert f"CTF resolution {value:.1f} Å" in group.reason
    if name == "raw/m6":
        assert status.backlog == 0
    else:
        assert status.particles < before.particles
    assert group.state == "held back"
    assert group.text() in failure_lines(status)
    assert not any(failed.state == "held back" for failed in status.failures), "it is no failure"
    assert "1 held back" in stage_words(ctf)
    assert "1 held back" in "\n".join(plain_lines(status))


def test_what_waits_behind_a_gate_does_not_wait(session: Any) -> None:
    give_word(session.writer, "reject", ["raw/m6"], "motion", "ana")
    status = read_status(session.writer.project)
    stages = {stage.name: stage for stage in status.stages}
    assert (stages["motion"].held, stages["pick"].waiting, status.backlog) == (1, 0, 0)
    [group] = status.held_back
    assert group.reason == "ana rejected it"
    give_word(session.writer, "none", ["raw/m6"], "motion", "ana")
    assert read_status(session.writer.project).backlog == 1


def test_a_word_of_acceptance_outranks_a_rule(session: Any) -> None:
    rule(session, "ctf.ctf_resolution < 0.1")
    give_word(session.writer, "accept", ["raw/m1"], "ctf", "ana")
    status = read_status(session.writer.project)
    assert {stage.name: stage.held for stage in status.stages}["ctf"] == 6
    assert 0 < status.particles < 200


def test_the_report_accounts_for_what_is_held_back(session: Any) -> None:
    give_word(session.writer, "reject", ["raw/m1", "raw/m2"], "ctf", "ana")
    give_word(session.writer, "reject", ["raw/m6"], "ctf", "ben")
    project = session.close()
    page = collect(project)
    assert "8 files = 4 done + 1 failed + 3 held back" in page["accounting"].sentence
    assert page["accounting"].complete
    assert ("Held back", "3") in [(tile.label, tile.value) for tile in page["tiles"]]
    held = [group for group in page["problems"] if group.state == "held back"]
    assert {(group.stage, len(group.items)) for group in held} == {("CTF estimation", 2), ("CTF estimation", 1)}
    assert sorted(page["plots"]["states"]) == ["d"] * 4 + ["f"] + ["h"] * 3


BRANCHES = {
    "jobs": {
        "import": {"type": "import"},
        "motion": {"type": "motion", "inputs": {"movies": "import.movies"}},
        "ctf": {"type": "ctf", "inputs": {"micrographs": "motion.micrographs"}},
        "small": {"type": "pick", "inputs": {"micrographs": "ctf.micrographs"}},
        "large": {"type": "pick", "inputs": {"micrographs": "ctf.micrographs"}},
        "one": {"type": "extract", "inputs": {"micrographs": "ctf.micrographs", "coordinates": "small.coordinates"}},
        "two": {"type": "extract", "inputs": {"micrographs": "ctf.micrographs", "coordinates": "large.coordinates"}},
        "join": {"type": "join", "inputs": {"first": "one.particles", "second": "two.particles"}},
    }
}


def test_what_can_be_made_of_another_input_is_not_kept(tmp_path: Path) -> None:
    values = {"target": tmp_path, "name": "run2", "data": ("*",), "pixel_size": 1, "voltage": 300, "workflow": BRANCHES}
    settings = SessionSettings.from_flat(values)
    with ProjectWriter(Project(settings.root)) as writer:
        writer.settings(settings.to_json())
        for number, planned in enumerate(settings.workflow.jobs, 1):
            job = f"Any/job{number:03d}"
            writer.create_job(job, planned.type.name, {}, {}, label=planned.label)
            for name in ("raw/m0", "raw/m1"):
                for state in (ItemState.WAITING, ItemState.QUEUED):
                    writer.item(job, name, state)
                writer.item(job, name, ItemState.DONE, key="k", result={"metrics": {}, "outputs": {}, "values": {}})
        for label, name in (("small", "raw/m0"), ("small", "raw/m1"), ("large", "raw/m1")):
            give_word(writer, "reject", [name], label, "ana")
    index = Index(Project(settings.root))
    index.catch_up()
    held = read_held_back(index, settings.workflow)
    assert held.at("one") == {"raw/m0", "raw/m1"}
    assert held.at("two") == held.at("join") == {"raw/m1"}
    assert held.reason("raw/m0") == ("small", "ana rejected it")
    states = {view.name: view.state for view in read_items(index, job_views(index.settings()))}
    assert states == {"raw/m0": "done", "raw/m1": "held back"}
    index.close()
