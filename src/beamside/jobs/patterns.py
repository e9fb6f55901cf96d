"""The one pattern with which RELION's Import job takes the files that were imported, and as few others as possible."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import filter as fnmatch_filter
from os.path import splitext
from pathlib import Path


@dataclass(frozen=True)
class Pattern:
    """A pattern of files in a project.

    Attributes
    ----------
    text : as the C library's ``glob`` takes it, without braces, which RELION does not expand
    missed : how many of the imported files it does not match
    others, other : how many further files it matches, and one of them
    """

    text: str
    missed: int = 0
    others: int = 0
    other: str = ""


def pattern_of(names: Sequence[str], root: Path) -> Pattern | None:
    """Return the pattern that fits best for the files `names`, paths in the project at `root`; None when there are none.

    Sidecar files of the microscope lie beside movies, and whatever else a pattern takes is imported as a movie.
    """
    if not names:
        return None
    wanted = set(names)
    folder = Counter(name.rpartition("/")[0] for name in names).most_common(1)[0][0]
    try:
        there = {f"{folder}/{name}" for name in os.listdir(root / folder)}
    except OSError:
        there = set()
    there |= {name for name in wanted if name.rpartition("/")[0] == folder}
    best: Pattern | None = None
    for text in dict.fromkeys(_candidates(sorted(wanted), folder)):
        found = _judged(text, wanted, there)
        if not found.missed and not found.others:
            return found
        if best is None or (found.missed + found.others, found.missed) < (best.missed + best.others, best.missed):
            best = found
    return best


def _judged(text: str, wanted: set[str], there: set[str]) -> Pattern:
    # All of `there` are in one folder, so no star meets a slash; of `glob`, a star matches no dot at the beginning.
    hidden = "/." in text
    taken = {name for name in fnmatch_filter(there, text) if hidden or "/." not in name}
    others = taken - wanted
    return Pattern(text, len(wanted - taken), len(others), min(others).rpartition("/")[2] if others else "")


def _candidates(names: Sequence[str], folder: str) -> Iterator[str]:
    """Yield patterns, those that are easiest to read first."""
    files = [name[len(folder) + 1 :] for name in names if name.rpartition("/")[0] == folder]
    endings = Counter(splitext(file)[1] for file in files)
    for ending, _ in endings.most_common():
        yield f"{_quoted(folder)}/*{_quoted(ending)}"
    shared = _common_start(list(endings))
    if len(shared) > 2:
        yield f"{_quoted(folder)}/*{_quoted(shared)}*"
    for ending, _ in [("", 0), *endings.most_common()]:
        chosen = [file for file in files if file.endswith(ending)]
        last = _common_start([file[::-1] for file in chosen])[::-1]
        if last and last != chosen[0]:
            yield f"{_quoted(folder)}/*{_quoted(last)}"
            first = _common_start([file[: len(file) - len(last)] for file in chosen])
            yield f"{_quoted(folder)}/{_quoted(first)}*{_quoted(last)}"
    if len(files) == 1:
        yield f"{_quoted(folder)}/{_quoted(files[0])}"


def _quoted(text: str) -> str:
    """Return `text` with a question mark for each character that means something to a pattern or to the shell between RELION and its program."""
    return re.sub(r"[\[\]*?\\\"$`]", "?", text)


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    length = next(
        (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first)
    )
    return first[:length]
