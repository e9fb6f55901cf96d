"""What parameters are called: by their job's label always, and short where that is unique."""

import json
from pathlib import Path

import pytest

TWO_PICKERS = {
    "jobs": {
        "import": {"type": "import_micrographs"},
        "ctf": {"type": "ctf", "inputs": {"micrographs": "import.micrographs"}},
        "small": {"type": "pick", "inputs": {"micrographs": "ctf.micrographs"}},
        "large": {"type": "pick", "inputs": {"micrographs": "ctf.micrographs"}},
    }
}


@pytest.fixture
def start(beamside, home: Path):
    """Show what a session of two pickers would be started with."""
    (home / "two.json").write_text(json.dumps(TWO_PICKERS))
    words = ("--name", "x", "--target", "out", "--data", "*.mrc", "--pixel-size", "1", "--voltage", "300")

    def run(*more: str, workflow: tuple[str, ...] = ("--workflow", "two.json")) -> tuple[int, str, str]:
        return beamside("session", "start", *workflow, *words, "--show", *more)

    return run


@pytest.mark.parametrize(
    "words", [("--max-defocus", "41000"), ("--ctf.max-defocus", "41000"), ("--ctf.max-defocus=41000",)]
)
@pytest.mark.parametrize("workflow", [("--workflow", "two.json"), ("--workflow", "micrographs"), ()])
def test_an_option_is_known_with_the_label_of_its_job(start, words: tuple[str, ...], workflow: tuple[str, ...]) -> None:
    code, out, err = start(*words, workflow=workflow)
    assert code == 0, err
    assert "41000" in out
    assert "50000" not in out


def test_a_switch_too_is_known_with_the_label_of_its_job(start) -> None:
    code, out, err = start("--ctf.ctf-tilt", "--small.no-mask-contamination")
    assert code == 0, err
    other = start("--ctf.ctf-tilt", "--ctf.no-ctf-tilt", "--small.no-mask-contamination")
    assert other[0] == 0, other[2]
    assert out != other[1]


def test_an_option_that_several_jobs_have_is_named(start) -> None:
    code, _, err = start("--pick-threshold", "1")
    assert (code, err) == (
        2,
        "beamside: several jobs have an option --pick-threshold: write --small.pick-threshold or --large.pick-threshold\n",
    )


def test_the_nearest_option_of_the_workflow_is_named(start) -> None:
    code, _, err = start("--large.pick-treshold", "1")
    assert (code, err) == (2, "beamside: unknown option --large.pick-treshold; did you mean --large.pick-threshold?\n")


def facility(home: Path, *lines: str) -> None:
    (home / "beamside.toml").write_text("\n".join(["[stream]", 'workflow = "two.json"', *lines]))


def test_in_a_facility_file_a_name_with_a_label_goes_before_a_short_one(start, home: Path) -> None:
    facility(home, "pick-threshold = 0.25", '"small.pick-threshold" = 0.75', '"ctf.max_defocus" = 41000')
    code, out, err = start(workflow=())
    assert code == 0, err
    assert ("0.25" in out, "0.75" in out, "41000" in out) == (True, True, True)


def test_a_facility_file_may_name_jobs_of_other_workflows(start, home: Path) -> None:
    facility(home, '"medium.pick_threshold" = 0.75')
    code, out, err = start(workflow=())
    assert code == 0, err
    assert "0.75" not in out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('"small.pick_treshold" = 1', "unknown key 'small.pick_treshold'; did you mean 'pick_threshold'?"),
        ('"small.max_defocus" = 1', "the job 'small' of this workflow has no parameter 'max_defocus'"),
        ('"small.pixel_size" = 1', "unknown key 'small.pixel_size'"),
    ],
)
def test_a_facility_file_with_a_wrong_name_is_told(start, home: Path, line: str, sentence: str) -> None:
    facility(home, line)
    code, _, err = start(workflow=())
    assert code == 2
    assert sentence in err


def test_a_workflow_shows_options_and_metrics_as_they_are_typed(beamside, start, home: Path) -> None:
    start()
    code, out, err = beamside("workflow", "show", "two.json")
    assert code == 0, err
    assert "ctf.ctf_resolution (Å)" in out
    assert "--large.pick-threshold" in out
    assert "large.particles" in out
