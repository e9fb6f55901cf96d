"""A workflow without a microscope: texts are taken in, and their words are counted."""

from __future__ import annotations

from typing import Any

from beamside.acquisition.kinds import SourceKind, without_pixels
from beamside.errors import NotReadyError
from beamside.formats.image import ImageInfo
from beamside.jobs.base import Item, JobType, Metric, Result, Workspace
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.parameters import ParameterModel

TEXT = ItemKind("text", "Texts", files={"text": "what was written"}, values={"lines": "their number"})
COUNTED = ItemKind("counted", "Counted texts", metrics={"words": "how many there are"})


def inspect(path: str) -> ImageInfo:
    with open(path, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    if not lines or lines[-1] != "end":
        raise NotReadyError(f"{path} does not end with 'end': it is still being written.")
    return without_pixels({"lines": len(lines)})


SOURCE = SourceKind("text", (".txt",), "text", inspect, role="text")


class Texts(JobType):
    """What was taken in."""

    name, title, directory, version = "texts", "Texts", "Texts", "1"
    outputs = (Output("texts", TEXT),)
    optics_used = ()
    Parameters = ParameterModel


class Words(JobType):
    """Counts the words of each text."""

    name, title, directory, version = "words", "Words", "Words", "1"
    inputs = (Input("texts", TEXT, reads=("text",)),)
    outputs = (Output("counts", COUNTED),)
    work = f"{__name__}:count"
    optics_used = ()
    Parameters = ParameterModel
    metrics = (Metric("words", "Words", ""),)


def count(item: Item, parameters: Any, workspace: Workspace) -> Result:
    with (workspace.root / "calls.txt").open("a") as calls:
        calls.write(f"{item.name}\n")
    text = workspace.absolute(item.inputs["texts"].output("text")).read_text("utf-8")
    return Result(metrics={"words": float(len(text.split()))})


WORKFLOW = {
    "title": "Counting words",
    "jobs": {"texts": {"type": "texts"}, "words": {"type": "words", "inputs": {"texts": "texts.texts"}}},
}


def install(set_item: Any) -> None:
    from beamside.acquisition import kinds
    from beamside.flow import workflow
    from beamside.jobs import registry

    for kind in (Texts, Words):
        set_item(registry.BUILT_IN, kind.name, kind)
    set_item(kinds.BUILT_IN, "text", SOURCE)
    set_item(workflow.SHIPPED, "words", WORKFLOW)
