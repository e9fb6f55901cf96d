"""The worker's part of 2D classification: gather the particles, continue from the checkpoint, write the round."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from beamside.errors import CorruptFileError, ProcessingError
from beamside.formats.star import Value
from beamside.imaging import pictures
from beamside.imaging.classify2d import ClassifySettings, FileStack, State, classify, file_stack
from beamside.imaging.classify2d.geometry import Geometry
from beamside.imaging.classify2d.shards import local_workers
from beamside.imaging.fourier import radial_average
from beamside.jobs.base import Item, Result, Row, Workspace
from beamside.jobs.class2d import Class2dParameters, mask_diameter
from beamside.jobs.class2d_files import Round, optics_members, write_round
from beamside.jobs.extract import PARTICLE_COLUMNS, micrograph_pixel_size, of_group, particles_of
from beamside.jobs.optics import OpticsTable, optics_table
from beamside.jobs.output import save_picture

SAME_SIZE = 2e-3
"""Pixel sizes that differ by less than this part of them are the same: binning by an odd factor is done by the nearest that whole pixels allow."""

USED = 0.005
"""A class is in use when it has at least this part of the particles."""

_DAMAGED = (OSError, ValueError, TypeError, KeyError, EOFError, NotImplementedError, BadZipFile)
"""What reading a file of arrays raises that is gone, or not whole."""
_MEMBERS, _PIXEL_SIZE = "members", "pixel_size"
"""The arrays of a checkpoint that name its particles, as JSON, and their pixel size."""

OF_EACH_PARTICLE = ("label", "psi", "shift", "pmax", "share", "evidence")
"""The parts of a classification's state that have a row for each particle."""


@dataclass(frozen=True)
class Gathered:
    """All particles of a round, those of the last round first and in the same order; their images stay in their files.

    Each micrograph's are a group with a noise spectrum of its own: ice is not equally thick everywhere.
    """

    members: list[tuple[str, int]]
    rows: list[list[Value]]
    stack: FileStack
    ctf: NDArray[np.float64]
    groups: NDArray[np.int64]
    known: int
    optics: OpticsTable


def classify_round(
    items: Sequence[Item], parameters: Class2dParameters, workspace: Workspace, *, round_name: str, final: bool
) -> Result:
    """Classify the particles of `items`, going on from the checkpoint in the job directory when its particles are among them."""
    job = workspace.root / workspace.job
    job.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(job)
    state, members = surviving(*checkpoint.load(), _sizes_of_stacks(items))
    gathered = gather(items, members, workspace)
    pixel_size, diameter = _sizes(items, parameters)
    settings = _settings(parameters, pixel_size, diameter, workspace)
    scaled = _same_size(checkpoint.pixel_size(), pixel_size)
    if state is not None and (gathered.known == 0 or not scaled or not _fits(state, settings, gathered.stack)):
        state = None
    with local_workers(workspace.threads if workspace.device == "cpu" else 1) as workers:
        found = classify(
            gathered.stack,
            gathered.ctf,
            gathered.groups,
            settings,
            state,
            on_iteration=lambda now: checkpoint.save(now, gathered.members, pixel_size),
            device=workspace.device,
            executor=workers,
        )
    checkpoint.save(found, gathered.members, pixel_size)
    number = file_number(job, found.iteration)
    description = _describe(found, gathered, settings, diameter, number)
    outputs = write_round(workspace.root, workspace.job, description, gathered.rows, gathered.optics)
    picture = job / f"run_it{number:03d}_classes.png"
    _save_montage(picture, found)
    used = found.class_weights >= USED
    return Result(
        metrics={
            "classified": float(len(gathered.rows)),
            "classes_used": float(used.sum()),
            "class_resolution": float(found.resolution[used].min()) if used.any() else float(pixel_size * 4),
            "iterations": float(found.iteration),
        },
        outputs={**outputs, "classes_image": workspace.relative(picture)},
        values={
            "final": final,
            "round": round_name,
            "pixel_size": pixel_size,
            **_micrograph_pixel_size(items),
            "particle_diameter": _largest_diameter(items),
            "mask_diameter": diameter,
            "class_table": _class_table(found),
        },
    )


