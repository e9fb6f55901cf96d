"""Real external programs in tests: found, or the test is skipped; where all of them must be there (CI), a missing one is a failure."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunProgram = Callable[..., str]


def find_program(name: str) -> str:
    """Return the path of `name`; skip the test without it, or fail when CI is set."""
    path = shutil.which(name)
    if path is None and os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{name} is not installed; CI must have every peer")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture
def require_program() -> Callable[[str], str]:
    return find_program


@pytest.fixture
def run_program() -> RunProgram:
    """A function that runs a program in a directory and returns all it said; a failure shows that."""

    def run(name: str, *arguments: str, cwd: Path, timeout: float = 120) -> str:
        done = subprocess.run(
            [find_program(name), *arguments],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RELION_SHELL": "bash"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{name} {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}"
        return done.stdout

    return run
