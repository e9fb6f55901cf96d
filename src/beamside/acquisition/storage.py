"""Putting files into the project: copied, verified, compressed, named, and only then visible.

Everything is made in a hidden folder beside the final place, so a process that is killed leaves at most hidden files, which the
next start clears away, or a finished file that the manifest does not list yet, which is recognised by its content and accepted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

from beamside.acquisition.compression import can_compress, compress_movie, continues, same_pixels
from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.names import candidate_stems, safe_name, version_stems
from beamside.acquisition.scan import Sighting
from beamside.acquisition.transfer import copy_verified, destination_error, hash_file
from beamside.errors import BeamsideError, InputError
from beamside.formats.atomic import sync_directory
from beamside.formats.image import ImageInfo
from beamside.formats.movies import PNG_SUFFIXES

Admit = Callable[[str], ManifestEntry | None]
_STAGING = ".incoming"
_COMPRESSED = ".lzw.tiff"


class Storage:
    """The folder of raw data of a project, with the names in it.

    Parameters
    ----------
    folder : the project's ``raw`` directory
    manifest : says which names belong to which sources
    compress : whether uncompressed movies become LZW TIFF

    Raises
    ------
    DestinationError
        When the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, compress: bool) -> None:
        self._folder = folder
        self._project = manifest.project
        self._compress = compress
        self._staging = folder / _STAGING
        self._lock = threading.Lock()
        self._owners: dict[str, str] = {}
        self._doing: dict[str, str] = {}
        for entry in manifest.entries:
            if entry.destination:
                self._owners[_claimed(entry.kind, entry.destination)] = _owner(entry.source, entry.sha256)
        try:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir(parents=True, exist_ok=True)
            probe = self._staging / "probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise destination_error(error, folder) from error

    def store_movie(
        self, sighting: Sighting, info: ImageInfo, admit: Admit, before: ManifestEntry | None = None
    ) -> ManifestEntry:
        """Bring a movie in; return its line for the manifest, which the caller appends.

        `admit` is told the hash of what was read. Where it names an entry with the same content, nothing is kept, and the line is a duplicate's.
        When the source was taken `before`, and goes on from what it was then, it is the same item with another file; else it is another item.
        """
        staged = self._staged(sighting)
        compressed = staged.with_name(staged.name + _COMPRESSED)
        self._doing[sighting.path] = "copied and verified"
        try:
            copied = copy_verified(sighting, staged)
            if (same := admit(copied.sha256)) is not None:
                return duplicate(sighting, copied.sha256, same)
            digest, compression, result = copied.sha256, "", staged
            self._doing[sighting.path] = "compressed, and compared pixel by pixel"
            if self._compress and can_compress(info) and compress_movie(staged, compressed):
                result, compression = compressed, "lzw"
                digest = hash_file(compressed)
            suffix = ".tiff" if compression else PurePath(sighting.path).suffix.lower()
            item = before.item if before is not None and self._continues(staged, before) else ""
            stems = version_stems(item) if item else candidate_stems(sighting.path)
            final = self._place(
                result, digest, (stem + suffix for stem in stems), "movie", _owner(sighting.path, copied.sha256)
            )
        finally:
            self._doing.pop(sighting.path, None)
            for leftover in (staged, compressed):
                leftover.unlink(missing_ok=True)
        return self._entry("movie", sighting, copied.sha256, final, digest, copied.seconds, compression, info, item)

    def doing(self, source: str) -> str:
        """Return what is being done with a movie at this moment, in words that follow "it is being"."""
        return self._doing.get(source, "taken in")

    def store_sidecar(self, sighting: Sighting, name: str, item: str, admit: Admit) -> ManifestEntry:
        """Bring a sidecar of `item` in, under `name` or one like it; return its line for the manifest. `admit` as for movies."""
        staged = self._staged(sighting)
        try:
            copied = copy_verified(sighting, staged)
            if (same := admit(copied.sha256)) is not None:
                return duplicate(sighting, copied.sha256, same)
            path = PurePath(name)
            names = (path.stem + (f"_{n}" if n > 1 else "") + path.suffix for n in range(1, 10_000))
            final = self._place(staged, copied.sha256, names, "sidecar", _owner(sighting.path, copied.sha256))
        finally:
            staged.unlink(missing_ok=True)
        return self._entry("sidecar", sighting, copied.sha256, final, copied.sha256, copied.seconds, "", None, item)

    def _continues(self, staged: Path, before: ManifestEntry) -> bool:
        earlier = self._project / before.destination
        if staged.suffix.lower() in PNG_SUFFIXES:
            return False  # an image is written once
        try:
            return not earlier.exists() or continues(staged, earlier)
        except (BeamsideError, OSError):  # the earlier version cannot be read: this one takes its place
            return True

    def _staged(self, sighting: Sighting) -> Path:
        mark = hashlib.sha256(sighting.path.encode(errors="surrogateescape")).hexdigest()[:12]
        name = PurePath(sighting.path)
        return self._staging / f"{mark}_{safe_name(name.stem)[:150]}{name.suffix.lower()}"

    def _place(self, staged: Path, digest: str, names: Iterable[str], kind: str, owner: str) -> Path:
        """Give the staged file the first name that no other source has."""
        with self._lock:
            for name in names:
                final = self._folder / name
                claim = _claimed(kind, name)
                if self._owners.get(claim, owner) != owner or (final.exists() and not _same(final, staged, digest)):
                    continue
                try:
                    os.replace(staged, final)
                    sync_directory(self._folder)
                except OSError as error:
                    raise destination_error(error, final) from error
                self._owners[claim] = owner
                return final
        raise AssertionError("names never end")

    def _entry(
        self,
        kind: str,
        sighting: Sighting,
        sha256: str,
        final: Path,
        digest: str,
        seconds: float,
        compression: str,
        info: ImageInfo | None,
        item: str = "",
    ) -> ManifestEntry:
        destination = final.relative_to(self._project).as_posix()
        return ManifestEntry(
            kind="movie" if kind == "movie" else "sidecar",
            source=sighting.path,
            size=sighting.size,
            mtime_ns=sighting.mtime_ns,
            sha256=sha256,
            destination=destination,
            destination_size=final.stat().st_size,
            destination_sha256=digest,
            compression=compression,
            item=item or PurePath(destination).with_suffix("").as_posix(),
            frames=info.frames if info else 0,
            shape=info.shape if info else (),
            dtype=info.dtype.name if info else "",
            metadata=info.metadata if info else {},
            seconds=round(seconds, 6),
        )


def duplicate(sighting: Sighting, sha256: str, same: ManifestEntry) -> ManifestEntry:
    """Return the line of a source that has the content of another, which was taken."""
    return ManifestEntry("duplicate", sighting.path, sighting.size, sighting.mtime_ns, sha256, item=same.item)


def _owner(source: str, sha256: str) -> str:
    return f"{sha256} {source}"


def _claimed(kind: str, name: str) -> str:
    """Return what a file claims: a movie its name without extension, as that is the item's; a sidecar its file name."""
    path = PurePath(name)
    return path.stem if kind == "movie" else path.name


def _same(final: Path, staged: Path, digest: str) -> bool:
    """Tell whether a file that is already there holds what is to be put there: then an earlier process was killed just after."""
    if hash_file(final) == digest:
        return True
    if not staged.name.endswith(_COMPRESSED):
        return False
    try:  # another version of the compressor may have written other bytes for the same pixels
        return same_pixels(final, staged)
    except InputError:
        return False
