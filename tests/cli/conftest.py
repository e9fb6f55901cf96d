import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beamside.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a blank in its name, and a home of its own: no test sees or changes what belongs to the person who runs it."""
    directory = tmp_path / "work dir"
    directory.mkdir()
    monkeypatch.chdir(directory)
    for name in [name for name in os.environ if name.startswith("BEAMSIDE_CONFIG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return directory


@pytest.fixture
def beamside(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process; returns exit code, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main.main(list(words), prog_name="beamside")
        out, err = capfd.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def beamside_process() -> Run:
    """Run the command line in a process of its own, as users do; returns exit code, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "beamside.cli.main", *words], capture_output=True, text=True, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run
