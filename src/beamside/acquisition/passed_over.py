"""Deciding which complete files at the source are passed over, and saying so once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from beamside.acquisition.bystanders import (
    GAIN,
    MOVIE,
    SINGLE,
    STACK,
    SUM,
    Kind,
    is_image_stack,
)
from beamside.acquisition.kinds import SourceKind
from beamside.acquisition.remarks import Remark, Trouble
from beamside.acquisition.scan import ScanResult, Sighting, look_at
from beamside.acquisition.transfer import hash_file
from beamside.errors import BeamsideError
from beamside.formats.image import ImageInfo, read_image

_END_BYTES = 1 << 16
_MOST_COMPARED = 5


class PassedOver:
    """The rules by which a session's intake passes over what is not of its kind.

    Parameters
    ----------
    source : what is taken in
    asked : what the patterns say of names
    gain : the session's gain reference, or ""
    clock : monotonic seconds
    """

    def __init__(self, source: SourceKind, asked: str, gain: str, clock: Callable[[], float]) -> None:
        self._source, self._asked, self._clock = source, asked, clock
        self._gain = os.path.abspath(os.path.expanduser(gain)) if gain else ""
        self._gain_hash: tuple[Sighting, str] | None = None
        self._compared = 0
        self._other_kind: set[str] = set()
        self._told_folders: set[str] = set()

    def remark(self, sighting: Sighting, info: ImageInfo, sidecars: Iterable[Sighting]) -> Remark | None:
        """Return why a complete file is passed over; None when it is to be taken."""
        kind = self._kind(sighting, info, sidecars)
        if kind is None:
            return None
        if kind in (SINGLE, SUM, MOVIE):
            self._other_kind.add(sighting.path)
        return Remark(kind.subject, self._source.tells(kind, sighting.path), sighting.path, severity="info")

    def nothing_else(self) -> list[Trouble]:
        """Return what to say when nothing was taken so far: the session may take in the wrong kind."""
        wrong = self._source.wrong
        if wrong is None or not self._other_kind:
            return []
        count, one = len(self._other_kind), len(self._other_kind) == 1
        many = "1 file has" if one else f"{count} files have"
        sentence = (
            f"{many} {wrong.holds}{'' if one else ' each'}, and {wrong.missing} has come so far: nothing is processed. "
            f"Give --workflow {wrong.workflow} (in a new session) if these are what should be processed."
        )
        return [Trouble("wrong-mode", sentence)]

    def folders(self, scan: ScanResult) -> list[Remark]:
        """Return a remark on each system folder that was passed over for the first time."""
        new = [path for path in dict.fromkeys(scan.system_folders) if path not in self._told_folders]
        self._told_folders.update(new)
        return [
            Remark(
                "system-folder",
                f"{path} belongs to the operating system or the storage: nothing is taken from it. Give it in --data if it should be.",
                path,
                severity="info",
            )
            for path in new
        ]

    def _kind(self, sighting: Sighting, info: ImageInfo, sidecars: Iterable[Sighting]) -> Kind | None:
        if self._has_gain_content(sighting, info):
            return GAIN
        if self._source.in_parts and info.frames > 1 and _is_described_as_stack(sighting, sidecars):
            return STACK
        kind = self._source.passes_over(sighting.path, info.frames, self._asked)
        return GAIN if kind is SINGLE and self._has_gain_pixels(sighting, info) else kind

    def _has_gain_content(self, sighting: Sighting, info: ImageInfo) -> bool:
        """Tell whether a file is a copy of the session's gain reference."""
        reference = look_at(self._gain) if self._gain and info.frames == 1 else None
        if reference is None or reference.size != sighting.size:
            return False
        try:
            if _ends(self._gain, reference.size) != _ends(sighting.path, sighting.size):  # sums have this size, too
                return False
            if self._gain_hash is None or self._gain_hash[0] != reference:
                self._gain_hash = (reference, hash_file(Path(self._gain)))
            return self._gain_hash[1] == hash_file(Path(sighting.path))
        except OSError:  # what cannot be read is told when it is taken
            return False

    def _has_gain_pixels(self, sighting: Sighting, info: ImageInfo) -> bool:
        """Tell whether a single image is the session's gain reference in another format."""
        if not self._gain or not np.issubdtype(info.dtype, np.floating) or self._compared >= _MOST_COMPARED:
            return False
        self._compared += 1  # whole images are read for no more than a better word
        try:
            reference = read_image(self._gain)
            same = reference.shape == tuple(info.shape) and np.allclose(reference, read_image(sighting.path))
        except (BeamsideError, OSError):  # it is no movie in either case
            return False
        return bool(same)


def _ends(path: str, size: int) -> bytes:
    """Return the last bytes of a file."""
    with open(path, "rb") as file:
        file.seek(max(size - _END_BYTES, 0))
        return file.read(_END_BYTES)


def _is_described_as_stack(sighting: Sighting, sidecars: Iterable[Sighting]) -> bool:
    own = os.path.basename(sighting.path).lower() + ".mdoc"
    return any(
        os.path.basename(sidecar.path).lower() == own and is_image_stack(Path(sidecar.path)) for sidecar in sidecars
    )