def file_number(job: Path, iteration: int) -> int:
    """Return the number for a round's files: that of its last iteration, or the next one after the rounds that are there.

    A classification that begins anew counts its iterations from 1, and must not write over the rounds of the one before. A round counts when its
    optimiser file is there, which is written last: what a round that was cut short has left is written over.
    """
    found = (re.fullmatch(r"run_it(\d+)_optimiser\.star", path.name) for path in job.glob("run_it*_optimiser.star"))
    return max([iteration, *(int(match[1]) + 1 for match in found if match)])


class Checkpoint:
    """The state of a classification and the particles it is about, in one file in the job directory.

    Earlier versions wrote the particles to a file beside it. A worker that died between the two left a state with particles of another one, which
    their number does not tell when it happens to be the same.
    """

    def __init__(self, job: Path) -> None:
        self.path, self.earlier_members_path = job / "checkpoint.npz", job / "checkpoint_members.json"

    def load(self) -> tuple[State | None, list[tuple[str, int]]]:
        """Return the state and its particles: (stack, number of particles), in order; (None, []) when there is none that is whole."""
        try:
            state, members = State.load(self.path), self._members()
        except (*_DAMAGED, CorruptFileError):
            return None, []
        return (state, members) if len(state.label) == sum(count for _, count in members) else (None, [])

    def save(self, state: State, members: list[tuple[str, int]], pixel_size: float = 0.0) -> None:
        """Replace the checkpoint; `pixel_size` (Å) is that of the particles, and so of the averages."""
        listed = np.frombuffer(json.dumps(members).encode(), dtype=np.uint8)
        state.save(self.path, **{_MEMBERS: listed, _PIXEL_SIZE: np.array(pixel_size)})
        self.earlier_members_path.unlink(missing_ok=True)

    def pixel_size(self) -> float:
        """Return the pixel size in Å of the particles; 0 where it is not known, as from an earlier version."""
        try:
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return float(stored[_PIXEL_SIZE]) if _PIXEL_SIZE in stored.files else 0.0
        except _DAMAGED:
            return 0.0

    def _members(self) -> list[tuple[str, int]]:
        with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            text = stored[_MEMBERS].tobytes() if _MEMBERS in stored.files else self.earlier_members_path.read_bytes()
        return [(str(name), int(count)) for name, count in json.loads(text)]


def surviving(
    state: State | None, members: list[tuple[str, int]], sizes: Mapping[str, int]
) -> tuple[State | None, list[tuple[str, int]]]:
    """Return the part of a checkpoint whose particles are still there, by stack; (None, []) when that is less than half of it.

    So a few micrographs that were taken out, or extracted again, do not cost the classes that are there.
    """
    if state is None:
        return None, []
    kept = np.array([sizes.get(name) == count for name, count in members], dtype=bool)
    if kept.all():
        return state, members
    counts = np.array([count for _, count in members])
    if 2 * counts[kept].sum() < counts.sum() or len(state.noise) != len(members):
        return None, []
    particles = np.repeat(kept, counts)
    of_each = {name: getattr(state, name)[particles] for name in OF_EACH_PARTICLE}
    annealed_at = min(state.annealed_at, int(counts[kept].sum()))
    left = replace(state, noise=state.noise[kept], annealed_at=annealed_at, **of_each)
    return left, [member for member, there in zip(members, kept, strict=True) if there]


def _stacks(items: Sequence[Item]) -> dict[str, Result]:
    """Return what was extracted, by the stack of particles."""
    extracted = (item.inputs["particles"].result for item in items if _has_particles(item))
    return {result.outputs["particles"]: result for result in extracted}


