"""Removing a file from the source: the last step, and only when everything before it is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.scan import Sighting, look_at
from beamside.acquisition.transfer import hash_file, hash_source
from beamside.errors import TransferError


def remove_source(
    entry: ManifestEntry, manifest: Manifest, *, copy: ManifestEntry | None = None, verify_again: bool = False
) -> None:
    """Remove the source of a manifest entry, and record that.

    Parameters
    ----------
    entry : the line of the file that was taken; it must be in the manifest
    manifest : where it is recorded
    copy : the line of the movie that has the same content, where `entry` is a duplicate, of which there is no copy of its own
    verify_again : hash source and copy once more, for entries that an earlier process wrote; always done for duplicates

    Raises
    ------
    TransferError
        When the entry is not in the manifest, the copy is not there as recorded, or the source is not what was copied: nothing is removed.
    """
    if not any(known is entry or known == entry for known in reversed(manifest.entries)):
        raise TransferError(f"{entry.source} is not removed: its copy is not in the manifest.")
    copied = copy or entry
    verify_again = verify_again or copied is not entry
    _check_copy(entry.source, copied, manifest.project, verify_again=verify_again)
    now = look_at(entry.source)
    if now is not None:
        expected = Sighting(entry.source, entry.size, entry.mtime_ns)
        if now != expected:
            raise TransferError(
                f"{entry.source} is not removed: it changed after it was copied; compare it with {copied.destination}."
            )
        if verify_again and hash_source(expected) != entry.sha256:
            raise TransferError(
                f"{entry.source} is not removed: its content differs from what was copied to {copied.destination}."
            )
        try:
            os.unlink(entry.source)
        except OSError as error:
            raise TransferError(
                f"{entry.source} could not be removed ({error.strerror}): its copy {copied.destination} is safe; remove it by hand."
            ) from error
    manifest.append(ManifestEntry("removed", entry.source, entry.size, entry.mtime_ns, entry.sha256))


def _check_copy(source: str, copied: ManifestEntry, project: Path, *, verify_again: bool) -> None:
    copy = project / copied.destination
    found = look_at(str(copy)) if copied.destination else None
    if (
        found is None
        or found.size != copied.destination_size
        or (verify_again and hash_file(copy) != copied.destination_sha256)
    ):
        raise TransferError(f"{source} is not removed: its copy {copy} is missing or damaged.")
    if _is_same_file(source, copy):
        raise TransferError(f"{source} is not removed: it is the project's own copy {copy} under another path.")


def _is_same_file(source: str, copy: Path) -> bool:
    """Tell whether two paths lead to one file, also through two mounts, which have device numbers of their own."""
    try:
        one, other = os.stat(source), os.stat(copy)
    except OSError:  # one is not there
        return False
    return (one.st_ino, one.st_mtime_ns) == (other.st_ino, other.st_mtime_ns)
