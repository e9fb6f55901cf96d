"""Job types of installed packages: one that is broken says what is wrong with it, and the others are there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beamside.errors import ConfigError
from beamside.jobs import registry
from beamside.jobs.base import JobType
from beamside.jobs.registry import BUILT_IN, job_type, job_types

GOOD = """
from beamside.jobs.base import JobType
from beamside.parameters import ParameterModel
class Job(JobType):
    name, title, directory, version, Parameters = "{name}", "A", "A", "1", ParameterModel
"""

GROUPS = (
    "from beamside.jobs.item_kinds import MOVIE\nfrom beamside.jobs.ports import Input\n"
    + "from beamside.jobs.triggers import Group"
    + GOOD.format(name="odd")
    + "    inputs = (Input('all', MOVIE, takes='all'),)\n"
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that installs job types: the source of the module of each by its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def do(**sources: str) -> None:
        points = []
        for name, source in sources.items():
            (tmp_path / f"of_others_{name}.py").write_text(source)
            points.append(f"{name} = of_others_{name}:Job")
        folder = tmp_path / "of_others-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: of_others\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("\n".join(["[beamside.jobs]", *points, ""]))
        registry._installed.cache_clear()

    yield do
    for module in [name for name in sys.modules if name.startswith("of_others_")]:
        del sys.modules[module]
    registry._installed.cache_clear()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise OSError(5, 'broken disk')", "cannot be loaded: OSError: .*broken disk"),
        ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        ("def Job", "cannot be loaded: SyntaxError"),
        ("", "cannot be loaded: AttributeError"),
        ("def Job(): ...", "is not a JobType; name the class"),
        ("class Job: ...", "is not a JobType; name the class"),
        ("from beamside.jobs.ctf import CtfEstimation\nJob = CtfEstimation()", "is not a JobType; name the class"),
        ("from beamside.jobs.base import JobType as Job", r"has no name; give the class the line name = 'odd'"),
        (GOOD.format(name="other"), "calls itself 'other'"),
        (
            GOOD.format(name="odd")
            + "    limits = (Limit('worst', 'quality', '<'),)\nfrom beamside.jobs.base import Limit\n",
            "cannot be loaded: NameError",
        ),
        (
            "from beamside.jobs.base import Limit"
            + GOOD.format(name="odd")
            + "    limits = (Limit('worst', 'quality', '<'),)\n",
            "has limits that cannot be rules: .*worst",
        ),
        (GROUPS + "    trigger = Group()\n", "must say with group_of what belongs together"),
        (GROUPS + "    trigger = Group(quiet='wait')\n    group_of = len\n", "has no parameter 'wait'"),
        (
            GROUPS + "    inputs, trigger, group_of = (), Group(), len\n",
            'needs one input with takes="all", and there are 0',
        ),
        (GROUPS, "its input 'all' takes=\"all\", which needs the trigger Group or Increments"),
    ],
)
def test_a_package_that_is_broken_is_named_with_what_is_wrong(
    install: Callable[..., None], source: str, says: str
) -> None:
    install(odd=source, fine=GOOD.format(name="fine"))
    with pytest.raises(ConfigError, match=says) as told:
        job_type("odd")
    assert "The job type 'odd' (of_others_odd:Job)" in str(told.value)
    assert [*job_types()] == [*BUILT_IN, "fine"], "the others are there, those of Beamside first"


@pytest.mark.parametrize("kind", BUILT_IN.values(), ids=list(BUILT_IN))
def test_the_job_types_of_this_package_have_what_their_triggers_need(kind: type[JobType]) -> None:
    assert registry.trigger_faults(kind) == []


def test_no_package_takes_the_place_of_a_job_type_of_beamside(install: Callable[..., None]) -> None:
    """Results that are there would be taken for those of something else."""
    install(ctf=GOOD.format(name="ctf"))
    assert type(job_type("ctf")) is BUILT_IN["ctf"]
    assert type(job_types()["ctf"]) is BUILT_IN["ctf"]


def test_a_job_type_is_one_object(install: Callable[..., None]) -> None:
    install(fine=GOOD.format(name="fine"))
    assert job_type("fine") is job_type("fine") is job_types()["fine"]
    assert job_type("motion") is job_types()["motion"]


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(install: Callable[..., None]) -> None:
    install(ice_score=GOOD.format(name="ice_score"))
    with pytest.raises(ConfigError, match=r"no job type 'ice_scor'; did you mean 'ice_score'\? Or is the package"):
        job_type("ice_scor")
    with pytest.raises(ConfigError, match="no job type ''"):
        job_type("")


def test_what_cannot_be_used_of_packages_is_told(install: Callable[..., None]) -> None:
    install(ctf=GOOD.format(name="ctf"), odd="raise OSError(5, 'broken disk')", fine=GOOD.format(name="fine"))
    assert registry.unusable() == [
        "The job type 'ctf' of of_others_ctf:Job is not used: Beamside has one of this name.",
        "The job type 'odd' (of_others_odd:Job) cannot be loaded: OSError: [Errno 5] broken disk.",
    ]
