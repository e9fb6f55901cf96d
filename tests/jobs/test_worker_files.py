"""A result counts only with the files that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamside.errors import ConfigError
from beamside.jobs.base import Result
from beamside.jobs.registry import job_type
from beamside.jobs.worker import check_files

CTF = job_type("ctf")


def claim(root: Path, path: str) -> None:
    check_files(CTF, Result(outputs={"spectrum": path}), root)


def test_a_file_that_was_written_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.ctf").write_text("")
    claim(tmp_path, "a.ctf")


def test_a_file_that_was_not_written_is_named_with_job_type_and_role(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"job type 'ctf' says that it wrote 'a\.ctf' as 'spectrum', and there is no"):
        claim(tmp_path, "a.ctf")


def test_a_folder_or_a_link_to_nothing_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for path in ("folder", "link", ""):
        with pytest.raises(ConfigError, match="there is no such file"):
            claim(tmp_path, path)


def test_a_path_outside_the_project_is_refused_although_the_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "outside").write_text("")
    for path in ("../outside", str(tmp_path / "outside")):
        with pytest.raises(ConfigError, match="not a path in the project"):
            claim(tmp_path / "project", path)
