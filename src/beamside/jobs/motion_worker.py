"""The worker's part of motion correction: read the movie, correct it, write what came out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from beamside.acquisition.readiness import inspect_file
from beamside.errors import GainError, ProcessingError
from beamside.formats.movies import Movie, open_movie
from beamside.formats.mrc import read_mrc, write_mrc
from beamside.formats.star import StarBlock, Value, write_star
from beamside.imaging import pictures
from beamside.imaging.motion.correction import MotionResult, MotionSettings, correct_movie
from beamside.jobs.base import Item, Optics, Result, Workspace
from beamside.jobs.fractions import Fractions, fractions
from beamside.jobs.motion import MotionParameters, relion_gain
from beamside.jobs.output import save_picture

_HELD_BYTES = 1_500_000_000
"""Movies of more decoded bytes than this (super-resolution, 32-bit) are read twice instead of being held in memory."""
_LARGEST_FLOAT16 = 65504.0


def correct(item: Item, parameters: MotionParameters, workspace: Workspace) -> Result:
    """Correct the movie of `item`; the per-movie STAR file is written last but one, the record of it after all files."""
    source = item.inputs["movies"].result
    if source.values.get("gain_error"):
        raise GainError(str(source.values["gain_error"]))
    optics = workspace.optics
    gain_file, defects_file = source.values.get("gain"), source.values.get("defects")
    divided = _fractions(item, parameters, workspace)
    upsampling = 1 if divided.rendering is None else divided.rendering.upsampling
    with open_movie(workspace.absolute(source.outputs["movie"]), divided.rendering) as movie:
        corrected = correct_movie(
            _frames(movie, workspace.threads),
            _image(workspace.absolute(gain_file), upsampling) if gain_file else None,
            _image(workspace.absolute(defects_file), upsampling) if defects_file else None,
            MotionSettings(
                pixel_size=optics.pixel_size,
                voltage=optics.voltage,
                dose_per_frame=divided.dose,
                pre_exposure=parameters.pre_exposure,
                patches=(parameters.patches_y, parameters.patches_x),
                b_factor=parameters.motion_b_factor,
                binning=parameters.binning,
                dose_weighting=parameters.dose_weighting,
                plain_sum=parameters.save_unweighted,
                even_odd=parameters.even_odd,
            ),
            threads=workspace.threads if workspace.device == "cpu" else 1,
            device=workspace.device,
        )
    outputs = _write(item, corrected, parameters, workspace)
    star = workspace.path(item, ".star")
    write_star(star, motion_star(corrected, item, parameters, optics, divided))
    return Result(
        metrics={
            "motion_total": corrected.motion_total,
            "motion_early": corrected.motion_early,
            "motion_late": corrected.motion_late,
            "local_motion": _local_motion(corrected) * optics.pixel_size,
            **({} if divided.rendering is None else {"left_over": divided.left_over}),
        },
        outputs={**outputs, "motion_star": workspace.relative(star)},
        values={
            "pixel_size": corrected.pixel_size,
            "shape": list(corrected.micrograph.shape),
            "spectrum_pixel_size": corrected.power_spectrum_pixel_size,
            "frames": len(corrected.global_shifts),
            "hot_pixels": len(corrected.hot_pixels),
            "dose_per_frame": divided.dose,
            **{
                name: source.values[name] for name in ("gain", "gain_sha256", "defects_sha256") if name in source.values
            },
            **({} if divided.rendering is None else {"raw_frames_per_fraction": divided.rendering.group}),
        },
    )


def _fractions(item: Item, parameters: MotionParameters, workspace: Workspace) -> Fractions:
    """Return how the movie is divided; its number of frames was counted when it was taken in."""
    source = item.inputs["movies"].result
    movie = source.outputs["movie"]
    frames = source.values.get("frames") or inspect_file(str(workspace.absolute(movie))).frames
    return fractions(movie, int(frames), parameters, workspace.optics)


class _OnDemand(Sequence[NDArray[Any]]):
    """The frames of an open movie, each read when it is asked for."""

    def __init__(self, movie: Movie) -> None:
        self._movie = movie

    def __len__(self) -> int:
        return self._movie.frames

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[Any]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any] | Sequence[NDArray[Any]]:
        if isinstance(index, slice):
            return [self._movie.frame(number) for number in range(len(self))[index]]
        return self._movie.frame(index)


def _frames(movie: Movie, threads: int) -> NDArray[Any] | Sequence[NDArray[Any]]:
    """Return the frames: in memory when they are small enough, else read twice."""
    size = movie.frames * movie.shape[0] * movie.shape[1] * movie.dtype.itemsize
    return movie.read(threads=threads) if size <= _HELD_BYTES else _OnDemand(movie)


def motion_star(
    corrected: MotionResult, item: Item, parameters: MotionParameters, optics: Optics, divided: Fractions
) -> list[StarBlock]:
    """Return RELION's per-movie STAR file, motion model version 1 (version 0 without local motion); all shifts in unbinned pixels."""
    source = item.inputs["movies"].result
    height, width = corrected.shape
    frames = len(corrected.global_shifts)
    general: dict[str, Value] = {
        "rlnImageSizeX": width,
        "rlnImageSizeY": height,
        "rlnImageSizeZ": frames,
        "rlnMicrographMovieName": source.outputs["movie"],
        **({"rlnMicrographGainName": gain_name} if (gain_name := relion_gain(source.values)) else {}),
        "rlnMicrographBinning": float(corrected.binning),
        "rlnMicrographOriginalPixelSize": float(optics.pixel_size),
        "rlnMicrographDoseRate": float(divided.dose),
        "rlnMicrographPreExposure": float(parameters.pre_exposure),
        "rlnVoltage": float(optics.voltage),
        "rlnMicrographStartFrame": 1,
        **_rendering(divided),
        "rlnMotionModelVersion": 0 if corrected.local_model is None else 1,
    }
    shifts = corrected.global_shifts.tolist()
    blocks = [
        StarBlock("general", list(general), [list(general.values())], loop=False),
        StarBlock(
            "global_shift",
            ["rlnMicrographFrameNumber", "rlnMicrographShiftX", "rlnMicrographShiftY"],
            [[index + 1, float(x), float(y)] for index, (y, x) in enumerate(shifts)],
        ),
    ]
    if corrected.local_model is not None:
        coefficients: list[list[Value]] = [
            [index, float(value)] for index, value in enumerate(corrected.local_model.tolist())
        ]
        blocks.append(StarBlock("local_motion_model", ["rlnMotionModelCoeffsIdx", "rlnMotionModelCoeff"], coefficients))
    if len(corrected.hot_pixels):
        spots: list[list[Value]] = [[float(x), float(y)] for y, x in corrected.hot_pixels.tolist()]
        blocks.append(StarBlock("hot_pixels", ["rlnCoordinateX", "rlnCoordinateY"], spots))
    if corrected.local_motion is not None:
        blocks.append(_local_shifts(corrected))
    return blocks


