"""What the command line says of packages that bring something which cannot be used: it goes on without that, and tells."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamside.acquisition import kinds
from beamside.jobs import registry

MODULE = """
def flow():
    return {"jobs": {"import": {"type": "import"}}}

def wrong():
    return {"jobs": {"import": {"type": "imprt"}}}

def raises():
    raise RuntimeError("numpy is too old")
"""
POINTS = """
[beamside.workflows]
good = of_a_lab:flow
movies = of_a_lab:flow
wrong = of_a_lab:wrong
raises = of_a_lab:raises
away = of_nobody:flow
[beamside.jobs]
ctf = of_a_lab:flow
odd = of_nobody:Odd
[beamside.kinds]
strange = of_nobody:STRANGE
"""


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    described = tmp_path / "site" / "lab-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(POINTS)
    (described.parent / "of_a_lab.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(described.parent))
    caches = (registry._installed, kinds.installed)
    for one in caches:
        one.cache_clear()
    yield
    sys.modules.pop("of_a_lab", None)
    for one in caches:
        one.cache_clear()


def test_help_is_shown_whatever_packages_there_are(beamside) -> None:
    for words in ((), ("session",), ("session", "start"), ("workflow",)):
        code, out, _ = beamside(*words, "--help")
        assert code == 0
        assert "Usage:" in out


def test_the_list_tells_what_is_not_in_it_and_why(beamside) -> None:
    code, out, err = beamside("workflow", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["good", "movies", "micrographs"]
    assert err.splitlines() == [
        "beamside: The workflow 'movies' of of_a_lab:flow is not used: Beamside has one of this name.",
        "beamside: The workflow 'wrong' of of_a_lab:wrong cannot be used: The workflow 'wrong': job 'import': There is no job type "
        "'imprt'; did you mean 'import'? Or is the package that provides it installed here?",
        "beamside: The workflow 'raises' of of_a_lab:raises cannot be used: RuntimeError: numpy is too old.",
        "beamside: The workflow 'away' of of_nobody:flow cannot be used: ModuleNotFoundError: No module named 'of_nobody'.",
        "beamside: The job type 'ctf' of of_a_lab:flow is not used: Beamside has one of this name.",
        "beamside: The job type 'odd' (of_nobody:Odd) cannot be loaded: ModuleNotFoundError: No module named 'of_nobody'.",
    ]


@pytest.mark.parametrize(
    ("name", "says"), [("wrong", "no job type 'imprt'"), ("raises", "numpy is too old"), ("away", "No module")]
)
def test_a_workflow_of_a_package_that_cannot_be_used_says_why(beamside, name: str, says: str) -> None:
    code, _, err = beamside("workflow", "show", name)
    assert code == 2
    assert f"The workflow {name!r} of " in err
    assert says in err


def test_a_file_with_a_job_type_that_cannot_be_loaded_says_why(beamside, home: Path) -> None:
    jobs = {"import": {"type": "import"}, "odd": {"type": "odd", "inputs": {"movies": "import.movies"}}}
    (home / "odd.json").write_text(json.dumps({"jobs": jobs}))
    code, _, err = beamside("workflow", "check", "odd.json")
    assert code == 2
    assert "job 'odd': The job type 'odd' (of_nobody:Odd) cannot be loaded" in err
