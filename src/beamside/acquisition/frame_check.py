"""Comparing the number of frames that a file has with what else is known of it, before it is taken and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from beamside.acquisition.epu import read_metadata
from beamside.acquisition.frames import UsualFrames, judge, said_of
from beamside.acquisition.imported import ImportedSources
from beamside.acquisition.kinds import SourceKind
from beamside.acquisition.manifest import ManifestEntry
from beamside.acquisition.remarks import Remark, Trouble
from beamside.acquisition.scan import Sighting
from beamside.errors import NotReadyError
from beamside.formats.image import ImageInfo

Said = Sequence[tuple[str, Mapping[str, Any]]]
"""The path of each record beside a movie, and what it says."""

_NAMED = 3


class FrameCheck:
    """The number of frames of a session's movies, as it is checked at each look.

    Parameters
    ----------
    taken, usual : what was taken, and how many frames that has
    kind : what is taken in
    """

    def __init__(self, taken: ImportedSources, usual: UsualFrames, kind: SourceKind) -> None:
        self._taken, self._usual, self._kind, self._single_images = taken, usual, kind, not kind.in_parts
        self._judged = self._judged_usual = 0
        self._doubted: dict[str, tuple[ManifestEntry, str]] = {}

    def doubt(self, sighting: Sighting, info: ImageInfo, sidecars: Iterable[Sighting]) -> str:
        """Say what speaks against a complete movie's number of frames; "" when nothing does.

        Raises
        ------
        NotReadyError
            When it has fewer frames than was recorded beside it, or than were taken of this source before.
        """
        said = [(sidecar.path, _read(sidecar.path)) for sidecar in sidecars]
        self._require(sighting, info, said)
        if extra := info.metadata.get("unexplained_bytes"):
            return f"has {int(extra):,} bytes that its header does not account for"
        for statement in said_of(sighting.path, info.frames, info.metadata, said, self._single_images):
            if statement.frames != info.frames:
                return f"has {info.frames} frames where {statement.who} says {statement.frames}"
        if self._usual.is_short(info.frames):
            return f"has {info.frames} frames where others have {self._usual.usual}"
        if info.frames == 1 and not self._single_images and np.issubdtype(info.dtype, np.integer):
            return "has a single frame of counts"
        return ""

    def _require(self, sighting: Sighting, info: ImageInfo, said: Said) -> None:
        for statement in said_of(sighting.path, info.frames, info.metadata, said, self._single_images):
            if statement.counted and info.frames < statement.frames:
                raise NotReadyError(
                    f"{sighting.path} has {info.frames} of the {statement.frames} frames that {statement.who} says: "
                    "it is truncated or still being written; if the record is wrong, move it away."
                )
        before = self._taken.changed(sighting.path)
        if before is not None and info.frames < before.frames:
            raise NotReadyError(
                f"{sighting.path} has {info.frames} frames now, and had {before.frames} when it was taken to {before.destination}."
            )

    def standing(self) -> list[Trouble]:
        """Tell which movies that were taken have a number of frames that something speaks against, at present."""
        usual = self._usual.usual
        if usual != self._judged_usual:  # it says something of every movie
            self._judged, self._judged_usual = 0, usual
        self._judged, movies = self._taken.touched_since(self._judged)
        for movie in movies:
            self._doubted.pop(movie.item, None)
            if reason := self._dispute(movie):
                self._doubted[movie.item] = movie, reason
        if not self._doubted:
            return []
        count = self._kind.count(len(self._doubted))
        named = [f"{movie.source} ({reason})" for movie, reason in islice(self._doubted.values(), _NAMED)]
        more = ", ..." if len(self._doubted) > _NAMED else ""
        sentence = f"The number of frames of {count} is in doubt: {', '.join(named)}{more}; a {self._kind.name} is taken again if it changes."
        return [Trouble("frames-in-doubt", sentence)]

    def _dispute(self, movie: ManifestEntry) -> str:
        """Return what speaks against a movie's number of frames."""
        said = [(sidecar.source, sidecar.metadata) for sidecar in self._taken.sidecars_of(movie.item)]
        verdict = judge(
            movie.source, movie.frames, movie.metadata, said, self._usual, single_images=self._single_images
        )
        return verdict.reason if verdict.standing == "disputed" else ""


def _read(sidecar: str) -> Mapping[str, Any]:
    try:
        return read_metadata([Path(sidecar)])
    except OSError:  # it is read again when it is taken
        return {}


def changed(before: ManifestEntry, now: ManifestEntry) -> Remark:
    """Return what is told of a source that had other content when it was taken before, and was taken again."""
    if before.item == now.item:
        sentence = (
            f"{now.source} went on to be written after it was taken, from {before.frames} to {now.frames} frames: it was taken again as "
            f"{now.destination}, and its results are computed anew; {before.destination} is the earlier version."
        )
    else:
        sentence = (
            f"{now.source} was replaced by another exposure after it was taken: that one was taken too, as {now.destination}; "
            f"{before.destination} is the earlier one."
        )
    return Remark("source-changed", sentence, now.source)
