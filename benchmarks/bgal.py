"""Real particles of β-galactosidase (EMPIAR-10204): classes beside the labels that RELION gave them in a larger set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from beamside.formats.mrc import read_mrc
from beamside.formats.star import read_star
from beamside.imaging import pictures
from beamside.imaging.classify2d import ClassifySettings, State, classify
from beamside.simulate.score import adjusted_rand_index, purity

PIXEL_SIZE = 3.54
DIAMETER = 180.0


def show(folder: Path, classes: int, seeds: int, picture: Path | None) -> None:
    """Classify, compare with the labels, and draw the classes of the first seed."""
    images, ctf, micrograph, truth = _read(folder)
    settings = ClassifySettings(
        classes=classes,
        pixel_size=PIXEL_SIZE,
        particle_diameter=DIAMETER,
        voltage=200.0,
        spherical_aberration=1.4,
        amplitude_contrast=0.1,
    )
    print(f"{len(images)} particles of {len(np.unique(micrograph))} micrographs, K={classes}")
    print("seed  classes  resolution  best/median Å   ARI   ARI of merged labels  purity  psi within 15°")
    for seed in range(1, seeds + 1):
        found = classify(images, ctf, None, ClassifySettings(**{**settings.__dict__, "seed": seed}))
        merged = _merged(truth, found.label)
        used = found.counts > 0.005 * len(images)
        print(
            f"{seed:4d} {used.sum():8d} {found.current_resolution:11.1f}"
            f" {found.resolution[used].min():8.1f} /{np.median(found.resolution[used]):5.1f}"
            f" {adjusted_rand_index(found.label, truth[:, 0]):6.2f} {adjusted_rand_index(found.label, merged):12.2f}"
            f" {purity(found.label, truth[:, 0]):17.2f} {_psi_agreement(found, truth):9.2f}"
        )
        if picture is not None and seed == 1:
            _draw(picture, found)


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return images, CTFs, micrograph, and RELION's class, psi and origin (y, x in pixels) of each particle."""
    table = read_star(folder / "truth" / "matched_particles_class2d_labels_3mics.star")["particles"]
    stacks: dict[str, np.ndarray] = {}
    images = []
    for name in table.texts("rlnImageName"):
        number, path = name.split("@")
        if path not in stacks:
            stacks[path] = np.asarray(read_mrc(folder / path), np.float32)
        images.append(stacks[path][int(number) - 1])
    columns = {name: np.array(table.floats(name)) for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")}
    ctf = np.column_stack([*columns.values(), np.zeros(len(images))])
    _, micrograph = np.unique(table.texts("rlnMicrographName"), return_inverse=True)
    names = ("rlnClassNumber", "rlnAnglePsi", "rlnOriginYAngst", "rlnOriginXAngst")
    truth = np.column_stack([table.floats(name) for name in names])
    return np.stack(images), ctf, micrograph, truth


def _merged(truth: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return RELION's labels with those together whose particles are mostly in one of our classes: its classes hold each view several times."""
    merged = np.empty(len(truth), np.int64)
    for each in np.unique(truth[:, 0]):
        members = truth[:, 0] == each
        merged[members] = np.bincount(label[members]).argmax()
    return merged


def _psi_agreement(found: State, truth: np.ndarray) -> float:
    """Return the share of particles, in pairs of a class of ours and one of RELION's that have five or more, whose rotation agrees within 15°.

    Two classes of one view differ by a rotation, which is taken as the commonest one; by chance, the share would be about 0.2 to 0.35.
    """
    agree = total = 0
    for ours in np.unique(found.label):
        for theirs in np.unique(truth[:, 0]):
            members = (found.label == ours) & (truth[:, 0] == theirs)
            if members.sum() < 5:
                continue
            turn = np.deg2rad(found.psi[members] - truth[members, 1])
            apart = np.abs(np.rad2deg(np.angle(np.exp(1j * (turn[:, None] - turn[None, :])))))
            agree += int((apart < 15).sum(1).max())
            total += int(members.sum())
    return agree / max(total, 1)


def _draw(path: Path, found: State) -> None:
    order = [label for label in np.argsort(-found.counts, kind="stable") if found.counts[label]]
    labels = [f"{found.counts[label]} · {found.resolution[label]:.0f} Å" for label in order]
    pictures.class_montage(found.references[order], labels).save(path)
