"""References for picking with templates: found, checked, and kept in the project."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.errors import BeamsideError, InputError
from beamside.formats.mrc import check_mrc_complete, read_mrc, read_sections, write_mrc
from beamside.formats.references import reference_files
from beamside.project.project import Project
from beamside.project.records import ItemState, JobEntry, ProjectState

FOLDER = "References"
LIVE = "classes"
"""What is given instead of a file for the session's own classes; with a label where several jobs select some."""
_SETTLED = {"pick_reference_pixel_size": 0.0, "pick_reference_protein": "auto"}
"""What is said of the references once they are in the project: their copy has this in it."""
FEWEST, LARGEST = 1, 100
"""Fewest and most references; more take long and find no more."""


def adopt_references(parameters: Any, root: Path) -> Any:
    """Return picking `parameters` whose references are a file in the project at `root`, named by its content.

    What is said of a copy that is in the project already, its pixel size or that protein is black in it, makes another one.

    Raises
    ------
    InputError
        when they are missing or cannot be used as references; the message says which and what to do
    """
    given = parameters.pick_references
    protein, adopted = parameters.pick_reference_protein, _is_adopted(given, root)
    if adopted and not parameters.pick_reference_pixel_size and protein != "black":
        return parameters.model_copy(update=_SETTLED)
    live = given.partition(":")[0] == LIVE
    images, pixel_size = _own_classes(root, given.partition(":")[2]) if live else _read(given, root)
    pixel_size = parameters.pick_reference_pixel_size or pixel_size
    check_references(images, pixel_size, given)
    looked_at = protein == "auto" and not adopted  # the project's copy is white
    if not live and (protein == "black" or (looked_at and not protein_is_white(images))):
        images = -images
    content = hashlib.sha256(np.ascontiguousarray(images).tobytes() + f"{pixel_size:.4f}".encode()).hexdigest()[:12]
    name = f"{FOLDER}/picking-{content}.mrcs"
    if not (root / name).exists():
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        write_mrc(root / name, images, pixel_size)
    return parameters.model_copy(update={"pick_references": name, **_SETTLED})


def read_references(path: Path) -> tuple[NDArray[np.float32], float]:
    """Return references ``(k, b, b)`` and their pixel size (Å) from an MRC stack."""
    header = check_mrc_complete(path)
    images = np.asarray(read_mrc(path), dtype=np.float32)
    return (images[None] if images.ndim == 2 else images), header.pixel_size


def _is_adopted(given: str, root: Path) -> bool:
    return given.startswith(f"{FOLDER}/picking-") and (root / given).is_file()


def protein_is_white(images: NDArray[np.float32]) -> bool:
    """Tell whether the images ``(k, b, b)`` are brighter in the middle (half of their width) than at their rims, on average."""
    size = images.shape[-1]
    axis = np.arange(size) - size // 2
    radius = np.hypot(axis[:, None], axis[None, :])
    deviation = images.std(axis=(1, 2))
    seen = images[deviation > 0] / deviation[deviation > 0, None, None]  # empty ones say nothing
    return bool(seen[:, radius <= size / 4].mean() >= seen[:, radius > 0.45 * size].mean())


def _read(given: str, root: Path) -> tuple[NDArray[np.float32], float]:
    """Return the references of a stack or of a STAR file; a relative path is taken from here or from the project."""
    path = Path(given).expanduser()
    if not path.is_file() and (root / path).is_file():
        path = root / path
    if not path.is_file():
        raise InputError(f"The picking references {path} do not exist; check --pick-references.")
    try:
        if path.suffix == ".star":
            return _of_star(path, root)
        return read_references(path)
    except BeamsideError as error:
        raise InputError(
            f"The picking references cannot be used: {error} Give a stack of class averages (.mrc or .mrcs), or a STAR file that lists some."
        ) from error


def _of_star(path: Path, root: Path) -> tuple[NDArray[np.float32], float]:
    """Return the images that a STAR file lists, in its order."""
    files = reference_files(path, root)
    headers = {file.path: check_mrc_complete(file.path) for file in files}
    if len({header.shape[1:] for header in headers.values()}) > 1:
        raise InputError("its images differ in size.")
    images = []
    for file in files:
        first = file.section or 0
        found = read_sections(file.path, first, None if file.section is None else first + 1)
        if not len(found):
            raise InputError(f"{file.path} has no image {first + 1}.")
        images.append(found.astype(np.float32))
    return np.concatenate(images), max(header.pixel_size for header in headers.values())


def check_references(images: NDArray[np.float32], pixel_size: float, given: str) -> None:
    """Raise InputError for images that cannot be picking references; `given` names them."""
    if images.shape[-1] != images.shape[-2]:
        raise InputError(
            f"The picking references {given} are {images.shape[-1]} × {images.shape[-2]} pixels; class averages are square."
        )
    if not FEWEST <= len(images) <= LARGEST:
        raise InputError(
            f"There are {len(images)} picking references in {given}; give 1 to {LARGEST}, one for each view."
        )
    if not np.isfinite(images).all() or not images.std(axis=(1, 2)).any():
        raise InputError(
            f"The picking references {given} are empty or have values that are not finite; give class averages."
        )
    if not 0.1 <= pixel_size <= 50:
        raise InputError(
            f"The file {given} does not say the pixel size of the picking references; add --pick-reference-pixel-size."
        )


def _own_classes(root: Path, label: str) -> tuple[NDArray[np.float32], float]:
    """Return the class averages that were selected in the newest finished round of the project's own classification, the best first.

    Where several jobs select, `label` says which is meant.
    """
    job = _selecting(root, label)
    entries = [] if job is None else list(job.items.values())
    done = [entry.result for entry in entries if entry.state is ItemState.DONE and entry.result]
    if not done:
        raise InputError(
            "The session has no classes yet to be picking references; pick by size first (--pick-method blob), or give a file."
        )
    outputs = done[-1]["outputs"]
    if "averages" not in outputs:
        raise InputError(
            "No class of the session is selected, so none can be a picking reference; lower --select-score, or give a file."
        )
    images, pixel_size = read_references(root / outputs["averages"])
    return images[:LARGEST], pixel_size


def _selecting(root: Path, label: str) -> JobEntry | None:
    """Return the job whose classes are meant; None when there is none yet."""
    project = Project(root)
    state = project.load() if project.exists else ProjectState()
    labels = dict.fromkeys(job.label or job.type_name for job in state.jobs.values() if job.type_name == "select")
    if (not label and len(labels) > 1) or (label and labels and label not in labels):
        which = f"{label} is none of" if label else "the classes may be those of any of"
        raise InputError(
            f"Several jobs may select classes, and {which} {', '.join(labels)}: say which with --pick-references {LIVE}:LABEL."
            if len(labels) > 1
            else f"No job {label!r} selects classes; {next(iter(labels))!r} does: say --pick-references {LIVE}."
        )
    return state.job_labelled(label or next(iter(labels))) if labels else None
