"""The small files that belong to a movie: EPU's XML, SerialEM's mdoc.

EPU writes ``X_Fractions.tiff`` with ``X.xml`` and ``X_Fractions.xml``; SerialEM writes ``X.tif`` with ``X.tif.mdoc`` or ``X.mdoc``.
They often come later than the movie, and sometimes in another folder.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import PurePath

_FRAMES_SUFFIX = re.compile(r"_(fractions|frames|movie|eer)$", re.IGNORECASE)


def sidecar_keys(movie: str) -> tuple[str, ...]:
    """Return the names, without their ending, of the files that belong to a movie."""
    path = PurePath(movie)
    keys = [path.name, path.stem]
    base = _FRAMES_SUFFIX.sub("", path.stem)
    if base and base != path.stem:
        keys += [base, base + path.suffix]
    return tuple(keys)


class SidecarIndex:
    """The sidecars that a scan saw, to be asked for those of a movie.

    Parameters
    ----------
    paths : sidecars
    suffixes : their endings, each with its dot
    """

    def __init__(self, paths: Iterable[str], suffixes: Sequence[str]) -> None:
        self._paths, self._endings = paths, sorted((suffix.lower() for suffix in suffixes), key=len, reverse=True)

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:  # at most looks no movie is new, and nobody asks
        by_key: dict[str, list[str]] = defaultdict(list)
        for path in self._paths:
            name = os.path.basename(path)
            ending = next((ending for ending in self._endings if name.lower().endswith(ending)), "")
            if ending:
                by_key[name[: -len(ending)]].append(path)
        return by_key

    def of(self, movie: str) -> list[str]:
        """Return a movie's sidecars: those in its folder, and those elsewhere whose name occurs only once."""
        folder = os.path.dirname(movie)
        found: list[str] = []
        for key in sidecar_keys(movie):
            candidates = self._by_key.get(key, [])
            here = [path for path in candidates if os.path.dirname(path) == folder]
            names = [os.path.basename(path) for path in candidates]
            elsewhere = [path for path in candidates if names.count(os.path.basename(path)) == 1]
            found += [path for path in (here or elsewhere) if path not in found]
        return sorted(found)
