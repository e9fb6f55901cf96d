"""Items that belong together in a whole session: taken in, processed, told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from beamside import testing
from beamside.cli.main import main
from beamside.errors import ConfigError
from beamside.flow.workflow import parse_workflow
from beamside.jobs import registry
from beamside.jobs.base import Result
from beamside.monitor.job_views import job_views
from beamside.monitor.report import write_report
from beamside.monitor.report_items import read_items
from beamside.monitor.status import read_status
from beamside.project.index import Index
from beamside.project.project import Project
from beamside.project.records import ItemState


class Book:
    """A folder of texts, by chapter, and the project that is made of it."""

    def __init__(self, folder: Path, chapters: Any) -> None:
        self.folder, self.texts, self.chapters = folder, folder / "texts", chapters

    def write(self, place: str, text: str) -> None:
        path = self.texts / f"{place}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, **settings: Any) -> dict[str, tuple[float, float]]:
        """Run a session until all is done; return the words and texts of each chapter."""
        testing.run_session(self.chapters.WORKFLOW, [self.texts], self.folder, **settings)
        return self.result()

    def result(self) -> dict[str, tuple[float, float]]:
        items = self.project.load().job_labelled("chapters").items.values()
        return {
            entry.name: (entry.result["metrics"]["words"], entry.result["metrics"]["texts"])
            for entry in items
            if entry.result
        }

    @property
    def project(self) -> Project:
        return testing.project_in(self.folder)

    def list_of(self, job: str, chapter: str) -> list[str]:
        entry = self.project.load().job_labelled(job).items[f"chapters/{chapter}"]
        return (self.project.root / entry.result["outputs"]["list"]).read_text().splitlines()


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_flow_jobs: Callable[[str], Any]) -> Book:
    load_flow_jobs("text_jobs").install(monkeypatch.setitem)
    chapters = load_flow_jobs("chapter_jobs")
    for kind in (chapters.Chapters, chapters.Titles):
        monkeypatch.setitem(registry.BUILT_IN, kind.name, kind)
    monkeypatch.setattr("beamside.jobs.worker._limit_threads", lambda _threads: None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Book(tmp_path, chapters)
    made.write("chapter1/one", "a few words\nend\n")
    made.write("chapter1/two", "more\nend\n")
    made.write("chapter2/three", "end\n")
    return made


def test_the_texts_of_a_folder_become_one_item_and_what_follows_takes_it(book: Book) -> None:
    assert book.run() == {"chapters/chapter1": (6, 2), "chapters/chapter2": (1, 1)}
    assert book.list_of("chapters", "chapter1") == ["raw/one", "raw/two"]
    assert book.list_of("titles", "chapter1") == ["RAW/ONE", "RAW/TWO"]


def test_a_late_text_changes_its_chapter_and_nothing_else(book: Book) -> None:
    book.run()
    before = {entry.name: entry.task for entry in book.project.load().job_labelled("titles").items.values()}
    book.write("chapter1/late", "it comes late\nend\n")
    assert book.run() == {"chapters/chapter1": (10, 3), "chapters/chapter2": (1, 1)}
    after = {entry.name: entry.task for entry in book.project.load().job_labelled("titles").items.values()}
    assert {name: after[name] - before[name] for name in after} == {"chapters/chapter1": 1, "chapters/chapter2": 0}
    assert book.run() == {"chapters/chapter1": (10, 3), "chapters/chapter2": (1, 1)}


def test_a_text_that_a_person_takes_out_leaves_its_chapter_and_comes_back(book: Book) -> None:
    whole = book.run()
    root = str(book.project.root)
    said = CliRunner().invoke(
        main, ["session", "reject", "raw/one", "--job", "words", "--session", root], catch_exceptions=False
    )
    assert said.exit_code == 0, said.output
    assert book.run() == {"chapters/chapter1": (2, 1), "chapters/chapter2": (1, 1)}
    assert book.list_of("chapters", "chapter1") == ["raw/two", "without raw/one"]
    said = CliRunner().invoke(
        main, ["session", "reject", "raw/one", "--undo", "--job", "words", "--session", root], catch_exceptions=False
    )
    assert said.exit_code == 0, said.output
    assert book.run() == whole


def test_a_chapter_that_cannot_be_made_fails_with_its_reason_and_the_others_go_on(book: Book) -> None:
    book.write("chapter1/odd", "never\nend\n")
    assert book.run() == {"chapters/chapter2": (1, 1)}
    entry = book.project.load().job_labelled("chapters").items["chapters/chapter1"]
    assert (entry.state, entry.reason) == (ItemState.FAILED, "One of the texts cannot be used.")


def test_what_belongs_to_no_group_is_told(book: Book) -> None:
    book.write("notes/n", "a note\nend\n")
    book.run()
    told = [problem.text for problem in read_status(book.project).problems]
    assert "Chapters: raw/n belongs to no group, and is not used there." in told


def test_a_job_type_that_cannot_say_where_an_item_belongs_is_told_with_what_it_raised(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    def group_of(_self: Any, name: str, values: Any, parameters: Any) -> str:
        return {"raw/one": "chapters/a", "raw/two": "../b"}[name]

    monkeypatch.setattr(book.chapters.Chapters, "group_of", group_of)
    assert book.run() == {"chapters/a": (4, 1)}
    told = " ".join(problem.text for problem in read_status(book.project).problems)
    assert "Chapters: 2 items, the first of them raw/" in told
    assert "could not say where an item belongs (" in told


def test_status_and_report_show_groups_beside_single_items(book: Book) -> None:
    book.run()
    shown = {stage.title: stage.done for stage in read_status(book.project).stages}
    assert shown == {"Texts": 3, "Words": 3, "Chapters": 2, "Titles": 2}
    page = write_report(book.project).read_text("utf-8")
    assert "Words of the chapter" in page
    index = Index(book.project)
    index.catch_up()
    views = {view.name: view for view in read_items(index, job_views(index.settings()))}
    assert {view.state for view in views.values()} == {"done"}
    assert [title for title, _, _ in views["raw/one"].steps] == ["Texts", "Words"]
    assert [title for title, _, _ in views["chapters/chapter1"].steps] == ["Chapters", "Titles"]


def test_the_work_on_a_group_can_be_tested_alone(book: Book, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("some words")
    made = testing.run_group(
        book.chapters.Chapters,
        {},
        {"raw/one": {"counts": Result(metrics={"words": 2.0}, outputs={"text": "one.txt"})}},
        root=tmp_path,
        left_out={"raw/two": "given up"},
    )
    assert made.metrics == {"words": 2.0, "texts": 1.0}
    assert (tmp_path / made.outputs["list"]).read_text() == "raw/one\nwithout raw/two"


def test_ports_that_take_different_items_are_refused_with_both_named(book: Book) -> None:
    kind = book.chapters.Titles
    more = (*kind.inputs, type(kind.inputs[0])("counts", book.chapters.COUNTED))
    kind.inputs = more  # the fixture's own class
    jobs = {**book.chapters.WORKFLOW["jobs"]}
    jobs["titles"] = {"type": "titles", "inputs": {"chapters": "chapters.chapters", "counts": "words.counts"}}
    with pytest.raises(
        ConfigError, match=r"do not take the same items: 'chapters' takes those of 'chapters', and 'cou"
    ):
        parse_workflow({"jobs": jobs})
