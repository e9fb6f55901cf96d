"""Making a file that was taken in ready for processing: the camera's files for movies, an MRC file for micrographs. Runs in the arrival thread."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath
from typing import Any

from beamside.acquisition.arrivals import TakenFile
from beamside.acquisition.gain import prepare_defects
from beamside.acquisition.settings import AcquisitionSettings
from beamside.errors import GainError
from beamside.formats.atomic import replace_file
from beamside.formats.image import read_image
from beamside.formats.mrc import write_mrc

Shape = tuple[int, int]


class MoviePreparation:
    """For a movie: say where the project's copy of its gain reference and its camera's defects are, or why there are none that fit.

    How the reference is used is decided later, from the movies (`beamside.flow.gain`). Defects are prepared once for each shape of movies.
    """

    def __init__(self, root: Path, job: str, settings: AcquisitionSettings) -> None:
        self.root, self.job, self.settings = root, job, settings
        self._prepared: dict[Shape, dict[str, Any]] = {}
        self._reference: dict[str, Any] | None = None

    def __call__(self, taken: TakenFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the outputs and values of a movie that was taken in."""
        if taken.shape not in self._prepared:
            try:
                self._prepared[taken.shape] = {**self._gain(), **self._defects(taken.shape)}
            except GainError as error:
                self._prepared[taken.shape] = {"gain_error": str(error)}
        values = {"frames": taken.frames, "shape": list(taken.shape), **self._prepared[taken.shape]}
        return {"movie": taken.path}, values

    def _gain(self) -> dict[str, Any]:
        """Copy the reference into the project, where workers and later sessions have it."""
        if not self.settings.gain:
            return {}
        if self._reference is None:
            source = Path(self.settings.gain)
            copy = self.root / self.job / f"gain_reference{source.suffix.lower()}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                content = source.read_bytes()
                if not copy.exists() or copy.read_bytes() != content:
                    replace_file(copy, content)
            except OSError as error:
                raise GainError(
                    f"The gain reference {source} cannot be copied ({error.strerror}): check --gain and the file's permissions."
                ) from error
            digest = hashlib.sha256(content).hexdigest()
            self._reference = {"gain_reference": self._relative(copy), "gain_reference_sha256": digest}
        return self._reference

    def _defects(self, shape: Shape) -> dict[str, Any]:
        if not self.settings.defects:
            return {}
        output = self._output("defects", shape)
        prepare_defects(self.settings.defects, shape, output=output)
        return {"defects": self._relative(output), "defects_sha256": file_hash(output)}

    def _output(self, name: str, shape: Shape) -> Path:
        """The first shape of movies gets the plain name."""
        path = self.root / self.job / (f"{name}_{shape[1]}x{shape[0]}.mrc" if self._prepared else f"{name}.mrc")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


class MicrographPreparation:
    """For a micrograph: an MRC file that RELION can read."""

    def __init__(self, root: Path, job: str, pixel_size: float) -> None:
        self.root, self.job, self.pixel_size = root, job, pixel_size

    def __call__(self, taken: TakenFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the outputs and values of a micrograph that was taken in."""
        relative = f"{self.job}/{PurePath(taken.path).with_suffix('.mrc')}"  # of a new version of the file, another one
        output = self.root / relative
        if not output.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            write_mrc(output, read_image(self.root / taken.path), self.pixel_size)
        return {"micrograph": relative, "original": taken.path}, {"shape": list(taken.shape)}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
