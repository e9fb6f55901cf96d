"""Finding that movies need a gain reference: how often it is said of uncorrected movies, and of movies that need none, by counts and movies.

``python -m benchmarks.gain_needed --seeds 20 --first 1000`` simulates cameras and scenes. The constants were set on seeds below 1000, so judge on
others. No program that is installed here does the same, so there is no peer in the table.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from beamside.imaging.gain.need import shared_pattern
from beamside.simulate.gain import gain_reference

Image = npt.NDArray[np.float32]
Rng = np.random.Generator
MOVIES = (2, 4, 8, 16)
COUNTS = (0.3, 1.0, 3.0, 10.0, 40.0)


@dataclass(frozen=True)
class Case:
    """A camera with what was done to its counts; `response` of a pixel to electrons, `corrected` by that times the residual."""

    name: str
    needs: bool
    response: Callable[[int, Rng], Image]
    scene: Callable[[int, Rng, Rng], Image]
    corrected: bool = False
    residual: float = 0.0
    defects: bool = False


def usual(side: int, rng: Rng) -> Image:
    """Return the response of the simulated microscope's camera: pixels, columns, blocks."""
    return np.asarray(1 / gain_reference((side, side), int(rng.integers(1 << 30))).gain, np.float32)


def pixels(side: int, rng: Rng) -> Image:
    """Return pixels that differ by 4 %."""
    return np.asarray(np.exp(rng.normal(0, 0.04, (side, side))), np.float32)


def columns(side: int, rng: Rng) -> Image:
    """Return columns that differ by 4 %."""
    return np.broadcast_to(np.exp(rng.normal(0, 0.04, (1, side))), (side, side)).astype(np.float32)


def doubled(side: int, rng: Rng) -> Image:
    """Return pixels of a camera that differ by 6 %, each as four of a super-resolution movie."""
    return np.kron(np.exp(rng.normal(0, 0.06, (side // 2, side // 2))), np.ones((2, 2))).astype(np.float32)


def tailed(side: int, rng: Rng) -> Image:
    """Return pixels that differ by some 10 %, some of them far more."""
    return np.asarray(np.exp(0.07 * rng.standard_t(3, (side, side)).clip(-8, 8)), np.float32)


def texture(side: int, rng: Rng) -> Image:
    """Return contrast of ice and specimen at all scales."""
    return np.asarray(sum(gaussian_filter(rng.normal(size=(side, side)), s) * s for s in (1, 2, 4, 16)), np.float32)


def ice(side: int, own: Rng, shared: Rng) -> Image:
    """Return ice of uneven thickness in uneven light, another in each movie."""
    y, x = np.mgrid[0:side, 0:side] / side
    return np.asarray((1.2 - (y - 0.3) ** 2 - (x - 0.6) ** 2) * np.exp(0.05 * texture(side, own)), np.float32)


def carbon(side: int, own: Rng, shared: Rng) -> Image:
    """Return a carbon film's edge, at another place in each movie."""
    y, x = np.mgrid[0:side, 0:side] / side
    angle, at = own.uniform(0, 2 * np.pi), own.uniform(-0.3, 0.3)
    film = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) > at
    return np.asarray(ice(side, own, shared) * np.where(film, 0.6, 1.0), np.float32)


def beam(side: int, own: Rng, shared: Rng) -> Image:
    """Return the beam's edge with its fringes, at the same place in all movies."""
    y, x = np.mgrid[0:side, 0:side] - side / 2
    from_edge = 0.55 * side - np.hypot(x + 5, y - 20)
    fringes = 1 + 0.15 * np.cos(from_edge.clip(0) ** 1.5 / 30) * np.exp(-from_edge.clip(0) / 40)
    return np.asarray(ice(side, own, shared) * (0.02 + fringes / (1 + np.exp(-from_edge / 2))), np.float32)


def bar(side: int, own: Rng, shared: Rng) -> Image:
    """Return a grid bar that is as sharp as a pixel and lies at the same place in all movies."""
    y, x = np.mgrid[0:side, 0:side]
    return np.asarray(ice(side, own, shared) * np.where(x + 0.31 * y < 0.3 * side, 0.1, 1.0), np.float32)


def again(side: int, own: Rng, shared: Rng) -> Image:
    """Return one specimen, exposed in each movie a few pixels elsewhere."""
    image = np.exp(0.05 * texture(side, np.random.default_rng(int(shared.integers(1, 2)))))
    return np.asarray(np.roll(image, tuple(own.integers(-12, 13, 2)), (0, 1)), np.float32)


CASES = (
    Case("usual camera, ice", True, usual, ice),
    Case("usual camera, carbon", True, usual, carbon),
    Case("usual camera, beam edge", True, usual, beam),
    Case("usual camera, grid bar", True, usual, bar),
    Case("pixels 4 %", True, pixels, ice),
    Case("columns 4 %", True, columns, ice),
    Case("super-resolution, 6 %", True, doubled, ice),
    Case("far outliers", True, tailed, carbon, defects=True),
    Case("corrected, ice", False, usual, ice, True),
    Case("corrected, carbon", False, usual, carbon, True),
    Case("corrected, beam edge", False, usual, beam, True),
    Case("corrected, grid bar", False, usual, bar, True),
    Case("corrected, same area again", False, usual, again, True),
    Case("corrected to 1 %", False, usual, ice, True, 0.01),
    Case("corrected to 2 %", False, tailed, carbon, True, 0.02),
    Case("corrected, dead columns", False, usual, ice, True, 0.0, True),
)


def movies(case: Case, side: int, counts: float, number: int, seed: int) -> list[Image]:
    """Return the sums of the frames of movies."""
    camera, shared = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    response = case.response(side, camera)
    left = np.exp(camera.normal(0, case.residual, (side, side))).astype(np.float32) / response
    hot = camera.integers(0, side, (2, max(1, side * side // 100_000)))
    dead = camera.integers(0, side, 3)
    found = []
    for index in range(number):
        own = np.random.default_rng([seed, 3, index])
        image = case.scene(side, own, shared)
        total = own.poisson(counts * image / image.mean() * response).astype(np.float32)
        total[hot[0], hot[1]] += own.poisson(1000, hot.shape[1])
        if case.defects:
            total[:, dead] = 0
        found.append(total * left if case.corrected else total)
    return found


def main() -> None:
    """Print a table for each kind of camera and scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--only", default="", help="only cases with this in their names")
    given = parser.parse_args()
    print(
        f"Said to need a reference / to need none, of {given.seeds} cameras of {given.size}², by counts per pixel and movies"
    )
    print(f"{'':28}{'counts':>7} " + "".join(f"{number:>10}" for number in MOVIES) + "   mean pattern")
    for case in (case for case in CASES if given.only in case.name):
        for counts in COUNTS:
            said: dict[int, Counter[str]] = {number: Counter() for number in MOVIES}
            strengths = []
            for seed in range(given.first, given.first + given.seeds):
                sums = movies(case, given.size, counts, MOVIES[-1], seed)
                for number in MOVIES:
                    pattern = shared_pattern(sums[:number])
                    said[number][pattern.kind] += 1
                strengths.append(pattern.strength)
            cells = "".join(f"{said[number]['needed']:>6} /{said[number]['clean']:>2}" for number in MOVIES)
            print(f"{case.name:28}{counts:7g} {cells}   {np.mean(strengths):.2%}", flush=True)


if __name__ == "__main__":
    main()
