"""All seven jobs of a session with their real declarations and no numerics, for `benchmarks.flow`.

Each job gives a result of the size that the real one gives. Its files are there and have nothing in them, but for the STAR file of each micrograph's
particles, which the session reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

from beamside.formats.star import Value, format_star
from beamside.jobs import registry, worker
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.class2d import Classification2d
from beamside.jobs.ctf import CtfEstimation
from beamside.jobs.extract import Extraction, particles_block
from beamside.jobs.motion import MotionCorrection
from beamside.jobs.pick import Picking
from beamside.jobs.select import Selection


def _outputs(item: Item, workspace: Workspace, **suffixes: str) -> dict[str, str]:
    """Make the files that the real job writes, empty."""
    outputs = {role: f"{workspace.job}/{item.name}{suffix}" for role, suffix in suffixes.items()}
    workspace.path(item, "")
    for path in outputs.values():
        workspace.absolute(path).touch()
    return outputs


class Motion(MotionCorrection):
    """Stands for motion correction."""

    work = f"{__name__}:correct"


def correct(item: Item, parameters: Any, workspace: Workspace) -> Result:
    """Give what a movie gives."""
    outputs = _outputs(
        item,
        workspace,
        micrograph=".mrc",
        power_spectrum="_PS.mrc",
        thumbnail="_thumbnail.jpg",
        motion_plot="_motion.png",
        motion_star=".star",
    )
    metrics = {"motion_total": 21.3, "motion_early": 9.1, "motion_late": 12.2}
    return Result(metrics, outputs, {"pixel_size": workspace.optics.pixel_size, "shape": [64, 64]})


class Ctf(CtfEstimation):
    """Stands for CTF estimation."""

    work = f"{__name__}:fit"


def fit(item: Item, parameters: Any, workspace: Workspace) -> Result:
    """Give what a micrograph gives."""
    outputs = _outputs(item, workspace, ctf_spectrum=".ctf", ctf_plot="_ctf.png", ctf_image="_ctf.jpg")
    metrics = {"astigmatism": 101.7, "ctf_score": 0.123, "ctf_resolution": 4.17, "defocus": 15003.5}
    table = f"{workspace.job}/micrographs_ctf.star"
    values = {"micrograph_pixel_size": 1.0, "micrographs_star": table, "defocus_u": 15050.3, "defocus_v": 14950.7}
    return Result(metrics, outputs, {**values, "defocus_angle": 10.4})


class Pick(Picking):
    """Stands for picking."""

    work = f"{__name__}:pick"


def pick(item: Item, parameters: Any, workspace: Workspace) -> Result:
    """Give what a micrograph gives."""
    outputs = _outputs(
        item, workspace, coordinates="_autopick.star", candidates="_candidates.star", picks_image="_picks.jpg"
    )
    return Result({"particles": float(Extract.particles), "pick_score": 0.52}, outputs, {"max_diameter": 180.0})


@cache
def _particles_text(number: int) -> str:
    """Return a STAR file of the particles of a micrograph named MICROGRAPH in the stack STACK."""
    rows: list[list[Value]] = [
        [
            *(17.0 + 9 * index % 4000, 31.0 + 7 * index % 4000, 0.8, 0, 0.0),
            *(f"{index:06d}@STACK", "MICROGRAPH", 1, 4.17, 0.123, 15050.3, 14950.7, 10.4, 0.0, 1.0, 0.0),
        ]
        for index in range(1, number + 1)
    ]
    return format_star([particles_block(rows)])


class Extract(Extraction):
    """Stands for extraction; each micrograph has `particles` of them."""

    particles: ClassVar[int] = 100

    work = f"{__name__}:extract"


def extract(item: Item, parameters: Any, workspace: Workspace) -> Result:
    """Give what a micrograph gives, and write the table of its particles."""
    outputs = _outputs(
        item, workspace, particles=".mrcs", particles_image="_particles.jpg", particles_star="_extract.star"
    )
    text = _particles_text(Extract.particles).replace("STACK", outputs["particles"])
    path = workspace.path(item, "_extract.star")
    path.write_text(text.replace("MICROGRAPH", item.output("micrograph")))
    values = {"image_pixel_size": 4.0, "image_size": 64, "box": 256}
    return Result({"extracted": float(Extract.particles), "at_edge": 0.0}, outputs, values)


class Classify(Classification2d):
    """Stands for classification."""

    work = f"{__name__}:classify"


def classify(items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool) -> Result:
    """Count what there is to classify."""
    total = sum(item.inputs["particles"].result.metrics["extracted"] for item in items)
    stem = f"{workspace.job}/run_it{int(round_name[5:]):03d}"
    outputs = {role: f"{stem}_{role}.star" for role in ("data", "model", "sampling", "optimiser")}
    outputs |= {"classes": f"{stem}_classes.mrcs", "classes_image": f"{stem}_classes.png"}
    for path in outputs.values():
        workspace.absolute(path).parent.mkdir(parents=True, exist_ok=True)
        workspace.absolute(path).write_text(f"{total:g} particles")
    return Result({"classified": total}, outputs, {"final": final, "round": round_name})


class Select(Selection):
    """Stands for class selection."""

    work = f"{__name__}:select"


def select(items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool) -> Result:
    """Select half of what was classified."""
    outputs = {
        role: f"{workspace.job}/{name}.star"
        for role, name in (("particles_star", "particles"), ("averages_star", "class_averages"))
    }
    for path in outputs.values():
        workspace.absolute(path).parent.mkdir(parents=True, exist_ok=True)
        workspace.absolute(path).write_text(round_name)
    selected = items[0].inputs["classes"].result.metrics["classified"] / 2
    return Result({"selected": selected}, outputs, {"final": final})


def _no_limit(threads: int) -> None:
    """The session's process must not import torch."""


def install(particles: int) -> None:
    """Let sessions of this process do the light work, with so many particles a micrograph."""
    Extract.particles = particles
    registry.BUILT_IN.update({kind.name: kind for kind in (Motion, Ctf, Pick, Extract, Classify, Select)})
    worker._limit_threads = _no_limit
