"""Ports: what a job finds of what it is made from, and what every item of a kind must have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.jobs.base import Item, JobType, Result
from beamside.jobs.item_kinds import COORDINATES, FITTED_MICROGRAPH, MICROGRAPH, MOVIE, PARTICLES
from beamside.jobs.ports import Given, Output, linked
from beamside.jobs.registry import job_types
from beamside.jobs.worker import check_contract

MADE = Given(Result(outputs={"micrograph": "a.mrc"}, values={"shape": [8, 8], "pixel_size": 1.5}))
FITTED = Given(
    Result(
        metrics={"ctf_resolution": 4.0},
        values={"micrograph_pixel_size": 1.5, "defocus_u": 1.0, "defocus_v": 1.0, "defocus_angle": 0.0},
    ),
    {"micrographs": MADE},
)


def test_the_nearest_result_counts() -> None:
    item = Item("m", {"micrographs": Given(Result(values={"pixel_size": 2.0}), {"micrographs": MADE})})
    assert item.value("pixel_size") == 2.0
    assert item.output("micrograph") == "a.mrc"
    assert item.find("movie") == ""
    with pytest.raises(KeyError):
        item.output("movie")


def test_what_a_result_was_made_from_counts_for_its_kind() -> None:
    assert FITTED_MICROGRAPH.lacks(FITTED) == []
    assert MICROGRAPH.lacks(FITTED) == []
    [lacking] = FITTED_MICROGRAPH.lacks(Given(FITTED.result, {"micrographs": Given(Result(values={"shape": [1, 1]}))}))
    assert "'micrograph'" in lacking


def test_a_kind_can_be_taken_where_what_it_also_is_is_wanted() -> None:
    assert FITTED_MICROGRAPH.is_a(MICROGRAPH)
    assert not MICROGRAPH.is_a(FITTED_MICROGRAPH)
    assert not MOVIE.is_a(MICROGRAPH)


def test_an_item_without_any_particles_needs_no_files_of_them() -> None:
    assert PARTICLES.lacks(Given(Result(metrics={"extracted": 0.0}))) == []
    assert len(PARTICLES.lacks(Given(Result(metrics={"extracted": 3.0})))) == 4


def test_a_result_that_is_not_what_its_job_type_gives_is_refused_in_words() -> None:
    class Lazy(JobType):
        name, title, directory, version = "lazy", "Lazy", "Lazy", "1"
        outputs = (Output("coordinates", COORDINATES),)

    with pytest.raises(
        ConfigError, match=r"'lazy' cannot be used: as 'coordinates' it must have .*'max_diameter' \(the"
    ):
        check_contract(Lazy(), Result(metrics={"particles": 1.0}, outputs={"coordinates": "a.star"}), [Item("m")])
    check_contract(Lazy(), Result(rejected="empty"), [Item("m")])


@given(st.sets(st.sampled_from(["a", "b", "c"])))
def test_a_port_whose_job_has_no_result_is_left_out(there: set[str]) -> None:
    wiring = {"d": {"one": "b", "two": "c"}, "b": {"in": "a"}, "c": {"in": "a"}, "a": {}}
    found = linked({name: Result(values={"name": name}) for name in there}, wiring, "d")
    assert {port: one.value("name") for port, one in found.items()} == {
        port: name for port, name in (("one", "b"), ("two", "c")) if name in there
    }
    assert all(("in" in one.inputs) == ("a" in there) for one in found.values())


@pytest.mark.parametrize("kind", job_types().values(), ids=lambda kind: kind.name)
def test_ports_have_names_of_their_own_and_triggers_name_what_is_there(kind: JobType) -> None:
    for ports in (kind.inputs, kind.outputs):
        assert len({port.name for port in ports}) == len(ports)
    named = [getattr(kind.trigger, name, "") for name in ("start", "step")]
    assert all(name in kind.Parameters.model_fields for name in named if name)
    done = getattr(kind.trigger, "done", "")
    assert not done or done in {metric.name for metric in kind.metrics}
