"""The index says what the journals say, whatever happens to either of them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.project.index import Index
from beamside.project.index_file import index_path, remove_index
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemState

JOB = "MotionCorr/job002"
happenings = st.one_of(
    st.tuples(st.sampled_from(["done", "failed", "rejected"]), st.sampled_from("abcde")),
    st.tuples(st.just("catch up"), st.sampled_from([None, 1, 2, 5])),
    st.tuples(st.just("tear"), st.integers(1, 700)),
    st.tuples(st.just("damage"), st.integers(0, 2000)),
    st.tuples(st.just("keep"), st.none()),
    st.tuples(st.just("restore"), st.none()),
    st.tuples(st.just("lose the index"), st.none()),
    st.tuples(st.just("spoil the index"), st.integers(0, 20000)),
)


def finish(project: Project, item: str, state: str) -> None:
    with ProjectWriter(project) as writer:
        entry = writer.state.jobs[JOB].items.get(item)
        if entry is None or entry.state is not ItemState.WAITING:
            if entry is not None and entry.state is ItemState.QUEUED:
                writer.item(JOB, item, ItemState(state), result={"metrics": {"m": 1.0}})
                return
            writer.item(JOB, item, ItemState.WAITING)
        writer.item(JOB, item, ItemState.QUEUED)
        writer.item(JOB, item, ItemState(state), reason=f"{item} is {state}", result={"metrics": {"m": 1.0}})


def spoil(path: Path, place: int) -> None:
    """Change a byte, as a disk may."""
    content = bytearray(path.read_bytes())
    if place < len(content) and content[place] not in b"\n":
        content[place] = ord("~")
        path.write_bytes(content)


@settings(max_examples=50, deadline=None)
@given(history=st.lists(happenings, max_size=16))
def test_the_index_is_that_of_the_journals_whatever_happens(
    history: list[tuple[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("index")
    project = Project(base / "project")
    journal, kept = project.job_journal(JOB), base / "kept.jsonl"
    with ProjectWriter(project) as writer:
        writer.create_job(JOB, "motion", {}, {})
    index = Index(project)
    for what, detail in history:
        if what == "catch up":
            index.catch_up(None if detail is None else int(str(detail)))
        elif what == "tear" and journal.exists():
            os.truncate(journal, max(0, journal.stat().st_size - int(str(detail))))
        elif what == "damage" and journal.exists():
            spoil(journal, int(str(detail)))
        elif what == "keep" and journal.exists():
            shutil.copyfile(journal, kept)
        elif what == "restore" and kept.exists():
            shutil.copyfile(kept, journal)
        elif what == "lose the index":
            remove_index(project)
        elif what == "spoil the index" and index_path(project).exists():
            index.close()
            spoil(index_path(project), int(str(detail)))
        elif what in ("done", "failed", "rejected"):
            finish(project, str(detail), what)
    state = project.load()
    index.catch_up()
    expected = Counter(entry.state.value for entry in state.jobs[JOB].items.values())
    assert index.counts().get(JOB, {}) == dict(expected)
    assert bool([record for record in index.events("problem") if "journal:" in record["key"]]) == bool(state.damage)
    assert dict(index.results(JOB)) == {
        name: entry.result for name, entry in state.jobs[JOB].items.items() if entry.result is not None
    }
    index.close()


def test_what_is_left_is_taken_in_the_next_time(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with ProjectWriter(project) as writer:
        writer.create_job(JOB, "motion", {}, {})
    for name in "ab":
        finish(project, name, "done")
    index = Index(project)
    taken = [index.catch_up(2) for _ in range(5)]
    assert taken == [4, 2, 2, 0, 0], "two records of the project, and six of the job"
    assert index.counts() == {JOB: {"done": 2}}
    index.close()