def _rendering(divided: Fractions) -> dict[str, Value]:
    """Return what RELION's Polish needs to render an EER movie in the same way."""
    if divided.rendering is None:
        return {}
    return {"rlnEERUpsampling": divided.rendering.upsampling, "rlnEERGrouping": divided.rendering.group}


def _local_shifts(corrected: MotionResult) -> StarBlock:
    columns = [
        "rlnMicrographFrameNumber",
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnMicrographShiftX",
        "rlnMicrographShiftY",
    ]
    rows: list[list[Value]] = []
    for (y, x), track in zip(corrected.patch_centres.tolist(), corrected.patch_shifts.tolist(), strict=True):
        rows += [[frame + 1, float(x), float(y), float(dx), float(dy)] for frame, (dy, dx) in enumerate(track)]
    return StarBlock("local_shift", columns, rows)


def _write(item: Item, corrected: MotionResult, parameters: MotionParameters, workspace: Workspace) -> dict[str, str]:
    image = np.asarray(corrected.micrograph.cpu(), dtype=np.float32)
    paths = {
        "micrograph": workspace.path(item, ".mrc"),
        "power_spectrum": workspace.path(item, "_PS.mrc"),
        "thumbnail": workspace.path(item, "_thumbnail.jpg"),
        "motion_plot": workspace.path(item, "_motion.png"),
    }
    _write_sum(paths["micrograph"], image, corrected, parameters)
    others = {"unweighted": ("_noDW.mrc", corrected.average), "even": ("_EVN.mrc", corrected.even)}
    others["odd"] = ("_ODD.mrc", corrected.odd)
    for role, (suffix, other) in others.items():
        if other is not None and other is not corrected.micrograph:
            paths[role] = workspace.path(item, suffix)
            _write_sum(paths[role], np.asarray(other.cpu(), dtype=np.float32), corrected, parameters)
    write_mrc(
        paths["power_spectrum"],
        np.asarray(corrected.power_spectrum.cpu(), dtype=np.float32),
        corrected.power_spectrum_pixel_size,
        durable=False,
    )
    save_picture(paths["thumbnail"], pictures.thumbnail(image))
    save_picture(paths["motion_plot"], _plot(corrected, parameters, workspace.optics.pixel_size))
    return {role: workspace.relative(path) for role, path in paths.items()}


def _write_sum(path: Path, image: NDArray[np.float32], corrected: MotionResult, parameters: MotionParameters) -> None:
    if not parameters.float16:
        write_mrc(path, image, corrected.pixel_size)
        return
    largest = float(np.abs(image).max())
    if largest > _LARGEST_FLOAT16:
        raise ProcessingError(
            f"{path} has values up to {largest:g}, too large for 16-bit floating-point numbers; switch float16 off"
        )
    write_mrc(path, image.astype(np.float16), corrected.pixel_size)


def _plot(corrected: MotionResult, parameters: MotionParameters, pixel_size: float) -> Image.Image:
    track = np.asarray(corrected.global_shifts.cpu())
    if corrected.local_motion is None:
        return pictures.motion_plot(track, None, pixel_size)
    patches = (corrected.patch_shifts + corrected.global_shifts[None]).cpu().numpy()
    grid = patches.reshape(parameters.patches_y, parameters.patches_x, *patches.shape[1:])
    return pictures.motion_plot(track, grid, pixel_size)


def _local_motion(corrected: MotionResult) -> float:
    """Return the largest distance, in pixels, between two moments of the local motion of any patch."""
    if corrected.local_motion is None:
        return 0.0
    spread = corrected.patch_shifts.amax(dim=1) - corrected.patch_shifts.amin(dim=1)
    return float(torch.linalg.vector_norm(spread, dim=-1).max())


def _image(path: Path, upsampling: int) -> NDArray[np.float32]:
    return _cached_image(str(path), path.stat().st_mtime_ns, upsampling)


@lru_cache(maxsize=2)
def _cached_image(path: str, _changed: int, upsampling: int) -> NDArray[np.float32]:
    """Gain references are the same for all movies of a session, and large. Rendered parts of a pixel share its gain and its defects."""
    image = np.asarray(read_mrc(path), dtype=np.float32)
    image = image[0] if image.ndim == 3 else image
    return image if upsampling == 1 else image.repeat(upsampling, axis=0).repeat(upsampling, axis=1)
