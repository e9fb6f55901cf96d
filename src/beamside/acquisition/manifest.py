"""The manifest: what was taken from the source, and what became of it.

One JSON object a line, only ever appended, forced to the disk before anything is removed from the source. A line that a crash cut short counts for
nothing, as nobody was told that it had happened: it is removed when the file is next opened for writing, and what it would have said is done again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from beamside.acquisition.transfer import destination_error, hash_file
from beamside.formats.atomic import replace_file, sync_directory

log = logging.getLogger(__name__)

MANIFEST_PATH = Path(".beamside") / "manifest.jsonl"
CHECKSUMS_NAME = "checksums.sha256"


@dataclass(frozen=True)
class ManifestEntry:
    """One line of the manifest.

    Attributes
    ----------
    kind : "movie" (of several with the same item, the last counts: the source went on to be written), "sidecar", "removed" (the source was removed),
        "seen" (the source has another date, and the same content) or "duplicate" (another source with the content of a movie, or of a sidecar, of
        `item`; nothing was copied)
    source, size, mtime_ns, sha256 : the file at the source, and its content as it was read
    destination, destination_size, destination_sha256 : the file in the project (path relative to it)
    compression : "lzw" when it was recompressed here, "" when the copy is byte for byte the source
    item : the item's name, for a movie; for a sidecar that of the movie it belongs to
    frames, shape, dtype : what a movie holds
    metadata : what a sidecar says, or a movie of itself
    seconds : time taken to copy and verify
    time : when the line was written, UTC
    """

    kind: Literal["movie", "sidecar", "removed", "seen", "duplicate"]
    source: str
    size: int
    mtime_ns: int
    sha256: str
    destination: str = ""
    destination_size: int = 0
    destination_sha256: str = ""
    compression: str = ""
    item: str = ""
    frames: int = 0
    shape: tuple[int, ...] = ()
    dtype: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    time: str = ""

    def to_line(self) -> str:
        """Return the JSON line, with its end."""
        stated = {key: value for key, value in vars(self).items() if value or key in _ALWAYS}
        return json.dumps(stated, ensure_ascii=True, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> ManifestEntry | None:
        """Return the entry of a line; None when the line is torn or not one."""
        try:
            data = json.loads(line)
            if not isinstance(data, dict) or data.get("kind") not in _KINDS:
                return None
            data["shape"] = tuple(data.get("shape", ()))
            entry = cls(**data)
        except (ValueError, TypeError, RecursionError):
            return None
        texts = (
            entry.source,
            entry.sha256,
            entry.destination,
            entry.destination_sha256,
            entry.compression,
            entry.item,
            entry.dtype,
        )
        numbers = (entry.size, entry.mtime_ns, entry.destination_size, entry.frames, *entry.shape)
        sound = all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for number in numbers)
        return entry if sound and isinstance(entry.metadata, dict) else None


_KINDS = ("movie", "sidecar", "removed", "seen", "duplicate")
_ALWAYS = ("kind", "source", "size", "mtime_ns", "sha256")


def read_manifest(path: Path) -> tuple[list[ManifestEntry], list[int]]:
    """Return the entries of a manifest, and the numbers of the lines that cannot be read; a line without its end is not there yet."""
    if not path.exists():
        return [], []
    entries, unreadable = [], []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or _was_cut_short(line):
            continue
        entry = ManifestEntry.from_line(line.decode(errors="replace"))
        if entry is None:
            unreadable.append(number)
        else:
            entries.append(entry)
    return entries, unreadable


def _was_cut_short(line: bytes) -> bool:
    """Tell whether a line is the beginning of one: earlier versions ended what a crash had left instead of removing it."""
    return b'{"kind":'.startswith(line[:8]) and not line.endswith(b"}")


class Manifest:
    """The manifest of a project, held open for appending by its one writer.

    Parameters
    ----------
    project : the project's directory; the file is ``.beamside/manifest.jsonl`` in it
    """

    def __init__(self, project: str | os.PathLike[str]) -> None:
        self.project = Path(project).absolute()
        self.path = self.project / MANIFEST_PATH
        self._lock = threading.Lock()
        entries, unreadable = read_manifest(self.path)
        self._entries = entries
        self.unreadable_lines = len(unreadable)
        self._checksums_due = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _remove_torn_tail(self.path)
            self._write_checksums()
        except OSError as error:
            raise destination_error(error, self.path) from error

    @property
    def entries(self) -> list[ManifestEntry]:
        """All entries, oldest first."""
        with self._lock:
            return list(self._entries)

    def append(self, *entries: ManifestEntry) -> list[ManifestEntry]:
        """Add entries, force them to the disk, and return them with their time; they are only known once they are there.

        Raises
        ------
        DestinationError
            When the disk is full or cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        stamped = [entry if entry.time else replace(entry, time=now) for entry in entries]
        with self._lock:
            try:
                _append(self.path, "".join(entry.to_line() for entry in stamped))
            except OSError as error:
                raise destination_error(error, self.path) from error
            self._entries += stamped
            self._append_checksums(stamped)
        return stamped

    def _append_checksums(self, entries: Iterable[ManifestEntry]) -> None:
        """Follow the manifest. What is in it has happened; that this list cannot be written now must not make it happen again."""
        try:
            if self._checksums_due:
                self._write_checksums()
            else:
                text = "".join(_checksum_line(entry) for entry in entries if entry.destination)
                _append(self.project / CHECKSUMS_NAME, text)
        except OSError as error:
            self._checksums_due = True
            log.warning("%s cannot be written now (%s); it follows later", self.project / CHECKSUMS_NAME, error)
        else:
            self._checksums_due = False

    def _write_checksums(self) -> None:
        """Write ``checksums.sha256`` anew when a crash left it without some of the manifest's files."""
        path = self.project / CHECKSUMS_NAME
        content = os.fsencode("".join(_checksum_line(entry) for entry in self._entries if entry.destination))
        if (path.read_bytes() if path.exists() else b"") != content:
            replace_file(path, content)


