"""The page about a job type of one's own is true: its code is run as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamside.cli.main import main
from beamside.flow.session import Session
from beamside.flow.stored_settings import load_settings
from beamside.formats.mrc import write_mrc
from beamside.jobs import registry
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.ctf import CtfEstimation
from beamside.project.project import Project
from beamside.testing import known_job_types

PAGE = (Path(__file__).parents[1] / "docs/tutorials/your-own-job-type.md").read_text("utf-8")
FILES = dict(re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
COMMANDS = [
    shlex.split(line.replace("\\\n", " "))[1:]
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    if not language
    for line in re.findall(r"^beamside (?:.*\\\n)*.*", block, flags=re.MULTILINE)
]

Run = Callable[..., tuple[int, str]]


class LightCtf(CtfEstimation):
    """Stands for CTF estimation."""

    work = f"{__name__}:fit"


def fit(item: Item, parameters: Any, workspace: Workspace) -> Result:
    with (workspace.root / "fits.txt").open("a") as fits:
        fits.write(f"{item.name}\n")
    spectrum = workspace.path(item, ".ctf")
    spectrum.write_text("a spectrum")
    values = {"micrograph_pixel_size": 1.2, "defocus_u": 15050.0, "defocus_v": 14950.0, "defocus_angle": 10.0}
    metrics = {"astigmatism": 100.0, "ctf_score": 0.1, "ctf_resolution": 4.0, "defocus": 15000.0}
    return Result(metrics, {"ctf_spectrum": workspace.relative(spectrum)}, values)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where somebody works who has installed the package: the page's files, and a camera's folder with two micrographs."""
    installed = tmp_path / "packages"
    (installed / "beamside_ice-1.0.dist-info").mkdir(parents=True)
    entries = re.search(r'\[project\.entry-points\."(beamside\.jobs)"\]\n(.*?)\n\n', FILES["pyproject.toml"], re.DOTALL)
    assert entries is not None
    points = entries[2].replace('"', "")
    (installed / "beamside_ice-1.0.dist-info/entry_points.txt").write_text(f"[{entries[1]}]\n{points}\n")
    (installed / "beamside_ice-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: beamside-ice\n")
    (installed / "beamside_ice.py").write_text(FILES["beamside_ice.py"])
    for name in ("ice.json", "test_beamside_ice.py"):
        (tmp_path / name).write_text(FILES[name])
    (tmp_path / "camera").mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).normal(size=(64, 64)).astype(np.float32)
        write_mrc(tmp_path / f"camera/m{number}.mrc", noise, pixel_size=1.2)
    monkeypatch.chdir(tmp_path)
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    for variable in [name for name in os.environ if name.startswith("BEAMSIDE_CONFIG")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setattr("beamside.cli.session.start_background", lambda *_: 1)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    _forget()
    with known_job_types(LightCtf):
        yield tmp_path
    _forget()


def _forget() -> None:
    registry._installed.cache_clear()
    sys.modules.pop("beamside_ice", None)


@pytest.fixture
def beamside(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main.main(list(words), prog_name="beamside")
        return int(stop.value.code or 0), "".join(capfd.readouterr())

    return run


def session(beamside: Run, words: list[str]) -> Project:
    """Start a session with the page's words, here and with no workers of its own, and let it end."""
    quick = ("--executor", "inline", "--settle-seconds", "0", "--poll-seconds", "0.05")
    code, said = beamside(*words, *quick)
    assert code == 0, said
    project = Project(Path("out/sessions/run1").absolute())
    assert Session(load_settings(project), until_empty=True).run() == "finished"
    return project


def test_the_package_works_as_the_page_says(folder: Path, beamside: Run) -> None:
    check, start, status, again = COMMANDS
    code, said = beamside(*check)
    assert (code, said) == (0, "ice.json is right: 3 jobs (import, ctf, ice).\n")

    project = session(beamside, start)
    code, said = beamside(*status)
    assert code == 0
    assert "Ice score" in said
    (job,) = (job for job in project.load().jobs.values() if job.type_name == "ice")
    assert len(job.items) == 2
    assert all(entry.result["metrics"]["ice_score"] > 0 for entry in job.items.values())
    journal = project.job_journal(job.name).read_text()
    assert journal.count("ice_score") == 2
    assert job.name not in (project.root / "default_pipeline.star").read_text()
    assert "CtfFind" in (project.root / "default_pipeline.star").read_text()
    assert beamside("report", str(project.root))[0] == 0
    assert "Ice score" in (project.root / "report.html").read_text()

    session(beamside, [*again[: again.index("--limit")], "--limit", "0.001", "--recompute"])
    assert project.job_journal(job.name).read_text().count("ice_score") == 4
    assert len((project.root / "fits.txt").read_text().splitlines()) == 2, "CTF was not computed again"
    entries = project.load().jobs[job.name].items.values()
    assert all("is above 0.001" in entry.reason for entry in entries)


def test_its_tests_pass(folder: Path) -> None:
    found: dict[str, Any] = {}
    exec(compile(FILES["test_beamside_ice.py"], "test_beamside_ice.py", "exec"), found)
    tests = [test for name, test in found.items() if name.startswith("test_")]
    assert len(tests) == 3
    for number, test in enumerate(tests):
        root = folder / f"project{number}"
        root.mkdir()
        test(root)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "import numpy as np",
            "import numppy as np",
            "cannot be loaded: ModuleNotFoundError: No module named 'numppy'",
        ),
        ('name = "ice"', 'name = "frost"', "calls itself 'frost'; give both the same name"),
        ("class Ice(", "class Frost(", "cannot be loaded: AttributeError"),
        ('    name = "ice"\n', "", "has no name"),
    ],
)
def test_a_broken_package_is_told_in_one_sentence(folder: Path, beamside: Run, old: str, new: str, words: str) -> None:
    module = folder / "packages/beamside_ice.py"
    module.write_text(module.read_text().replace(old, new, 1))
    code, said = beamside("workflow", "check", "ice.json")
    assert code == 2
    assert words in said
    assert "job 'ice'" in said
    assert said.count("\n") == 1
    assert beamside("workflow", "list")[0] == 0, "the others are still shown"


def test_a_job_type_that_is_not_installed(folder: Path, beamside: Run) -> None:
    content = json.loads((folder / "ice.json").read_text())
    content["jobs"]["ice"]["type"] = "icee"
    (folder / "ice.json").write_text(json.dumps(content))
    code, said = beamside("workflow", "check", "ice.json")
    assert (code, said.count("\n")) == (2, 1)
    assert "There is no job type 'icee'" in said
