"""Class averages with known truth, made once and kept: simulated micrographs with hazards are over-picked, and everything is classified.

``python -m benchmarks.class_cases FOLDER --seeds 1 2`` makes them for `benchmarks.class_quality`. Each pick, where classification has moved it, is
known to be a particle, off-centre, contamination, carbon or empty ice, so each class is known by what it is made of.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from beamside.imaging.boxes import choose_box
from beamside.imaging.classes.shape import class_shapes, origins_after_recentring
from beamside.imaging.classify2d import ClassifySettings, classify
from beamside.imaging.particles import extract_particles
from beamside.imaging.picking.blobs import BlobSettings, pick_blobs
from beamside.simulate.movie import MovieSettings, MovieTruth, simulate_micrograph
from beamside.simulate.specimen import make_specimen

Array = NDArray[np.floating]

PIXEL_SIZE = 2.0
KINDS = ("particle", "off-centre", "contamination", "carbon", "empty")
CENTRED = 0.2
"""A pick is a particle when classification has moved it to within this part of the diameter of one."""
DIAMETERS = {"barrel": (130.0, 190.0), "asymmetric": (130.0, 190.0), "shell": (100.0, 140.0)}
SPACINGS = {"barrel": 230.0, "asymmetric": 230.0, "shell": 160.0}
FIELD = (1024, 1024)


@dataclass(frozen=True)
class Case:
    """How micrographs are made and picked: hazards, lowest score of a pick, further picks as parts of those found, width of the boxes."""

    name: str
    specimen: str
    box: int
    micrographs: int
    contamination: float = 0.4
    carbon: float = 0.0
    threshold: float = 6.0
    random_picks: float = 0.0
    between_picks: float = 0.0
    dose: float = 40.0
    classes: int = 12


def cases() -> list[Case]:
    """Return three conditions of each specimen."""
    found = []
    for specimen in DIAMETERS:
        number = 5 if specimen == "shell" else 10
        found += [
            Case("contaminated", specimen, 64, number, contamination=1.6, threshold=3.0),
            Case("carbon", specimen, 48, number, carbon=0.35, threshold=3.0),
            Case("empty", specimen, 56, number, threshold=5.0, random_picks=0.5, between_picks=0.2, dose=25.0),
        ]
    return found


@dataclass(frozen=True)
class Classified:
    """Classes and what they are made of.

    Attributes
    ----------
    averages : ``(k, b, b)``
    counts, resolution, pmax, evidence : ``(k,)``, see `beamside.imaging.classes.quality.ClassStatistics`
    kinds : ``(k, len(KINDS))`` number of picks of each kind
    pixel_size, mask_diameter, max_diameter : Å
    """

    averages: Array
    counts: Array
    resolution: Array
    pmax: Array
    evidence: Array
    kinds: Array
    pixel_size: float
    mask_diameter: float
    max_diameter: float

    @property
    def good(self) -> Array:
        """Part ``(k,)`` of each class that is centred particles."""
        return np.asarray(self.kinds[:, 0] / np.maximum(self.kinds.sum(1), 1))


@dataclass(frozen=True)
class Picks:
    """Particles of one case, and where they come from.

    Attributes
    ----------
    stack, ctf : ``(n, b, b)``, ``(n, 4)``
    places : ``(n, 2)`` y and x, pixels of the micrograph
    micrograph : ``(n,)`` its number
    kinds : what a place ``(m, 2)`` of each micrograph is, as numbers of `KINDS`
    pixel_size, stack_pixel_size : Å, of the micrographs and of the stack
    """

    stack: Array
    ctf: Array
    places: Array
    micrograph: NDArray[np.int64]
    kinds: Sequence[Callable[[Array], NDArray[np.int64]]]
    pixel_size: float
    stack_pixel_size: float

    @classmethod
    def together(cls, parts: Sequence[Picks]) -> Picks:
        """Put the picks of micrographs, one each, together."""
        return cls(
            np.concatenate([part.stack for part in parts]),
            np.concatenate([part.ctf for part in parts]),
            np.concatenate([part.places for part in parts]),
            np.concatenate([np.full(len(part.places), number) for number, part in enumerate(parts)]),
            [part.kinds[0] for part in parts],
            parts[0].pixel_size,
            parts[0].stack_pixel_size,
        )

    def kinds_at(self, origin: Array) -> NDArray[np.int64]:
        """Return what the particles are with these origins ``(n, 2)``, y and x in Å."""
        places, found = self.places - origin / self.pixel_size, np.zeros(len(self.places), dtype=np.int64)
        for number, kinds in enumerate(self.kinds):
            mine = self.micrograph == number
            found[mine] = kinds(places[mine])
        return found


def classified(folder: Path, case: Case, seed: int) -> Classified:
    """Return the classes of a case, from `folder` when they are there."""
    path = folder / f"{case.specimen}_{case.name}_{case.box}_{seed}.npz"
    if not path.exists():
        save(path, _particles(case, seed), DIAMETERS[case.specimen][1], case.classes, seed)
    return load(path)


def load(path: Path) -> Classified:
    """Read what `save` wrote."""
    with np.load(path) as stored:
        values: dict[str, Any] = {name: stored[name] for name in Classified.__dataclass_fields__}
    numbers: dict[str, Any] = {
        name: float(values.pop(name)) for name in ("pixel_size", "mask_diameter", "max_diameter")
    }
    return Classified(**values, **numbers)


def save(path: Path, picks: Picks, diameter: float, k: int, seed: int) -> None:
    """Classify and keep the result; the mask is as in a session, and so are the origins of particles, moved with the centres of their classes."""
    pixel_size = picks.stack_pixel_size
    mask = min(1.1 * diameter, 0.95 * picks.stack.shape[-1] * pixel_size)
    settings = ClassifySettings(classes=k, pixel_size=pixel_size, particle_diameter=mask, seed=seed)
    state = classify(picks.stack, picks.ctf, None, settings)
    count = len(state.references)
    members = [state.label == number for number in range(count)]
    centres = np.array([shape.centre for shape in class_shapes(state.references, pixel_size, mask)]) * pixel_size
    kinds = picks.kinds_at(origins_after_recentring(state.shift, state.psi, centres[state.label]))
    table = np.array([np.bincount(kinds[member], minlength=len(KINDS)) for member in members])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        averages=state.references,
        counts=state.counts,
        resolution=state.resolution,
        pmax=np.array([state.pmax[member].mean() if member.any() else 0.0 for member in members]),
        evidence=np.array([state.evidence[member].mean() if member.any() else 0.0 for member in members]),
        kinds=table,
        pixel_size=pixel_size,
        mask_diameter=mask,
        max_diameter=diameter,
    )


def _particles(case: Case, seed: int) -> Picks:
    """Simulate, pick and extract."""
    specimen, low_high = make_specimen(case.specimen), DIAMETERS[case.specimen]
    box = choose_box(low_high[1], PIXEL_SIZE)
    parts = []
    for number in range(case.micrographs):
        settings = MovieSettings(
            size=FIELD,
            frames=4,
            pixel_size=PIXEL_SIZE,
            dose_per_frame=case.dose / 4,
            contamination=case.contamination,
            carbon=case.carbon,
            particle_spacing=SPACINGS[case.specimen],
        )
        micrograph, truth = simulate_micrograph(settings, specimen, 1000 * seed + number)
        image = torch.from_numpy(micrograph)
        wanted = BlobSettings(PIXEL_SIZE, *low_high, mask=False)
        places = _with_more(_over_picked(image, wanted, case.threshold), case, truth, seed, number)
        defocus = (truth.defocus.u, truth.defocus.v, truth.defocus.angle)
        kinds = partial(_kinds, truth=truth, diameter=specimen.diameter / PIXEL_SIZE)
        parts.append(_extracted(image, places, PIXEL_SIZE, box, case.box, defocus, kinds))
    return Picks.together(parts)


def _extracted(
    image: torch.Tensor,
    places: Array,
    pixel_size: float,
    box: int,
    size: int,
    defocus: Sequence[float],
    kinds: Callable[[Array], NDArray[np.int64]],
) -> Picks:
    """Extract the boxes that lie in the micrograph, reduced to `size` pixels."""
    places = places[((places >= box // 2) & (places < np.array(image.shape) - box // 2)).all(1)]
    stack = extract_particles(image, torch.from_numpy(places).float(), box, size, pixel_size=pixel_size).numpy()
    ctf = np.tile([*defocus, 0.0], (len(places), 1))
    return Picks(
        stack, ctf, places, np.zeros(len(places), dtype=np.int64), [kinds], pixel_size, pixel_size * box / size
    )


def _over_picked(image: torch.Tensor, settings: BlobSettings, threshold: float) -> Array:
    """Return the places ``(n, 2)`` of all candidates with at least a score, which is far below what a session would accept."""
    found = pick_blobs(image, settings)
    return found.coordinates[found.scores >= threshold].numpy().astype(float)


def _with_more(places: Array, case: Case, truth: MovieTruth, seed: int, number: int) -> Array:
    rng = np.random.default_rng([seed, number, 9])
    more = [places, rng.uniform(0, 1, (int(case.random_picks * len(places)), 2)) * np.array(FIELD)]
    true = truth.particles[:, :2]
    if case.between_picks and len(true) > 1:
        distance, index = cKDTree(true).query(true, k=2)
        near = np.flatnonzero(distance[:, 1] < np.quantile(distance[:, 1], case.between_picks))
        more.append((true[near] + true[index[near, 1]]) / 2)
    return np.concatenate(more)


def _kinds(places: Array, truth: MovieTruth, diameter: float) -> NDArray[np.int64]:
    distance, _ = cKDTree(truth.particles[:, :2]).query(places)
    found = np.full(len(places), KINDS.index("empty"))
    if truth.contents.hole is not None:
        y, x, radius = truth.contents.hole
        found[np.hypot(places[:, 0] - y, places[:, 1] - x) > radius - 0.6 * diameter] = KINDS.index("carbon")
    for y, x, radius in truth.contaminants:
        found[np.hypot(places[:, 0] - y, places[:, 1] - x) < radius + 0.6 * diameter] = KINDS.index("contamination")
    found[distance < 0.8 * diameter] = KINDS.index("off-centre")
    found[distance < CENTRED * diameter] = KINDS.index("particle")
    return found


def apoferritin(folder: Path, data: Path, classes: int = 16) -> Classified:
    """Return classes of real apoferritin, over-picked; truth is one person's picks (what they passed over counts as empty)."""
    path = folder / "apoferritin.npz"
    if not path.exists():
        _apoferritin(path, data, classes)
    return load(path)


