"""Names of files in the project: without blanks, which STAR files cannot hold, and different for different sources."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import PurePath

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


def safe_name(name: str) -> str:
    """Replace what STAR files and shells stumble over by underscores."""
    safe = _UNSAFE.sub("_", name).lstrip(".-")
    return safe or "_"


def candidate_stems(source: str) -> Iterator[str]:
    """Yield names for a source file, the most natural first: its own, then with the folders above it, then with numbers.

    Examples
    --------
    ``/data/grid 2/m 1.tiff`` gives ``m_1``, ``grid_2_m_1``, ``data_grid_2_m_1``, ``m_1_2``, ``m_1_3``, ...
    """
    path = PurePath(source)
    stem = safe_name(path.stem)
    yield stem
    prefixed = stem
    for folder in reversed(path.parent.parts):
        if folder != path.anchor:
            prefixed = f"{safe_name(folder)}_{prefixed}"
            if len(prefixed) < 200:  # file systems end at 255
                yield prefixed
    for number in itertools.count(2):
        yield f"{stem}_{number}"


def sidecar_name(sidecar: str, movie_source: str, movie_stem: str) -> str:
    """Return the name of a sidecar in the project: changed in the same way as its movie's."""
    name, plain = safe_name(PurePath(sidecar).name), safe_name(PurePath(movie_source).stem)
    if movie_stem.endswith(plain):
        return movie_stem[: -len(plain)] + name
    return f"{movie_stem}{PurePath(name).suffix}" if name.startswith(plain) else f"{movie_stem}_{name}"
