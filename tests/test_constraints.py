"""Every package that `make` installs has a version of its own in constraints.txt, so that an old checkout installs what it was tested with."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


PINS = dict(line.split("==") for line in lines_of(ROOT / "constraints.txt"))


def declared() -> list[Requirement]:
    project = PROJECT["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"], *PROJECT["build-system"]["requires"]]
    return [Requirement(text) for text in asked]


def installed(wanted: list[Requirement]) -> Iterator[str]:
    """Yield what `wanted` needs, and what that needs, as the packages that are installed say."""
    seen: set[tuple[str, str]] = set()
    while wanted:
        needed = wanted.pop()
        name = str(canonicalize_name(needed.name))
        for extra in ("", *needed.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                below = [Requirement(text) for text in requires(name) or []]
            except PackageNotFoundError:  # the build backend lives in an environment that pip makes and removes
                below = []
            wanted += [one for one in below if one.marker is None or one.marker.evaluate({"extra": extra})]
        yield name


def test_every_dependency_has_one_version_those_of_dependencies_too() -> None:
    needed = set(installed(declared()))
    assert {"markupsafe", "mpmath", "hatchling"} <= needed
    assert sorted(needed - set(PINS)) == [], "run tools/make-constraints, and the tests with what it wrote"


@pytest.mark.parametrize("needed", declared(), ids=lambda needed: needed.name)
def test_the_version_is_within_the_range_that_is_supported(needed: Requirement) -> None:
    assert needed.specifier.contains(PINS[str(canonicalize_name(needed.name))], prereleases=True)


def test_the_program_that_tests_run_is_pinned_with_all_that_it_needs() -> None:
    assert sorted(set(lines_of(ROOT / "tools" / "topaz-requirements.txt")) - set(PINS)) == []


def test_nothing_is_installed_past_the_constraints() -> None:
    """Installing by name and version in a script would be a second place for versions."""
    scripts = [ROOT / "Makefile", *(ROOT / "tools").iterdir(), ROOT / ".ci" / "run"]
    commands = [line for path in scripts for line in path.read_text().splitlines() if "pip install" in line]
    assert commands
    assert [line for line in commands if re.search(r"\w==\d", line)] == []
