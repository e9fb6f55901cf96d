"""References for picking with templates: found, checked, and kept in the project."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.errors import BeamsideError, InputError
from beamside.formats.mrc import check_mrc_complete, read_mrc, write_mrc
from beamside.project.project import Project
from beamside.project.records import ItemState

FOLDER = "References"
LIVE = "classes"
"""What is given instead of a file for the session's own classes."""
FEWEST, LARGEST = 1, 100
"""Fewest and most references; more take long and find no more."""


def adopt_references(parameters: Any, root: Path) -> Any:
    """Return picking `parameters` whose references are a file in the project at `root`, named by its content.

    Raises
    ------
    InputError
        when they are missing or cannot be used as references; the message says which and what to do
    """
    given = parameters.pick_references
    if _is_adopted(given, root):
        return parameters
    images, pixel_size = _own_classes(root) if given == LIVE else _read(Path(given).expanduser())
    pixel_size = parameters.pick_reference_pixel_size or pixel_size
    _check(images, pixel_size, given)
    content = hashlib.sha256(np.ascontiguousarray(images).tobytes() + f"{pixel_size:.4f}".encode()).hexdigest()[:12]
    name = f"{FOLDER}/picking-{content}.mrcs"
    if not (root / name).exists():
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        write_mrc(root / name, images, pixel_size)
    return parameters.model_copy(update={"pick_references": name, "pick_reference_pixel_size": 0.0})


def read_references(path: Path) -> tuple[NDArray[np.float32], float]:
    """Return references ``(k, b, b)`` and their pixel size (Å) from an MRC stack."""
    header = check_mrc_complete(path)
    images = np.asarray(read_mrc(path), dtype=np.float32)
    return (images[None] if images.ndim == 2 else images), header.pixel_size


def _is_adopted(given: str, root: Path) -> bool:
    return given.startswith(f"{FOLDER}/picking-") and (root / given).is_file()


def _read(path: Path) -> tuple[NDArray[np.float32], float]:
    if not path.is_file():
        raise InputError(f"The picking references {path} do not exist; check --pick-references.")
    try:
        return read_references(path)
    except BeamsideError as error:
        raise InputError(
            f"The picking references cannot be used: {error} Give a stack of class averages (.mrc or .mrcs)."
        ) from error


def _check(images: NDArray[np.float32], pixel_size: float, given: str) -> None:
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


def _own_classes(root: Path) -> tuple[NDArray[np.float32], float]:
    """Return the class averages that were selected in the newest finished round of the project's own classification, the best first."""
    project = Project(root)
    job = project.load().job_of_type("select") if project.exists else None
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
