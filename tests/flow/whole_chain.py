"""The whole workflow with its real declarations and light work: each job writes the files that the real one writes, with a word in them.

Each movie has ten particles. A round of classification reads all of their files, and of its particles half are selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beamside.errors import ProcessingError
from beamside.formats.star import StarBlock, write_star
from beamside.jobs.base import Item, JobType, Result, Workspace
from beamside.jobs.class2d import Classification2d
from beamside.jobs.ctf import CtfEstimation
from beamside.jobs.extract import Extraction, particles_block
from beamside.jobs.importing import ImportMovies
from beamside.jobs.motion import MotionCorrection
from beamside.jobs.pick import Picking
from beamside.jobs.select import Selection

PARTICLES = 10


def begin(job: type[JobType], item: Item, workspace: Workspace) -> None:
    """Note the call, and read what the job says that it reads."""
    with (workspace.root / "calls.txt").open("a") as calls:
        calls.write(f"{job.name} {Path(item.name).name}\n")
    for role in (role for port in job.inputs if port.takes == "each" for role in port.reads):
        workspace.absolute(item.output(role)).read_bytes()


def write(item: Item, workspace: Workspace, **suffixes: str) -> dict[str, str]:
    found = {}
    for role, suffix in suffixes.items():
        path = workspace.path(item, suffix)
        path.write_text(role)
        found[role] = workspace.relative(path)
    return found


class Motion(MotionCorrection):
    """Stands for motion correction."""

    work = f"{__name__}:correct"


def correct(item: Item, parameters: Any, workspace: Workspace) -> Result:
    begin(Motion, item, workspace)
    if "bad" in item.name:
        raise ProcessingError("no frames worth a sum")
    outputs = write(
        item,
        workspace,
        micrograph=".mrc",
        power_spectrum="_PS.mrc",
        thumbnail="_thumbnail.jpg",
        motion_plot="_motion.png",
        motion_star=".star",
    )
    metrics = dict.fromkeys(("motion_total", "motion_early", "motion_late"), 1.0)
    return Result(metrics, outputs, {"pixel_size": workspace.optics.pixel_size, "shape": [64, 64]})


class Ctf(CtfEstimation):
    """Stands for CTF estimation."""

    work = f"{__name__}:fit"


def fit(item: Item, parameters: Any, workspace: Workspace) -> Result:
    begin(Ctf, item, workspace)
    outputs = write(item, workspace, ctf_spectrum=".ctf", ctf_plot="_ctf.png", ctf_image="_ctf.jpg")
    resolution = 8.0 if "poor" in item.name else 4.0
    metrics = {"astigmatism": 100.0, "ctf_score": 0.1, "ctf_resolution": resolution, "defocus": 15000.0}
    table = f"{workspace.job}/micrographs_ctf.star"
    values = {"micrograph_pixel_size": 1.0, "micrographs_star": table, "defocus_u": 15050.0, "defocus_v": 14950.0}
    return Result(metrics, outputs, {**values, "defocus_angle": 10.0})


class Pick(Picking):
    """Stands for picking."""

    work = f"{__name__}:pick"


def pick(item: Item, parameters: Any, workspace: Workspace) -> Result:
    begin(Pick, item, workspace)
    references = item.shared["references"].output("averages") if item.shared else ""
    seen = workspace.absolute(references).read_text() if references else ""
    outputs = write(
        item, workspace, coordinates="_autopick.star", candidates="_candidates.star", picks_image="_picks.jpg"
    )
    values = {"max_diameter": 180.0, **({"references": seen} if seen else {})}
    return Result({"particles": float(PARTICLES), "pick_score": 0.5}, outputs, values)


class Extract(Extraction):
    """Stands for extraction."""

    work = f"{__name__}:extract"


def extract(item: Item, parameters: Any, workspace: Workspace) -> Result:
    begin(Extract, item, workspace)
    outputs = write(item, workspace, particles=".mrcs", particles_image="_particles.jpg")
    star = workspace.path(item, "_extract.star")
    rows: list[list[str | int | float]] = [
        [1.0, 2.0, 0.5, 0, 0.0, f"{number:06d}@{outputs['particles']}", item.output("micrograph"), 1, *[1.0] * 8]
        for number in range(1, PARTICLES + 1)
    ]
    write_star(star, [particles_block(rows)])
    outputs["particles_star"] = workspace.relative(star)
    values = {"image_pixel_size": 4.0, "image_size": 64, "box": 256}
    return Result({"extracted": float(PARTICLES), "at_edge": 0.0}, outputs, values)


class Classify(Classification2d):
    """Stands for classification."""

    work = f"{__name__}:classify"


def classify(items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool) -> Result:
    for item in items:
        for role in Classify.inputs[0].reads:
            workspace.absolute(item.output(role)).read_bytes()
    total = sum(item.inputs["particles"].result.metrics["extracted"] for item in items)
    stem = f"{workspace.job}/run_it{int(round_name[5:]):03d}"
    outputs = {role: f"{stem}_{role}.star" for role in ("data", "model", "sampling", "optimiser")}
    outputs |= {"classes": f"{stem}_classes.mrcs", "classes_image": f"{stem}_classes.png"}
    for path in outputs.values():
        workspace.absolute(path).parent.mkdir(parents=True, exist_ok=True)
        workspace.absolute(path).write_text(f"{total:g} particles")
    values = {"final": final, "round": round_name, "of": [item.output("micrograph") for item in items]}
    return Result({"classified": total}, outputs, values)


class Select(Selection):
    """Stands for class selection."""

    work = f"{__name__}:select"


def select(items: Sequence[Item], parameters: Any, workspace: Workspace, *, round_name: str, final: bool) -> Result:
    for role in Select.inputs[0].reads:
        workspace.absolute(items[0].output(role)).read_bytes()
    with (workspace.root / "rounds.txt").open("a") as rounds:
        rounds.write(f"{round_name}\n")
    selected = items[0].inputs["classes"].result.metrics["classified"] / 2
    table, averages = f"{workspace.job}/particles.star", f"{workspace.job}/class_averages.star"
    whole = f"{workspace.job}/{Selection.published[0].file}"
    workspace.absolute(whole).parent.mkdir(parents=True, exist_ok=True)
    rows: list[list[str | int | float]] = [
        [micrograph, number] for micrograph in items[0].value("of") for number in range(PARTICLES // 2)
    ]
    write_star(workspace.absolute(whole), [StarBlock("particles", ["rlnMicrographName", "rlnImageName"], rows)])
    write_star(workspace.absolute(averages), [StarBlock("", ["rlnReferenceImage"], [["1@a.mrcs"]])])
    images = f"{workspace.job}/class_averages.mrcs"
    workspace.absolute(images).write_text(f"classes of {round_name}")
    outputs = {"particles_star": table, "whole_star": whole, "averages_star": averages, "averages": images}
    return Result({"selected": selected, "selected_classes": 3.0}, outputs, {"final": final})


WHOLE_CHAIN = (ImportMovies, Motion, Ctf, Pick, Extract, Classify, Select)
