"""Removing a file from the source: the last step, and only when everything before it is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.scan import Sighting, look_at
from beamside.acquisition.transfer import hash_file, hash_source
from beamside.errors import TransferError


def remove_source(entry: ManifestEntry, manifest: Manifest, *, verify_again: bool = False) -> None:
    """Remove the source of a manifest entry, and record that.

    Parameters
    ----------
    entry : the line of the file that was taken; it must be in the manifest
    manifest : where it is recorded
    verify_again : hash source and copy once more, for entries that an earlier process wrote

    Raises
    ------
    TransferError
        When the entry is not in the manifest, the copy is not there as recorded, or the source is not what was copied: nothing is removed.
    """
    if not any(known is entry or known == entry for known in reversed(manifest.entries)):
        raise TransferError(f"{entry.source} is not removed: its copy is not in the manifest.")
    _check_copy(entry, manifest.project, verify_again=verify_again)
    now = look_at(entry.source)
    if now is not None:
        expected = Sighting(entry.source, entry.size, entry.mtime_ns)
        if now != expected:
            raise TransferError(
                f"{entry.source} is not removed: it changed after it was copied; compare it with {entry.destination}."
            )
        if verify_again and hash_source(expected) != entry.sha256:
            raise TransferError(
                f"{entry.source} is not removed: its content differs from what was copied to {entry.destination}."
            )
        try:
            os.unlink(entry.source)
        except OSError as error:
            raise TransferError(
                f"{entry.source} could not be removed ({error.strerror}): its copy {entry.destination} is safe; remove it by hand."
            ) from error
    manifest.append(ManifestEntry("removed", entry.source, entry.size, entry.mtime_ns, entry.sha256))


def _check_copy(entry: ManifestEntry, project: Path, *, verify_again: bool) -> None:
    copy = project / entry.destination
    found = look_at(str(copy))
    if (
        found is None
        or found.size != entry.destination_size
        or (verify_again and hash_file(copy) != entry.destination_sha256)
    ):
        raise TransferError(f"{entry.source} is not removed: its copy {copy} is missing or damaged.")
