"""What was taken already, and whether the source still has it as it was."""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from beamside.acquisition.contents import Contents
from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.scan import Sighting, look_at
from beamside.acquisition.sidecars import sidecar_keys
from beamside.acquisition.transfer import hash_source
from beamside.errors import BeamsideError

_CHECKED_PER_LOOK = 100
_NEWEST = 20
"""Sources that were taken last are looked at each time: those are the ones that may still grow."""


class ImportedSources:
    """The manifest's entries, by source; safe to use from several threads.

    Parameters
    ----------
    manifest : read at the start; later entries are given to `add` by the one who appends them
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._lock = threading.RLock()
        self._movies: dict[str, ManifestEntry] = {}
        self._versions: Counter[str] = Counter()
        self._touched: list[str] = []
        self.contents = Contents()
        self._present: dict[str, ManifestEntry] = {}
        self._gone: dict[str, ManifestEntry] = {}
        self._dates: dict[str, int] = {}
        self._sidecars: dict[str, list[ManifestEntry]] = defaultdict(list)
        self._by_key: dict[str, dict[str, ManifestEntry]] | None = None
        self._changed: set[str] = set()
        self._to_check: Iterator[str] = iter(())
        for entry in manifest.entries:
            if entry.kind == "removed":
                self.removed(entry)
            elif entry.kind == "seen":
                self._dates[entry.source] = entry.mtime_ns
            else:
                self.add(entry)

    def add(self, *entries: ManifestEntry) -> None:
        """Take in what was appended to the manifest."""
        with self._lock:
            for entry in entries:
                self._present.pop(entry.source, None)  # a new version comes last
                self._present[entry.source] = entry
                self._gone.pop(entry.source, None)
                self._changed.discard(entry.source)
                self._dates[entry.source] = entry.mtime_ns
                if entry.kind == "duplicate":
                    continue
                self._touched.append(entry.item)
                if entry.kind == "sidecar":
                    others = [known for known in self._sidecars[entry.item] if known.source != entry.source]
                    self._sidecars[entry.item] = [*others, entry]
                    continue
                self._movies[entry.item] = entry
                self._versions[entry.item] += 1
                self.contents.add(entry)
                if self._by_key is not None:
                    _note_keys(self._by_key, entry)

    @property
    def movies(self) -> list[ManifestEntry]:
        """The newest version of each item, in the order of their first ones."""
        with self._lock:
            return list(self._movies.values())

    def touched_since(self, number: int) -> tuple[int, list[ManifestEntry]]:
        """Return the `number` to ask with the next time, and the items of which something was taken since the last time; 0 asks for all."""
        with self._lock:
            items = dict.fromkeys(self._touched[number:])
            return len(self._touched), [self._movies[item] for item in items if item in self._movies]

    def removed(self, entry: ManifestEntry) -> None:
        """Note that a source was removed: a file that comes under its name later is a new one."""
        with self._lock:
            self._present.pop(entry.source, None)
            self._changed.discard(entry.source)
            self._gone[entry.source] = entry

    def is_taken(self, path: str) -> bool:
        """Tell whether a source was taken as it is, and not removed."""
        return path in self._present and path not in self._changed

    def is_remnant(self, sighting: Sighting) -> bool:
        """Tell whether this is a removed file that a file server still shows, and not a new one of the same name."""
        entry = self._gone.get(sighting.path)
        return entry is not None and (entry.size, entry.mtime_ns) == (sighting.size, sighting.mtime_ns)

    def entry(self, sighting: Sighting) -> ManifestEntry | None:
        """Return the entry of a source as it was sighted; None when it is not taken, or was another file."""
        entry = self._present.get(sighting.path) or self._gone.get(sighting.path)
        if entry is None or (entry.size, entry.mtime_ns) != (sighting.size, sighting.mtime_ns):
            return None
        if entry.kind == "movie":
            return entry
        if entry.kind == "duplicate":
            return self.contents.find(entry.sha256)
        return next(
            (movie for movie in reversed(self.movies) if (movie.source, movie.sha256) == (entry.source, entry.sha256)),
            None,
        )

    def copy_of(self, entry: ManifestEntry) -> ManifestEntry | None:
        """Return the entry whose copy in the project has the content of this source: itself, or of a duplicate, what it equals."""
        if entry.kind != "duplicate":
            return entry
        return self.contents.find(entry.sha256) or self.equal_sidecar(entry.item, entry.sha256)

    def equal_sidecar(self, item: str, sha256: str) -> ManifestEntry | None:
        """Return the sidecar of an item that has this content."""
        return next((sidecar for sidecar in self.sidecars_of(item) if sidecar.sha256 == sha256), None)

    def sidecars_of(self, item: str) -> tuple[ManifestEntry, ...]:
        """Return the sidecars of an item."""
        with self._lock:
            return tuple(self._sidecars.get(item, ()))

    def has_sidecar(self, path: str) -> bool:
        """Tell whether a sidecar was taken as it is."""
        return (path in self._present and path not in self._changed) or path in self._gone

    def movie_of_sidecar(self, path: str) -> ManifestEntry | None:
        """Return the movie that a sidecar belongs to: in the same folder, or the only one of that name elsewhere."""
        folder, name = os.path.split(path)
        with self._lock:
            if self._by_key is None:  # many sessions have no sidecars
                self._by_key = {}
                for entry in self._movies.values():
                    _note_keys(self._by_key, entry)
            movies = list(self._by_key.get(os.path.splitext(name)[0], {}).values())
        here = [movie for movie in movies if os.path.dirname(movie.source) == folder]
        if here:
            return here[-1]
        return movies[0] if len(movies) == 1 else None

    def check_sources(self) -> None:
        """Look at some of the taken sources again, the newest and some others at each call: what has changed since is not taken any more."""
        hashed = False
        for entry in self._next_to_check():
            try:
                now = look_at(entry.source)
                if now is None or now == Sighting(entry.source, entry.size, self._dates[entry.source]):
                    continue
                if now.size == entry.size:
                    if hashed:  # reading whole files again is dear: one at a look
                        continue
                    hashed = True
                    if hash_source(now) == entry.sha256:
                        self._note_date(now, entry)
                        continue
            except (BeamsideError, OSError):  # it changes at this moment, or the source is away: another look will tell
                continue
            with self._lock:
                self._changed.add(entry.source)

    def _next_to_check(self) -> list[ManifestEntry]:
        """Return the newest entries, and the next of all in turn."""
        with self._lock:
            newest = list(islice(reversed(self._present), _NEWEST))
            chosen = list(islice(self._to_check, _CHECKED_PER_LOOK))
            if not chosen:
                self._to_check = iter(list(self._present))
                chosen = list(islice(self._to_check, _CHECKED_PER_LOOK))
            sources = dict.fromkeys([*reversed(newest), *chosen])
            return [
                self._present[source] for source in sources if source in self._present and source not in self._changed
            ]

    def changed(self, path: str) -> ManifestEntry | None:
        """Return the movie as which a source was taken that has other content now; None of all other sources."""
        with self._lock:
            entry = self._present.get(path) if path in self._changed else None
        return None if entry is None else self.copy_of(entry)

    def versions(self, item: str) -> int:
        """Return how often an item was taken, as its source went on to be written."""
        with self._lock:
            return self._versions[item]

    def present(self) -> list[ManifestEntry]:
        """Return the newest entry of each source that was not removed."""
        with self._lock:
            return list(self._present.values())

    def as_seen(self, entry: ManifestEntry) -> ManifestEntry:
        """Return an entry with the date that its source was seen with last, when it had the same content."""
        return replace(entry, mtime_ns=self._dates.get(entry.source, entry.mtime_ns))

    def _note_date(self, now: Sighting, entry: ManifestEntry) -> None:
        self._manifest.append(ManifestEntry("seen", entry.source, now.size, now.mtime_ns, entry.sha256))
        self._dates[entry.source] = now.mtime_ns


def _note_keys(by_key: dict[str, dict[str, ManifestEntry]], entry: ManifestEntry) -> None:
    """Note by which names of sidecars a movie is found; its newest version counts."""
    for key in sidecar_keys(entry.source):
        by_key.setdefault(key, {})[entry.item] = entry
