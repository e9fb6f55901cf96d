"""Taking the sidecars of movies: with the movie those that have settled, the others when they come, which is often later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from beamside.acquisition.epu import read_metadata
from beamside.acquisition.imported import ImportedSources
from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.names import sidecar_name
from beamside.acquisition.readiness import Settling
from beamside.acquisition.remarks import Remark
from beamside.acquisition.scan import Sighting, look_at
from beamside.acquisition.settings import AcquisitionSettings
from beamside.acquisition.sources import SourceState
from beamside.acquisition.storage import Storage
from beamside.acquisition.transfer import DestinationError
from beamside.errors import BeamsideError, in_words

log = logging.getLogger(__name__)


class SidecarTaking:
    """Takes sidecars into the project.

    Parameters
    ----------
    settings : how often, and after which pauses, a sidecar is tried
    manifest : where they are recorded
    taken : what was taken
    storage : where they go
    settling : tells which have settled; shared with the movies
    clock : monotonic seconds
    """

    def __init__(
        self,
        settings: AcquisitionSettings,
        manifest: Manifest,
        taken: ImportedSources,
        storage: Storage,
        settling: Settling,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._manifest, self._taken = settings, manifest, taken
        self._storage, self._settling, self._clock = storage, settling, clock
        self._states: dict[str, SourceState] = {}

    def settled(self, paths: Iterable[str]) -> tuple[Sighting, ...]:
        """Return those that are not taken yet and have settled."""
        sightings = (look_at(path) for path in paths if not self._taken.has_sidecar(path))
        return tuple(sighting for sighting in sightings if sighting is not None and self._settling.observe(sighting))

    def store(self, sighting: Sighting, movie: ManifestEntry) -> ManifestEntry:
        """Bring a sidecar of a movie in; return its line for the manifest, which the caller appends."""
        name = sidecar_name(sighting.path, movie.source, Path(movie.destination).stem)
        entry = self._storage.store_sidecar(
            sighting, name, movie.item, lambda sha256: self._taken.equal_sidecar(movie.item, sha256)
        )
        if entry.kind == "duplicate":
            return entry
        return replace(entry, metadata=read_metadata([self._manifest.project / entry.destination]))

    def take_late(self, paths: Iterable[str], remarks: list[Remark]) -> list[tuple[ManifestEntry, ManifestEntry]]:
        """Take those whose movie was taken before; return each recorded one, with its movie before it. What failed for good goes to `remarks`."""
        found = []
        for path in sorted(path for path in paths if not self._taken.has_sidecar(path)):
            if (movie := self._taken.movie_of_sidecar(path)) is None:
                continue
            state = self._states.setdefault(path, SourceState())
            try:
                found += [(movie, entry) for entry in self._take(path, movie, state)]
            except DestinationError:  # the movies tell of a full disk; a sidecar is taken when there is room again
                state.not_before = self._clock() + self._settings.poll_seconds
            except Exception as error:
                if not isinstance(error, (BeamsideError, OSError)):
                    log.exception("%s could not be taken along", path)
                wait, limit = self._settings.poll_seconds, self._settings.attempts
                if state.fail(in_words(error), self._clock(), wait=wait, limit=limit):
                    sentence = f"{path} could not be taken along with {movie.destination}: {in_words(error)}"
                    remarks.append(Remark("sidecar-not-taken", sentence, path))
        return found

    def _take(self, path: str, movie: ManifestEntry, state: SourceState) -> list[ManifestEntry]:
        recorded: list[ManifestEntry] = []
        for sighting in self.settled([path]):
            state.see(sighting)
            if state.set_aside is None and self._clock() >= state.not_before:
                recorded = self._manifest.append(self.store(sighting, movie))
                self._taken.add(*recorded)
                self._states.pop(path, None)
                self._settling.forget(path)
        return recorded
