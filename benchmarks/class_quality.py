"""The class quality score: how well it tells good classes from junk, on specimens that its weights were not fitted to.

``python -m benchmarks.class_quality FOLDER`` (FOLDER is filled by `benchmarks.class_cases` where it is empty). With ``--fit`` it prints the table of
weights for `beamside.imaging.classes.quality`; with ``--data`` it also scores classes of real apoferritin; with ``--pictures`` it draws the classes.

"Left out" scores each specimen with weights fitted to the other specimens only. Area is that under the ROC curve of particles (each with the score of
its class); kept and removed are the parts of good particles and of junk on either side of the threshold.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from beamside.imaging.classes import quality
from beamside.imaging.classes.quality import LARGEST, ClassStatistics, class_scores, measure_classes
from beamside.imaging.pictures import class_montage
from benchmarks.class_cases import KINDS, Case, Classified, apoferritin, cases, classified

Array = NDArray[np.floating]

THRESHOLD = 0.4
PENALTY = 0.02
"""Of squared weights, against an error of one per particle."""


@dataclass(frozen=True)
class Sample:
    """Classes of one case: their features, and what is true."""

    name: str
    specimen: str
    classes: Classified
    features: dict[str, Array]


@dataclass(frozen=True)
class Model:
    """A fitted logistic model."""

    names: tuple[str, ...]
    mean: Array
    spread: Array
    weight: Array
    intercept: float

    def scores(self, features: dict[str, Array]) -> Array:
        table = np.stack([features[name] for name in self.names], axis=1)
        scaled = np.clip((table - self.mean) / self.spread, -LARGEST, LARGEST)
        return np.asarray(1 / (1 + np.exp(-(self.intercept + scaled @ self.weight))))


def sample(name: str, specimen: str, found: Classified) -> Sample:
    statistics = ClassStatistics(found.counts, found.resolution, found.pmax, found.evidence)
    features = measure_classes(found.averages, found.pixel_size, found.mask_diameter, statistics)
    return Sample(name, specimen, found, features)


def fit(samples: Sequence[Sample], names: Sequence[str]) -> Model:
    """Fit a logistic model to the part of each class that is good, each case weighted alike and each class by the root of its particles."""
    table = np.concatenate([np.stack([one.features[name] for name in names], axis=1) for one in samples])
    good = np.concatenate([one.classes.good for one in samples])
    weights = [np.sqrt(one.classes.counts) for one in samples]
    weight = np.concatenate([each / each.sum() for each in weights])
    mean = np.average(table, axis=0, weights=weight)
    spread = np.sqrt(np.average((table - mean) ** 2, axis=0, weights=weight)) + 1e-6
    scaled = np.clip((table - mean) / spread, -LARGEST, LARGEST)

    def cost(values: Array) -> tuple[float, Array]:
        linear = values[0] + scaled @ values[1:]
        error = weight * (np.logaddexp(0, linear) - good * linear)
        slope = weight * (1 / (1 + np.exp(-linear)) - good)
        penalty = PENALTY * len(samples)
        gradient = np.concatenate([[slope.sum()], slope @ scaled + penalty * values[1:]])
        return float(error.sum() + penalty / 2 * values[1:] @ values[1:]), gradient

    found = minimize(cost, np.zeros(1 + len(names)), jac=True, method="L-BFGS-B")
    return Model(tuple(names), mean, spread, found.x[1:], float(found.x[0]))


def roc_area(scores: Array, good: Array, junk: Array) -> float:
    """Return the chance that a good particle has a higher score than a junk one; equal scores count half."""
    difference = scores[:, None] - scores[None]
    wins = (difference > 0) + 0.5 * (difference == 0)
    pairs = good[:, None] * junk[None]
    return float((wins * pairs).sum() / max(pairs.sum(), 1e-9))


def row(name: str, found: Sequence[tuple[Sample, Array]]) -> str:
    """Return a line of the table: area, kept, removed, and what is removed of each kind."""
    kept, total, area = np.zeros(len(KINDS)), np.zeros(len(KINDS)), []
    for one, scores in found:
        table = one.classes.kinds.astype(float)
        total += table.sum(0)
        kept += table[scores >= THRESHOLD].sum(0)
        if table[:, 0].sum() and table[:, 1:].sum():
            area.append(roc_area(scores, table[:, 0], table[:, 1:].sum(1)))
    junk = total[1:].sum()
    removed = 1 - kept[1:].sum() / junk if junk else float("nan")
    kinds = "".join(f"{1 - k / t:14.2f}" if t else f"{'':>14}" for k, t in zip(kept[1:], total[1:], strict=True))
    before, after = total[0] / total.sum(), kept[0] / max(kept.sum(), 1)
    mean = np.mean(area) if area else float("nan")
    return f"{name:30}{mean:7.3f}{kept[0] / total[0]:7.3f}{removed:9.3f}{before:10.2f}{after:7.2f}{kinds}"


HEADING = f"{'':30}{'area':>7}{'kept':>7}{'removed':>9}{'pure bef.':>10}{'after':>7}" + "".join(
    f"{kind:>14}" for kind in KINDS[1:]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--fit", action="store_true", help="print weights fitted to all cases")
    parser.add_argument("--data", type=Path, help="folder of the real data")
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--only-made", action="store_true", help="take only cases that are in the folder already")
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = [
        _sample(options.folder, case, seed)
        for case in cases()
        for seed in options.seeds
        if _wanted(options, case, seed)
    ]
    names = [feature.name for feature in quality.FEATURES] or sorted(samples[0].features)
    print(HEADING)
    left_out = []
    for one in samples:
        model = fit([other for other in samples if other.specimen != one.specimen], names)
        left_out.append((one, model.scores(one.features)))
        print(row(one.name, left_out[-1:]))
    print(row("left out, all", left_out))
    if quality.FEATURES:
        print(row("built-in weights, all", [(one, class_scores(one.features)) for one in samples]))
    if options.data:
        real = sample("apoferritin (real)", "apoferritin", apoferritin(options.folder, options.data))
        model = fit(samples, names)
        print(
            row(
                real.name,
                [(real, class_scores(real.features) if quality.FEATURES else model.scores(real.features))],
            )
        )
        left_out.append((real, model.scores(real.features)))
    if options.fit:
        _print_weights(fit(samples, names))
    if options.pictures:
        _draw(options.pictures, left_out)


def _wanted(options: argparse.Namespace, case: Case, seed: int) -> bool:
    return not options.only_made or _path(options.folder, case, seed).exists()


def _path(folder: Path, case: Case, seed: int) -> Path:
    return folder / f"{case.specimen}_{case.name}_{case.box}_{seed}.npz"


def _sample(folder: Path, case: Case, seed: int) -> Sample:
    return sample(f"{case.specimen}, {case.name}, seed {seed}", case.specimen, classified(folder, case, seed))


def _print_weights(model: Model) -> None:
    print(f"INTERCEPT = {model.intercept:.3f}")
    for name, mean, spread, weight in zip(model.names, model.mean, model.spread, model.weight, strict=True):
        print(f'    Feature("{name}", "", {mean:.3f}, {spread:.3f}, {weight:.3f}),')


def _draw(folder: Path, found: Sequence[tuple[Sample, Array]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one, scores in found:
        order = [k for k in np.argsort(-scores) if one.classes.counts[k] > 0]
        labels = [f"{scores[k]:.2f} / {one.classes.good[k]:.2f} · {int(one.classes.counts[k])}" for k in order]
        sheet = class_montage(one.classes.averages[order], labels, framed=[scores[k] >= THRESHOLD for k in order])
        sheet.save(folder / f"{one.name}.png")


if __name__ == "__main__":
    main()
