"""Which content is in the project already, so that the same exposure under another path is one item.

A folder that was renamed, a second mount, a copy or a link give the same bytes under another name. The hash that every file gets when it is
read tells; names and dates only say when it is worth reading a file before copying it.
"""

from __future__ import annotations

import os
import threading

from beamside.acquisition.manifest import ManifestEntry
from beamside.acquisition.scan import Sighting
from beamside.errors import NotReadyError


class Contents:
    """The contents of the movies that were taken, by hash; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_hash: dict[str, ManifestEntry] = {}
        self._likenesses: set[tuple[int, str | int]] = set()
        self._claims: dict[str, str] = {}

    def add(self, entry: ManifestEntry) -> None:
        """Take in a movie that is in the manifest; of equal ones, the first stays."""
        with self._lock:
            self._by_hash.setdefault(entry.sha256, entry)
            self._likenesses |= {(entry.size, os.path.basename(entry.source)), (entry.size, entry.mtime_ns)}

    def find(self, sha256: str) -> ManifestEntry | None:
        """Return the movie that has this content."""
        with self._lock:
            return self._by_hash.get(sha256)

    def is_likely(self, sighting: Sighting) -> bool:
        """Tell whether a file has the size, and the name or the date, of one that was taken: then reading it first may save a copy."""
        likenesses = {(sighting.size, os.path.basename(sighting.path)), (sighting.size, sighting.mtime_ns)}
        with self._lock:
            return not likenesses.isdisjoint(self._likenesses)

    def admit(self, sha256: str, source: str) -> ManifestEntry | None:
        """Return the movie that has this content; when there is none, keep the content for `source` until it is released.

        Raises
        ------
        NotReadyError
            When another file with this content is being taken at this moment: what becomes of that decides.
        """
        with self._lock:
            known = self._by_hash.get(sha256)
            if known is not None:
                return known
            other = self._claims.setdefault(sha256, source)
            if other != source:
                raise NotReadyError(f"{source} has the same content as {other}, which is being taken now: it waits.")
            return None

    def release(self, source: str) -> None:
        """Give up what was kept for `source`: it is in the manifest now, or could not be taken."""
        with self._lock:
            self._claims = {sha256: other for sha256, other in self._claims.items() if other != source}
