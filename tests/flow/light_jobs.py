"""A small workflow of light jobs, so that the session loop can be tested without numerics; run as a program, it is a session of them.

``python light_jobs.py SETTINGS.json`` runs a session until its source is empty; with PAUSE in the environment each job takes that many seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from beamside.errors import GainError, ProcessingError
from beamside.flow import workflow
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.formats.star import StarBlock
from beamside.jobs import registry, worker
from beamside.jobs.base import Item, JobType, Node, Optics, Result, Row, StarContent, Workspace
from beamside.jobs.class2d import Class2dParameters, Classification2d
from beamside.jobs.extract import ExtractParameters
from beamside.jobs.importing import ImportMovies
from beamside.jobs.item_kinds import MOVIE
from beamside.jobs.motion import MotionCorrection, MotionParameters
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.jobs.select import SelectParameters
from beamside.jobs.triggers import EachItem, EachRound, Trigger

MEASURED = ItemKind("micrograph", "Micrographs", files={"micrograph": "the number of bytes"})
CUT = ItemKind("particles", "Particles", metrics={"extracted": "how many there are"}, counted="extracted")
GATHERED = ItemKind("classes", "Classes", metrics={"classified": "how many there are"})
CHOSEN = ItemKind("selection", "Selected particles", metrics={"selected": "how many there are"})


def note_call(job: str, item: Item, workspace: Workspace) -> None:
    with (workspace.root / "calls.txt").open("a") as calls:
        calls.write(f"{job} {item.name}\n")
    time.sleep(float(os.environ.get("PAUSE", "0")))


class Measure(JobType):
    """Counts the bytes of a movie; what its name says decides how it ends."""

    name, title, directory = "motion", "Measuring", "MotionCorr"
    relion_type, relion_label, version = 1, "relion.motioncorr", "1"
    inputs: tuple[Input, ...] = (Input("movies", MOVIE, relion_option="input_star_mics"),)
    outputs: tuple[Output, ...] = (Output("micrographs", MEASURED),)
    trigger: Trigger = EachItem()
    work = f"{__name__}:measure"
    Parameters = MotionParameters
    nodes = (Node("corrected_micrographs.star", 1, "MicrographsData.star.relion.motioncorr"),)
    camera_options = MotionCorrection.camera_options

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        table = StarBlock("micrographs", ["rlnMicrographName"], [[row.item.name] for row in rows])
        return {"corrected_micrographs.star": [table]}


def measure(item: Item, parameters: Any, workspace: Workspace) -> Result:
    note_call("motion", item, workspace)
    if item.inputs["movies"].result.values.get("gain_error"):
        raise GainError(str(item.inputs["movies"].result.values["gain_error"]))
    if "bad" in item.name:
        raise ProcessingError(f"{item.name} has no frames worth a sum.")
    if "flaky" in item.name:
        marker = workspace.root / f"{Path(item.name).name}.tried"
        if not marker.exists():
            marker.touch()
            raise OSError(5, "Input/output error", item.name)
    if "strange" in item.name:
        return Result(
            outputs={"micrograph": item.inputs["movies"].result.outputs["movie"]}, values={"of": {1, 2}}
        )  # JSON has no sets: such a result can never be recorded
    if "odd" in item.name:
        return Result(rejected="too odd")
    size = workspace.absolute(item.inputs["movies"].result.outputs["movie"]).stat().st_size
    result = workspace.root / f"{workspace.job}/{item.name}.txt"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(str(size))
    return Result(metrics={"bytes": float(size)}, outputs={"micrograph": workspace.relative(result)})


class Cut(Measure):
    """Stands for extraction: ten particles each."""

    name, title, directory = "extract", "Cutting", "Extract"
    inputs = (Input("micrographs", MEASURED),)
    outputs = (Output("particles", CUT),)
    work = f"{__name__}:cut"
    Parameters = ExtractParameters


def cut(item: Item, parameters: Any, workspace: Workspace) -> Result:
    note_call("extract", item, workspace)
    return Result(metrics={"extracted": 10.0}, values={"of": dict(item.inputs["micrographs"].result.metrics)})


class Gather(Measure):
    """Stands for classification."""

    name, title, directory = "class2d", "Gathering", "Class2D"
    inputs, nodes = (Input("particles", CUT, takes="all"),), ()
    outputs = (Output("classes", GATHERED),)
    trigger: Trigger = Classification2d.trigger
    work = f"{__name__}:gather"
    Parameters = Class2dParameters

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        return {}


def gather(items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool) -> Result:
    total = sum(item.inputs["particles"].result.metrics["extracted"] for item in items)
    return Result(metrics={"classified": total}, values={"final": final})


class Choose(Gather):
    """Stands for class selection: follows each round of classification."""

    name, title, directory = "select", "Choosing", "Select"
    inputs, trigger = (Input("classes", GATHERED),), EachRound()
    outputs = (Output("particles", CHOSEN),)
    work = f"{__name__}:choose"
    Parameters = SelectParameters


def choose(items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool) -> Result:
    with (workspace.root / "rounds.txt").open("a") as rounds:
        rounds.write(f"{round_name}\n")
    chosen = items[0].inputs["classes"].result.metrics["classified"] / 2
    warnings = {"few": f"Only {chosen:g} were chosen."}
    return Result(metrics={"selected": chosen}, values={"final": final, "warnings": warnings})


LIGHT_TYPES = (ImportMovies, Measure, Cut, Gather, Choose)
LIGHT_WORKFLOW = {
    "jobs": {
        "import": {"type": "import"},
        "motion": {"type": "motion", "inputs": {"movies": "import.movies"}},
        "extract": {"type": "extract", "inputs": {"micrographs": "motion.micrographs"}},
        "class2d": {"type": "class2d", "inputs": {"particles": "extract.particles"}},
        "select": {"type": "select", "inputs": {"classes": "class2d.classes"}},
    }
}


def install(
    set_item: Callable[[Any, str, Any], None], types: Sequence[type[JobType]], content: Mapping[str, Any]
) -> None:
    """Make job types known, and a workflow the one for movies; `set_item` sets an item of a dictionary, as ``monkeypatch.setitem`` does."""
    for kind in types:
        set_item(registry.BUILT_IN, kind.name, kind)
    set_item(workflow.SHIPPED, "movies", content)


def main() -> None:
    install(dict.__setitem__, LIGHT_TYPES, LIGHT_WORKFLOW)
    worker._limit_threads = lambda _threads: None
    settings = SessionSettings.from_flat(json.loads(Path(sys.argv[1]).read_text()))
    sys.exit(0 if Session(settings, until_empty=True).run() == "finished" else 1)


if __name__ == "__main__":
    main()
