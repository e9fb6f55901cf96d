"""Comparing the number of frames that a file has with what else is known of it, before it is taken and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from beamside.acquisition.epu import read_metadata
from beamside.acquisition.frames import UsualFrames, statements
from beamside.acquisition.manifest import ManifestEntry
from beamside.acquisition.remarks import Remark
from beamside.acquisition.scan import Sighting
from beamside.acquisition.taken import TakenSources
from beamside.errors import NotReadyError
from beamside.formats.image import ImageInfo

Said = Sequence[tuple[str, Mapping[str, Any]]]
"""The path of each record beside a movie, and what it says."""


class FrameCheck:
    """The number of frames of a session's movies, as it is checked at each look.

    Parameters
    ----------
    taken, usual : what was taken, and how many frames that has
    """

    def __init__(self, taken: TakenSources, usual: UsualFrames) -> None:
        self._taken, self._usual = taken, usual
        self._reviewed = 0

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
        for statement in statements(sighting.path, info.metadata, said):
            if statement.frames != info.frames:
                return f"has {info.frames} frames where {statement.who} says {statement.frames}"
        if self._usual.is_short(info.frames):
            return f"has {info.frames} frames where others have {self._usual.usual}"
        return ""

    def _require(self, sighting: Sighting, info: ImageInfo, said: Said) -> None:
        for statement in statements(sighting.path, info.metadata, said):
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

    def review(self) -> list[Remark]:
        """Tell which movies were taken with fewer frames than has turned out to be usual."""
        usual = self._usual.usual
        if usual == self._reviewed:
            return []
        self._reviewed = usual
        short = [movie for movie in self._taken.movies if self._usual.is_short(movie.frames)]
        return [_remark(movie, f"others have {usual}") for movie in short]

    def late(self, movie: ManifestEntry, sidecar: ManifestEntry) -> list[Remark]:
        """Tell when a record that came after its movie says that the movie has another number of frames than was taken."""
        said = statements(movie.source, {}, [(sidecar.source, sidecar.metadata)])
        return [_remark(movie, f"{one.who} says {one.frames}") for one in said if one.frames != movie.frames]


def _read(sidecar: str) -> Mapping[str, Any]:
    try:
        return read_metadata([Path(sidecar)])
    except OSError:  # it is read again when it is taken
        return {}


def in_doubt(source: str, doubt: str) -> Remark:
    """Return what is told of a movie that is taken after waiting in vain for what speaks against it to change."""
    return Remark("frames-in-doubt", f"{source} is taken although it {doubt}; it is taken again if it changes.", source)


def _remark(movie: ManifestEntry, but: str) -> Remark:
    sentence = f"{movie.source} was taken with {movie.frames} frames where {but}; it is taken again if it changes."
    return Remark("frames-in-doubt", sentence, movie.source)


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
