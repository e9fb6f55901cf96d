"""A session without a gain reference whose movies need one says so early, with a picture and the file that it may be; it does not stop for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.acquisition.gain_candidates import gain_candidates
from beamside.camera.gain import need_worker as gain_need_worker
from beamside.camera.gain.case import Seen
from beamside.camera.gain.need import Watched
from beamside.flow import control
from beamside.flow.asking import ask as tell
from beamside.flow.session import Session
from beamside.flow.settings import SessionSettings
from beamside.flow.start import recompute_cost
from beamside.formats.mrc import write_mrc
from beamside.formats.orientation import Orientation
from beamside.monitor.report import write_report
from beamside.monitor.status import ProblemStatus, read_status
from beamside.project.project import Project
from beamside.project.records import ItemState

Settings = Callable[..., SessionSettings]

pytestmark = pytest.mark.usefixtures("light_workflow")


def run(settings: SessionSettings) -> Project:
    assert Session(settings, until_empty=True).run() == "finished"
    return Project(settings.root)


def needed(project: Project) -> list[ProblemStatus]:
    return [problem for problem in read_status(project).problems if problem.key.startswith("gain-needed")]


def movies_done(project: Project) -> int:
    found = project.load().job_of_type("motion")
    assert found is not None
    return [entry.state for entry in found.items.values()].count(ItemState.DONE)


def test_it_is_said_with_picture_and_file_and_the_movies_go_on(camera: Any, session_settings: Settings) -> None:
    for index in range(4):
        camera.movie(f"m{index}", 80)
    reference = camera.reference(Orientation(90, "none"))
    write_mrc(camera.folder / "gain_of_another_camera.mrc", np.random.default_rng(1).normal(1, 0.05, (128, 128)))
    project = run(session_settings())
    status = read_status(project)
    (problem,) = needed(project)
    assert (problem.severity, status.attention()) == ("error", "error")
    assert "the movies need one" in problem.text
    assert "movies show the same pattern of pixels" in problem.text
    assert f"There is {reference} beside the data, whose pattern is that of the movies (slope -" in problem.text
    assert f"--gain {reference}" in problem.text
    assert movies_done(project) == 4
    page = write_report(project).read_text()
    assert "What the means of different movies share" in page
    assert "none is used, and the movies need one" in page
    (again,) = needed(run(session_settings()))
    assert again.text.startswith(problem.text), "known to every later session"


def test_movies_that_need_none_are_said_so_and_looked_at_again(camera: Any, session_settings: Settings) -> None:
    for index in range(4):
        camera.movie(f"m{index:02d}", 160, corrected=True)
    settings = session_settings()
    project = run(settings)
    assert needed(project) == []
    (line,) = read_status(project).gain
    assert "the movies need none" in line
    for index in range(4, 24):
        camera.movie(f"m{index:02d}", 160)
    (problem,) = needed(run(settings))
    assert "the newest 4 movies (m" in problem.text
    assert "earlier ones did not" in problem.text
    assert "No reference was found beside the data" in problem.text


def test_the_picture_is_drawn_again_with_more_movies(camera: Any, session_settings: Settings) -> None:
    for index in range(13):
        camera.movie(f"m{index:02d}", 80)
    project = run(session_settings())
    (problem,) = needed(project)
    assert "the first 12 movies show the same pattern of pixels" in problem.text
    assert problem.count == 1, "it is said once"
    assert (project.root / "Import/job001/gain_needed.png").exists()


def test_a_fault_in_the_look_is_told_and_tried_again(
    camera: Any, session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        camera.movie(f"m{index}", 80)
    faults, real = [OSError(28, "No space left on device")] * 3, gain_need_worker.save_picture
    monkeypatch.setattr("beamside.flow.retries.RETRY_SECONDS", 0.001)

    def save(path: Path, picture: Any) -> None:
        if faults:
            raise faults.pop()
        real(path, picture)

    monkeypatch.setattr(gain_need_worker, "save_picture", save)
    settings = session_settings()
    session, project = Session(settings), Project(settings.root)
    thread = threading.Thread(target=session.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not (project.exists and needed(project)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        control.send(project, "stop")
        thread.join(60)
    (fault,) = (entry for key, entry in project.load().problems.items() if key.startswith("gain-need-fault"))
    assert (fault.open, fault.count) == (False, 3)


def test_who_does_not_want_to_be_told_is_not(camera: Any, session_settings: Settings) -> None:
    for index in range(3):
        camera.movie(f"m{index}", 80)
    project = run(session_settings(gain_check=False))
    assert needed(project) == []
    assert read_status(project).gain == ()


def test_a_session_that_gets_the_reference_after_all_is_told_so_no_more(
    camera: Any, session_settings: Settings
) -> None:
    for index in range(3):
        camera.movie(f"m{index}", 80)
    run(session_settings())
    with_it = session_settings(gain=camera.reference(Orientation()))
    assert recompute_cost(session_settings()) == recompute_cost(session_settings(gain_check=False)) == {}
    assert recompute_cost(with_it)["Measuring"] == 3, "what it costs is said before"
    project = run(with_it)
    assert recompute_cost(with_it) == {}
    moved = camera.gain.rename(camera.folder / "gain_at_another_place.mrc")
    assert recompute_cost(session_settings(gain=str(moved))) == {}, "the same reference changes nothing"
    for other in ({"gain_rotate": 90}, {"gain_check": False}):
        assert recompute_cost(session_settings(gain=str(moved), **other))["Measuring"] == 3
    status = read_status(project)
    assert needed(project) == []
    assert "is used as the movies show" in status.gain[0]
    calls = (project.root / "calls.txt").read_text().splitlines()
    assert sum(line.startswith("motion") for line in calls) == 6, "all movies are corrected again"


def test_movies_that_a_wrong_reference_leaves_uncorrected_are_said_to_need_another(
    camera: Any, session_settings: Settings
) -> None:
    for index in range(3):
        camera.movie(f"m{index}", 80)
    reference = camera.reference(Orientation())
    wrong = camera.folder / "of_another_camera.mrc"
    write_mrc(wrong, np.random.default_rng(1).normal(1, 0.05, (128, 128)).astype(np.float32))
    settings = session_settings(gain=str(wrong))
    assert Session(settings, until_empty=True).run() == "waiting for an answer"
    project = Project(settings.root)
    (problem,) = needed(project)
    assert "of_another_camera.mrc is not used, but the movies need one" in problem.text
    assert f"There is {reference} beside the data" in problem.text
    tell(project, "gain", {"rotate": 0, "flip": "none", "use": "none"})
    run(settings)
    assert len(needed(project)) == 1, "also when a person said that it is not to be used"
    assert movies_done(project) == 3
    run(session_settings(gain=reference))
    assert needed(project) == []


def test_a_reference_that_was_refused_is_not_proposed_again(camera: Any, session_settings: Settings) -> None:
    for index in range(3):
        camera.movie(f"m{index}", 80)
    wrong = camera.folder / "CountRef_of_another_camera.mrc"
    write_mrc(wrong, np.random.default_rng(1).normal(1, 0.05, (128, 128)).astype(np.float32))
    settings = session_settings(gain=str(wrong))
    assert Session(settings, until_empty=True).run() == "waiting for an answer"
    (problem,) = needed(Project(settings.root))
    assert "CountRef_of_another_camera.mrc is not used" in problem.text
    assert "No other reference was found beside the data that fits" in problem.text
    assert f"beamside session set '{settings.root}' --gain FILE, and resume it" in problem.text
    assert "gain_needed.png" in problem.text


def test_a_reference_that_is_used_after_all_ends_it(camera: Any, session_settings: Settings) -> None:
    for index in range(3):
        camera.movie(f"m{index}", 80)
    wrong = camera.folder / "of_another_camera.mrc"
    write_mrc(wrong, np.random.default_rng(1).normal(1, 0.05, (128, 128)).astype(np.float32))
    settings = session_settings(gain=str(wrong))
    assert Session(settings, until_empty=True).run() == "waiting for an answer"
    tell(Project(settings.root), "gain", {"rotate": 0, "flip": "none", "use": "multiply"})
    assert needed(run(settings)) == []


def test_a_movie_that_gets_a_reference_is_looked_at_no_more() -> None:
    watched = Watched((8, 8), 0, {})
    for name in ("a", "b", "sum"):
        watched.add(name, Seen(1 if name == "sum" else 5, name))
    assert [watched.drop(name) for name in ("a", "unknown", "sum")] == [False] * 3
    assert watched.voters == ["b"]
    assert watched.drop("b")
    assert watched.voters == []


def test_candidates_lie_in_the_folders_of_the_movies_and_are_named_by_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "session" / "run1" / "frames"
    (tmp_path / "session" / "GainRefs").mkdir(parents=True)
    folder.mkdir(parents=True)
    for name in (
        "m1.tif",
        "notes_gain.txt",
        "CountRef_m1.mrc",
        "../x.dm4",
        "../../GainRefs/ref1.mrc",
        "ref_by_mdoc.dm4",
    ):
        (folder / name).write_bytes(b"")
    mdoc = tmp_path / "m1.tif.mdoc"
    mdoc.write_text("[FrameSet = 0]\nGainReference = X:\\DoseFractions\\ref_by_mdoc.dm4\r\n")
    found = gain_candidates([str(folder / "m1.tif")], [mdoc, tmp_path / "missing.mdoc"])
    assert [path.name for path in found] == ["ref_by_mdoc.dm4", "CountRef_m1.mrc", "ref1.mrc"]
    assert gain_candidates(["/nowhere/at/all/m.tif"]) == []