def _append(path: Path, text: str) -> None:
    """Append `text` and force it to the disk; on failure take back what was written of it."""
    if not text:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        if before and os.pread(descriptor, 1, before - 1) != b"\n":  # a part of a line that could not be taken back
            _remove_torn_tail(path)
            before = os.fstat(descriptor).st_size
        data = memoryview(os.fsencode(text))
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
    if before == 0:
        sync_directory(path.parent)


def _remove_torn_tail(path: Path) -> None:
    """Remove a line that a crash cut short."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())


def _checksum_line(entry: ManifestEntry) -> str:
    """Return the line that ``sha256sum --check`` wants, which marks escaped names by a leading backslash."""
    name = entry.destination.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if name != entry.destination else ""
    return f"{mark}{entry.destination_sha256}  {name}\n"


def verify_manifest(project: str | os.PathLike[str]) -> list[str]:
    """Hash every file of a project's manifest again; return a sentence for each problem, none when all is well."""
    root = Path(project)
    entries, unreadable = read_manifest(root / MANIFEST_PATH)
    problems = [
        f"Line {number} of {root / MANIFEST_PATH} cannot be read: a crash cut it off, or it was edited."
        for number in unreadable
    ]
    if not (root / MANIFEST_PATH).exists():
        return [f"{root} has no manifest: nothing was taken in, or it is not a project's directory."]
    problems += [problem for entry in entries if entry.destination and (problem := _check(root, entry))]
    return problems + _unlisted(root, entries)


def _check(root: Path, entry: ManifestEntry) -> str:
    path = root / entry.destination
    try:
        size = path.stat().st_size
        if size != entry.destination_size:
            return f"{path} has {size:,} bytes instead of {entry.destination_size:,}: it was changed or damaged after it was taken in."
        if hash_file(path) != entry.destination_sha256:
            return f"{path} has another content than when it was taken in: it was changed or damaged."
    except FileNotFoundError:
        return f"{path} is missing; it came from {entry.source}."
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): check its permissions and the disk."
    return ""


def _unlisted(root: Path, entries: Iterable[ManifestEntry]) -> list[str]:
    listed = {entry.destination for entry in entries}
    folders = {(root / name).parent for name in listed if name} or {root / "raw"}
    found = (path for folder in sorted(folders) if folder.is_dir() for path in sorted(folder.iterdir()))
    return [
        f"{path} is not in the manifest: nothing is known of where it came from."
        for path in found
        if path.is_file() and not path.name.startswith(".") and path.relative_to(root).as_posix() not in listed
    ]
