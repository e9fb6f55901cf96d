"""What the documentation tells people to type and to open is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from beamside.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOR_USERS = [page for page in PAGES if page.parent.name in ("how-to", "tutorials") or page.name == "README.md"]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words behind ``beamside`` in code blocks and in inline code; a continued line is one line."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line for block in blocks for line in re.sub(r"\\\n", " ", block).splitlines()] + inline
    for line in lines:
        for found in re.findall(
            r"(?:^|[\s(/])beamside ((?:session|project|report|init|demo)\b(?:'[^']*'|[^|;#)])*)", line
        ):
            yield [word for word in shlex.split(found.split(" > ")[0].split(" 2>")[0], posix=True) if word != "..."]


def own_flags(text: str) -> set[str]:
    """Return the options of job types that a page itself declares."""
    return {f"--{name.replace('_', '-')}" for name in re.findall(r"^    (\w+): \w+ = parameter\(", text, re.MULTILINE)}


def flags(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def without_label(flag: str) -> str:
    """Return an option of a workflow's job as it is called where there is one such job: "--small.pick-threshold" is --pick-threshold."""
    return f"--{flag.rpartition('.')[2]}" if "." in flag else flag


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist_and_take_these_options(page: Path) -> None:
    for words in commands(page.read_text()):
        command: click.Command = main
        rest = list(words)
        while isinstance(command, click.Group) and rest:
            word = rest.pop(0)
            assert word in command.commands, f"beamside {' '.join(words)}: there is no command {word}"
            command = command.commands[word]
        given = {without_label(word.partition("=")[0]) for word in rest if word.startswith("-")}
        assert given - flags(command) - own_flags(page.read_text()) == set(), f"beamside {' '.join(words)}"


def test_there_is_something_to_type() -> None:
    assert sum(len(list(commands(page.read_text()))) for page in FOR_USERS) > 40


@pytest.mark.parametrize("page", FOR_USERS, ids=name)
def test_options_that_are_mentioned_alone_exist(page: Path) -> None:
    session = main.commands["session"]
    assert isinstance(session, click.Group)
    known = set().union(*(flags(command) for command in (*session.commands.values(), *main.commands.values())))
    mentioned = {
        without_label(match)
        for code in re.findall(r"`([^`\n]+)`", page.read_text())
        for match in re.findall(r"^--[a-z0-9_.-]+", code)
    }
    assert mentioned - known == set()
