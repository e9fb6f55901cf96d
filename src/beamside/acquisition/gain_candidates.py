"""Files beside the data that may be the camera's gain reference: by their names, and by what SerialEM's metadata says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from beamside.acquisition.bystanders import GAIN, kind_by_name

WORDS = re.compile(r"gain|flat[-_ ]?field", re.IGNORECASE)
"""Words of names that people give to references, besides the names that acquisition programs give."""

SUFFIXES = frozenset({".mrc", ".tif", ".tiff", ".gain", ".dm3", ".dm4"})

LEVELS = 3
"""The folder of the movies, and so many above it less one, are looked at."""

MOST_ENTRIES = 20_000
"""A folder of more files is looked at in part."""

MOST = 6
"""More candidates than these are not worth reading."""

_KEY = re.compile(r"^\s*GainReference\s*=\s*(\S.*?)\s*$", re.MULTILINE)


def gain_candidates(sources: Iterable[str], sidecars: Iterable[Path] = ()) -> list[Path]:
    """Return files that may be the reference, the likeliest first.

    Parameters
    ----------
    sources : paths of movies at their source
    sidecars : files of metadata; of SerialEM's the line ``GainReference = name`` counts, whatever folder of whatever computer it names
    """
    folders = _folders(sources)
    named = _named_by_metadata(sidecars)
    taken = {os.path.abspath(source) for source in sources}
    by_metadata, by_name = [], []
    for folder in folders:
        for path in _files(folder):
            if path.name in named:
                by_metadata.append(path)
            elif path.suffix.lower() in SUFFIXES and _is_name(path) and str(path) not in taken:
                by_name.append(path)
    return [*by_metadata, *by_name][:MOST]


def _is_name(path: Path) -> bool:
    named = WORDS.search(path.name) or WORDS.search(path.parent.name)
    return named is not None or kind_by_name(str(path)) is GAIN


def _folders(sources: Iterable[str]) -> list[Path]:
    found: dict[Path, None] = {}
    for source in sources:
        folder = Path(source).parent
        for _ in range(LEVELS):
            if folder == folder.parent:  # the root of a file system is no place of an experiment
                break
            found.setdefault(folder)
            folder = folder.parent
    return list(found)


def _files(folder: Path) -> Sequence[Path]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_ENTRIES:
                    break
                if entry.is_file():
                    found.append(Path(entry.path))
                elif entry.is_dir() and WORDS.search(entry.name):
                    found += [Path(inner.path) for inner in os.scandir(entry.path) if inner.is_file()]
    except OSError:  # what cannot be read holds no candidate
        pass
    return sorted(found)


def _named_by_metadata(sidecars: Iterable[Path]) -> set[str]:
    named = set()
    for path in sidecars:
        if path.suffix.lower() != ".mdoc":
            continue
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        named |= {PureWindowsPath(name).name for name in _KEY.findall(text)}
    return named
