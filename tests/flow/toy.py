"""Tables of a toy workflow without a session: three jobs for each item, and workers that do what a test says."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from beamside.acquisition.reports import ImportedFile
from beamside.execution.whereabouts import Where, say
from beamside.flow import workflow
from beamside.flow.dispatch import Dispatcher
from beamside.flow.recovery import Recovery
from beamside.flow.rounds import Rounds
from beamside.flow.settings import SessionSettings
from beamside.flow.source_thread import FileImported
from beamside.flow.stages import Stage
from beamside.flow.table import Tables
from beamside.formats.star import StarBlock
from beamside.jobs import registry
from beamside.jobs.base import JobType, Metric, Node, Optics, Row, StarContent
from beamside.jobs.class2d import Class2dParameters, Classification2d
from beamside.jobs.item_kinds import MOVIE
from beamside.jobs.ports import Input, ItemKind, Output
from beamside.jobs.select import SelectParameters
from beamside.jobs.triggers import EachItem, EachRound, Trigger
from beamside.jobs.worker import Task, items_in
from beamside.parameters import ParameterModel
from beamside.project.project import Project, ProjectWriter
from beamside.project.records import ItemEntry, ItemState

THING = ItemKind("thing", "Things")


class Step(JobType):
    """A job that could do anything."""

    name, title, directory = "first", "First step", "MotionCorr"
    relion_type, relion_label, version = 1, "relion.motioncorr", "1"
    inputs: tuple[Input, ...] = (Input("movies", MOVIE),)
    outputs: tuple[Output, ...] = (Output("things", THING),)
    trigger: Trigger = EachItem()
    Parameters = ParameterModel
    nodes = (Node("table.star", 1, "MicrographsData.star.relion"),)
    metrics = (Metric("score", "Score", "%", scale=100),)

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        return {"table.star": [StarBlock("items", ["rlnMicrographName"], [[row.item.name] for row in rows])]}


class Second(Step):
    """Follows the first."""

    name, title, directory = "second", "Second step", "CtfFind"
    inputs = (Input("things", THING),)


class Third(Step):
    """Follows the second."""

    name, title, directory = "third", "Third step", "AutoPick"
    inputs = (Input("things", THING),)


class Gather(Step):
    """Takes all that the third step has made, in rounds."""

    name, title, directory = "class2d", "Gathering", "Class2D"
    inputs = (Input("things", THING, takes="all"),)
    trigger: Trigger = Classification2d.trigger
    metrics = (Metric("classified", "Particles"),)
    Parameters = Class2dParameters


class Choose(Gather):
    """Follows each round."""

    name, title, directory = "select", "Choosing", "Select"
    inputs, trigger = (Input("things", THING),), EachRound()
    Parameters = SelectParameters


def install(set_item: Callable[[Any, str, Any], None]) -> None:
    """Make the toy the workflow for movies; `set_item` sets an item of a dictionary, as ``monkeypatch.setitem`` does."""
    for kind in (Step, Second, Third, Gather, Choose):
        set_item(registry.BUILT_IN, kind.name, kind)
    chain = [("first", "import.movies"), ("second", "first.things"), ("third", "second.things")]
    chain += [("class2d", "third.things"), ("select", "class2d.things")]
    jobs: dict[str, Any] = {"import": {"type": "import"}}
    jobs |= {name: {"type": name, "inputs": {"movies" if name == "first" else "things": made}} for name, made in chain}
    set_item(workflow.SHIPPED, "movies", {"jobs": jobs})


class Hands(Executor):
    """Workers that wait to be told: `tasks` are what they have, with the future of each."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Mapping[str, Any], Future[Any]]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.tasks.append((args[0], future))
        return future


def settings_in(folder: Path, **values: Any) -> SessionSettings:
    usual = {"target": folder, "name": "toy", "data": (str(folder / "*.tiff"),), "pixel_size": 1.0, "voltage": 300}
    return SessionSettings.from_flat({**usual, "executor": "inline", "attempts": 2, **values})


def taken(name: str, content: str) -> FileImported:
    """An arrival: what it says as content is its hash."""
    file = ImportedFile(f"raw/{name}", f"raw/{name}.tiff", f"/camera/{name}.tiff", 8, content, 2, (8, 8), "uint8")
    return FileImported(file, {"movie": file.path}, {"shape": [8, 8]})


