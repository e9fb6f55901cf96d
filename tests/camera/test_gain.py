"""Movies wait until it is known how their gain reference is used; what was decided is kept, and what is not known is asked."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from beamside.camera.gain.sums import file_hash
from beamside.cli.telling import told
from beamside.errors import ProjectError
from beamside.flow import control
from beamside.flow.asking import ask as tell
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.formats.mrc import read_mrc
from beamside.formats.orientation import Orientation
from beamside.formats.star import read_star
from beamside.monitor.report import write_report
from beamside.monitor.status import read_status
from beamside.project.project import Project
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]

pytestmark = pytest.mark.usefixtures("light_workflow")


def run(settings: SessionSettings, end: str = "finished") -> Project:
    assert Session(settings, until_empty=True).run() == end
    return Project(settings.root)


def prepared_gain(project: Project, movie: str) -> str:
    """The prepared reference that a movie got."""
    found = project.load().job_of_type("import")
    assert found is not None
    result = found.items[f"raw/{movie}_fractions"].result
    assert result is not None
    return str(result["values"].get("gain", ""))


def record(project: Project) -> dict[str, Any]:
    (only,) = (each for each in project.load().findings.values() if each["reference"])
    return only


def states(project: Project, job: str) -> list[ItemState]:
    found = project.load().job_of_type(job)
    assert found is not None
    return [entry.state for entry in found.items.values()]


@pytest.mark.parametrize(
    ("orientation", "divide"), [(Orientation(90, "up-down"), False), (Orientation(0, "left-right"), True)]
)
def test_the_orientation_is_found_and_everything_follows_it(
    camera: Any, session_settings: Settings, orientation: Orientation, divide: bool
) -> None:
    for name in ("a", "b"):
        camera.movie(name, 40)
    project = run(session_settings(gain=camera.reference(orientation, divide)))
    found = record(project)
    assert (found["state"], found["by"]) == ("decided", "movies")
    assert (found["rotate"], found["flip"]) == (orientation.rotate, orientation.flip)
    assert found["use"] == ("divide" if divide else "multiply")
    assert states(project, "motion") == [ItemState.DONE] * 2
    path = prepared_gain(project, "a")
    assert path == f"Import/job001/gain_{file_hash(project.root / path)[:12]}.mrc", "the name says the content"
    prepared = read_mrc(project.root / path)
    product = prepared * camera.response
    assert product.std() / product.mean() < 1e-5, "what is written multiplies, whatever the reference did"
    options = read_star(project.root / "MotionCorr/job002/job.star")["joboptions_values"]
    values = dict(zip(options.column("rlnJobOptionVariable"), options.column("rlnJobOptionValue"), strict=True))
    assert (values["fn_gain_ref"], values["gain_rot"]) == (path, "No rotation (0)")
    status = read_status(project)
    assert str(orientation) in status.gain[0]
    page = write_report(project).read_text()
    assert "Decided by" in page
    assert "without and with the gain reference" in page


def test_a_decision_is_kept_and_not_taken_again(camera: Any, session_settings: Settings) -> None:
    """Also when the movies that come later would say something else: results of one session belong together."""
    camera.movie("a", 40)
    settings = session_settings(gain=camera.reference(Orientation(90, "none")))
    project = run(settings)
    first, calls = record(project), (project.root / "calls.txt").read_text()
    (project.root / prepared_gain(project, "a")).unlink()
    assert (run(settings).root / prepared_gain(project, "a")).exists()
    assert record(project) == first
    assert (project.root / "calls.txt").read_text() == calls


def test_more_movies_are_taken_until_it_is_clear(camera: Any, session_settings: Settings) -> None:
    for index in range(16):
        camera.movie(f"m{index:02d}", 1.2)
    project = run(session_settings(gain=camera.reference(Orientation(0, "up-down"))))
    found = record(project)
    assert (found["state"], found["rotate"], found["flip"]) == ("decided", 0, "up-down")
    assert found["evidence"]["movies"] > 1
    assert states(project, "motion") == [ItemState.DONE] * 16


def test_a_wrong_orientation_is_not_used_and_the_right_one_is_offered(camera: Any, session_settings: Settings) -> None:
    camera.movie("a", 40)
    settings = session_settings(gain=camera.reference(Orientation(270, "none")), gain_rotate=90, gain_flip="none")
    project = run(settings, "waiting for an answer")
    assert record(project)["state"] == "asked"
    assert states(project, "import") == [ItemState.WAITING]
    assert len(list(project.raw.glob("*.tiff"))) == 1, "the raw data are safe whatever the gain"
    assert states(project, "motion") == [], "nothing has failed: it waits"
    status = read_status(project)
    assert (status.state, status.backlog) == ("waiting for an answer", 1)
    (question,) = status.questions
    answer = f"beamside session gain '{settings.root}' --rotate 270 --flip none --mode multiply"
    assert answer in question
    assert "--rotate 90 --flip none --mode multiply" in question
    assert "Gain reference" in write_report(project).read_text()
    run(settings, "waiting for an answer")
    assert states(project, "motion") == [], "a question stays one until it is answered"
    tell(project, "gain", {"rotate": 270, "flip": "none", "use": "multiply"})
    run(settings)
    assert states(project, "motion") == [ItemState.DONE]
    assert record(project)["by"] == "person"
    assert read_status(project).questions == ()


def test_a_right_orientation_is_used_as_said(camera: Any, session_settings: Settings) -> None:
    camera.movie("a", 40)
    reference = camera.reference(Orientation(180, "none"))
    project = run(session_settings(gain=reference, gain_rotate="180", gain_flip="none", gain_mode="multiply"))
    assert "used as the settings say, and the movies agree" in record(project)["sentence"]
    assert states(project, "motion") == [ItemState.DONE]


def test_what_is_not_to_be_checked_is_used_as_said(camera: Any, session_settings: Settings) -> None:
    camera.movie("a", 40)
    project = run(session_settings(gain=camera.reference(Orientation(180, "none")), gain_check=False, gain_rotate=90))
    assert (record(project)["rotate"], record(project)["by"]) == (90, "settings")
    assert states(project, "motion") == [ItemState.DONE]


def test_movies_that_are_corrected_already_are_not_corrected_again(camera: Any, session_settings: Settings) -> None:
    for name in ("a", "b"):
        camera.movie(name, 60, corrected=True)
    settings = session_settings(gain=camera.reference(Orientation()))
    project = run(settings, "waiting for an answer")
    assert "corrected already" in record(project)["sentence"]
    assert states(project, "motion") == []
    tell(project, "gain", {"rotate": 0, "flip": "none", "use": "none"})
    run(settings)
    assert states(project, "motion") == [ItemState.DONE] * 2
    result = project.load().job_of_type("import").items["raw/a_fractions"].result  # type: ignore[union-attr]
    assert result is not None
    assert "gain" not in result["values"]


def test_an_answer_lets_a_running_session_go_on_while_movies_are_still_taken_in(
    camera: Any, session_settings: Settings
) -> None:
    response = (camera.response + camera.response[::-1]) / 2
    camera.response = response
    camera.movie("a", 60)
    camera.movie("b", 60)
    settings = session_settings(gain=camera.reference(Orientation()))
    session, project = Session(settings), Project(settings.root)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        wait_for(lambda: project.exists and bool(project.load().findings) and record(project)["state"] == "asked")
        assert "same in several orientations" in record(project)["sentence"]
        camera.movie("late", 60)
        wait_for(lambda: len(states(project, "import")) == 3)
        assert set(states(project, "import")) == {ItemState.WAITING}
        assert states(project, "motion") == []
        assert read_status(project).backlog == 3
        control.send(project, "gain", {"rotate": 0, "flip": "up-down", "use": "multiply"})
        wait_for(lambda: states(project, "motion") == [ItemState.DONE] * 3)
    finally:
        control.send(project, "stop")
        thread.join(30)
    with pytest.raises(ProjectError, match="asks nothing about its gain reference"):
        CliRunner().invoke(told("gain"), [str(settings.root), "--none"], catch_exceptions=False, standalone_mode=False)


def test_after_kills_at_random_moments_the_same_decision_holds_and_no_movie_is_lost(
    camera: Any, session_settings: Settings, light_jobs_program: Path, tmp_path: Path
) -> None:
    for index in range(10):
        camera.movie(f"m{index}", 1.2)
    settings = session_settings(gain=camera.reference(Orientation(90, "none")))
    settings_file = tmp_path / "settings.json"
    settings_file.write_text(json.dumps(settings.to_json()))
    command = [sys.executable, str(light_jobs_program), str(settings_file)]
    project, source, decided = Project(settings.root), random.Random(3), []
    for _ in range(3):
        process = subprocess.Popen(command, env={**os.environ, "PAUSE": "0.02"}, stderr=subprocess.DEVNULL)
        wait_for(lambda process=process: project.writer_process() is not None or process.poll() is not None)
        time.sleep(source.uniform(0.1, 1.0))
        process.kill()
        process.wait()
        decided += [found for found in project.load().findings.values() if found["state"] == "decided"]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    decided.append(record(project))
    assert {(found["rotate"], found["flip"], found["use"]) for found in decided} == {(90, "none", "multiply")}
    assert len({found["time"] for found in decided}) == 1, "decided once"
    assert states(project, "motion") == [ItemState.DONE] * 10
    assert states(project, "import") == [ItemState.DONE] * 10


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait as long as it takes on a busy machine; a test that hangs is ended by pytest's own timeout."""
    while not condition():
        time.sleep(0.05)
