"""Removing a file from the source: the last step, and only when everything before it is on the disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from beamside.acquisition.compression import ends_blank, same_ends
from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.open_files import is_open_for_writing
from beamside.acquisition.scan import Sighting, look_at
from beamside.acquisition.transfer import hash_file, hash_source
from beamside.errors import BeamsideError, TransferError, in_words

_END_BYTES = 1 << 20

WhyKept = Literal["changed", "damaged", "own", "blank", "open", "stuck"]


class SourceKeptError(TransferError):
    """A source is not removed.

    `why` is "changed", "damaged" (its copy), "own" (it is the copy), "blank" (its last frame has no counts), "open" (another process writes to it) or
    "stuck" (it cannot be removed).
    """

    def __init__(self, why: WhyKept, sentence: str) -> None:
        super().__init__(sentence)
        self.why = why


def remove_source(
    entry: ManifestEntry, manifest: Manifest, *, copy: ManifestEntry | None = None, verify_again: bool = False
) -> None:
    """Remove the source of a manifest entry, and record that.

    Parameters
    ----------
    entry : the line of the file that was taken, which must be in the manifest, with the date that its source was seen with last
    manifest : where it is recorded
    copy : the line of the movie that has the same content, where `entry` is a duplicate, of which there is no copy of its own
    verify_again : hash source and copy once more, for entries that an earlier process wrote; always done for duplicates; else only their beginnings
        and ends are compared

    Raises
    ------
    SourceKeptError
        When the entry is not in the manifest, the copy is not there as recorded, the source is not what was copied, or somebody writes to it:
        nothing is removed.
    """
    if not any(_is_line_of(known, entry) for known in reversed(manifest.entries)):
        raise SourceKeptError("damaged", f"{entry.source} is not removed: its copy is not in the manifest.")
    copied = copy or entry
    verify_again = verify_again or copied is not entry
    _check_copy(entry.source, copied, manifest.project, verify_again=verify_again)
    _check_source(entry, copied, manifest.project, verify_again=verify_again)
    if _ends_blank(entry.source, copied, manifest.project):
        raise SourceKeptError(
            "blank", f"{entry.source} is not removed: its last frame has no counts and may not be written yet."
        )
    expected = Sighting(entry.source, entry.size, entry.mtime_ns)
    if is_open_for_writing(entry.source):
        raise SourceKeptError(
            "open", f"{entry.source} is not removed: another program has it open and may still write to it."
        )
    if look_at(entry.source) != expected:  # the last look before the last step
        raise _changed(entry, copied)
    try:
        os.unlink(entry.source)
    except OSError as error:
        raise SourceKeptError(
            "stuck",
            f"{entry.source} could not be removed ({error.strerror}): its copy {copied.destination} is safe; remove it by hand.",
        ) from error
    record_removed(entry, manifest)


def record_removed(entry: ManifestEntry, manifest: Manifest) -> None:
    """Note that a source is not there any more: a file that comes under its name is another one."""
    manifest.append(ManifestEntry("removed", entry.source, entry.size, entry.mtime_ns, entry.sha256))


def _is_line_of(known: ManifestEntry, entry: ManifestEntry) -> bool:
    return known == entry or known == replace(entry, mtime_ns=known.mtime_ns)


def _changed(entry: ManifestEntry, copied: ManifestEntry) -> SourceKeptError:
    return SourceKeptError(
        "changed", f"{entry.source} is not removed: it changed after it was copied to {copied.destination}."
    )


def _check_source(entry: ManifestEntry, copied: ManifestEntry, project: Path, *, verify_again: bool) -> None:
    expected, copy = Sighting(entry.source, entry.size, entry.mtime_ns), project / copied.destination
    if look_at(entry.source) != expected:
        raise _changed(entry, copied)
    try:
        if verify_again:
            same = hash_source(expected) == entry.sha256
        elif entry.compression:
            same = same_ends(Path(entry.source), copy)
        else:
            same = _ends(Path(entry.source), entry.size) == _ends(copy, entry.size)
    except (BeamsideError, OSError):  # what cannot be read now is no copy's equal now
        same = False
    if not same:
        raise _changed(entry, copied)


def _ends(path: Path, size: int) -> tuple[bytes, bytes]:
    """Return the first and the last bytes of a file: dates are coarse on some file systems, and header and tail are what is written last."""
    with open(path, "rb", buffering=0) as file:
        start = file.read(_END_BYTES)
        file.seek(max(size - _END_BYTES, 0))
        return start, file.read(_END_BYTES + 1)


def _ends_blank(source: str, copied: ManifestEntry, project: Path) -> bool:
    try:
        return ends_blank(project / copied.destination, copied.frames)
    except (BeamsideError, OSError) as error:
        raise SourceKeptError(
            "damaged", f"{source} is not removed: its copy cannot be read ({in_words(error)})."
        ) from error


def _check_copy(source: str, copied: ManifestEntry, project: Path, *, verify_again: bool) -> None:
    copy = project / copied.destination
    found = look_at(str(copy)) if copied.destination else None
    try:
        if (
            found is not None
            and found.size == copied.destination_size
            and not (verify_again and hash_file(copy) != copied.destination_sha256)
        ):
            if _is_same_file(source, copy):
                raise SourceKeptError(
                    "own", f"{source} is not removed: it is the project's own copy {copy} under another path."
                )
            return
    except OSError:  # a copy that cannot be read is none
        pass
    raise SourceKeptError("damaged", f"{source} is not removed: its copy {copy} is missing or damaged.")


def _is_same_file(source: str, copy: Path) -> bool:
    """Tell whether two paths lead to one file, also through two mounts, which have device numbers of their own."""
    try:
        one, other = os.stat(source), os.stat(copy)
    except OSError:  # one is not there
        return False
    return (one.st_ino, one.st_mtime_ns) == (other.st_ino, other.st_mtime_ns)
