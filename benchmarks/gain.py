"""Finding how a gain reference lies: how often it is decided, and rightly, by counts and movies; whether the errors are true; how long it takes.

``python -m benchmarks.gain --seeds 40`` simulates cameras (6 % of pattern, columns and blocks as well as pixels, hot pixels) with a specimen that has
contrast at all scales, turns and inverts the reference at random, and compares it with growing numbers of movies, as a session does. No program
that is installed here does the same, so there is no peer in the table.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from beamside.formats.orientation import ORIENTATIONS, Orientation
from beamside.imaging.gain.orientation import Verdict, compare, compared_window
from beamside.simulate.gain import gain_reference

Image = npt.NDArray[np.float32]
MOVIES = (1, 2, 4, 8, 16)
COUNTS = (0.1, 0.3, 1.0, 3.0, 10.0, 40.0)


def scene(side: int, rng: np.random.Generator) -> Image:
    """Return a specimen with texture at all scales, an edge and uneven light, 1 on average."""
    texture = sum(gaussian_filter(rng.normal(size=(side, side)), s) * s for s in (1, 2, 4, 16))
    y, x = np.mgrid[0:side, 0:side] / side
    image = (1.2 - (y - 0.3) ** 2 - (x - 0.6) ** 2) * np.where(x + 0.3 * y > 0.9, 0.7, 1.0) * np.exp(0.05 * texture)
    return np.asarray(image / image.mean(), np.float32)


def movie(response: Image, counts: float, rng: np.random.Generator) -> Image:
    """Return the sum of the frames of a movie, with hot pixels."""
    total = rng.poisson(counts * response * scene(len(response), rng)).astype(np.float32)
    hot = np.random.default_rng(1).integers(0, len(response), (2, max(1, response.size // 100_000)))
    total[hot[0], hot[1]] += 1000
    return total


def turned(image: Image, orientation: Orientation) -> Image:
    """Return the image that `orientation` brings to `image`."""
    image = image[::-1] if orientation.flip == "up-down" else image
    image = image[:, ::-1] if orientation.flip == "left-right" else image
    return np.ascontiguousarray(np.rot90(image, orientation.rotate // 90))


def look(total: Image, reference: Image) -> Verdict:
    """Compare as a session does."""
    shape = (total.shape[0], total.shape[1])
    return compare(total[compared_window(shape, 1.0)], reference, shape)


def decisions(side: int, seeds: int) -> None:
    """Print how often it is decided, and how often wrongly."""
    print(f"\nDecided rightly / wrongly of {seeds} cameras of {side}², by counts per pixel of a movie and movies")
    print(f"{'counts':>8} " + "".join(f"{number:>14}" for number in MOVIES))
    for counts in COUNTS:
        right: Counter[int] = Counter()
        wrong: Counter[int] = Counter()
        for seed in range(seeds):
            rng = np.random.default_rng([seed, round(100 * counts)])
            gain = gain_reference((side, side), 10_000 + seed).gain
            response = np.asarray(1 / gain, dtype=np.float32)
            truth, divide = ORIENTATIONS[int(rng.integers(8))], bool(rng.integers(2))
            reference = turned(np.asarray(1 / gain if divide else gain, dtype=np.float32), truth)
            total = np.zeros((side, side), np.float32)
            for number in range(1, MOVIES[-1] + 1):
                total += movie(response, counts, rng)
                if number not in MOVIES:
                    continue
                found = look(total, reference)
                if found.kind == "clear" and found.best is not None:
                    good = found.best.orientation == truth and found.best.mode == ("divide" if divide else "multiply")
                    (right if good else wrong)[number] += 1
        print(f"{counts:8g} " + "".join(f"{right[number]:>9} / {wrong[number]:<2}" for number in MOVIES), flush=True)


def calibration(side: int, seeds: int) -> None:
    """Print how slopes of wrong orientations and of foreign references spread in units of their errors."""
    own: list[float] = []
    foreign: list[float] = []
    kinds: Counter[str] = Counter()
    corrected: Counter[str] = Counter()
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 77])
        gain = gain_reference((side, side), 20_000 + seed).gain
        total = movie(np.asarray(1 / gain, dtype=np.float32), 10.0, rng)
        found = look(total, gain)
        own += [match.slope / match.error for match in found.matches if match.orientation != Orientation()]
        other = look(total, gain_reference((side, side), 30_000 + seed).gain)
        foreign += [match.slope / match.error for match in other.matches]
        kinds[other.kind] += 1
        corrected[look(total * gain, gain).kind] += 1
    print(
        f"\nSlopes that should be 0, in units of their errors ({seeds} cameras of {side}², one movie of 10 counts per pixel)"
    )
    print(f"{'':24}{'number':>8}{'mean':>8}{'deviation':>11}{'beyond 2':>10}{'beyond 3':>10}{'largest':>9}")
    for name, values in (("wrong orientations", own), ("references of others", foreign), ("normal distribution", [])):
        if values:
            z = np.array(values)
            beyond = [float((np.abs(z) > limit).mean()) for limit in (2, 3)]
            print(
                f"{name:24}{len(z):8}{z.mean():8.2f}{z.std():11.3f}{beyond[0]:10.2%}{beyond[1]:10.2%}{np.abs(z).max():9.2f}"
            )
        else:
            print(f"{name:24}{'':8}{0:8.2f}{1:11.3f}{0.0455:10.2%}{0.0027:10.2%}")
    print(f"references of others: {dict(kinds)}; frames that were corrected: {dict(corrected)}")


def seconds(sides: tuple[int, ...]) -> None:
    """Print how long a comparison takes once frames are summed."""
    print("\nComparison with all orientations, one thread (the sum of the frames is read besides)")
    for side in sides:
        gain = gain_reference((side, side), 1).gain
        total = np.random.default_rng(1).poisson(40 / gain).astype(np.float32)
        begun = time.process_time()
        found = look(total, turned(gain, Orientation(90)))
        used = time.process_time() - begun
        best = found.matches[0]
        print(
            f"{side:6}²  {used:6.2f} CPU-s  {found.kind}: {best.orientation}, slope {best.slope:+.3f} ± {best.error:.4f}, margin {found.margin:.0f} σ"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--null-seeds", type=int, default=400)
    given = parser.parse_args()
    seconds((1024, 2048, 4096))
    calibration(given.size, given.null_seeds)
    decisions(given.size, given.seeds)


if __name__ == "__main__":
    main()
