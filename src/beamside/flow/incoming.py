"""Making a file that was taken in ready for processing: the gain reference for movies, an MRC file for micrographs. Runs in the arrival thread."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from beamside.acquisition.arrivals import TakenFile
from beamside.acquisition.gain import prepare_gain
from beamside.acquisition.settings import AcquisitionSettings
from beamside.errors import GainError
from beamside.formats.image import read_image
from beamside.formats.mrc import write_mrc


class MoviePreparation:
    """For a movie: say where its gain reference is, or why it has none that fits."""

    def __init__(self, root: Path, job: str, settings: AcquisitionSettings) -> None:
        self.root, self.job, self.settings = root, job, settings
        self._gains: dict[tuple[int, int], dict[str, Any]] = {}

    def __call__(self, taken: TakenFile) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the outputs and values of a movie that was taken in."""
        shape = (int(taken.shape[-2]), int(taken.shape[-1]))
        if self.settings.gain and shape not in self._gains:
            self._gains[shape] = self._gain(shape)
        values = {"frames": taken.frames, "shape": list(shape), **self._gains.get(shape, {})}
        return {"movie": str(taken.path)}, values

    def _gain(self, shape: tuple[int, int]) -> dict[str, Any]:
        relative = f"{self.job}/gain.mrc" if not self._gains else f"{self.job}/gain_{shape[1]}x{shape[0]}.mrc"
        output = self.root / relative
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            prepare_gain(
                Path(self.settings.gain),
                shape,
                flip=self.settings.gain_flip,
                rotate=self.settings.gain_rotate,
                output=output,
            )
        except GainError as error:
            return {"gain_error": str(error)}
        return {"gain": relative, "gain_sha256": hashlib.sha256(output.read_bytes()).hexdigest()}


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
