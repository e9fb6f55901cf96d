"""What is in the keys of results: what is not set is not, so a job type may get another parameter and keeps its results."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.flow.keys import item_key, key_settings
from beamside.flow.optics import ItemOptics
from beamside.flow.stages import Stage
from beamside.jobs.base import OPTICS_VALUES, JobType, Optics
from beamside.jobs.item_kinds import MICROGRAPH
from beamside.jobs.ports import Input, Output
from beamside.jobs.registry import job_types
from beamside.jobs.triggers import Increments
from beamside.parameters import ParameterModel, describe, parameter, result_parameters
from beamside.project.records import ItemEntry, ItemState, JobEntry

OPTICS = Optics(1.0, 300.0, 2.7, 0.1, 1.0)
INPUT = "0123456789abcdef0123"
DONE: dict[str, Any] = {"metrics": {}, "outputs": {}, "values": {}, "version": "1"}


class First(ParameterModel):
    """Parameters as they were when the results were made."""

    limit: float = parameter(2.0, "A limit.")


class Later(First):
    """The same, and what was added."""

    model: str | None = parameter(None, "A model.")
    deeper: bool = parameter(True, "Look deeper.", unset=False)
    rings: int = parameter(0, "Rings that are left out.", unset=0)


class WithNone(First):
    """Parameters of a package, of which one is not set."""

    model: str | None = parameter(None, "A model.")


def kind_with(model: type[ParameterModel], *, rounds: bool = False) -> JobType:
    class Kind(JobType):
        """A job type with these parameters."""

        name, title, directory, version = "kind", "Kind", "Kind", "1"
        inputs = (Input("micrographs", MICROGRAPH, takes="all" if rounds else "each"),)
        outputs = (Output("micrographs", MICROGRAPH),)
        Parameters = model
        if rounds:
            trigger = Increments(counts="n", done="n", start="limit", step="limit")

    return Kind()


def key(parameters: ParameterModel) -> str:
    return item_key(kind_with(type(parameters)), parameters, OPTICS, [INPUT])


def key_with_everything(parameters: ParameterModel) -> str:
    """Return the key as it was made when all parameters were in it."""
    content = {
        "inputs": [INPUT],
        "optics": OPTICS.used(OPTICS_VALUES),
        "parameters": parameters.model_dump(mode="json"),
        "type": "kind",
        "version": "1",
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def stage_with(parameters: ParameterModel, key: str, *, rounds: bool = False) -> Stage:
    source = JobEntry("Import/job001", "import", {})
    source.items["m"] = ItemEntry("m", ItemState.DONE, key=INPUT, result=DONE)
    job = JobEntry("Kind/job002", "kind", {})
    job.items["m"] = ItemEntry("m", ItemState.DONE, key=key, result=DONE)
    first = Stage(job_types()["import_micrographs"], ParameterModel(), ItemOptics(OPTICS), source)
    return Stage(
        kind_with(type(parameters), rounds=rounds), parameters, ItemOptics(OPTICS), job, {"micrographs": first}
    )


def test_another_parameter_that_is_not_set_changes_no_key() -> None:
    later = Later(deeper=False)
    assert key(later) == key(First()) == key_with_everything(First())
    assert stage_with(later, key(First())).stale() == []


@pytest.mark.parametrize("given", [{"model": "big"}, {"deeper": True}, {"rings": 2}, {"limit": 3.0}])
def test_a_parameter_that_is_set_is_in_the_key(given: dict[str, Any]) -> None:
    later = Later(**{"deeper": False, **given})
    assert key(later) != key(First())
    assert stage_with(later, key(First())).stale() == ["m"]


def test_the_default_says_nothing_of_whether_a_parameter_is_set() -> None:
    assert "deeper" in result_parameters(Later())
    assert "rings" not in result_parameters(Later())
    assert result_parameters(Later(rings=1))["rings"] == 1


@given(
    st.builds(
        Later,
        limit=st.sampled_from([1.0, 2.0]),
        model=st.none() | st.sampled_from(["a", "b"]),
        deeper=st.booleans(),
        rings=st.integers(0, 2),
    ),
    st.builds(
        Later,
        limit=st.sampled_from([1.0, 2.0]),
        model=st.none() | st.sampled_from(["a", "b"]),
        deeper=st.booleans(),
        rings=st.integers(0, 2),
    ),
)
@settings(deadline=None)
def test_keys_are_equal_when_what_is_set_is(one: Later, other: Later) -> None:
    assert (key(one) == key(other)) == (one == other)


def test_false_is_not_zero() -> None:
    class Switch(ParameterModel):
        """A number for which 0 is not "not set"."""

        rings: int = parameter(0, "Rings.", unset=False)

    assert result_parameters(Switch()) == {"rings": 0}


@pytest.mark.parametrize("rounds", [False, True])
def test_what_was_made_when_keys_had_all_parameters_is_valid_and_keeps_its_key(rounds: bool) -> None:
    old = key_with_everything(WithNone())
    assert old != key(WithNone())
    stage = stage_with(WithNone(), old, rounds=rounds)
    if rounds:
        stage.job.items["m"].key = round_key(stage.job_type, WithNone(), -1)
    assert (stage.stale(), stage.outdated()) == ([], {})
    if not rounds:
        assert stage.expected_key("m") == old
    stage.take(WithNone(model="big"), ItemOptics(OPTICS))
    assert stage.stale() == ["m"]


def round_key(kind: JobType, parameters: ParameterModel, which: int) -> str:
    """Return the key of a round by one of the ways in which keys were made."""
    settings = key_settings(kind, parameters, OPTICS, "1")[which]
    text = f'{{"inputs":[],{settings[1:]}'
    return hashlib.sha256(text.encode()).hexdigest()[:8] + "0" * 12


def test_no_job_type_of_ours_has_a_parameter_that_earlier_keys_had_as_none() -> None:
    """So what their projects have is found by the keys as they are made now."""
    for kind in job_types().values():
        given = {info.name: 100 for info in describe(kind.Parameters) if info.field.is_required()}
        assert len(key_settings(kind, kind.Parameters(**given), OPTICS, kind.version)) == 1
