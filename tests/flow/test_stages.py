"""Which results are valid, of an earlier version, or out of date: for any mixture of them along the chain."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamside.flow.keys import earlier_versions, item_key, key_of
from beamside.flow.optics import ItemOptics
from beamside.flow.stages import Stage
from beamside.jobs.base import JobType, Optics
from beamside.jobs.ctf import CtfEstimation, CtfParameters
from beamside.jobs.extract import Extraction
from beamside.jobs.importing import ImportMovies
from beamside.jobs.motion import MotionCorrection
from beamside.jobs.pick import Picking
from beamside.project.records import ItemEntry, ItemState, JobEntry

OPTICS = Optics(1.0, 300.0, 2.7, 0.1, 1.0)
KINDS: tuple[JobType, ...] = (ImportMovies(), MotionCorrection(), CtfEstimation(), Picking(), Extraction())
CONNECTED: dict[str, dict[str, str]] = {
    "import": {},
    "motion": {"movies": "import"},
    "ctf": {"micrographs": "motion"},
    "pick": {"micrographs": "ctf"},
    "extract": {"micrographs": "ctf", "coordinates": "pick"},
}
RESULT = MappingProxyType({"metrics": {}, "outputs": {}, "values": {}})


def make_chain(versions: list[str], *, named: bool) -> list[Stage]:
    """One item, made by these versions of the algorithms after Import; with `named`, results say so."""
    stages: list[Stage] = []
    for kind, version in zip(KINDS, ["", *versions], strict=True):
        job = JobEntry(f"{kind.directory}/job00{len(stages) + 1}", kind.name, {})
        known = {stage.name: stage for stage in stages}
        upstreams = {port: known[before] for port, before in CONNECTED[kind.name].items()}
        stage = Stage(kind, kind.Parameters(), ItemOptics(OPTICS), job, upstreams)
        before = stages[-1].job.items["m"].key if stages else ""
        key = key_by(kind, version, before) if stages else "content"
        result = {**RESULT, "version": version} if named else dict(RESULT)
        job.items["m"] = ItemEntry("m", ItemState.DONE, key=key, result=result)
        stages.append(stage)
    return stages


def key_by(kind: JobType, version: str, before: str) -> str:
    class Earlier(type(kind)):  # type: ignore[misc]
        """The same job type as it was."""

    Earlier.version = version
    return item_key(Earlier(), kind.Parameters(), OPTICS, [before])


some_versions = st.tuples(*(st.sampled_from([kind.version, *earlier_versions(kind)]) for kind in KINDS[1:])).map(list)


@given(some_versions, st.booleans())
def test_results_of_any_mixture_of_versions_are_valid_and_those_of_earlier_ones_known(
    versions: list[str], named: bool
) -> None:
    stages = make_chain(versions, named=named)
    for stage, version in zip(stages[1:], versions, strict=True):
        assert stage.stale() == []
        assert stage.expected_key("m") == stage.job.items["m"].key
        assert stage.outdated() == ({} if version == stage.job_type.version else {"m": version})


@given(some_versions)
def test_other_content_makes_all_results_out_of_date(versions: list[str]) -> None:
    stages = make_chain(versions, named=False)
    record(stages[0], "other content")
    assert [stage.stale() for stage in stages] == [[], ["m"], ["m"], ["m"], ["m"]]


@given(some_versions, st.integers(1, 3))
def test_a_result_that_is_made_anew_makes_those_after_it_out_of_date_when_its_version_is_another(
    versions: list[str], number: int
) -> None:
    stages = make_chain(versions, named=False)
    kind, before = stages[number].job_type, stages[number - 1].job.items["m"].key
    record(stages[number], key_by(kind, kind.version, before))
    after = [] if versions[number - 1] == kind.version else ["m"]
    assert [stage.stale() for stage in stages] == [[]] * (number + 1) + [after] * (4 - number)


@given(some_versions)
def test_another_parameter_makes_its_job_and_all_after_it_out_of_date_whatever_the_versions(
    versions: list[str],
) -> None:
    stages = make_chain(versions, named=False)
    stages[2].take(CtfParameters(min_defocus=4000), stages[2].item_optics)
    assert [stage.stale() for stage in stages] == [[], [], ["m"], ["m"], ["m"]]


@pytest.mark.parametrize(("version", "earlier"), [("3", ["2", "1"]), ("1", []), ("of a plug-in", [])])
def test_earlier_versions_follow_from_a_number(version: str, earlier: list[str]) -> None:
    class Other(CtfEstimation):
        """A job type of this version."""

    Other.version = version
    assert earlier_versions(Other()) == earlier


def record(stage: Stage, key: str) -> None:
    """The result of the item has this key now."""
    entry = stage.job.items["m"]
    entry.key, entry.recorded = key, entry.recorded + 1


def test_which_version_made_a_result_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = make_chain([kind.version for kind in KINDS[1:]], named=True)
    made: list[str] = []
    monkeypatch.setattr("beamside.flow.stages.key_of", lambda *given: made.append("") or key_of(*given))
    for stage in stages:
        assert (stage.stale(), stage.outdated()) == ([], {})
    first = len(made)
    assert first == len(stages) - 1
    for stage in stages:
        assert (stage.stale(), stage.outdated()) == ([], {})
    assert len(made) == first, "a session of very many items asks again after every recompute"
    record(stages[0], "other content")
    assert [stage.stale() for stage in stages[1:]] == [["m"]] * 4
