"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beamside.formats.leftovers import temporary_name


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Give a hidden temporary path beside `path` to write to; when the block ends well it becomes `path`.

    Parameters
    ----------
    path : the file to make or to replace
    durable : also force the bytes and the new name to the disk, so that they survive a power cut

    Notes
    -----
    The temporary file is in the same directory, because only there is ``rename`` atomic. It is removed when the block raises; what a
    killed process leaves is swept, see `beamside.formats.leftovers`.
    """
    target = Path(path)
    temporary = target.with_name(temporary_name(target.name))
    try:
        yield temporary
        if durable:
            sync_file(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(target.parent)


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Make or replace the file `path` with `content`, in one step and on the disk."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def sync_file(path: str | os.PathLike[str]) -> None:
    """Force the content of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Force the names in a directory to the disk, where the file system can do that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse fsync on directories; their rename is synchronous
        pass
    finally:
        os.close(descriptor)
