"""The work of job types is named in their declarations, and loaded where it is done."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from beamside.camera.gain import task as gain_task
from beamside.errors import ConfigError
from beamside.execution.whereabouts import Listener, Said, TaskName, here
from beamside.jobs import registry
from beamside.jobs.base import Item, JobType, Optics
from beamside.jobs.loading import load_function, load_work
from beamside.jobs.triggers import EachItem, EachRound
from beamside.jobs.worker import Task, run_task

ROOT = Path(__file__).parents[2]
TYPES = [
    *(type(kind) for kind in registry.job_types().values()),
]
OPTICS = asdict(Optics(1.0, 300.0, 2.7, 0.1, 1.0))

DECLARATION = """
from beamside.jobs.base import JobType
from beamside.jobs.item_kinds import MICROGRAPH
from beamside.jobs.ports import Input
from beamside.parameters import ParameterModel, parameter


class IceParameters(ParameterModel):
    limit: float = parameter(0.5, "Largest score.", ge=0)


class Ice(JobType):
    name, title, directory, version = "ice", "Ice", "Ice", "1"
    inputs = (Input("micrographs", MICROGRAPH),)
    work = "ice_work:score"
    Parameters = IceParameters
"""

WORK = """
from beamside.jobs.base import Result
from ice import IceParameters


def score(item, parameters, workspace):
    assert isinstance(parameters, IceParameters)
    return Result(metrics={"ice": len(item.name) * parameters.limit})


def all_scores(items, parameters, workspace, *, round_name, final):
    return Result(metrics={"items": len(items)})


number = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages with a job type in it: its declaration, its work, and the entry point."""
    folder = tmp_path / "packages"
    (folder / "ice-1.0.dist-info").mkdir(parents=True)
    (folder / "ice-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: ice\nVersion: 1.0\n")
    (folder / "ice-1.0.dist-info/entry_points.txt").write_text("[beamside.jobs]\nice = ice:Ice\n")
    (folder / "ice.py").write_text(DECLARATION)
    (folder / "ice_work.py").write_text(WORK)
    (folder / "ice_needy.py").write_text("import a_library_that_is_not_there\n")
    (folder / "ice_unlucky.py").write_text("raise OSError(12, 'Cannot allocate memory')\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr("beamside.jobs.worker._limit_threads", lambda _threads: None)
    registry._installed.cache_clear()
    yield folder
    registry._installed.cache_clear()
    for name in ("ice", "ice_work", "ice_needy", "ice_unlucky"):
        sys.modules.pop(name, None)


@pytest.fixture
def ice(package: Path) -> Callable[..., JobType]:
    """A function that makes the package's job type, with other work or as an aggregate."""

    def make(work: str, *, aggregate: bool = False) -> JobType:
        kind, trigger = type(registry.job_type("ice")), EachRound() if aggregate else EachItem()
        return type("Ice", (kind,), {"work": work, "trigger": trigger})()  # type: ignore[no-any-return]

    return make


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_the_work_of_every_job_type_is_there_and_takes_what_it_is_given(kind: type[JobType]) -> None:
    if kind in (registry.ImportMovies, registry.ImportMicrographs):
        assert not kind.work, "acquisition does it"
    else:
        assert callable(load_work(kind()))


def test_the_work_on_gain_references_is_there() -> None:
    assert callable(load_function(gain_task.WORK, "The check of the gain reference"))


def test_the_work_of_a_job_type_of_another_package_is_loaded_when_it_is_done(package: Path) -> None:
    assert registry.job_type("ice").work == "ice_work:score"
    assert "ice_work" not in sys.modules
    task = Task("ice", "ice", str(package), "Ice/job009", {"limit": 2.0}, OPTICS, [("raw/m", {})], {"ice": {}})
    outcome = run_task(asdict(task))
    assert outcome["reason"] == ""
    assert outcome["result"]["metrics"] == {"ice": 10.0}


