"""Making a file that was taken in ready for processing: the gain reference for movies, an MRC file for micrographs. Runs in the arrival thread."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beamside.acquisition.arrivals import TakenFile
from beamside.acquisition.gain import prepare_defects, prepare_gain
from beamside.acquisition.settings import AcquisitionSettings
from beamside.errors import GainError
from beamside.formats.image import read_image
from beamside.formats.mrc import write_mrc

Shape = tuple[int, int]


class MoviePreparation:
    """For a movie: say where its gain reference and its camera's defects are, or why there are none that fit.

    They are prepared once for each shape of movies; `warn` is told what is unusual about them.
    """

    def __init__(self, root: Path, job: str, settings: AcquisitionSettings, warn: Callable[[str], None]) -> None:
        self.root, self.job, self.settings, self.warn = root, job, settings, warn
        self._prepared: dict[Shape, dict[str, Any]] = {}

    def __call__(self, taken: TakenFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the outputs and values of a movie that was taken in."""
        if taken.shape not in self._prepared:
            try:
                self._prepared[taken.shape] = {**self._gain(taken.shape), **self._defects(taken.shape)}
            except GainError as error:
                self._prepared[taken.shape] = {"gain_error": str(error)}
        values = {"frames": taken.frames, "shape": list(taken.shape), **self._prepared[taken.shape]}
        return {"movie": taken.path}, values

    def _gain(self, shape: Shape) -> dict[str, Any]:
        if not self.settings.gain:
            return {}
        output = self._output("gain", shape)
        flip, rotate = self.settings.gain_flip, self.settings.gain_rotate
        prepared = prepare_gain(self.settings.gain, shape, flip=flip, rotate=rotate, output=output)
        for sentence in prepared.warnings:
            self.warn(sentence)
        return {"gain": self._relative(output), "gain_sha256": file_hash(output)}

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
        relative = f"{self.job}/{taken.name}.mrc"
        output = self.root / relative
        if not output.exists():
            output.parent.mkdir(parents=True, exist_ok=True)
            write_mrc(output, read_image(self.root / taken.path), self.pixel_size)
        return {"micrograph": relative, "original": taken.path}, {"shape": list(taken.shape)}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
