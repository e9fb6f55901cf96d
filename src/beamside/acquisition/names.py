"""Names of files in the project: safe for STAR files, shells, terminals and file systems, and different for different sources.

Sources may have any name that a file system takes; the manifest records it as it is. What the project has is derived from it here, and nowhere else.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import PurePath

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


LONGEST_NAME = 140
"""Longest name that is used as it is. File systems end at 255 bytes, and jobs make longer names of it, also hidden ones while they write."""


def safe_name(name: str) -> str:
    """Return `name` with only ASCII letters, digits and ``._+-``, not hidden, and not too long.

    Runs of other characters, and of bytes that are not UTF-8, become underscores. A name that is too long keeps its beginning and its end, where
    programs put what tells their files apart, and has a mark of the whole name between them. Different names may become the same; whoever uses
    them as files must look (see `candidate_stems`).
    """
    safe = _UNSAFE.sub("_", name).lstrip(".-") or "_"
    if len(safe) <= LONGEST_NAME:
        return safe
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = LONGEST_NAME - len(mark) - 2
    return f"{safe[: kept // 2]}_{mark}_{safe[kept // 2 - kept :]}"


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
            if len(prefixed) <= LONGEST_NAME:
                yield prefixed
    for number in itertools.count(2):
        yield f"{stem}_{number}"


def version_stems(item: str) -> Iterator[str]:
    """Yield names for a source that went on to be written after it was taken as `item`: ``m_v2``, ``m_v3``, ..."""
    stem = PurePath(item).name
    return (f"{stem}_v{number}" for number in itertools.count(2))


def sidecar_name(sidecar: str, movie_source: str, movie_stem: str) -> str:
    """Return the name of a sidecar in the project: changed in the same way as its movie's."""
    file, stem = PurePath(sidecar).name, PurePath(movie_source).stem
    if file.startswith(stem):
        return movie_stem + _UNSAFE.sub("_", file[len(stem) :])
    name, plain = safe_name(PurePath(sidecar).name), safe_name(PurePath(movie_source).stem)
    if movie_stem.endswith(plain):
        return movie_stem[: -len(plain)] + name
    return f"{movie_stem}{PurePath(name).suffix}" if name.startswith(plain) else safe_name(f"{movie_stem}_{name}")
