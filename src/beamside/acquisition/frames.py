"""How many frames a movie should have, and whether anything confirms that it has them all.

A TIFF or MRC file that a camera writes frame by frame is a complete, shorter movie after each of them, so its own structure cannot tell that it is
finished. Others can: the record that the microscope's software writes, what the camera says in the file, and the number that other movies of the
session have.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

SHARED_BY = 3
"""A number of frames that so many movies have is usual."""

_UNEQUAL = 50
"""Movies of raw frames differ by a few in length; one part in so many is no reason to wait."""

_SINGLE_IMAGES = (".png",)

Standing = Literal["stated", "usual", "unconfirmed", "disputed"]


@dataclass(frozen=True)
class Statement:
    """A number of frames, and who says so.

    Attributes
    ----------
    confirms : whether it can confirm a file with as many; what is in the file can have been written along with it
    counted : whether it was counted when the movie was recorded, so that a file with fewer is not whole
    """

    frames: int
    who: str
    confirms: bool = True
    counted: bool = True


@dataclass(frozen=True)
class Verdict:
    """What is known of a movie's number of frames.

    Attributes
    ----------
    standing : "stated" by its record or its camera, "usual" in this session, "unconfirmed" by anything, or "disputed": something says otherwise
    reason : why it is not confirmed
    """

    standing: Standing
    reason: str = ""


def statements(
    source: str, own: Mapping[str, Any], sidecars: Iterable[tuple[str, Mapping[str, Any]]]
) -> list[Statement]:
    """Return what is said of a movie's number of frames.

    Parameters
    ----------
    source : its path
    own : what the file itself says, see `beamside.formats.image.ImageInfo`
    sidecars : path and content of each record beside it, see `beamside.acquisition.epu`
    """
    path = PurePath(source)
    recorded, planned = [], []
    for name, metadata in sidecars:
        if number := _whole(metadata.get("frames")):
            recorded.append(Statement(number, PurePath(name).name))
        elif (number := _whole(metadata.get("fractions"))) and path.stem.lower().endswith("_fractions"):
            planned.append(Statement(number, PurePath(name).name, counted=False))
    if number := _whole(own.get("frames")):
        recorded.append(Statement(number, "the file itself", counted=False))
    described = _whole(own.get("described_frames"))
    return (recorded or planned) + (
        [Statement(described, "its own description", confirms=False, counted=False)] if described else []
    )


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1e9 else 0


class UsualFrames:
    """Remembers how many frames the session's movies have."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[int] = Counter()

    def add(self, frames: int, instead_of: int = 0) -> None:
        """Take in a movie, or its new version in place of one with another number."""
        with self._lock:
            self._counts[frames] += 1
            if instead_of:
                self._counts[instead_of] -= 1

    @property
    def usual(self) -> int:
        """The number that most movies have; 0 while too few have the same."""
        with self._lock:
            number, movies = max(self._counts.items(), key=lambda one: (one[1], one[0]), default=(0, 0))
        return number if movies >= SHARED_BY else 0

    def is_short(self, frames: int) -> bool:
        """Tell whether a movie has clearly fewer frames than is usual."""
        return frames < self.usual - self.usual // _UNEQUAL

    def confirms(self, frames: int) -> bool:
        """Tell whether `SHARED_BY` others than the movie itself, which was added, have as many frames, and no number of more frames is as common."""
        with self._lock:
            shared = [number for number, movies in self._counts.items() if movies > SHARED_BY]
        return bool(shared) and frames == max(shared)


def said_of(
    source: str, frames: int, own: Mapping[str, Any], sidecars: Iterable[tuple[str, Mapping[str, Any]]], single: bool
) -> list[Statement]:
    """Return what counts of what is said: records beside a micrograph (`single`) speak of the movie that it is the sum of."""
    return statements(source, own, () if single and frames == 1 else sidecars)


def judge(
    source: str,
    frames: int,
    own: Mapping[str, Any],
    sidecars: Iterable[tuple[str, Mapping[str, Any]]],
    usual: UsualFrames,
    *,
    single_images: bool,
) -> Verdict:
    """Say whether anything confirms that a movie that was taken has all its frames.

    Parameters
    ----------
    source, frames, own, sidecars : the movie as it was taken, see `statements`
    usual : what the session's movies have, this one among them
    single_images : the session takes in micrographs, of one image each
    """
    said = said_of(source, frames, own, sidecars, single_images)
    if extra := _whole(own.get("unexplained_bytes")):
        return Verdict("disputed", f"it has {extra:,} bytes that its header does not account for")
    for statement in said:
        if statement.frames != frames:
            return Verdict("disputed", f"it has {frames} frames where {statement.who} says {statement.frames}")
    confirmed = any(statement.confirms for statement in said)
    if confirmed or PurePath(source).suffix.lower() in _SINGLE_IMAGES or (single_images and frames == 1):
        return Verdict("stated")
    if usual.is_short(frames):
        return Verdict("disputed", f"it has {frames} frames where others have {usual.usual}")
    if frames > 1 and usual.confirms(frames):
        return Verdict("usual")
    return Verdict("unconfirmed", "nothing confirms its number of frames")