def _sizes_of_stacks(items: Sequence[Item]) -> dict[str, int]:
    return {name: int(result.metrics["extracted"]) for name, result in _stacks(items).items()}


def gather(items: Sequence[Item], members: list[tuple[str, int]], workspace: Workspace) -> Gathered:
    """Read all particles; those that the checkpoint knows come first, in its order, if all of them are still the same."""
    stacks, sizes = _stacks(items), _sizes_of_stacks(items)
    same = all(sizes.get(name) == count for name, count in members)
    first = [name for name, _ in members] if same else []
    order = [*first, *(name for name in stacks if name not in set(first))]
    if not order:
        raise ProcessingError("There are no particles to classify.")
    root, extracted = workspace.root, [item for item in items if _has_particles(item)]
    optics = optics_table(
        [Row(item, item.inputs["particles"].result, workspace.optics_of(item)) for item in extracted], workspace.optics
    )
    numbers = dict(zip(stacks, optics.numbers, strict=True))
    tables = [
        of_group(particles_of(root / stacks[name].outputs["particles_star"]).rows, numbers[name]) for name in order
    ]
    rows = [row for table in tables for row in table]
    stack = file_stack([(root / name, len(table)) for name, table in zip(order, tables, strict=True)])
    known = sum(count for _, count in members) if same else 0
    groups = np.repeat(np.arange(len(order)), [len(table) for table in tables])
    return Gathered([(name, sizes[name]) for name in order], rows, stack, _ctf(rows, optics), groups, known, optics)


def _has_particles(item: Item) -> bool:
    return "particles" in item.inputs["particles"].result.outputs


def _ctf(rows: Sequence[Sequence[Value]], optics: OpticsTable) -> NDArray[np.float64]:
    """Return (n, 4): defocus U and V in Å, angle and phase shift in degrees; where microscopes differ (n, 7), with three values of these."""
    columns = [
        PARTICLE_COLUMNS.index(name) for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
    ]
    found = np.array([[float(row[column]) for column in columns] for row in rows], dtype=np.float64)
    microscopes = [(group.voltage, group.spherical_aberration, group.amplitude_contrast) for group in optics.groups]
    if len(set(microscopes)) == 1:
        return found
    return np.hstack([found, np.array(microscopes, dtype=np.float64)[optics_members(optics, rows)]])


def _sizes(items: Sequence[Item], parameters: Class2dParameters) -> tuple[float, float]:
    """Return the particles' pixel size and the diameter of the mask, in Å."""
    sizes = [
        (float(item.inputs["particles"].value("image_pixel_size")), int(item.inputs["particles"].value("image_size")))
        for item in items
        if _has_particles(item)
    ]
    (pixel_size, size), different = sizes[0], {(f"{pixel:.4g}", size) for pixel, size in sizes}
    if any(abs(pixel / pixel_size - 1) > SAME_SIZE or other != size for pixel, other in sizes):
        listed = " and ".join(f"{size} px of {pixel} Å" for pixel, size in sorted(different))
        raise ProcessingError(
            f"Particles of different sizes cannot be classified together: {listed}. Extract them at one size, or classify them in jobs of their own."
        )
    return pixel_size, mask_diameter(parameters, _largest_diameter(items), size * pixel_size)


def _micrograph_pixel_size(items: Sequence[Item]) -> dict[str, float]:
    """Return the pixel size in Å of the micrographs, in whose pixels particles have their coordinates: of several, that of the first.

    There is none where whoever made the particles does not tell it.
    """
    known = micrograph_pixel_size(next(item.inputs["particles"] for item in items if _has_particles(item)))
    return {"micrograph_pixel_size": known} if known else {}


def _largest_diameter(items: Sequence[Item]) -> float:
    """Return the largest diameter in Å that particles were looked for with; 0 where that is not known."""
    return max(float(item.inputs["particles"].value("max_diameter", 0.0)) for item in items)


