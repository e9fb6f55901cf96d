"""The one object that a session uses to take in files: look at the source, take what is ready."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from beamside.acquisition.bystanders import is_robocopy_date, kind_by_name
from beamside.acquisition.frame_check import FrameCheck, changed
from beamside.acquisition.frames import UsualFrames
from beamside.acquisition.imported import ImportedSources
from beamside.acquisition.kinds import MOVIE, SourceKind
from beamside.acquisition.late_sidecars import SidecarTaking
from beamside.acquisition.manifest import Manifest, ManifestEntry
from beamside.acquisition.passed_over import PassedOver
from beamside.acquisition.readiness import Settling
from beamside.acquisition.removals import Removals
from beamside.acquisition.reports import (
    Arrival,
    ImportedFile,
    ImportedSidecar,
    LookReport,
    Remark,
    SetAside,
    Trouble,
    Waiting,
    imported_file,
)
from beamside.acquisition.scan import Scanner, ScanResult, Sighting, look_at
from beamside.acquisition.settings import AcquisitionSettings
from beamside.acquisition.sidecars import SidecarIndex
from beamside.acquisition.sources import SourceState
from beamside.acquisition.storage import Storage, duplicate
from beamside.acquisition.temporary_names import TemporaryNames
from beamside.acquisition.transfer import DestinationError, hash_source
from beamside.errors import InputError, NotReadyError, TransferError, in_words

_INSPECT_SECONDS = 2.0
_REGROWN_FACTOR = 4.0
_LONGEST_REGROWN_SECONDS = 600.0

_ADVICE_SECONDS = 30.0
_ROBOCOPY_SECONDS = 600.0

log = logging.getLogger(__name__)


class Intake:
    """Takes files from the source into the project. `look` and `take` may be called from different threads, `take` from several.

    Parameters
    ----------
    settings : what to take and how
    raw_dir : the folder that receives the files, inside the manifest's project
    manifest : the record of what was taken; with it, a new process continues where the last one stopped
    kind : what is taken in; other files are passed over
    clock : monotonic seconds

    Raises
    ------
    ConfigError
        When no data pattern is given.
    DestinationError
        When `raw_dir` cannot be written to.
    """

    def __init__(
        self,
        settings: AcquisitionSettings,
        raw_dir: str | os.PathLike[str],
        manifest: Manifest,
        *,
        kind: SourceKind = MOVIE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self.kind = settings, kind
        self._manifest = manifest
        self._clock = clock
        excluded = [os.path.abspath(os.path.expanduser(path)) for path in (settings.gain, settings.defects) if path]
        self._scanner = Scanner(settings.data, settings.sidecars, excluded, endings=kind.endings, formats=kind.formats)
        self._passed_over = PassedOver(kind, self._scanner.asked, settings.gain, clock)
        self._temporary_names = TemporaryNames(clock)
        self._storage = Storage(Path(raw_dir).absolute(), manifest, compress=settings.compress)
        self._settling = Settling(settings.settle_seconds, clock)
        self._lock = threading.RLock()
        self._look_lock = threading.Lock()
        self._states: dict[str, SourceState] = {}
        self._taken = ImportedSources(manifest)
        self._usual = UsualFrames()
        for entry in self._taken.movies:
            self._usual.add(entry.frames)
        self._removals = (
            Removals(
                manifest,
                self._taken,
                self._usual,
                quiet_seconds=settings.remove_after,
                single_images=not kind.in_parts,
                clock=clock,
            )
            if settings.remove_source
            else None
        )
        self._sidecars = SidecarTaking(settings, manifest, self._taken, self._storage, self._settling, clock)
        self._new_set_aside: list[SetAside] = []
        self._pending_remarks: list[Remark] = []
        self._ever_matched = bool(self._taken.movies)
        self._frames = FrameCheck(self._taken, self._usual, kind)
        self._advice: tuple[float, str] | None = None

    # what is known

    def taken(self) -> list[ImportedFile]:
        """Return all files that are safely in the project, oldest first, also those of earlier processes."""
        with self._lock:
            return [imported_file(entry, self._taken.sidecars_of(entry.item)) for entry in self._taken.movies]

    def set_aside(self) -> list[SetAside]:
        """Return the files that are set aside at present."""
        with self._lock:
            return [
                SetAside(path, state.reason, state.attempts)
                for path, state in sorted(self._states.items())
                if state.set_aside is not None
            ]

    def retry(self) -> None:
        """Give every file that is set aside a new chance at the next look."""
        with self._lock:
            for path in [path for path, state in self._states.items() if state.set_aside is not None]:
                del self._states[path]
                self._settling.forget(path)

    def doing(self, source: str) -> str:
        """Return what is being done with a file that is being taken, in words that follow "it is being"."""
        return self._storage.doing(source)

    # looking

    def look(self) -> LookReport:
        """Look once at the source.

        Never raises for what is wrong at the source: that is told in ``standing``, ``remarks``, ``waiting`` and ``set_aside``.
        """
        with self._look_lock:
            with self._lock:  # what is about to be taken finds out itself whether it has changed
                offered = {path for path, state in self._states.items() if state.offered}
            scan = self._scanner.scan(lambda path: self._taken.is_taken(path) or path in offered)
            report = LookReport(matched=scan.matched, complete=scan.complete)
            index = SidecarIndex(scan.sidecars, self._settings.sidecars)
            deadline = self._clock() + _INSPECT_SECONDS
            for sighting in scan.sightings:
                self._consider(sighting, index, report, deadline)
            self._notice_vanished(scan, offered, report)
            self._take_late_sidecars(scan.sidecars, report)
            self._temporary_names.look(scan.temporary, scan.hidden_folders, complete=scan.complete)
            report.standing += [*scan.standing, *self._nothing_matches(scan), *self._temporary_names.standing()]
            report.remarks += [*self._passed_over.folders(scan), *self._temporary_names.remarks()]
            with self._lock:
                at_work = any(state.offered for state in self._states.values())
            if not (self._taken.movies or report.waiting or at_work):
                report.standing += self._passed_over.nothing_else()
            self._taken.check_sources()
            report.standing += self._frames.standing()
            if self._removals is not None:
                self._removals.work()
                report.to_remove = self._removals.soon
                report.standing += self._removals.kept()
            with self._lock:
                report.set_aside += self._new_set_aside
                report.remarks += self._pending_remarks
                self._new_set_aside, self._pending_remarks = [], []
            return report

    def _consider(self, sighting: Sighting, index: SidecarIndex, report: LookReport, deadline: float) -> None:
        """Decide on one file: taken before, set aside, waiting, or new."""
        with self._lock:
            if self._taken.is_taken(sighting.path) or self._taken.is_remnant(sighting):
                return  # taken since the source was listed, or removed
            state = self._states.setdefault(sighting.path, SourceState())
            state.see(sighting)
            settled = self._settling.observe(sighting, self._quiet_seconds(sighting))
            if state.set_aside is not None or state.passed_over or state.offered:
                return
        now = self._clock()
        sidecars = self._sidecars.settled(index.of(sighting.path)) if not settled or now >= state.not_before else ()
        if not settled:
            report.waiting.append(
                Waiting(
                    sighting.path, "is not known to have settled: its size and date must stay the same for two looks"
                )
            )
        elif now < state.not_before:
            report.waiting.append(Waiting(sighting.path, state.reason))
        elif now > deadline:
            report.waiting.append(Waiting(sighting.path, "is waiting for its turn"))
        else:
            self._inspect(sighting, sidecars, state, report)

    def _inspect(
        self, sighting: Sighting, sidecars: tuple[Sighting, ...], state: SourceState, report: LookReport
    ) -> None:
        try:
            info = self.kind.inspect(sighting.path)
            doubt = self._frames.doubt(sighting, info, sidecars)
            remark = self._passed_over.remark(sighting, info, sidecars)
        except InputError as error:
            self._count_failure(state, str(error))
        except Exception as error:  # whatever a strange file raises is the fault of that file
            log.exception("%s could not be looked into", sighting.path)
            self._count_failure(state, f"{sighting.path} cannot be understood ({in_words(error)}).")
        else:
            sure = info.frames == 1 and kind_by_name(sighting.path) is not None  # a sum gets no more frames
            if doubt and not sure and state.doubt(doubt, self._clock(), wait=self._settings.poll_seconds):
                report.waiting.append(Waiting(sighting.path, state.reason))
            elif remark is not None:
                state.passed_over = True
                report.remarks.append(remark)
            else:
                with self._lock:
                    state.offered = True
                report.new.append(Arrival(sighting, info, sidecars))
            return
        if state.set_aside is None:
            report.waiting.append(Waiting(sighting.path, state.reason))

    def _quiet_seconds(self, sighting: Sighting) -> float:
        """Return how long a file must stay the same: longer, the more often it went on to be written after it was taken.

        Also longer for a file with the date that robocopy gives to one that it is still copying, at its full size from the beginning.
        """
        before = self._taken.changed(sighting.path)
        seconds = self._settings.settle_seconds
        if is_robocopy_date(sighting.mtime_ns):
            seconds = max(seconds, _ROBOCOPY_SECONDS)
        if before is None:
            return seconds
        regrown = seconds * _REGROWN_FACTOR ** (self._taken.versions(before.item) - 1)
        return max(seconds, min(regrown, _LONGEST_REGROWN_SECONDS))

    def _count_failure(self, state: SourceState, reason: str) -> None:
        with self._lock:
            given_up = state.fail(
                reason, self._clock(), wait=self._settings.poll_seconds, limit=self._settings.attempts
            )
            if given_up is None:
                return
            before = self._taken.changed(given_up.source)
            if before is None:
                self._new_set_aside.append(given_up)
                return
            # the copy that was taken is none the worse for it
            sentence = f"{given_up.source} changed after it was taken and cannot be taken again: {reason} {before.destination} stays as it is."
            self._pending_remarks.append(Remark("source-changed", sentence, given_up.source))

    def _notice_vanished(self, scan: ScanResult, offered: set[str], report: LookReport) -> None:
        """Forget files that have gone from the source, and were not `offered`; only when every folder could be read are they really gone."""
        if not scan.complete:
            return
        present = offered.union(sighting.path for sighting in scan.sightings)
        with self._lock:
            gone = [path for path, state in self._states.items() if path not in present and not state.offered]
            missed = [path for path in gone if not self._states[path].passed_over]
            for path in gone:
                del self._states[path]
                self._settling.forget(path)
        report.remarks += [
            Remark("gone-from-source", f"{path} has gone from the source before it could be taken.", path)
            for path in missed
        ]

    def _nothing_matches(self, scan: ScanResult) -> list[Trouble]:
        self._ever_matched = self._ever_matched or scan.matched > 0
        if self._ever_matched or scan.standing:
            return []
        now = self._clock()
        if self._advice is None or now - self._advice[0] > _ADVICE_SECONDS:  # looking around is dear
            self._advice = (now, self._scanner.nothing_matches())
        return [Trouble("nothing-matches", self._advice[1])]

    def _take_late_sidecars(self, paths: Iterable[str], report: LookReport) -> None:
        for movie, entry in self._sidecars.take_late(paths, report.remarks):
            if entry.kind == "sidecar":
                taken = imported_file(movie, self._taken.sidecars_of(movie.item))
                report.sidecars.append(ImportedSidecar(movie.item, entry.destination, entry.metadata, taken))
            if self._removals is not None:
                self._removals.add(entry)

    # taking

    def take(self, arrival: Arrival) -> ImportedFile | None:
        """Copy, verify, compress and record a file that `look` gave. A later `look` removes its source, when that is asked for and it is safe.

        Taking the same file again returns the same record without doing anything. None means that the file has the content of one that was
        taken under another path, and is recorded as a duplicate of that.

        Raises
        ------
        NotReadyError
            When it changed or went since it was seen: `look` gives it again once it has settled.
        CorruptFileError, TransferError
            When it cannot be taken: `look` gives it again later, until it is set aside.
        DestinationError
            (a TransferError) When the project's disk is full or not writable: this does not count against the file.
        """
        with self._lock:
            known = self._taken.entry(arrival.sighting)
            if known is not None:
                same = known.source == arrival.source
                return imported_file(known, self._taken.sidecars_of(known.item)) if same else None
            state = self._states.setdefault(arrival.source, SourceState(offered=True))
            before = self._taken.changed(arrival.source)
        try:
            movie, sidecars = self._take(arrival, before)
        except BaseException as error:
            self._release(arrival.sighting, state, error)
            raise
        finally:
            self._taken.contents.release(arrival.source)
        with self._lock:
            self._states.pop(arrival.source, None)
            self._settling.forget(arrival.source)
            if movie.kind == "movie":
                self._usual.add(movie.frames, before.frames if before is not None and before.item == movie.item else 0)
                self._pending_remarks += [] if before is None else [changed(before, movie)]
            else:
                self._pending_remarks += self._duplicate_remarks(movie)
        if self._removals is not None:
            self._removals.add(movie, *sidecars)
        return imported_file(movie, self._taken.sidecars_of(movie.item)) if movie.kind == "movie" else None

    def _take(self, arrival: Arrival, before: ManifestEntry | None) -> tuple[ManifestEntry, list[ManifestEntry]]:
        contents, sidecars = self._taken.contents, list[ManifestEntry]()
        if contents.is_likely(arrival.sighting):
            sha256 = hash_source(arrival.sighting)
            if (same := contents.find(sha256)) is not None:
                return self._record(duplicate(arrival.sighting, sha256, same))[0], sidecars
        movie = self._storage.store_movie(
            arrival.sighting, arrival.info, lambda sha256: contents.admit(sha256, arrival.source), before
        )
        if movie.kind == "duplicate":  # its sidecars are looked at as late ones of the movie that was taken
            return self._record(movie)[0], sidecars
        for sighting in arrival.sidecars:
            try:
                sidecars.append(self._sidecars.store(sighting, movie))
            except DestinationError:
                raise
            except (NotReadyError, TransferError):
                continue  # a sidecar that cannot be had now is tried again as a late one; the movie does not wait for it
        movie, *sidecars = self._record(movie, *sidecars)
        return movie, sidecars

    def _record(self, *entries: ManifestEntry) -> list[ManifestEntry]:
        recorded = self._manifest.append(*entries)
        with self._lock:
            self._taken.add(*recorded)
        return recorded

    def _release(self, sighting: Sighting, state: SourceState, error: BaseException) -> None:
        """Let `look` give the file again, at once, later or never, by what was wrong."""
        with self._lock:
            state.offered = False
            state.reason = in_words(error)
            if isinstance(error, NotReadyError):
                self._settling.forget(sighting.path)
            elif isinstance(error, DestinationError):
                state.not_before = self._clock() + self._settings.poll_seconds
            elif isinstance(error, Exception):
                self._count_failure(state, in_words(error))

    def _duplicate_remarks(self, entry: ManifestEntry) -> list[Remark]:
        same = self._taken.copy_of(entry) or entry
        if same.source == entry.source:  # what it was before
            return []
        sentence = (
            f"{entry.source} has the same content as {same.source}, which was taken as {same.item}: it is one item."
        )
        if look_at(str(self._manifest.project / same.destination)) is None:
            sentence += f" Its copy {same.destination} is no longer in the project."
        return [Remark("same-content", sentence, entry.source, severity="info")]
