"""Which sources may be removed now, and why others are kept.

Removing is held back, not processing: a movie is taken and processed when it looks complete, and its source goes only when its number of frames is
confirmed (`beamside.acquisition.frames`) and nothing has written to it since.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from beamside.acquisition.frames import SHARED_BY, UsualFrames, judge
from beamside.acquisition.imported import ImportedSources
from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.remarks import Severity, Trouble
from beamside.acquisition.removal import SourceKeptError, record_removed, remove_source
from beamside.acquisition.scan import look_at
from beamside.errors import BeamsideError, in_words

log = logging.getLogger(__name__)

_SECONDS_PER_LOOK = 2.0
_TRY_AGAIN_SECONDS = 60.0
_NAMED = 3

_KEPT: dict[str, tuple[Severity, str, str]] = {
    "unconfirmed": (
        "info",
        f"nothing confirms that all frames are there (no record gives their number, and fewer than {SHARED_BY} others have as many)",
        "compare with the copies in the project, and remove by hand",
    ),
    "disputed": (
        "warning",
        "the number of frames is in doubt",
        "compare with the copies in the project, and remove by hand",
    ),
    "changed": ("warning", "the content changed after it was copied", "it is taken again when it can be read"),
    "damaged": (
        "error",
        "the copy in the project is missing or damaged",
        "the source may be the only good one: keep it safe",
    ),
    "own": ("info", "it is the project's own copy under another path", "nothing is to be done"),
    "blank": (
        "warning",
        "the last frame has no counts: room may have been set aside for it that is not filled yet",
        "compare with the copies in the project, and remove by hand",
    ),
    "open": ("info", "another program has the file open and may still write to it", "it is looked at again"),
    "stuck": ("warning", "this user may not remove it", "give permission to write in the folder, or remove by hand"),
}


@dataclass
class _Pending:
    """A source that is still there; `again` when an earlier process took it, so that it is hashed anew."""

    entry: ManifestEntry
    since: float
    again: bool
    not_before: float = 0.0
    why: str = ""
    reason: str = ""


class Removals:
    """The sources of a session that is asked to remove them; used by one thread at a time for `work`, by several for `add`.

    Parameters
    ----------
    manifest, taken : what was taken; sources of earlier processes are among them
    usual : how many frames movies have
    quiet_seconds : time without a change after which a movie counts as written, when only other movies confirm its number of frames
    single_images : the session takes in micrographs
    clock : monotonic seconds
    """

    def __init__(
        self,
        manifest: Manifest,
        taken: ImportedSources,
        usual: UsualFrames,
        *,
        quiet_seconds: float,
        single_images: bool,
        clock: Callable[[], float],
    ) -> None:
        self._manifest, self._taken, self._usual = manifest, taken, usual
        self._quiet_seconds, self._single_images, self._clock = quiet_seconds, single_images, clock
        self._lock = threading.Lock()
        self._pending = {entry.source: _Pending(entry, clock(), again=True) for entry in taken.present()}
        self.soon = 0

    def add(self, *entries: ManifestEntry) -> None:
        """Note what was taken now, in place of an earlier version of it."""
        with self._lock:
            for entry in entries:
                self._pending[entry.source] = _Pending(entry, self._clock(), again=False)

    def work(self) -> None:
        """Remove what may go; afterwards `soon` is the number of sources that only wait for time to pass."""
        with self._lock:
            waiting = list(self._pending.values())
        deadline, self.soon = self._clock() + _SECONDS_PER_LOOK, 0
        movies = {id(one): copy for one in waiting if (copy := self._taken.copy_of(one.entry)) and copy.kind == "movie"}
        left = Counter(one.entry.item for one in waiting if id(one) in movies)
        for pending in sorted(waiting, key=lambda one: id(one) not in movies):  # a record stays as long as its movie
            movie, now = movies.get(id(pending)), self._clock()
            if now < pending.not_before:
                continue
            if not (self._may_go(pending, movie) if movie is not None else not left[pending.entry.item]):
                continue
            if now > deadline:
                self.soon += 1
                continue
            if self._try(pending):
                left[pending.entry.item] -= movie is not None

    def kept(self) -> list[Trouble]:
        """Return why sources are kept, each reason with the number of files."""
        with self._lock:
            pending = list(self._pending.values())
        groups: dict[str, list[_Pending]] = defaultdict(list)
        for one in pending:
            if one.why:
                groups[one.why].append(one)
        return [Trouble(f"source-kept:{why}", _sentence(why, group), _KEPT[why][0]) for why, group in groups.items()]

    def _may_go(self, pending: _Pending, movie: ManifestEntry) -> bool:
        sidecars = [(sidecar.source, sidecar.metadata) for sidecar in self._taken.sidecars_of(movie.item)]
        verdict = judge(
            movie.source, movie.frames, movie.metadata, sidecars, self._usual, single_images=self._single_images
        )
        if verdict.standing in ("unconfirmed", "disputed"):
            pending.why, pending.reason = verdict.standing, verdict.reason
            return False
        if pending.why in ("unconfirmed", "disputed"):
            pending.why = pending.reason = ""
        if verdict.standing == "usual" and self._clock() - pending.since < self._quiet_seconds:
            self.soon += 1
            return False
        return True

    def _try(self, pending: _Pending) -> bool:
        entry = self._taken.as_seen(pending.entry)
        copy = self._taken.copy_of(pending.entry) if entry.kind == "duplicate" else None
        try:
            if _has_gone(entry.source):
                record_removed(entry, self._manifest)
            else:
                remove_source(entry, self._manifest, copy=copy, verify_again=pending.again)
        except Exception as error:
            if not isinstance(error, (BeamsideError, OSError)):
                log.exception("%s could not be removed", entry.source)
            pending.not_before = self._clock() + _TRY_AGAIN_SECONDS
            if look_at(entry.source) is not None:  # else the source is away: that is told elsewhere
                pending.why = error.why if isinstance(error, SourceKeptError) else "stuck"
                pending.reason = in_words(error)
            return False
        with self._lock:
            if self._pending.get(entry.source) is pending:
                del self._pending[entry.source]
        self._taken.removed(entry)
        return True


def _has_gone(path: str) -> bool:
    """Tell whether a file has been removed by somebody, which a lost mount is not."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return os.path.isdir(os.path.dirname(path)) and bool(os.listdir(os.path.dirname(path)))
    except OSError:
        return False
    return False


def _sentence(why: str, group: list[_Pending]) -> str:
    shown = [(os.path.basename(one.entry.source), one.reason) for one in group[:_NAMED]]
    names = ", ".join(f"{name} ({reason})" if why == "disputed" else name for name, reason in shown)
    names += ", ..." if len(group) > _NAMED else ""
    count = "1 source is" if len(group) == 1 else f"{len(group)} sources are"
    _, because, advice = _KEPT[why]
    return f"{count} kept, because {because}: {names}; {advice}."