@pytest.mark.parametrize("work", ["ice_work:score", "ice_wrok:score"])
def test_a_worker_tells_where_it_begins_with_a_task_and_that_it_has_ended_it(
    package: Path, ice: Callable[..., JobType], monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setitem(registry.BUILT_IN, "ice", type(ice(work)))
    listener = Listener(package / "told")
    task = Task("ice", "ice", str(package), "Ice/job009", {"limit": 2.0}, OPTICS, [("raw/m", {})], {"ice": {}})
    outcome = run_task(asdict(replace(task, number=3, told_in=str(package / "told"))))
    name = TaskName("Ice/job009", "raw/m", 3)
    assert listener.news() == [Said(name, here(), begins=True), Said(name, here(), begins=False)]
    assert outcome["where"] == asdict(here())


def test_an_aggregate_takes_all_items(ice: Callable[..., JobType]) -> None:
    work = load_work(ice("ice_work:all_scores", aggregate=True))
    assert work([Item("a", {}), Item("b", {})], None, None, round_name="round001", final=False).metrics == {"items": 2}


@pytest.mark.parametrize(
    ("work", "aggregate", "words"),
    [
        ("", False, "names no work"),
        ("ice_work", False, 'not of the form "package.module:function"'),
        ("ice_work:", False, 'not of the form "package.module:function"'),
        ("ice-work:score", False, 'not of the form "package.module:function"'),
        (".ice_work:score", False, 'not of the form "package.module:function"'),
        ("ice_work:score:twice", False, 'not of the form "package.module:function"'),
        ("no_such_package:score", False, "there is no module 'no_such_package'; is the package"),
        ("ice_work.inner:score", False, "there is no module 'ice_work.inner'; is the package"),
        ("ice_needy:score", False, "cannot be loaded here: No module named 'a_library_that_is_not_there'"),
        ("ice_work:scores", False, "the module 'ice_work' has no function 'scores'"),
        ("ice_work:number", False, "the module 'ice_work' has no function 'number'"),
        ("ice_work:all_scores", False, "cannot be called with (item, parameters, workspace): missing"),
        (
            "ice_work:score",
            True,
            "cannot be called with (items, parameters, workspace, round_name=..., final=...): got",
        ),
    ],
)
def test_work_that_cannot_be_done_is_told_with_the_job_type_and_what_it_names(
    ice: Callable[..., JobType], work: str, aggregate: bool, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as told:
        load_work(ice(work, aggregate=aggregate))
    assert "The job type 'ice' names" in str(told.value)
    assert repr(work) in str(told.value) or not work


@pytest.mark.parametrize(("work", "permanent"), [("ice_wrok:score", True), ("ice_unlucky:score", False)])
def test_an_item_is_not_tried_again_when_its_work_is_missing_but_when_it_could_not_be_loaded_now(
    package: Path, ice: Callable[..., JobType], monkeypatch: pytest.MonkeyPatch, work: str, permanent: bool
) -> None:
    monkeypatch.setitem(registry.BUILT_IN, "ice", type(ice(work)))
    task = Task("ice", "ice", str(package), "Ice/job009", {}, OPTICS, [("raw/m", {})], {"ice": {}})
    outcome = run_task(asdict(task))
    assert outcome["result"] is None
    assert outcome["permanent"] is permanent
    assert ("ice_wrok" if permanent else "Cannot allocate memory") in outcome["reason"]


def test_declarations_load_no_work() -> None:
    program = "import sys, beamside.jobs.registry, beamside.camera.gain.task; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    heavy = [name for name in loaded if name.startswith(("torch", "beamside.imaging.")) or name.endswith("_worker")]
    assert heavy == ["beamside.imaging.boxes"], "which is arithmetic on numbers of pixels"


def test_the_contract_on_declarations_names_every_module_of_work() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["name"] == "Declarations load no work")
    source = ROOT / "src"
    files = [*source.glob("beamside/jobs/*_worker.py"), *source.glob("beamside/camera/*/*worker.py")]
    workers = {".".join(path.relative_to(source).with_suffix("").parts) for path in files}
    assert workers | {"torch", "beamside.imaging"} == set(contract["forbidden_modules"])
