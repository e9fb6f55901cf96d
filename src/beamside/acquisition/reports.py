"""What acquisition tells the session loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from beamside.acquisition.manifest import ManifestEntry
from beamside.acquisition.remarks import Remark, Severity, Trouble
from beamside.acquisition.scan import Sighting
from beamside.formats.image import ImageInfo

__all__ = [
    "Arrival",
    "ImportedFile",
    "ImportedSidecar",
    "LookReport",
    "Remark",
    "SetAside",
    "Severity",
    "Trouble",
    "Waiting",
    "imported_file",
]


@dataclass(frozen=True)
class Arrival:
    """A source file that has settled and is complete, to be given to ``Intake.take``; `sidecars` are those that had settled too."""

    sighting: Sighting
    info: ImageInfo
    sidecars: tuple[Sighting, ...] = ()

    @property
    def source(self) -> str:
        """Absolute path of the source file."""
        return self.sighting.path


@dataclass(frozen=True)
class Waiting:
    """A source file that is not taken yet, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class SetAside:
    """A source file that could not be taken and is left alone until it changes."""

    source: str
    reason: str
    attempts: int


@dataclass(frozen=True)
class ImportedSidecar:
    """A sidecar that came after its movie: the movie's item, the file (relative to the project), what it says, and what is known of the movie now."""

    item: str
    path: str
    metadata: Mapping[str, Any]
    file: ImportedFile


@dataclass
class LookReport:
    """What one look at the source gave.

    Attributes
    ----------
    new : files to take; each is given once, and again only after ``take`` raised
    waiting : files that are still changing or incomplete, or whose turn has not come
    set_aside : files that were set aside since the last look
    sidecars : sidecars that were taken in now, after their movies
    standing : what is wrong at the source now, at every look that finds it so
    remarks : what was noticed about single files since the last look
    matched : files at the source that match, taken ones included
    complete : whether every folder could be read; only then do no new files mean that there are none
    taking : files of earlier looks that wait to be taken, or are being taken
    to_remove : sources that will be removed once they have been left alone for long enough
    """

    new: list[Arrival] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    sidecars: list[ImportedSidecar] = field(default_factory=list)
    standing: list[Trouble] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    matched: int = 0
    complete: bool = True
    taking: list[str] = field(default_factory=list)
    to_remove: int = 0


SIZE, RATE = "gigabytes", "megabytes_per_second"
"""Metrics of what was taken in."""


@dataclass(frozen=True)
class ImportedFile:
    """A file that is safely in the project.

    Attributes
    ----------
    name : item name, its path below the project without extension: "raw/FoilHole_1_Fractions"
    path : its path below the project
    source, size, sha256 : the file at the source, bytes and content
    frames, shape, dtype : number of frames, (height, width), type of the pixels
    sidecars : paths below the project
    compressed : whether it was recompressed on the way
    seconds, bytes_per_second : time and rate of copying and verifying
    metadata : what the sidecars say, and where they do not, the file itself; see `beamside.acquisition.epu`
    """

    name: str
    path: str
    source: str
    size: int
    sha256: str
    frames: int
    shape: tuple[int, int]
    dtype: str
    sidecars: tuple[str, ...] = ()
    compressed: bool = False
    seconds: float = 0.0
    bytes_per_second: float = 0.0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured(self) -> dict[str, float]:
        """What is measured of a file, of whatever kind, while it is taken in: its size in GB, and the rate in MB/s."""
        return {SIZE: self.size / 1e9, RATE: self.bytes_per_second / 1e6}


def imported_file(entry: ManifestEntry, sidecars: tuple[ManifestEntry, ...] = ()) -> ImportedFile:
    """Make the record of a taken file from its lines in the manifest."""
    metadata: dict[str, Any] = dict(entry.metadata)
    for sidecar in reversed(sidecars):
        metadata = {**metadata, **sidecar.metadata}
    height, width = entry.shape
    return ImportedFile(
        name=entry.item,
        path=entry.destination,
        source=entry.source,
        size=entry.size,
        sha256=entry.sha256,
        frames=entry.frames,
        shape=(height, width),
        dtype=entry.dtype,
        sidecars=tuple(sidecar.destination for sidecar in sidecars),
        compressed=bool(entry.compression),
        seconds=entry.seconds,
        bytes_per_second=entry.size / entry.seconds if entry.seconds > 0 else 0.0,
        metadata=metadata,
    )
