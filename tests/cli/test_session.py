"""Sessions as users control them: real session processes, on a camera folder that stays empty."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from beamside.cli import progress
from beamside.flow.known_projects import register
from beamside.monitor.status import read_status
from beamside.project.project import Project, ProjectWriter

START = ("--pixel-size", "1.08", "--voltage", "300", "--target", "out", "--group", "lab", "--name", "run1")


@pytest.fixture
def project(home: Path) -> Iterator[Project]:
    """The project that START makes; its session is ended whatever the test does."""
    found = Project(home / "out" / "lab" / "run1")
    yield found
    holder = found.writer_process()
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)
    wait_for(lambda: found.writer_process() is None)


def wait_for(condition) -> None:
    """Wait as long as it takes on a busy machine; a test that hangs is ended by pytest's own timeout."""
    while not condition():
        time.sleep(0.05)


def start(beamside, *more: str) -> tuple[int, str, str]:
    return beamside("session", "start", *START, "--data", "camera/**/*.tiff", "--poll-seconds", "0.2", *more)


class TestMistakesBeforeTheStart:
    def test_a_missing_gain_file(self, beamside, project: Project) -> None:
        code, _, err = start(beamside, "--gain", "gain.mrc")
        assert code == 2
        assert err.count("\n") == 1
        assert "gain.mrc does not exist" in err
        assert project.writer_process() is None

    def test_a_target_that_cannot_be_written(self, beamside, home: Path) -> None:
        (home / "file").write_text("")
        code, _, err = start(beamside, "--target", "file")
        assert code == 2
        assert err.count("\n") == 1
        assert "cannot be written" in err

    def test_changed_settings_are_computed_again_only_when_asked_for(
        self, beamside, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("beamside.cli.session.recompute_cost", lambda _: {"CTF estimation": 120, "Picking": 118})
        code, _, err = start(beamside)
        assert code == 2
        assert "CTF estimation of 120 items, Picking of 118 items would be computed again: add --recompute" in err
        assert not project.root.exists()
        started = []
        monkeypatch.setattr("beamside.cli.session.start_background", lambda found, _: started.append(found.root) or 1)
        assert start(beamside, "--recompute")[0] == 0
        assert started == [project.root]

    def test_a_profile_says_which_data_it_found(
        self, beamside, home: Path, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (home / "beamside.toml").write_text('[stream.krios.k3]\npaths = "frames"\npattern = "*.tiff"\n')
        (home / "frames" / "run1").mkdir(parents=True)
        monkeypatch.setattr("beamside.cli.session.start_background", lambda *_: 1)
        code, out, err = beamside("session", "start", *START, "--profile", "krios.k3")
        assert code == 0
        assert f"Data: {home}/frames/run1/**/*.tiff (beamside.toml [stream.krios.k3] paths, looked up by name)" in out
        assert err.count("\n") == 1

    def test_showing_starts_nothing(self, beamside, project: Project) -> None:
        code, out, _ = start(beamside, "--show")
        assert code == 0
        row = next(line for line in out.splitlines() if line.strip().startswith("--voltage"))
        assert row.split() == ["--voltage", "300", "kV", "command", "line"]
        row = next(line for line in out.splitlines() if line.strip().startswith("--gain-rotate"))
        assert row.split() == ["--gain-rotate", "auto", "default"], "what is no number has no unit"
        assert not project.root.exists()

    @pytest.mark.parametrize("command", ["pause", "resume", "stop", "retry"])
    def test_what_changes_a_session_wants_its_name(self, beamside, command: str) -> None:
        code, _, err = beamside("session", command)
        assert code == 2
        assert "name the session" in err

    def test_an_unknown_session(self, beamside) -> None:
        assert beamside("session", "status", "nowhere")[0] == 2
        assert "No session" in beamside("session", "list")[1]


class TestList:
    def test_a_damaged_project_does_not_hide_the_others(self, beamside, home: Path) -> None:
        for name in ("good", "damaged"):
            with ProjectWriter(Project(home / "out" / "lab" / name)) as writer:
                writer.session("started")
            register(Project(home / "out" / "lab" / name))
        journal = Project(home / "out" / "lab" / "damaged").project_journal
        journal.write_bytes(re.sub(rb'"format":\d+', b'"format":999', journal.read_bytes()))
        for words in ([], ["--target", "out"]):
            code, out, err = beamside("session", "list", *words)
            assert code == 0
            assert "lab/good" in out
            assert "unreadable" in next(line for line in out.splitlines() if "lab/damaged" in line)
            assert "lab/damaged cannot be read: " in err
            assert err.count("\n") == 1

    def test_a_project_whose_disk_is_away_is_listed_as_that(self, beamside, home: Path) -> None:
        for name in ("disk/lab/away", "disk/lab/deleted"):
            with ProjectWriter(Project(home / name)) as writer:
                writer.session("started")
            register(Project(home / name))
        shutil.rmtree(home / "disk/lab/deleted")
        assert "away" not in beamside("session", "list")[1].replace("lab/away", "")
        (home / "disk").rename(home / "elsewhere")
        code, out, err = beamside("session", "list")
        assert code == 0
        (row,) = [line for line in out.splitlines() if "lab/away" in line]
        assert row.split()[:2] == ["lab/away", "away"]
        assert f"cannot be reached (there is no folder {home}/disk): is its disk mounted?" in err
        assert "disk mounted" in beamside("session", "status", "lab/away")[2]
        assert "No session is running" in beamside("session", "list", "--running")[1]
        (home / "disk").mkdir()  # where a disk is mounted
        assert f"the folder {home}/disk is empty" in beamside("session", "list")[2]
        (home / "disk" / "other").mkdir()
        assert beamside("session", "list")[:2] == (0, "No session is known.\n")

    def test_a_session_that_asks_something_says_so(self, beamside, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with ProjectWriter(Project(home / "out/lab/one")) as writer:
            writer.session("started")
        register(Project(home / "out/lab/one"))
        asking = progress.read_status
        monkeypatch.setattr(progress, "read_status", lambda one: replace(asking(one), questions=("Which?",)))
        assert "waiting for an answer" in beamside("session", "list")[1]

    def test_a_target_that_is_not_there(self, beamside) -> None:
        code, _, err = beamside("session", "list", "--target", "nowhere")
        assert code == 2
        assert "does not exist: correct --target" in err

    @pytest.mark.parametrize("entry", [b"", b"\0", b"/caf\xe9", b"relative", "/größe".encode("latin-1")])
    def test_an_entry_that_means_nothing_is_passed_over(self, beamside, tmp_path: Path, entry: bytes) -> None:
        directory = tmp_path / "state" / "beamside" / "sessions"
        directory.mkdir(parents=True)
        (directory / "0123456789abcdef").write_bytes(entry)
        assert beamside("session", "list")[:2] == (0, "No session is known.\n")


class TestVisitor:
    @pytest.mark.parametrize("command", [("report",), ("session", "report")])
    def test_a_report_of_someone_else_s_project_is_written_elsewhere(
        self, beamside, home: Path, command: tuple[str, ...]
    ) -> None:
        project = Project(home / "out" / "lab" / "theirs")
        with ProjectWriter(project) as writer:
            writer.session("started")
        project.report.mkdir()  # nobody can put a file there, also not who may write everywhere
        code, _, err = beamside(*command, str(project.root))
        assert code == 2
        assert "--output FILE" in err
        code, out, _ = beamside(*command, str(project.root), "--output", str(home / "mine.html"))
        assert (code, out.strip()) == (0, str(home / "mine.html"))
        assert "lab/theirs" in (home / "mine.html").read_text(encoding="utf-8")


class TestNoHome:
    """A service's account, or a home on a file server that is away: sessions run, and are named by their folder."""

    @pytest.fixture(params=["file in the way", "no home"])
    def homeless(self, request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "no home":
            monkeypatch.delenv("XDG_STATE_HOME")
            monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does when there is no home
        else:
            (home / "file").write_text("")
            monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))

    @pytest.mark.usefixtures("homeless")
    def test_a_session_starts_and_says_how_it_is_named(
        self, beamside, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("beamside.cli.session.start_background", lambda *_: 1)
        code, out, err = start(beamside)
        assert code == 0
        assert "runs in the background" in out
        assert f"name it by its folder, {project.root}" in err

    @pytest.mark.usefixtures("homeless")
    def test_nothing_is_known(self, beamside) -> None:
        assert beamside("session", "list")[:2] == (0, "No session is known.\n")


@pytest.mark.slow
class TestLife:
    def test_from_start_to_end(self, beamside, beamside_process, project: Project) -> None:
        code, out, err = start(beamside_process, "--classes", "30")
        assert code == 0, err
        assert "runs in the background" in out
        assert "camera of --data" in err
        assert "cannot be found" in err
        assert project.writer_process() is not None

        assert "running already" in start(beamside)[2]
        _, out, _ = beamside("session", "list")
        assert "lab/run1" in out
        assert "running" in beamside("session", "status", "run1")[1]
        assert json.loads(beamside("session", "status", "lab/run1", "--json")[1])["backlog"] == 0

        assert beamside("session", "pause", "run1")[0] == 0
        wait_for(lambda: "paused" in beamside("session", "status", "run1")[1])
        assert beamside("session", "resume", "run1")[0] == 0
        wait_for(lambda: "running" in beamside("session", "status", "run1")[1])

        settings = json.loads(beamside("session", "show-config", "run1", "--json")[1])
        assert settings["classes"] == {"value": 30, "origin": "command line"}
        assert settings["cs"] == {"value": 2.7, "origin": "default"}

        assert beamside("session", "stop", "run1")[0] == 0
        assert project.writer_process() is None
        assert "stopped" in beamside("session", "status", "run1")[1]
        assert "session stopped" in beamside("session", "logs", "run1")[1]
        assert "is not running" in beamside("session", "stop", "run1")[2]

    def test_in_the_foreground_ctrl_c_stops_it_in_order(self, project: Project) -> None:
        command = [
            sys.executable,
            "-m",
            "beamside.cli.main",
            "session",
            "start",
            *START,
            "--data",
            "camera/*.tiff",
            "--foreground",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: project.exists and read_status(project).state == "running")
            assert project.writer_process().pid == process.pid  # type: ignore[union-attr]
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
        assert process.returncode == 0, err
        assert "lab/run1: stopped" in out
        assert out.splitlines()[-1] == f"The session {project.root} has stopped. Its report: {project.report}"
        assert read_status(project).state == "stopped"
        assert "session" in project.log.read_text()

    def test_a_session_that_was_killed_is_resumed_with_its_settings(
        self, beamside, beamside_process, project: Project
    ) -> None:
        assert start(beamside_process, "--classes", "30")[0] == 0
        holder = project.writer_process()
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
        wait_for(lambda: project.writer_process() is None)
        assert "dead" in beamside("session", "status", "run1")[1]
        assert beamside_process("session", "resume", "run1")[0] == 0
        assert project.writer_process() is not None
        assert json.loads(beamside("session", "show-config", "run1", "--json")[1])["classes"]["value"] == 30
        assert beamside("session", "stop", "--finish", "run1")[0] == 0
        assert "finished" in beamside("session", "status", "run1")[1]
