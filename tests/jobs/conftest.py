"""Small results for the tests of job types, with no more in them than the kinds of items demand: so may those of other packages be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from beamside.formats.mrc import write_mrc
from beamside.formats.star import StarBlock, Value, write_star
from beamside.jobs.base import Optics, Result
from beamside.jobs.extract import PARTICLE_COLUMNS, particles_block

FIT: dict[str, float] = {
    "micrograph_pixel_size": 2.0,
    "defocus_u": 15100.0,
    "defocus_v": 15000.0,
    "defocus_angle": 20.0,
}


class Small:
    """Makes results whose files are in a folder; `optics` are those of the micrographs."""

    optics = Optics(2.0, 300.0, 2.7, 0.1, 1.0)

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def noise(*shape: int, seed: int = 1) -> np.ndarray:
        """Return an image, or a stack of some, of white noise."""
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    def micrograph(self, name: str = "m1", image: np.ndarray | None = None) -> Result:
        """A micrograph."""
        image = self.noise(128, 128) if image is None else image
        write_mrc(self.root / f"{name}.mrc", image, self.optics.pixel_size)
        return Result(outputs={"micrograph": f"{name}.mrc"}, values={"shape": list(image.shape)})

    def fitted(self, name: str = "m1", image: np.ndarray | None = None) -> Result:
        """A micrograph with a CTF fit."""
        plain = self.micrograph(name, image)
        return Result({"ctf_resolution": 5.0}, plain.outputs, {**plain.values, **FIT})

    def coordinates(self, places: Sequence[tuple[float, float]], name: str = "m1_picks") -> Result:
        """The places x, y of particles in a micrograph, without scores, in a block with a name."""
        rows: list[list[Value]] = [[x, y] for x, y in places]
        columns = ["rlnCoordinateX", "rlnCoordinateY"]
        write_star(self.root / f"{name}.star", [StarBlock("particles", columns, rows)])
        return Result({"particles": float(len(rows))}, {"coordinates": f"{name}.star"}, {"max_diameter": 60.0})

    def particles(self, places: Sequence[tuple[float, float]], name: str = "p1", size: int = 16) -> Result:
        """Particles at the places x, y of one micrograph; with none there is neither a file nor a size."""
        if not places:
            return Result({"extracted": 0.0})
        write_mrc(self.root / f"{name}.mrcs", self.noise(len(places), size, size), 4.0)
        rows = [
            self.particle(f"{number:06d}@{name}.mrcs", x, y, f"{name}.mrc") for number, (x, y) in enumerate(places, 1)
        ]
        write_star(self.root / f"{name}.star", [particles_block(rows)])
        files = {"particles": f"{name}.mrcs", "particles_star": f"{name}.star"}
        return Result({"extracted": float(len(rows))}, files, {"image_pixel_size": 4.0, "image_size": size})

    @staticmethod
    def particle(image: str, x: float, y: float, micrograph: str, score: float = 1.0) -> list[Value]:
        """Return a row of a table of particles."""
        values: dict[str, Value] = {
            "rlnCoordinateX": x,
            "rlnCoordinateY": y,
            "rlnAutopickFigureOfMerit": score,
            "rlnImageName": image,
            "rlnMicrographName": micrograph,
            "rlnOpticsGroup": 1,
            "rlnDefocusU": FIT["defocus_u"],
            "rlnDefocusV": FIT["defocus_v"],
            "rlnCtfScalefactor": 1.0,
        }
        return [values.get(column, 0.0) for column in PARTICLE_COLUMNS]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)
