"""A round of 2D classification as RELION's ``run_itNNN_*`` files: data, model, optimiser, sampling and class averages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beamside.formats.mrc import write_mrc
from beamside.formats.star import StarBlock, Value, format_rows, write_star
from beamside.formats.star_parts import Part, PartsWriter, StarParts
from beamside.jobs.extract import PARTICLE_COLUMNS, particles_star
from beamside.jobs.optics import OpticsTable

COMMENT = "RELION optimiser; version 3.1.3, written by Beamside"
"""RELION recognises the file by how the first line begins."""

PIECE = 5000
"""So many particles are written at a time."""

DATA_COLUMNS = (
    *PARTICLE_COLUMNS,
    "rlnGroupNumber",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnNormCorrection",
    "rlnLogLikeliContribution",
    "rlnMaxValueProbDistribution",
    "rlnNrOfSignificantSamples",
)


@dataclass(frozen=True)
class Round:
    """What a round found, for writing.

    Attributes
    ----------
    iteration : number in the file names
    references : ``(k, b, b)``
    weights, resolutions : ``(k,)`` fraction of the particles, Å
    noise, signal : ``(groups, b // 2 + 1)`` and ``(b // 2 + 1,)`` power of each group of particles and of the references per
        Fourier shell, in RELION's scale (transforms divided by the number of pixels)
    groups : ``(n,)`` 0-based, one for each micrograph
    labels : ``(n,)`` 0-based classes
    psi : ``(n,)`` degrees
    shifts : ``(n, 2)`` Å, y and x
    pmax, evidence : ``(n,)``
    """

    iteration: int
    pixel_size: float
    mask_diameter: float
    tau2_fudge: float
    seed: int
    last_iteration: int
    shift_sd: float
    resolution: float
    references: NDArray[np.float32]
    weights: NDArray[np.float64]
    resolutions: NDArray[np.float64]
    noise: NDArray[np.float64]
    signal: NDArray[np.float64]
    groups: NDArray[np.int64]
    labels: NDArray[np.int64]
    psi: NDArray[np.float64]
    shifts: NDArray[np.float64]
    pmax: NDArray[np.float64]
    evidence: NDArray[np.float64]


def write_round(
    root: Path, job: str, found: Round, particles: Sequence[Sequence[Value]], optics: OpticsTable
) -> dict[str, str]:
    """Write all files of a round; the optimiser, which names the others, comes last. Returns paths by role.

    `optics` are the groups whose numbers the particles have.

    The model has the optimiser's table, too: RELION 3.1 selects classes from a model and RELION 4 and 5 rank those of an optimiser, and both look
    for their tables in the file that the Select job names.
    """
    stem = f"{job}/run_it{found.iteration:03d}"
    names = {role: f"{stem}_{role}.star" for role in ("data", "model", "sampling", "optimiser")}
    names["classes"] = f"{stem}_classes.mrcs"
    write_mrc(root / names["classes"], found.references, found.pixel_size)
    groups = relion_groups(found.groups, particles)
    PartsWriter().write(
        root / names["data"],
        StarParts(particles_star(list(DATA_COLUMNS), [], optics), _data_parts(found, particles, groups)),
    )
    optimiser = _list("optimiser_general", _optimiser(found, job, names))
    write_star(
        root / names["model"], [*_model(found, names["classes"], groups, optics_members(optics, particles)), optimiser]
    )
    write_star(root / names["sampling"], [_list("sampling_general", _SAMPLING)])
    write_star(root / names["optimiser"], [optimiser], comments=[COMMENT])
    return names


@dataclass(frozen=True)
class RelionGroups:
    """Groups of particles as RELION makes and numbers them: one of each micrograph, in the order of the micrographs' names.

    RELION takes neither names nor numbers of groups from a file without ``rlnGroupName``. It sorts the particles by their micrographs and counts, and
    the tables of the model must follow that order.

    Attributes
    ----------
    numbers : number, from 1, of each of our groups
    order : our groups in RELION's order
    names : RELION's name of each, in its order: the micrograph's path without the job
    """

    numbers: dict[int, int]
    order: list[int]
    names: list[str]


def relion_groups(groups: NDArray[np.int64], particles: Sequence[Sequence[Value]]) -> RelionGroups:
    """Return the groups of `particles` (rows of `PARTICLE_COLUMNS`), whose numbers among ours are `groups` ``(n,)``."""
    column = PARTICLE_COLUMNS.index("rlnMicrographName")
    first = np.unique(groups, return_index=True)[1]
    names = {int(groups[index]): str(particles[index][column]) for index in first}
    order = sorted(names, key=lambda group: os.fsencode(names[group]))
    numbers = {group: number for number, group in enumerate(order, 1)}
    return RelionGroups(numbers, order, [_without_job(names[group]) for group in order])


def _without_job(name: str) -> str:
    """Return a path in the project without the directory of the job that made it, as RELION names groups."""
    return re.sub(r"^(?:[^/]+/)*?job\d{3,}/", "", name)


def _data_parts(found: Round, particles: Sequence[Sequence[Value]], groups: RelionGroups) -> list[Part]:
    """Return the table of the particles in pieces: the text of all of them at once would take several times the room of what it is made from."""

    def text(begin: int) -> str:
        lines = _data_lines(found, particles, groups, range(begin, min(begin + PIECE, len(particles))))
        return "".join(format_rows(lines))

    return [Part(begin, partial(text, begin)) for begin in range(0, len(particles), PIECE)]


def _data_lines(
    found: Round, particles: Sequence[Sequence[Value]], groups: RelionGroups, which: range
) -> Iterator[list[Value]]:
    class_column, psi_column = PARTICLE_COLUMNS.index("rlnClassNumber"), PARTICLE_COLUMNS.index("rlnAnglePsi")
    for index in which:
        line = list(particles[index])
        line[class_column], line[psi_column] = int(found.labels[index]) + 1, float(found.psi[index])
        y, x = found.shifts[index]
        more: list[Value] = [
            groups.numbers[int(found.groups[index])],
            0.0,
            0.0,
            float(x),
            float(y),
            1.0,
            float(found.evidence[index]),
            float(found.pmax[index]),
            1,
        ]
        yield line + more


def optics_members(optics: OpticsTable, particles: Sequence[Sequence[Value]]) -> NDArray[np.int64]:
    """Return the number, from 0, of the optics group of each particle."""
    if len(optics.groups) == 1:
        return np.zeros(len(particles), np.int64)
    column = PARTICLE_COLUMNS.index("rlnOpticsGroup")
    return np.array([int(row[column]) - 1 for row in particles], dtype=np.int64)


def _model(found: Round, classes: str, groups: RelionGroups, optics: NDArray[np.int64]) -> list[StarBlock]:
    count, box = found.references.shape[:2]
    general: dict[str, Value] = {
        "rlnReferenceDimensionality": 2,
        "rlnDataDimensionality": 2,
        "rlnOriginalImageSize": box,
        "rlnCurrentResolution": float(found.resolution),
        "rlnCurrentImageSize": min(box, 2 * int(box * found.pixel_size / found.resolution)),
        "rlnPaddingFactor": 2.0,
        "rlnIsHelix": 0,
        "rlnFourierSpaceInterpolator": 1,
        "rlnMinRadiusNnInterpolation": 10,
        "rlnPixelSize": float(found.pixel_size),
        "rlnNrClasses": count,
        "rlnNrBodies": 1,
        "rlnNrGroups": len(groups.order),
        "rlnNrOpticsGroups": int(optics.max()) + 1,
        "rlnTau2FudgeFactor": float(found.tau2_fudge),
        "rlnNormCorrectionAverage": 1.0,
        "rlnSigmaOffsetsAngst": float(found.shift_sd),
        "rlnOrientationalPriorMode": 0,
        "rlnSigmaPriorRotAngle": 0.0,
        "rlnSigmaPriorTiltAngle": 0.0,
        "rlnSigmaPriorPsiAngle": 0.0,
        "rlnLogLikelihood": float(found.evidence.sum()),
        "rlnAveragePmax": float(found.pmax.mean()),
    }
    columns = [
        "rlnReferenceImage",
        "rlnClassDistribution",
        "rlnAccuracyRotations",
        "rlnAccuracyTranslationsAngst",
        "rlnEstimatedResolution",
        "rlnOverallFourierCompleteness",
        "rlnClassPriorOffsetX",
        "rlnClassPriorOffsetY",
    ]
    table: list[list[Value]] = [
        [f"{k + 1:06d}@{classes}", float(found.weights[k]), 999.0, 999.0, float(found.resolutions[k]), 1.0, 0.0, 0.0]
        for k in range(count)
    ]
    members = np.bincount(found.groups, minlength=len(found.noise))
    mean = _mean_noise(found, np.ones(len(found.groups), bool))
    lines: list[list[Value]] = [
        [groups.numbers[group], name, int(members[group]), 1.0]
        for group, name in zip(groups.order, groups.names, strict=True)
    ]
    return [
        _list("model_general", general),
        StarBlock("model_classes", columns, table),
        *(_class_spectrum(found, k, mean) for k in range(count)),
        StarBlock(
            "model_groups", ["rlnGroupNumber", "rlnGroupName", "rlnGroupNrParticles", "rlnGroupScaleCorrection"], lines
        ),
        # of RELION 4 and 5, which have one for all groups of one optics
        *(
            _noise(found, f"model_optics_group_{number + 1}", _mean_noise(found, optics == number))
            for number in range(int(optics.max()) + 1)
        ),
        *(_noise(found, f"model_group_{groups.numbers[group]}", found.noise[group]) for group in groups.order),
    ]


def _class_spectrum(found: Round, index: int, mean: NDArray[np.float64]) -> StarBlock:
    columns = [
        "rlnSpectralIndex",
        "rlnResolution",
        "rlnAngstromResolution",
        "rlnSsnrMap",
        "rlnGoldStandardFsc",
        "rlnFourierCompleteness",
        "rlnReferenceSigma2",
        "rlnReferenceTau2",
        "rlnSpectralOrientabilityContribution",
    ]
    box = found.references.shape[-1]
    members = max(1.0, float(found.weights[index]) * len(found.labels))
    rows: list[list[Value]] = []
    for shell, (noise, signal) in enumerate(zip(mean, found.signal, strict=True)):
        frequency = shell / (box * found.pixel_size)
        sigma2 = float(noise) / members
        rows.append(
            [
                shell,
                frequency,
                1 / frequency if shell else 999.0,
                float(signal) / sigma2,
                0.0,
                1.0,
                sigma2,
                float(signal),
                0.0,
            ]
        )
    return StarBlock(f"model_class_{index + 1}", columns, rows)


def _mean_noise(found: Round, particles: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean noise of some of the particles."""
    members = np.bincount(found.groups[particles], minlength=len(found.noise))
    return np.asarray(np.average(found.noise, axis=0, weights=members))


def _noise(found: Round, name: str, noise: NDArray[np.float64]) -> StarBlock:
    box = found.references.shape[-1]
    rows: list[list[Value]] = [
        [shell, shell / (box * found.pixel_size), float(value)] for shell, value in enumerate(noise)
    ]
    return StarBlock(name, ["rlnSpectralIndex", "rlnResolution", "rlnSigma2Noise"], rows)


def _optimiser(found: Round, job: str, names: dict[str, str]) -> dict[str, Value]:
    return {
        "rlnOutputRootName": f"{job}/run",
        "rlnModelStarFile": names["model"],
        "rlnExperimentalDataStarFile": names["data"],
        "rlnOrientSamplingStarFile": names["sampling"],
        "rlnCurrentIteration": found.iteration,
        "rlnNumberOfIterations": max(found.iteration, found.last_iteration),
        "rlnDoSplitRandomHalves": 0,
        "rlnJoinHalvesUntilThisResolution": -1.0,
        "rlnAdaptiveOversampleOrder": 1,
        "rlnAdaptiveOversampleFraction": 0.999,
        "rlnRandomSeed": found.seed,
        "rlnParticleDiameter": float(found.mask_diameter),
        **_OPTIMISER,
    }


_SAMPLING: dict[str, Value] = {
    "rlnIs3DSampling": 0,
    "rlnIs3DTranslationalSampling": 0,
    "rlnPsiStep": 12.0,
    "rlnOffsetRange": 10.0,
    "rlnOffsetStep": 4.0,
    "rlnHelicalOffsetStep": -1.0,
    "rlnSamplingPerturbInstance": 0.0,
    "rlnSamplingPerturbFactor": 0.5,
    "rlnHealpixOrderOriginal": 2,
    "rlnPsiStepOriginal": 12.0,
    "rlnOffsetRangeOriginal": 10.0,
    "rlnOffsetStepOriginal": 4.0,
}

_OPTIMISER: dict[str, Value] = {
    "rlnWidthMaskEdge": 5,
    "rlnDoZeroMask": 1,
    "rlnDoSolventFlattening": 1,
    "rlnDoSolventFscCorrection": 0,
    "rlnSolventMaskName": "None",
    "rlnSolventMask2Name": "None",
    "rlnBodyStarFile": "None",
    "rlnTauSpectrumName": "None",
    "rlnMaximumCoarseImageSize": -1,
    "rlnHighresLimitExpectation": -1.0,
    "rlnLowresLimitExpectation": -1.0,
    "rlnIncrementImageSize": 10,
    "rlnDoMapEstimation": 1,
    "rlnDoFastSubsetOptimisation": 0,
    "rlnDoExternalReconstruct": 0,
    "rlnDoStochasticGradientDescent": 0,
    "rlnDoStochasticEM": 0,
    "rlnSgdInitialIterations": 50,
    "rlnSgdFinalIterations": 50,
    "rlnSgdInBetweenIterations": 200,
    "rlnSgdInitialResolution": 35.0,
    "rlnSgdFinalResolution": 15.0,
    "rlnSgdInitialSubsetSize": 100,
    "rlnSgdFinalSubsetSize": 500,
    "rlnSgdMuFactor": 0.0,
    "rlnSgdSigma2FudgeInitial": 8.0,
    "rlnSgdSigma2FudgeHalflife": -1,
    "rlnSgdSkipAnneal": 0,
    "rlnSgdSubsetSize": -1,
    "rlnSgdWriteEverySubset": 1,
    "rlnSgdStepsize": 0.5,
    "rlnDoAutoRefine": 0,
    "rlnAutoLocalSearchesHealpixOrder": 4,
    "rlnNumberOfIterWithoutResolutionGain": 0,
    "rlnBestResolutionThusFar": 0.0,
    "rlnNumberOfIterWithoutChangingAssignments": 0,
    "rlnDoSkipAlign": 0,
    "rlnDoSkipRotate": 0,
    "rlnOverallAccuracyRotations": 999.0,
    "rlnOverallAccuracyTranslationsAngst": 999.0,
    "rlnChangesOptimalOrientations": 999.0,
    "rlnChangesOptimalOffsets": 999.0,
    "rlnChangesOptimalClasses": 9999999.0,
    "rlnSmallestChangesOrientations": 999.0,
    "rlnSmallestChangesOffsets": 999.0,
    "rlnSmallestChangesClasses": 9999999,
    "rlnLocalSymmetryFile": "None",
    "rlnDoHelicalRefine": 0,
    "rlnIgnoreHelicalSymmetry": 0,
    "rlnFourierMask": "None",
    "rlnHelicalTwistInitial": 0.0,
    "rlnHelicalRiseInitial": 0.0,
    "rlnHelicalCentralProportion": 0.3,
    "rlnNrHelicalNStart": 1,
    "rlnHelicalMaskTubeInnerDiameter": -1.0,
    "rlnHelicalMaskTubeOuterDiameter": -1.0,
    "rlnHelicalSymmetryLocalRefinement": 0,
    "rlnHelicalSigmaDistance": -1.0,
    "rlnHelicalKeepTiltPriorFixed": 0,
    "rlnHasConverged": 0,
    "rlnHasHighFscAtResolLimit": 0,
    "rlnHasLargeSizeIncreaseIterationsAgo": 0,
    "rlnDoCorrectNorm": 1,
    "rlnDoCorrectScale": 1,
    "rlnDoCorrectCtf": 1,
    "rlnDoIgnoreCtfUntilFirstPeak": 0,
    "rlnCtfDataArePhaseFlipped": 0,
    "rlnDoOnlyFlipCtfPhases": 0,
    "rlnRefsAreCtfCorrected": 1,
    "rlnFixSigmaNoiseEstimates": 0,
    "rlnFixSigmaOffsetEstimates": 0,
    "rlnMaxNumberOfPooledParticles": 6,
}


def _list(name: str, values: dict[str, Value]) -> StarBlock:
    return StarBlock(name, list(values), [list(values.values())], loop=False)
