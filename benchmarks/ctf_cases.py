"""The simulated micrographs that CTF estimation is measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from numpy.typing import NDArray

from beamside.imaging.ctf.estimation import CtfSettings
from beamside.simulate.movie import MovieSettings, MovieTruth, simulate_micrograph
from beamside.simulate.specimen import make_specimen

Image = NDArray[np.float32]

MICROSCOPES = ((300.0, 2.7), (200.0, 2.7), (100.0, 2.0), (60.0, 2.0))
"""kV and mm."""
DEFOCI = ((3000.0, 5000.0), (5000.0, 10000.0), (10000.0, 20000.0), (20000.0, 35000.0), (35000.0, 50000.0))
DOSES = (30.0, 12.0, 6.0, 3.0, 1.5)
STRONG = 2000.0
SEARCH = {"min_defocus": 2000.0, "max_defocus": 60000.0}


@dataclass(frozen=True)
class Case:
    """A set of micrographs, and what the programs are told to search in all of them."""

    table: str
    name: str
    settings: MovieSettings
    search: dict[str, Any] = field(default_factory=dict)

    def limits(self) -> CtfSettings:
        """Return optics and search ranges: the same for every micrograph and every program."""
        known = (self.settings.voltage, self.settings.spherical_aberration, self.settings.amplitude_contrast)
        return CtfSettings(*known, **{**SEARCH, **self.search})


def cases(size: int) -> Iterator[Case]:
    """Yield all cases, with micrographs of `size` pixels."""
    base = MovieSettings(
        size=(size, size), pixel_size=1.3, frames=1, dose_per_frame=30.0, defocus=(10000.0, 20000.0), astigmatism=500.0
    )
    for voltage, aberration in MICROSCOPES:
        for low, high in DEFOCI:
            settings = replace(base, voltage=voltage, spherical_aberration=aberration, defocus=(low, high))
            yield Case("voltage and defocus, 30 e/Å²", f"{voltage:.0f} kV, {low / 1e4:g}–{high / 1e4:g} µm", settings)
    for dose in DOSES:
        yield Case("dose, 1–2 µm", f"{dose:g} e/Å²", replace(base, dose_per_frame=dose))
    ice = replace(base, particle_spacing=0.0)
    for dose in (30.0, 6.0):
        yield Case("dose, 1–2 µm", f"no particles, {dose:g} e/Å²", replace(ice, dose_per_frame=dose))
    yield Case(
        "dose, 1–2 µm", "no particles, 1000 Å of ice, 6 e/Å²", replace(ice, dose_per_frame=6.0, ice_thickness=1000.0)
    )
    for low, high in DEFOCI[1:4]:
        strong = replace(base, defocus=(low, high), astigmatism=STRONG)
        yield Case("astigmatism to 2,000 Å, 30 e/Å²", f"{low / 1e4:g}–{high / 1e4:g} µm", strong)
    for dose in (30.0, 6.0):
        plate = replace(base, defocus=(6000.0, 15000.0), phase_shift=-1.0, dose_per_frame=dose)
        search = {"phase_shift": True, "min_phase_shift": 0.0, "max_phase_shift": 170.0}
        yield Case("phase plate, 20–150°, 0.6–1.5 µm", f"{dose:g} e/Å²", plate, search)


def micrograph(case: Case, seed: int, folder: Path) -> tuple[Path, MovieTruth]:
    """Return the file of the micrograph of `seed` (counts, 16-bit) and its truth; it is made when it is not in `folder` yet."""
    settings = case.settings
    if settings.phase_shift < 0:  # one of its own for each micrograph
        settings = replace(settings, phase_shift=float(np.random.default_rng(seed).uniform(20, 150)))
    described = json.dumps([asdict(settings), seed], sort_keys=True)
    path = folder / f"{hashlib.sha256(described.encode()).hexdigest()[:16]}.mrc"
    if not (path.exists() and path.with_suffix(".json").exists()):
        image, truth = simulate_micrograph(settings, make_specimen(), seed)
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(image.astype(np.int16))
            file.voxel_size = settings.pixel_size
        truth.save(path.with_suffix(".json"))
    return path, MovieTruth.load(path.with_suffix(".json"))


def read(path: Path) -> Image:
    """Return the counts of a micrograph."""
    return np.asarray(mrcfile.read(path), dtype=np.float32)