def _settings(
    parameters: Class2dParameters, pixel_size: float, diameter: float, workspace: Workspace
) -> ClassifySettings:
    optics = workspace.optics
    return ClassifySettings(
        classes=parameters.classes,
        pixel_size=pixel_size,
        particle_diameter=diameter,
        voltage=optics.voltage,
        spherical_aberration=optics.spherical_aberration,
        amplitude_contrast=optics.amplitude_contrast,
        seed=parameters.class_seed,
        max_iterations=parameters.class_iterations,
        tau2_fudge=parameters.class_tau,
    )


def _same_size(one: float, other: float) -> bool:
    """Tell whether two pixel sizes are the same; one that is not known (0) is."""
    return not one or abs(one / other - 1) <= SAME_SIZE


def _fits(state: State, settings: ClassifySettings, stack: FileStack) -> bool:
    """Tell whether a classification can go on from `state`: one with more classes or boxes of another size begins anew."""
    return len(state.references) <= settings.classes and state.references.shape[-1] == stack.box


def _describe(found: State, gathered: Gathered, settings: ClassifySettings, diameter: float, number: int) -> Round:
    return Round(
        iteration=number,
        pixel_size=settings.pixel_size,
        mask_diameter=diameter,
        tau2_fudge=settings.tau2_fudge,
        seed=settings.seed,
        last_iteration=settings.max_iterations,
        shift_sd=float(found.shift_sd),
        resolution=float(found.current_resolution),
        references=found.references,
        weights=np.asarray(found.class_weights, dtype=np.float64),
        resolutions=np.asarray(found.resolution, dtype=np.float64),
        noise=shell_noise(found, gathered.stack.box, settings),
        signal=shell_power(found.references),
        groups=gathered.groups,
        labels=np.maximum(found.label, 0),
        psi=np.asarray(found.psi, dtype=np.float64),
        shifts=np.asarray(found.shift, dtype=np.float64),
        pmax=np.asarray(found.pmax, dtype=np.float64),
        evidence=np.asarray(found.evidence, dtype=np.float64),
    )


def shell_noise(found: State, box: int, settings: ClassifySettings) -> NDArray[np.float64]:
    """Return the power of each group's noise ``(groups, box // 2 + 1)`` in each Fourier shell, in RELION's scale; see `shell_power`."""
    radii = Geometry(box, settings, torch.device("cpu")).grid.radii().numpy()
    shells = np.arange(box // 2 + 1)
    return np.array([np.interp(shells, radii, noise) for noise in found.noise], dtype=np.float64) / (2.0 * box**2)


def shell_power(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean power of `images` ``(n, b, b)`` in each Fourier shell, in RELION's scale: half of |F|² with F divided by the pixels."""
    box = images.shape[-1]
    spectra = torch.fft.rfft2(torch.from_numpy(np.ascontiguousarray(images)))
    power = (spectra.real**2 + spectra.imag**2).mean(dim=0).double() / (2.0 * box**4)
    fy = torch.fft.fftfreq(box)[:, None] * box
    fx = torch.fft.rfftfreq(box)[None] * box
    shells = torch.sqrt(fy**2 + fx**2).round().long()
    return np.asarray(radial_average(power, shells, box // 2 + 1))


def _class_table(found: State) -> list[dict[str, float]]:
    """Return the classes for reports, in the order of the file."""
    counts = found.counts
    return [
        {
            "particles": int(counts[k]),
            "weight": float(found.class_weights[k]),
            "resolution": float(found.resolution[k]),
        }
        for k in range(len(found.references))
    ]


def _save_montage(path: Path, found: State) -> None:
    """Draw the classes, the largest first."""
    order = np.argsort(-found.counts, kind="stable")
    labels = [f"{found.counts[k]} · {found.resolution[k]:.0f} Å" for k in order if found.counts[k] > 0]
    shown = [k for k in order if found.counts[k] > 0]
    save_picture(path, pictures.class_montage(found.references[shown], labels))
