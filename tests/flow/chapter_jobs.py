"""Words counted by chapter: the texts of one folder are one item."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from beamside.errors import ProcessingError
from beamside.jobs.base import Item, ItemGroup, JobType, Metric, Result, Workspace
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.jobs.triggers import Group
from beamside.parameters import ParameterModel, parameter

COUNTED = ItemKind("counted", "Counted texts", metrics={"words": "how many there are"})
CHAPTER = ItemKind("chapter", "Chapters", files={"list": "its texts"}, metrics={"words": "how many there are"})


class ChapterParameters(ParameterModel):
    """When a chapter is complete."""

    chapter_texts: int = parameter(0, "How many texts a chapter has; 0 when that is not known.", ge=0)


class Chapters(JobType):
    """Adds up the words of the texts of one folder."""

    name, title, directory, version = "chapters", "Chapters", "Chapters", "1"
    inputs = (Input("counts", COUNTED, takes="all"),)
    outputs = (Output("chapters", CHAPTER),)
    trigger = Group(expected="chapter_texts")
    work = f"{__name__}:add_up"
    optics_used = ()
    Parameters = ChapterParameters
    metrics = (Metric("words", "Words of the chapter", digits=0), Metric("texts", "Texts", digits=0))

    def group_of(self, name: str, values: Mapping[str, Any], parameters: Any) -> str:
        folder = PurePath(str(values.get("source", ""))).parent.name
        return f"chapters/{folder}" if folder.startswith("chapter") else ""


class Titles(JobType):
    """Makes a title for each chapter."""

    name, title, directory, version = "titles", "Titles", "Titles", "1"
    inputs = (Input("chapters", CHAPTER, reads=("list",)),)
    outputs = (Output("titles", CHAPTER),)
    work = f"{__name__}:entitle"
    optics_used = ()
    Parameters = ParameterModel
    metrics = (Metric("words", "Words", digits=0),)


def add_up(group: ItemGroup, parameters: Any, workspace: Workspace) -> Result:
    words = sum(item.inputs["counts"].metric("words") or 0.0 for item in group.items)
    path = workspace.path(group, ".txt")
    texts = [workspace.absolute(item.inputs["counts"].output("text")).read_text("utf-8") for item in group.items]
    if any("never" in text for text in texts):
        raise ProcessingError("One of the texts cannot be used.")
    path.write_text("\n".join([*(item.name for item in group.items), *(f"without {name}" for name in group.left_out)]))
    return Result(
        metrics={"words": words, "texts": float(len(group.items))}, outputs={"list": workspace.relative(path)}
    )


def entitle(item: Item, parameters: Any, workspace: Workspace) -> Result:
    chapter = item.inputs["chapters"]
    path = workspace.path(item, ".txt")
    path.write_text(workspace.absolute(chapter.output("list")).read_text("utf-8").upper())
    return Result(metrics={"words": chapter.metric("words") or 0.0}, outputs={"list": workspace.relative(path)})


WORKFLOW = {
    "title": "Counting the words of chapters",
    "jobs": {
        "texts": {"type": "texts"},
        "words": {"type": "words", "inputs": {"texts": "texts.texts"}},
        "chapters": {"type": "chapters", "inputs": {"counts": "words.counts"}},
        "titles": {"type": "titles", "inputs": {"chapters": "chapters.chapters"}},
    },
}
