"""Copying a file so that it is certain to be the same.

The source is hashed while it is read, once; the copy is forced to the disk, dropped from the page cache where the system allows, read
back and hashed again. Only then does it get its name. Whatever happens, no half-written file is ever visible.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beamside.acquisition.scan import Sighting
from beamside.errors import NotReadyError, TransferError
from beamside.formats.atomic import sync_directory

CHUNK_BYTES = 4 << 20
_DESTINATION_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class DestinationError(TransferError):
    """The disk copied to is full or cannot be written: no fault of the file, which is tried again until the disk is well."""


@dataclass(frozen=True)
class Copied:
    """A verified copy: the source as it was read, its hash, and how long reading, writing and verifying took."""

    source: Sighting
    sha256: str
    seconds: float

    @property
    def bytes_per_second(self) -> float:
        """Rate over the whole of copying and verifying."""
        return self.source.size / self.seconds if self.seconds > 0 else 0.0


def copy_verified(sighting: Sighting, destination: Path) -> Copied:
    """Copy a source file, as it was sighted, to `destination` and verify the copy by reading it back.

    Parameters
    ----------
    sighting : the source with the size and date that it must have before and after
    destination : the file to make; an existing one with the same content is accepted, so that an interrupted run continues

    Raises
    ------
    NotReadyError
        When the source changed since it was sighted, or while it was copied, or has gone.
    DestinationError
        When the disk copied to is full or not writable.
    TransferError
        When reading fails, the copy differs, or another file has the destination's name.
    """
    started = time.monotonic()
    if destination.exists():
        digest = hash_source(sighting)
        if destination.stat().st_size == sighting.size and hash_file(destination) == digest:
            return Copied(sighting, digest, time.monotonic() - started)
        raise TransferError(f"{destination} exists and is not a copy of {sighting.path}: move it away.")
    _check_space(sighting, destination.parent)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        digest = _copy(sighting, partial)
        verify_hash(partial, digest, sighting)
        with _destination_errors(destination):
            os.replace(partial, destination)
            sync_directory(destination.parent)
    finally:
        _remove_quietly(partial)
    return Copied(sighting, digest, time.monotonic() - started)


def _copy(sighting: Sighting, partial: Path) -> str:
    digest = hashlib.sha256()
    with _destination_errors(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for chunk in _read_source(sighting):
            digest.update(chunk)
            with _destination_errors(partial):
                _write_all(target, chunk)
        with _destination_errors(partial):
            os.fsync(target)
    finally:
        os.close(target)
    return digest.hexdigest()


def _write_all(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def _read_source(sighting: Sighting) -> Iterator[memoryview]:
    """Yield the source's bytes; raise unless it is what was sighted, before the first byte and after the last."""
    buffer = _buffer(sighting.size)
    with _source_errors(sighting), open(sighting.path, "rb", buffering=0) as source:
        _check_unchanged(os.fstat(source.fileno()), sighting)
        total = 0
        while count := source.readinto(buffer):
            total += count
            yield buffer[:count]
        _check_unchanged(os.fstat(source.fileno()), sighting)
        _check_unchanged(os.stat(sighting.path), sighting)  # a file renamed over it is another file
        if total != sighting.size:
            raise NotReadyError(
                f"{sighting.path} gave {total:,} bytes instead of {sighting.size:,}: it is being written; it is tried again."
            )


def _buffer(size: int) -> memoryview:
    """Return room to read a file of this size by; of a small one no more than it needs, as new memory costs more than reading it."""
    return memoryview(bytearray(min(CHUNK_BYTES, size + 1)))


def _check_unchanged(status: os.stat_result, sighting: Sighting) -> None:
    if (status.st_size, status.st_mtime_ns) != (sighting.size, sighting.mtime_ns):
        raise NotReadyError(f"{sighting.path} changed while it was being taken: it is tried again when it has settled.")


def hash_source(sighting: Sighting) -> str:
    """Return the SHA-256 of a source that must be what was sighted."""
    digest = hashlib.sha256()
    for chunk in _read_source(sighting):
        digest.update(chunk)
    return digest.hexdigest()


def hash_file(path: Path, *, from_disk: bool = False) -> str:
    """Return the SHA-256 of a file; `from_disk` asks the system to forget its cached pages first."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        buffer = _buffer(os.fstat(file.fileno()).st_size)
        if from_disk:
            _drop_cache(file.fileno())
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def verify_hash(copy: Path, digest: str, sighting: Sighting) -> None:
    """Read a copy back from the disk and compare it with what was read at the source."""
    try:
        found = hash_file(copy, from_disk=True)
    except OSError as error:
        raise TransferError(
            f"The copy of {sighting.path} cannot be read back ({error.strerror}): check the disk of {copy.parent}."
        ) from error
    if found != digest:
        raise TransferError(
            f"The copy of {sighting.path} differs from what was read: check the memory and the disk of {copy.parent}."
        )


def _drop_cache(descriptor: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _check_space(sighting: Sighting, folder: Path) -> None:
    with _destination_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if free < sighting.size:
        raise DestinationError(
            f"The disk of {folder} is full: {sighting.path} needs {sighting.size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; make room."
        )


def _remove_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # it is hidden, and the next start clears it away
        return


@contextmanager
def _source_errors(sighting: Sighting) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotReadyError(f"{sighting.path} has gone from the source: it is taken when it comes back.") from error
    except PermissionError as error:
        raise TransferError(f"{sighting.path} may not be read: give this user permission to read it.") from error
    except OSError as error:
        raise TransferError(
            f"{sighting.path} cannot be read ({error.strerror}): check the source's disk and network."
        ) from error


@contextmanager
def _destination_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise destination_error(error, path) from error


def destination_error(error: OSError, path: Path) -> TransferError:
    """Return the sentence that says what is wrong where `path` should be written."""
    folder = path if path.is_dir() else path.parent
    if error.errno == errno.ENOSPC:
        return DestinationError(f"The disk of {folder} is full: make room; copying goes on by itself.")
    if error.errno == errno.EDQUOT:
        return DestinationError(f"The quota on the disk of {folder} is used up: make room; copying goes on by itself.")
    if error.errno in _DESTINATION_ERRORS:
        return DestinationError(
            f"{folder} may not be written to ({error.strerror}): give this user permission to write there."
        )
    return TransferError(f"{path} cannot be written ({error.strerror}): check the disk of {folder}.")
