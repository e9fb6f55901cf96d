"""Which images a file of references stands for: a stack, or a STAR file that names images in stacks (RELION's ``rlnReferenceImage``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from beamside.errors import InputError
from beamside.formats.star import StarBlock, read_star

STACK_SUFFIXES = (".mrc", ".mrcs")
IMAGE_LABEL = "rlnReferenceImage"


@dataclass(frozen=True)
class ReferenceFile:
    """One image of a stack: `section` counts from 0; None is all of them."""

    path: Path
    section: int | None = None


def reference_files(path: Path, root: Path | None = None) -> list[ReferenceFile]:
    """Return the stacks, or images of stacks, that `path` stands for.

    Parameters
    ----------
    path : a stack (``.mrcs``, ``.mrc``), or a STAR file such as RELION's ``class_averages.star`` or ``run_itNNN_model.star``
    root : directory that names in a STAR file are relative to (RELION's project); where it is None or they are not there, the directory of the
        STAR file and those above it are tried

    Raises
    ------
    InputError
        The file, or one that it names, is missing or of another kind.
    """
    if not path.is_file():
        raise InputError(f"The references {path} do not exist: check --pick-references.")
    if path.suffix in STACK_SUFFIXES:
        return [ReferenceFile(path)]
    if path.suffix != ".star":
        raise InputError(f"The references {path} are neither a stack (.mrcs, .mrc) nor a STAR file: give one of these.")
    names = _block(path).texts(IMAGE_LABEL)
    if not names:
        raise InputError(f"The references {path} list no image: choose at least one class.")
    bases = ([root] if root is not None else []) + list(path.absolute().parents)
    return [_file(name, path, bases) for name in names]


def _block(path: Path) -> StarBlock:
    for block in read_star(path).values():
        if IMAGE_LABEL in block:
            return block
    raise InputError(f"The STAR file {path} has no column {IMAGE_LABEL}: give a class_averages.star or a model.star.")


def _file(name: str, star: Path, bases: list[Path]) -> ReferenceFile:
    """Return the image of a name such as ``000003@Class2D/job007/run_it025_classes.mrcs``."""
    number, separator, file = name.rpartition("@")
    if separator and not (number.isdecimal() and int(number) > 0):
        raise InputError(
            f"{star} names the image {name!r}, which does not begin with a number from 1: repair that row."
        )
    found = next((base / file for base in bases if (base / file).is_file()), None)
    if found is None:
        raise InputError(f"{star} names {file}, which is not in {bases[0]}: give references whose stack is there.")
    return ReferenceFile(found, int(number) - 1 if separator else None)
