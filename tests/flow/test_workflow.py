"""Workflow files: what they say is read, and what is wrong with one is told with the place in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamside.errors import ConfigError
from beamside.flow.settings import SessionSettings, sections
from beamside.flow.workflow import SHIPPED, ancestors, find_workflow, parse_workflow, read_workflow, workflow_of

Write = Callable[[Any], Path]

BRANCHES: dict[str, Any] = {
    "title": "Two pickers",
    "jobs": {
        "import": {"type": "import_micrographs"},
        "joined": {"type": "join", "inputs": {"first": "cut_small.particles", "second": "cut_large.particles"}},
        "ctf": {"type": "ctf", "inputs": {"micrographs": "import.micrographs"}},
        "small": {"type": "pick", "inputs": {"micrographs": "ctf.micrographs"}},
        "large": {
            "type": "pick",
            "parameters": {"particle_diameter": [200, 300]},
            "inputs": {"micrographs": "ctf.micrographs"},
        },
        "cut_small": {
            "type": "extract",
            "inputs": {"micrographs": "ctf.micrographs", "coordinates": "small.coordinates"},
        },
        "cut_large": {
            "type": "extract",
            "inputs": {"micrographs": "ctf.micrographs", "coordinates": "large.coordinates"},
        },
    },
}


def changed(**jobs: Any) -> dict[str, Any]:
    return {**BRANCHES, "jobs": {**BRANCHES["jobs"], **jobs}}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(content: Any) -> Path:
        path = tmp_path / "mine.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    return made


@pytest.mark.parametrize("name", SHIPPED)
def test_the_workflows_of_this_package_are_right_and_known_by_name(name: str) -> None:
    found = find_workflow(name)
    assert found.to_setting() == name
    assert found.title
    assert found.description
    assert [job.label for job in found.jobs][-1] == "select"


def test_jobs_come_after_those_that_they_are_made_from_whatever_their_order_in_the_file(write: Write) -> None:
    found = read_workflow(write(BRANCHES))
    order = [job.label for job in found.jobs]
    assert order == ["import", "ctf", "small", "cut_small", "large", "cut_large", "joined"]
    assert list(ancestors(found, "cut_large")) == ["import", "ctf", "large"]
    assert found.source.label == "import"


def test_a_project_keeps_the_content_of_a_file_and_not_its_name(write: Write) -> None:
    path = write(BRANCHES)
    kept = json.loads(json.dumps(read_workflow(path).to_setting()))
    path.unlink()
    assert next(job.label for job in workflow_of(kept).jobs) == "import"


def test_parameters_are_called_by_their_job_only_where_several_have_them(write: Write) -> None:
    flags = {info.flag for section in sections(read_workflow(write(BRANCHES))) for info in section.infos()}
    assert {"--small.pick-threshold", "--large.pick-threshold", "--max-defocus", "--join-duplicate-distance"} <= flags
    assert "--pick-threshold" not in flags


def test_values_of_the_workflow_hold_until_others_are_given(tmp_path: Path, write: Write) -> None:
    usual = {"target": tmp_path, "name": "n", "data": ("*",), "pixel_size": 1.0, "voltage": 300}
    given = {**usual, "workflow": dict(read_workflow(write(BRANCHES)).content), "small.particle_diameter": "100:120"}
    found = SessionSettings.from_flat(given)
    diameters = {label: found.jobs[label].model_dump().get("particle_diameter") for label in ("small", "large")}
    assert diameters == {"small": (100.0, 120.0), "large": (200.0, 300.0)}
    assert SessionSettings.from_flat(found.to_json()) == found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "line 1, column"),
        ("[]", "must be an object"),
        ({"title": "no jobs"}, 'it needs "jobs"'),
        ({**BRANCHES, "jobz": {}}, "'jobz', which is not known; did you mean 'jobs'?"),
        (changed(Ctf={"type": "ctf"}), "the label 'Ctf' must be of small letters"),
        (changed(ctf__two={"type": "ctf"}), "digits and single _"),
        (changed(optics={"type": "ctf"}), "not the name of a group of settings"),
        (changed(ctf={"inputs": {}}), 'needs a "type"'),
        (changed(ctf={"type": "ctff"}), "There is no job type 'ctff'; did you mean 'ctf'?"),
        (changed(ctf={"type": "ctf"}), "needs its input 'micrographs' (micrographs)"),
        (changed(joined={"type": "join"}), "needs at least one input"),
        (changed(ctf={"type": "ctf", "inputs": {"movies": "import.micrographs"}}), "has no input 'movies'"),
        (changed(ctf={"type": "ctf", "inputs": {"micrographs": "import"}}), 'must name an output as "label.output"'),
        (changed(ctf={"type": "ctf", "inputs": {"micrographs": "imprt.micrographs"}}), "did you mean 'import'?"),
        (changed(ctf={"type": "ctf", "inputs": {"micrographs": "import.movies"}}), "has no output 'movies'"),
        (
            changed(joined={"type": "join", "inputs": {"first": "small.coordinates"}}),
            "takes particles, and small.coordinates gives coordinates",
        ),
        (
            changed(
                small={"type": "pick", "parameters": {"pick_treshold": 1}, "inputs": {"micrographs": "ctf.micrographs"}}
            ),
            "has no parameter 'pick_treshold'; did you mean 'pick_threshold'?",
        ),
        (
            changed(
                small={
                    "type": "pick",
                    "parameters": {"pick_threshold": 99},
                    "inputs": {"micrographs": "ctf.micrographs"},
                }
            ),
            "pick_threshold of the job 'small'",
        ),
        (changed(second={"type": "import_micrographs"}), "import and second both do"),
        ({"jobs": {"ctf": {"type": "ctf", "inputs": {"micrographs": "ctf.micrographs"}}}}, "form a circle: ctf → ctf"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(write: Write, content: Any, words: str) -> None:
    path = write(content)
    with pytest.raises(ConfigError, match=re.escape(words)) as told:
        read_workflow(path)
    assert str(path) in str(told.value)


def test_a_fault_is_told_with_its_line(write: Write) -> None:
    path = write(changed(small={"type": "pick", "inputs": {"micrographs": "ctf.mcrographs"}}))
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "mcrographs" in text)
    with pytest.raises(ConfigError, match=f"line {line}: "):
        read_workflow(path)


def test_a_label_that_is_there_twice_is_not_lost_in_silence(write: Write) -> None:
    with pytest.raises(ConfigError, match="'a' is there twice"):
        read_workflow(write('{"jobs": {"a": {"type": "import"}, "a": {"type": "import"}}}'))


def test_a_name_that_is_near_is_offered() -> None:
    with pytest.raises(ConfigError, match="did you mean 'movies'"):
        find_workflow("movie")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["import", "ctf", "ctf.micrographs"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["jobs", "type", "inputs", "parameters", "title", "ctf", "import"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(anything)
def test_whatever_a_file_holds_it_is_a_workflow_or_told(content: Any) -> None:
    try:
        assert parse_workflow(content, place="f.json").jobs
    except ConfigError as error:
        assert "f.json" in str(error).lower()  # noqa: PT017 - it may also be right
