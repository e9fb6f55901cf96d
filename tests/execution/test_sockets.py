"""Workers get a folder for temporary files in which sockets can be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from beamside.execution.sockets import LONGEST, short_folder


def test_a_short_folder_stays(tmp_path: Path) -> None:
    assert short_folder("/tmp", [str(tmp_path)]) == {}


def test_instead_of_a_long_one_the_first_that_can_be_used_is_taken(tmp_path: Path) -> None:
    assert short_folder("/" + "x" * LONGEST, ["/no such folder", str(tmp_path)]) == {"TMPDIR": str(tmp_path)}
    assert short_folder("/" + "x" * LONGEST, ["/no such folder"]) == {}


@pytest.mark.parametrize("length", [LONGEST, 200])
def test_a_manager_of_processes_starts_with_what_is_given(tmp_path: Path, length: int) -> None:
    folder = tmp_path / "x"
    while len(str(folder)) < length - 1:
        folder = folder / ("x" * min(100, length - len(str(folder)) - 1))
    folder.mkdir(parents=True)
    code = "import multiprocessing as m\nif __name__ == '__main__': m.get_context('fork').Manager().shutdown()"
    environment = {"TMPDIR": str(folder), **short_folder(str(folder))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