def result_of(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker makes of a task; the content of a movie decides: one that is "bad" fails in the second job, one that is "odd" is rejected.

    A number in it is the score, in per cent, that each job gives.
    """
    if task["round_name"]:
        return result_of_round(task)
    content = task["items"][0][1]["import"]["values"]["sha256"]
    made: dict[str, Any] = {
        "metrics": {"extracted": 10.0} if task["type_name"] == "third" else {},
        "outputs": {},
        "values": {"of": content},
        "rejected": "",
        "version": "1",
    }
    if number := "".join(filter(str.isdigit, content)):
        made["metrics"]["score"] = int(number) / 100
    outcome = {"result": made, "reason": "", "permanent": False, "log": "", "seconds": 1.0}
    if "bad" in content and task["type_name"] == "second":
        return {**outcome, "result": None, "reason": "it is bad", "permanent": True}
    if "odd" in content and task["type_name"] == "first":
        return {**outcome, "result": {**made, "rejected": "it is odd"}}
    return outcome


def result_of_round(task: Mapping[str, Any]) -> dict[str, Any]:
    """What a round makes: the names of its items, and of a first round how many particles there were."""
    items = items_in(Task(**task))
    names = [item.name for item in items]
    particles = sum(item.inputs["things"].result.metrics.get("extracted", 0.0) for item in items)
    values = {"final": task["final"], "of": names}
    made = {"metrics": {"classified": particles}, "outputs": {}, "values": values, "rejected": "", "version": "1"}
    return {"result": made, "reason": "", "permanent": False, "log": "", "seconds": 1.0}


class Toy:
    """A project with its tables open; `reopen` is what happens when the process was killed."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self.settings = settings_in(folder, **values)
        self.project = Project(self.settings.root)
        self.open()

    def open(self) -> None:
        self.writer = ProjectWriter(self.project)
        self.writer.settings(self.settings.to_json())
        self.tables = Tables(self.settings, self.writer)
        self.recovery = Recovery(self.tables)
        self.recovery.begin()
        self.hands, self.events = Hands(), queue.Queue[Any]()
        self.dispatcher = Dispatcher(self.settings, self.tables, self.recovery, self.hands, self.events)
        self.rounds = Rounds(self.settings, self.tables, self.recovery, self.dispatcher)

    def reopen(self) -> None:
        self.writer.close()
        self.open()

    def stage(self, name: str) -> Stage:
        return self.tables.stage(name)

    def entry(self, job: str, item: str) -> ItemEntry:
        return self.tables.stage(job).job.items[f"raw/{item}"]

    def states(self, item: str) -> list[str]:
        """The states of an item, job by job, as far as it has come."""
        entries = [stage.entry(f"raw/{item}") for stage in self.tables.stages]
        return [entry.state.value for entry in entries if entry is not None]

    def finish(self, number: int = 0, outcome: Mapping[str, Any] | BaseException | None = None) -> None:
        """Let a worker end with one of the tasks, as its content says or with this outcome."""
        task, future = self.hands.tasks.pop(number)
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(result_of(task) if outcome is None else outcome)
        self.dispatcher.finished(self.events.get_nowait())

    def tell(self, number: int = 0, *, begins: bool = True, pid: int = 7, device: str = "cpu") -> None:
        """Let a worker tell that it begins, or ends, with one of the tasks, and the session hear it."""
        task = Task(**self.hands.tasks[number][0])
        say(Path(task.told_in), task.identity, Where("node1", pid, device), begins=begins)
        self.dispatcher.listen()

    def arrive(self, *names: str, content: str = "a") -> None:
        """Files are taken in."""
        for name in names:
            self.tables.intake_done(taken(name, content))

    def given(self) -> list[tuple[str, str]]:
        """What the workers have: job type, and item or round."""
        return [(task["type_name"], task["round_name"] or task["items"][0][0][4:]) for task, _ in self.hands.tasks]

    def work_off(self) -> None:
        """Do all that can be done."""
        self.dispatcher.fill()
        while self.hands.tasks:
            self.finish()
            self.dispatcher.fill()

    def table(self) -> dict[str, dict[str, tuple[ItemState, str, Any]]]:
        """What is known of each item in each job."""
        return {
            stage.name: {entry.name: (entry.state, entry.key, entry.result) for entry in stage.job.items.values()}
            for stage in self.tables.stages
        }