def _apoferritin(path: Path, data: Path, classes: int) -> None:
    pixel_size, parts = 1.5, []
    with open(data / "apoferritin/ctf_fit_4_not_published.csv", encoding="utf-8") as file:
        fits = {row[0]: [float(cell) for cell in row[5:8]] for row in list(csv.reader(file))[1:]}
    for number, picture in enumerate(sorted((data / "apoferritin/sum_unaligned").glob("*.png"))):
        image = torch.from_numpy(np.asarray(Image.open(picture)).astype(np.float32))
        with open(data / f"apoferritin/picks_csv/{picture.name}-points.csv", encoding="utf-8") as file:
            human = np.array([[float(y), float(x)] for x, y in csv.reader(file)])
        wanted = BlobSettings(pixel_size, 100.0, 150.0, mask=False)
        places = _over_picked(image, wanted, 3.0)
        rng = np.random.default_rng(number)
        places = np.concatenate([places, rng.uniform(0, 1, (len(places) // 3, 2)) * np.array(image.shape)])
        kinds = partial(_beside_picks, picks=human, pixel_size=pixel_size)
        parts.append(
            _extracted(image, places, pixel_size, choose_box(150.0, pixel_size), 64, fits[picture.name], kinds)
        )
    save(path, Picks.together(parts), 150.0, classes, 1)


def _beside_picks(places: Array, picks: Array, pixel_size: float) -> NDArray[np.int64]:
    distance = cKDTree(picks).query(places)[0] * pixel_size
    return np.where(distance < 40, KINDS.index("particle"), np.where(distance < 100, 1, KINDS.index("empty")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        for case in cases():
            found = classified(options.folder, case, seed)
            total = found.kinds.sum(0).astype(int)
            print(case.specimen, case.name, seed, dict(zip(KINDS, total.tolist(), strict=True)), flush=True)


if __name__ == "__main__":
    main()
