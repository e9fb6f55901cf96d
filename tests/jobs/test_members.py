"""A round's worker reads the results of its items from the journals: those that the session knew, or none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamside.errors import NotReadyError
from beamside.jobs.base import Result
from beamside.jobs.members import Members, digest_of, items_of
from beamside.jobs.ports import linked
from beamside.jobs.worker import run_task
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState, JobEntry

WIRING = {
    "fit": {},
    "left": {"fitted": "fit"},
    "right": {"fitted": "fit"},
    "join": {"one": "left", "two": "right"},
    "sort": {"things": "join"},
}
JOBS = ("fit", "left", "right", "join")


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProjectWriter]:
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    with ProjectWriter(Project(tmp_path / "project")) as found:
        for label in JOBS:
            found.create_job(f"Job/{label}", "type", {}, {}, label=label)
        yield found


def finish(writer: ProjectWriter, label: str, item: str, number: int, state: ItemState = ItemState.DONE) -> None:
    """Let an item be done once more; `number` tells this result from the others."""
    begin(writer, label, item)
    result = {"metrics": {"n": number}, "outputs": {f"file_{label}": f"{item}.{number}"}, "values": {label: number}}
    writer.item(
        f"Job/{label}",
        item,
        state,
        key=f"{label}{number}",
        result=None if state is ItemState.FAILED else result,
        reason='"state":"done"',
    )


def begin(writer: ProjectWriter, label: str, item: str) -> None:
    entry = writer.state.jobs[f"Job/{label}"].items.get(item)
    if entry is None or entry.state is not ItemState.QUEUED:
        if entry is None or entry.state is not ItemState.WAITING:
            writer.item(f"Job/{label}", item, ItemState.WAITING)
        writer.item(f"Job/{label}", item, ItemState.QUEUED)


def job(writer: ProjectWriter, label: str) -> JobEntry:
    return writer.state.jobs[f"Job/{label}"]


def members(writer: ProjectWriter, *names: str, left_out: dict[str, list[str]] | None = None) -> Members:
    sizes = {label: writer.project.job_journal(f"Job/{label}").stat().st_size for label in JOBS}
    return Members(
        port="things",
        label="join",
        names=names,
        digest=digest_of((name, job(writer, "join").items[name].key) for name in names),
        journals={label: (f"Job/{label}", size) for label, size in sizes.items()},
        left_out=left_out or {},
    )


def all_done(writer: ProjectWriter, *names: str) -> None:
    for name in names:
        for label in JOBS:
            finish(writer, label, name, 1)


def test_items_have_what_was_made_of_them_step_by_step_back(writer: ProjectWriter) -> None:
    all_done(writer, "raw/a", "raw/b", 'raw/ü "q"')
    names = ("raw/b", 'raw/ü "q"')
    found = items_of(members(writer, *names), writer.project.root, WIRING)
    assert [item.name for item in found] == list(names)
    for item in found:
        given = item.inputs["things"]
        assert given.result.metrics == {"n": 1}
        assert set(given.inputs) == {"one", "two"}
        assert given.inputs["one"].inputs["fitted"].result.values == {"fit": 1}
        assert item.output("file_fit") == f"{item.name}.1"
        assert (item.value("right"), item.value("nothing")) == (1, None)


def test_what_is_left_out_is_not_there_though_the_journal_has_it(writer: ProjectWriter) -> None:
    all_done(writer, "raw/a")
    [item] = items_of(members(writer, "raw/a", left_out={"raw/a": ["left"]}), writer.project.root, WIRING)
    assert set(item.inputs["things"].inputs) == {"two"}
    assert item.find("file_left") == ""


def test_what_was_not_made_or_has_failed_is_not_there(writer: ProjectWriter) -> None:
    finish(writer, "fit", "raw/a", 1)
    finish(writer, "left", "raw/a", 1)
    finish(writer, "left", "raw/a", 2, ItemState.FAILED)
    finish(writer, "right", "raw/a", 1, ItemState.REJECTED)
    finish(writer, "join", "raw/a", 1)
    [item] = items_of(members(writer, "raw/a"), writer.project.root, WIRING)
    assert set(item.inputs["things"].inputs) == {"two"}
    assert "left" not in dict(item.inputs["things"].inputs)
    with pytest.raises(KeyError):
        item.inputs["things"].inputs["one"]


def test_what_is_begun_or_made_of_others_meanwhile_changes_nothing(writer: ProjectWriter) -> None:
    all_done(writer, "raw/a")
    given = members(writer, "raw/a")
    finish(writer, "join", "raw/b", 7)
    finish(writer, "left", "raw/a", 8)
    begin(writer, "join", "raw/a")
    [item] = items_of(given, writer.project.root, WIRING)
    assert item.value("left") == 1, "as it was when the round was given out"
    assert item.inputs["things"].result.metrics == {"n": 1}


def test_a_result_that_is_another_by_now_is_refused_and_the_round_tried_again(writer: ProjectWriter) -> None:
    all_done(writer, "raw/a", "raw/b")
    given = members(writer, "raw/a", "raw/b")
    finish(writer, "join", "raw/b", 1)
    assert len(items_of(given, writer.project.root, WIRING)) == 2, "the same result was made once more"
    finish(writer, "join", "raw/b", 2)
    with pytest.raises(NotReadyError, match=r"raw/b was made again in Job/join"):
        items_of(given, writer.project.root, WIRING)
    task = {
        "type_name": "class2d",
        "label": "sort",
        "root": str(writer.project.root),
        "job": "Class2D/job009",
        "parameters": {},
        "optics": dict.fromkeys(
            ("pixel_size", "voltage", "spherical_aberration", "amplitude_contrast", "dose_per_frame"), 1.0
        ),
        "items": [],
        "wiring": WIRING,
        "round_name": "round001",
        "members": vars(given),
    }
    outcome = run_task(task)
    assert (outcome["result"], outcome["permanent"]) == (None, False)
    assert "raw/b" in outcome["reason"]


@pytest.mark.parametrize("lost", ["all", "the end"])
def test_a_journal_that_is_not_seen_whole_here_is_refused(writer: ProjectWriter, lost: str) -> None:
    all_done(writer, "raw/a", "raw/b")
    given = members(writer, "raw/a", "raw/b")
    path = writer.project.job_journal("Job/join")
    content = path.read_bytes()
    path.write_bytes(b"" if lost == "all" else content[: content.index(b"raw/b")])
    with pytest.raises(NotReadyError, match="Job/join"):
        items_of(given, writer.project.root, WIRING)
    path.write_bytes(content)
    assert len(items_of(given, writer.project.root, WIRING)) == 2


def test_results_of_another_state_of_the_journal_are_refused(writer: ProjectWriter) -> None:
    all_done(writer, "raw/a")
    given = members(writer, "raw/a")
    path = writer.project.job_journal("Job/join")
    path.write_bytes(path.read_bytes().replace(b"join1", b"join2"))
    with pytest.raises(NotReadyError, match="other results"):
        items_of(given, writer.project.root, WIRING)


def test_damaged_lines_are_passed_over(writer: ProjectWriter) -> None:
    all_done(writer, "raw/a")
    path = writer.project.job_journal("Job/join")
    path.write_bytes(b'no json\n[1]\n{"state":["done"],"item":"raw/a"}\n{"state":"done"}\n' + path.read_bytes())
    assert len(items_of(members(writer, "raw/a"), writer.project.root, WIRING)) == 1


step = st.tuples(
    st.sampled_from(JOBS),
    st.sampled_from(["raw/a", "raw/b", "raw/c"]),
    st.integers(0, 3),
    st.sampled_from([ItemState.DONE, ItemState.DONE, ItemState.REJECTED, ItemState.FAILED, ItemState.QUEUED]),
)


@given(st.lists(step, max_size=30), st.lists(step, max_size=6))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_journal_gives_what_the_session_knew_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    before: list[tuple[str, str, int, ItemState]],
    after: list[tuple[str, str, int, ItemState]],
) -> None:
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    with ProjectWriter(Project(tmp_path_factory.mktemp("any"))) as writer:
        for label in JOBS:
            writer.create_job(f"Job/{label}", "type", {}, {}, label=label)
            finish(writer, label, "raw/d", 0)
        for label, item, number, state in before:
            (begin(writer, label, item) if state is ItemState.QUEUED else finish(writer, label, item, number, state))
        entries = job(writer, "join").items
        names = [name for name, entry in entries.items() if entry.state is ItemState.DONE]
        keys = {name: entries[name].key for name in names}
        asked = members(writer, *names)
        known = {name: tree(expected(writer, name)) for name in names}
        for label, item, number, state in after:
            (begin(writer, label, item) if state is ItemState.QUEUED else finish(writer, label, item, number, state))
        others = {
            (item, f"join{number}")
            for label, item, number, state in after
            if label == "join" and state != ItemState.QUEUED
        }
        if any(name in keys and keys[name] != key for name, key in others):
            with pytest.raises(NotReadyError):
                items_of(asked, writer.project.root, WIRING)
        else:
            found = items_of(asked, writer.project.root, WIRING)
            assert {item.name: tree(item.inputs) for item in found} == known


def expected(writer: ProjectWriter, name: str) -> Any:
    entries = {label: job(writer, label).items.get(name) for label in JOBS}
    there = {label: Result.from_json(entry.result) for label, entry in entries.items() if entry and entry.result}
    return linked(there, WIRING, "sort")


def tree(inputs: Any) -> Any:
    return {port: (given.result, tree(given.inputs)) for port, given in inputs.items()}
