"""Making a file that was taken in ready for processing: the camera's files for movies, an MRC file for micrographs. Runs in the arrival thread."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from beamside.acquisition.gain import prepare_defects
from beamside.acquisition.reports import ImportedFile
from beamside.acquisition.settings import AcquisitionSettings
from beamside.acquisition.transfer import hash_file
from beamside.errors import GainAwaitedError, GainError, GainNotReadyError, InputError, NotReadyError
from beamside.flow.optics_rules import facts_of
from beamside.flow.settings import OpticsParameters, SessionSettings
from beamside.formats.atomic import replace_file
from beamside.formats.image import read_image
from beamside.formats.mrc import write_mrc

Shape = tuple[int, int]

Reference = tuple[str, str]
"""A copy of a gain reference in the project, and its digest."""

DIGITS = 12
"""So many of the digest's digits are in the name of the copy."""


class MoviePreparation:
    """For a movie: say where the project's copy of its gain reference and its camera's defects are, or why there are none that fit.

    How the reference is used is decided later, from the movies (`beamside.camera.gain`). Its copy has its digest in the name, so that one that comes
    to the same path later does not take its place. Defects are prepared once for each shape of movies.

    Parameters
    ----------
    root, job : the project, and the job that has the files
    settings : what the session was told
    known : copy and content of the reference that an earlier session used: it goes on to be used when the file itself is away
    clock : monotonic seconds
    """

    def __init__(
        self,
        root: Path,
        job: str,
        settings: AcquisitionSettings,
        known: Reference | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root, self.job, self.settings = root, job, settings
        self._clock = clock
        self._lock = threading.RLock()  # several files are prepared at once
        self._defects_of: dict[Shape, dict[str, Any]] = {}
        self._reference: Reference | None = None
        self._known = known
        self._sighted: tuple[int, int] | None = None
        self._changing: tuple[tuple[int, int], float] | None = None

    def __call__(self, taken: ImportedFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the outputs and values of a movie that was taken in. Raises NotReadyError or OSError for what may be right at another time."""
        values: dict[str, Any] = {"frames": taken.frames, "shape": list(taken.shape)}
        try:
            with self._lock:
                values |= {**self._gain(), **self._defects(taken.shape)}
        except NotReadyError:
            raise
        except GainError as error:
            values["gain_error"] = str(error)
        return {"movie": taken.path}, values

    def retry(self) -> None:
        """Look again at what did not fit."""
        with self._lock:
            self._defects_of = {shape: found for shape, found in self._defects_of.items() if "gain_error" not in found}

    def take_settings(self, settings: SessionSettings) -> None:
        """Nothing that can change while a session runs matters here."""

    def _gain(self) -> dict[str, Any]:
        """Copy the reference into the project, where workers and later sessions have it; again when it has changed and come to rest."""
        if not self.settings.gain:
            return {}
        source = Path(self.settings.gain)
        try:
            if self.settings.gain_wait and self._reference is None and self._known is None:
                self._await(source)
            status = source.stat()
            sighted = (status.st_size, status.st_mtime_ns)
            if self._reference is None or self._has_changed(sighted):
                self._reference, self._sighted, self._changing = self._copy(source), sighted, None
        except OSError as error:
            # What was used so far is in the project: that the file itself is away, or being replaced, holds nothing up.
            self._reference = self._reference or self._known
            if self._reference is None:
                raise GainNotReadyError(
                    f"The gain reference {source} cannot be copied ({error.strerror}): check --gain and the file's permissions."
                ) from error
        return {"gain_reference": self._reference[0], "gain_reference_sha256": self._reference[1]}

    def _await(self, source: Path) -> None:
        """Raise GainAwaitedError until the reference is there, has come to rest, and is complete."""
        awaited = f"The gain reference {source} "
        try:
            status = source.stat()
        except FileNotFoundError:
            self._changing = None
            raise GainAwaitedError(f"{awaited}is not there yet.") from None
        if not self._has_changed((status.st_size, status.st_mtime_ns)):
            raise GainAwaitedError(f"{awaited}is being written.")
        try:
            read_image(source)
        except NotReadyError as error:
            raise GainAwaitedError(f"{awaited}is being written: {error}") from error
        except InputError as error:
            raise GainError(f"The gain reference cannot be used: {error} Check --gain.") from error

    def _has_changed(self, sighted: tuple[int, int]) -> bool:
        if sighted == self._sighted:
            self._changing = None
            return False
        if self._changing is None or self._changing[0] != sighted:
            self._changing = (sighted, self._clock())
            return False
        return self._clock() - self._changing[1] >= self.settings.settle_seconds

    def _copy(self, source: Path) -> Reference:
        content = source.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        copy = self.root / self.job / f"gain_reference_{digest[:DIGITS]}{source.suffix.lower()}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists() or copy.read_bytes() != content:
            replace_file(copy, content)
        return self._relative(copy), digest

    def _defects(self, shape: Shape) -> dict[str, Any]:
        if not self.settings.defects:
            return {}
        if shape not in self._defects_of:
            try:
                self._defects_of[shape] = self._prepare_defects(shape)
            except NotReadyError:
                raise
            except GainError as error:
                self._defects_of[shape] = {"gain_error": str(error)}
        found = self._defects_of[shape]
        if "gain_error" in found:
            raise GainError(found["gain_error"])
        return found

    def _prepare_defects(self, shape: Shape) -> dict[str, Any]:
        """Write the defects; the first shape of movies gets the plain name."""
        name = f"defects_{shape[1]}x{shape[0]}.mrc" if self._defects_of else "defects.mrc"
        output = self.root / self.job / name
        output.parent.mkdir(parents=True, exist_ok=True)
        prepare_defects(self.settings.defects, shape, output=output)
        return {"defects": self._relative(output), "defects_sha256": hash_file(output)}

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def known_reference(root: Path, gain: str, records: Iterable[Mapping[str, Any]]) -> Reference | None:
    """Return the copy, and the content, of the reference `gain` that was used last, as the journal's `records` tell it; None when none was."""
    found = None
    for record in records:
        if gain and record.get("reference") == gain and "copy" in record and (root / record["copy"]).exists():
            found = (str(record["copy"]), str(record["reference_sha256"]))
    return found


class MicrographPreparation:
    """For a micrograph: an MRC file that RELION can read."""

    def __init__(self, root: Path, job: str, optics: OpticsParameters) -> None:
        self.root, self.job, self.optics = root, job, optics.item_optics()

    def retry(self) -> None:
        """Nothing is remembered of what did not work."""

    def take_settings(self, settings: SessionSettings) -> None:
        """Write the pixel size that holds now into what comes from now on."""
        self.optics = settings.optics.item_optics()

    def __call__(self, taken: ImportedFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the outputs and values of a micrograph that was taken in."""
        relative = f"{self.job}/{PurePath(taken.path).with_suffix('.mrc')}"  # of a new version of the file, another one
        output = self.root / relative
        if not output.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            facts = facts_of({"source": taken.source, "metadata": taken.metadata, "shape": taken.shape})
            write_mrc(output, read_image(self.root / taken.path), self.optics.of_facts(facts).pixel_size)
        return {"micrograph": relative, "original": taken.path}, {"shape": list(taken.shape)}


def prepare_movies(
    root: Path, job: str, settings: SessionSettings, records: Iterable[Mapping[str, Any]]
) -> MoviePreparation:
    """Return what makes movies ready; `records` are the journal's of gain references."""
    known = known_reference(root, settings.acquisition.gain, records)
    return MoviePreparation(root, job, settings.acquisition, known)


def prepare_micrographs(
    root: Path, job: str, settings: SessionSettings, records: Iterable[Mapping[str, Any]]
) -> MicrographPreparation:
    """Return what makes micrographs ready."""
    return MicrographPreparation(root, job, settings.optics)
