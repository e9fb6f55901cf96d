from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from beamside.acquisition.intake import Intake
from beamside.acquisition.kinds import MOVIE, SourceKind
from beamside.acquisition.manifest import Manifest
from beamside.acquisition.reports import ImportedFile, LookReport
from beamside.acquisition.settings import AcquisitionSettings
from beamside.formats.tiff import write_tiff


class Clock:
    """A monotonic clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A camera folder and a project, and an intake between them that can be started anew."""

    def __init__(self, folder: Path) -> None:
        self.camera = folder / "camera folder"
        self.project = folder / "project"
        self.raw = self.project / "raw"
        self.camera.mkdir()
        self.clock = Clock()
        self.options: dict[str, object] = {
            "data": (str(self.camera / "**" / "*.tiff"), str(self.camera / "**" / "*.mrc")),
            "attempts": 3,
        }
        self.kind: SourceKind = MOVIE
        self.intake = self.start()

    def start(self, **options: object) -> Intake:
        self.options |= options
        self.manifest = Manifest(self.project)
        settings = AcquisitionSettings(**self.options)
        self.intake = Intake(settings, self.raw, self.manifest, kind=self.kind, clock=self.clock)
        return self.intake

    def look(self, seconds: float = 3.0) -> LookReport:
        self.clock.now += seconds
        return self.intake.look()

    def look_twice(self) -> LookReport:
        self.look()
        return self.look()

    def take_all(self) -> list[ImportedFile]:
        taken = (self.intake.take(arrival) for _ in range(2) for arrival in self.look().new)
        return [file for file in taken if file is not None]

    def movie(
        self, name: str, seed: int | None = None, frames: int = 3, compression: str = "lzw", dtype: str = "u1"
    ) -> Path:
        """Write a movie; those of other names have other counts, as equal content is one item."""
        path = self.camera / name
        write_tiff(
            path,
            movie_counts(zlib.crc32(name.encode()) if seed is None else seed, frames, dtype),
            compression=compression,
        )
        return path

    def record(self, movie: str, frames: int) -> Path:
        """Write what EPU records of a movie beside it."""
        path = (self.camera / movie).with_suffix(".xml")
        path.write_text(
            f"<Acquisition><Info><RecordedNumberOfFractions>{frames}</RecordedNumberOfFractions></Info></Acquisition>"
        )
        return path

    def visible(self) -> list[str]:
        return sorted(path.name for path in self.raw.iterdir() if not path.name.startswith("."))


def movie_counts(seed: int = 0, frames: int = 3, dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(seed).poisson(1.0, (frames, 32, 48)).astype(dtype)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def counts() -> Callable[..., np.ndarray]:
    return movie_counts
