"""RELION's numbers and labels for job types, node types and job states.

RELION 3.1 reads the numbers, RELION 4 and 5 read the labels. Everything is written under table version 30001 with RELION 4's labels, which RELION 5
renames on reading; RELION 5's own names are therefore turned back into RELION 4's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, get_args

JobStatus = Literal["Running", "Scheduled", "Succeeded", "Failed", "Aborted"]

STATUSES: Final[tuple[JobStatus, ...]] = get_args(JobStatus)
"""The states of a job; the position is RELION 3.1's number."""

JOB_LABELS: Final[Mapping[int, str]] = {
    0: "relion.import",
    1: "relion.motioncorr",
    2: "relion.ctffind",
    3: "relion.manualpick",
    4: "relion.autopick",
    5: "relion.extract",
    7: "relion.select",
    8: "relion.class2d",
    9: "relion.class3d",
    10: "relion.refine3d",
    12: "relion.maskcreate",
    13: "relion.joinstar",
    14: "relion.subtract",
    15: "relion.postprocess",
    16: "relion.localres",
    18: "relion.initialmodel",
    19: "relion.multibody",
    20: "relion.polish",
    21: "relion.ctfrefine",
    22: "dynamight",
    23: "modelangelo",
    50: "relion.importtomo",
    51: "relion.pseudosubtomo",
    52: "relion.ctfrefinetomo",
    53: "relion.framealigntomo",
    54: "relion.reconstructparticletomo",
    55: "relion.aligntiltseries",
    56: "relion.reconstructtomograms",
    57: "relion.excludetilts",
    58: "relion.denoisetomo",
    59: "relion.picktomo",
    99: "relion.external",
}
"""Label of each job type number (RELION 4 and 5)."""

EXTERNAL_JOB: Final = 99

_JOB_NUMBERS: Final = {label: number for number, label in JOB_LABELS.items()}

_NODE_LABELS: Final[Mapping[int, str]] = {
    0: "MicrographMoviesData.star.relion",
    1: "MicrographsData.star.relion",
    2: "MicrographsCoords.star.relion",
    3: "ParticlesData.star.relion",
    5: "ImagesData.star.relion",
    6: "DensityMap.mrc",
    7: "Mask3D.mrc",
    8: "ProcessData.star.relion.optimiser",
    9: "ProcessData.star.relion.optimiser",
    10: "DensityMap.mrc.halfmap",
    11: "DensityMap.mrc.relion",
    12: "Image3D.mrc.localresmap",
    13: "LogFile.pdf.relion",
    14: "ProcessData.star.relion.postprocess",
    15: "ProcessData.txt.relion.polish.params",
}
"""General label of each of RELION 3.1's node type numbers (RELION 4's names)."""

_JOB_SUFFIXES: Final[Mapping[tuple[int, int], str]] = {
    (1, 1): ".motioncorr",
    (2, 1): ".ctf",
    (3, 2): ".manualpick",
    (4, 2): ".autopick",
    (5, 2): ".reextract",
    (7, 5): ".classaverages",
    (8, 3): ".class2d",
    (8, 8): ".class2d",
    (8, 9): ".class2d",
    (9, 3): ".class3d",
    (9, 8): ".class3d",
    (9, 9): ".class3d",
    (9, 6): ".relion.class3d",
    (10, 3): ".refine3d",
    (10, 9): ".refine3d",
    (10, 6): ".relion.refine3d",
    (12, 7): ".relion",
    (14, 3): ".subtracted",
    (15, 11): ".postprocess",
    (16, 11): ".localresfiltered",
    (18, 6): ".relion.initialmodel",
    (20, 3): ".polished",
    (21, 3): ".ctfrefine",
    (1, 13): ".motioncorr",
    (2, 13): ".ctffind",
    (4, 13): ".autopick",
    (15, 13): ".postprocess",
    (16, 13): ".localres",
    (19, 13): ".flexanalysis",
    (20, 13): ".polish",
    (21, 13): ".ctfrefine",
}
"""What (job type, node type) adds to the general label."""

_SPECIAL_LABELS: Final[Mapping[tuple[int, int], str]] = {
    (10, 10): "DensityMap.mrc.relion.halfmap.refine3d",
    (19, 10): "DensityMap.mrc.relion.halfmap.multibody",
    (16, 12): "Image3D.mrc.resmap.localresmap",
}

_NODE_NUMBERS: Final[tuple[tuple[str, int], ...]] = (
    # The first pattern that matches the label decides; RELION 4's and 5's names, and RELION 4's legacy ones.
    (r"MicrographMoviesData|MicrographMovieGroupMetadata|relion\.MovieStar", 0),
    (r"MicrographsData|MicrographGroupMetadata|relion\.MicrographStar", 1),
    (r"MicrographsCoords|MicrographCoordsGroup|relion\.CoordinateStar", 2),
    (r"ParticlesData|ParticleGroupMetadata|Particles\.star|relion\.ParticleStar", 3),
    (r"ImagesData|Image2DGroupMetadata|relion\.ReferenceStar", 5),
    (r"DensityMap\.mrc.*halfmap|relion\.HalfMap", 10),
    (r"DensityMap\.mrc\.relion\.(postprocess|localresfiltered)", 11),
    (r"DensityMap|relion\.DensityMap", 6),
    (r"Mask3D|relion\.Mask", 7),
    (r"Image3D\.mrc.*localresmap|relion\.LocalResolutionMap", 12),
    (r"LogFile|relion\.PdfLogfile", 13),
    (r"ProcessData\.star\.relion\.(tomo\.)?postprocess|relion\.PostprocessStar", 14),
    (r"ProcessData\.txt|ParamsData\.txt|relion\.PolishParams", 15),
    (r"ProcessData\.star\.relion\.optimiser|OptimiserData|relion\.OptimiserStar", 9),
    (r"TomoOptimisationSet|.*optimisation_set", 50),
    (r"TomogramGroupMetadata|TomogramData|.*(tomogram_set|tiltseries_set)|relion\.TomoTomogramSet", 51),
    (r"TomoTrajectoryData|TrajectoryData|.*trajectory_set|relion\.TomoTrajectorySet", 52),
    (r"TomoManifoldData|.*manifoldset|relion\.TomoManifoldSet", 53),
)

_RELION5_NAMES: Final[tuple[tuple[str, str], ...]] = (
    # RELION 5's names and RELION 4's: what RELION 5 renames on reading an older table. Its other names mean the same under either version.
    ("MicrographMovieGroupMetadata", "MicrographMoviesData"),
    ("MicrographGroupMetadata", "MicrographsData"),
    ("MicrographCoordsGroup", "MicrographsCoords"),
    ("ParticleGroupMetadata", "ParticlesData"),
    ("Image2DGroupMetadata", "ImagesData"),
    ("TomoOptimisationSet", "OptimisationSet"),
    ("TomogramGroupMetadata", "TomogramData"),
    ("TomoTrajectoryData", "TrajectoryData"),
)

_RELION5_ONLY_NAMES: Final[tuple[tuple[str, str], ...]] = (
    # What RELION 5 calls otherwise and does not rename on reading: it looks for such files under its own name, and knows them under the other.
    ("OptimiserData", "ProcessData.star.relion.optimiser"),
    ("ParamsData", "ProcessData.txt.relion.polish"),
)

_NAMES_OF_FILES: Final[tuple[tuple[str, int], ...]] = (
    (r"movies.*\.star$", 0),
    (r"(mics|micrographs).*\.star$", 1),
    (r"(coords|pick).*\.star$", 2),
    (r"(class_averages|classes).*\.(star|mrcs)$|.*\.mrcs$", 5),
    (r".*_model\.star$", 8),
    (r".*_optimiser\.star$", 9),
    (r"postprocess\.star$", 14),
    (r".*\.star$", 3),
    (r".*half.*\.mrc$", 10),
    (r".*mask.*\.mrc$", 7),
    (r".*\.mrc$", 6),
    (r".*\.pdf$", 13),
)


def job_label(number: int) -> str:
    """Return the label of a job type number; an unknown one is an external job for RELION 4 and 5."""
    return JOB_LABELS.get(number, JOB_LABELS[EXTERNAL_JOB])


def job_number(label: str) -> int:
    """Return the number of a job type label; labels with more fields ("relion.import.movies") belong to the longest known one."""
    fields = label.split(".")
    for length in range(len(fields), 0, -1):
        number = _JOB_NUMBERS.get(".".join(fields[:length]))
        if number is not None:
            return number
    return EXTERNAL_JOB


def node_label(job_type: int | None, number: int) -> str:
    """Return RELION 4's label of a node with RELION 3.1's number `number`, made by a job of type `job_type` (None when no job made it)."""
    key = (-1 if job_type is None else job_type, number)
    general = _NODE_LABELS.get(number, "ProcessData.star.relion")
    return _SPECIAL_LABELS.get(key, general + _JOB_SUFFIXES.get(key, ""))


def node_number(label: str) -> int | None:
    """Return RELION 3.1's number for a node label of RELION 4 or 5; None when 3.1 has nothing like it."""
    for pattern, number in _NODE_NUMBERS:
        if re.match(pattern, label):
            return number
    return None


def relion4_label(label: str) -> str:
    """Return the label to write under table version 30001: RELION 4's, which RELION 5 renames on reading."""
    for new, old in _RELION5_NAMES:
        if label.startswith(new):
            return old + label[len(new) :]
    return label


def browser_folders(number: int | None, label: str) -> tuple[str, ...]:
    """Return the folders in ``.Nodes`` where RELION 3.1 (by number), 4 and 5 (by the first field of their labels) look for files of a type.

    With `number` None, RELION 3.1 has no use for the file.
    """
    renamed = (new for new, old in (*_RELION5_NAMES, *_RELION5_ONLY_NAMES) if label.startswith(old))
    folders = (*(() if number is None else (str(number),)), label.split(".", maxsplit=1)[0], *renamed)
    return tuple(dict.fromkeys(folders))


def remembered_options_file(label: str) -> str:
    """Return the hidden file in which every version of RELION keeps the options that its window shows for the next job of a type."""
    return f".gui_{label.removeprefix('relion.').split('.', maxsplit=1)[0]}job.star"


def node_number_from_file(name: str) -> int:
    """Return the most likely node type number of a file that no job is known to have made, from its name."""
    file = name.rsplit("/", 1)[-1]
    return next((number for pattern, number in _NAMES_OF_FILES if re.match(pattern, file)), 3)
