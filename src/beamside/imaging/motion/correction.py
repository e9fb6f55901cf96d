"""Motion correction of a movie: detector correction, global and local motion, dose-weighted sum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beamside.errors import ConfigError
from beamside.imaging.dose import exposures
from beamside.imaging.gain.detector import check_gain, detector_correction, to_tensor
from beamside.imaging.motion.frames import Frame, Frames, first_look, mend
from beamside.imaging.motion.local import fit_local, tile_spectra
from beamside.imaging.motion.model import LocalMotion, fit_relion, grid_points, normalised, relion_shifts
from beamside.imaging.motion.sums import SumKinds, sum_frames
from beamside.imaging.motion.tiles import make_tiling, quick_length
from beamside.imaging.motion.whole_frame import align_frames
from beamside.imaging.motion.workers import Workers

_BINNED_PIXEL = 2.2  # Å: frames are averaged over whole pixels up to this size for the alignment
_GLOBAL_FINEST = 6.0
_START_FINEST = 9.0  # of whole frames when their tiles are looked at afterwards
_SETTLED, _START_SETTLED = 0.04, 0.3  # Å
_LOCAL_FINEST = 5.0
_TILE_EXTENT = 270.0  # Å: what a tile of the local alignment covers at least
_MOST_TILES = 144
_EARLY_EXPOSURE = 4.0
_FIT_GRID = 9


@dataclass(frozen=True)
class MotionSettings:
    """How a movie was taken and is to be corrected.

    Attributes
    ----------
    pixel_size : Å
    voltage : kV
    dose_per_frame, pre_exposure : e/Å²
    patches : rows and columns of the grid on which local motion is measured and reported; (1, 1) for global motion only
    b_factor : Å², weight of the global correlation (RELION's ``bfactor``)
    binning : factor by which the sums are made smaller, in Fourier space
    dose_weighting : make the dose-weighted sum
    plain_sum : make the plain sum too; without dose weighting it is made anyway
    even_odd : make the plain sums of the even and of the odd frames too
    """

    pixel_size: float
    voltage: float = 300.0
    dose_per_frame: float = 1.0
    pre_exposure: float = 0.0
    patches: tuple[int, int] = (5, 5)
    b_factor: float = 150.0
    binning: float = 1.0
    dose_weighting: bool = True
    plain_sum: bool = False
    even_odd: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.pixel_size) and self.pixel_size > 0):
            raise ConfigError(
                f"the pixel size is {self.pixel_size} Å; give the size of the movie's pixels on the specimen"
            )
        if not self.dose_per_frame >= 0 or not self.pre_exposure >= 0:
            raise ConfigError(
                f"the dose per frame is {self.dose_per_frame} and the pre-exposure {self.pre_exposure} e/Å²; neither can be negative"
            )
        if min(self.patches) < 1:
            raise ConfigError(f"patches are {self.patches}; give rows and columns, each 1 or more")
        if not self.binning >= 1:
            raise ConfigError(f"binning is {self.binning}; it must be 1 or more")


@dataclass
class MotionResult:
    """What motion correction gives.

    Shifts are in unbinned pixels (y, x) with RELION's sign: ``aligned(r) = frame(r - shift)``.

    Attributes
    ----------
    shape : height and width of the movie
    pixel_size : of the sums, Å (binning included)
    global_shifts : ``(n, 2)`` float64, zero in the first frame
    local_motion : the local motion with which the sums were made, on top of the global one, or None
    local_model : ``(36,)`` coefficients of RELION's motion model version 1 nearest to `local_motion`, or None
    patch_centres, patch_shifts : ``(p, 2)`` pixels and ``(p, n, 2)``, local motion at the patches
    tile_trust : mean weight of the tiles in the local fit, 1 when all agreed with it
    hot_pixels : ``(k, 2)`` hot and dead pixels (y, x) found in this movie
    binning : of the sums, as near to what was asked for as tiles of whole pixels allow (1 part in 10,000)
    average : ``(h, w)`` plain sum of the gain-corrected frames, or None
    dose_weighted : ``(h, w)`` or None
    even, odd : ``(h, w)`` plain sums of the even and the odd frames (counted from 0), or None
    power_spectrum : ``(s, s)`` amplitude spectrum of the dose-weighted sum (else of the average), frequency zero at ``(s // 2, s // 2)``
    power_spectrum_pixel_size : pixel size of an image whose spectrum reaches as far, Å
    motion_total, motion_early, motion_late : lengths of the global track in Å; early is up to 4 e/Å²
    """

    shape: tuple[int, int]
    pixel_size: float
    global_shifts: Tensor
    local_motion: LocalMotion | None
    local_model: Tensor | None
    patch_centres: Tensor
    patch_shifts: Tensor
    tile_trust: float
    hot_pixels: Tensor
    binning: float
    average: Tensor | None
    dose_weighted: Tensor | None
    even: Tensor | None
    odd: Tensor | None
    power_spectrum: Tensor
    power_spectrum_pixel_size: float
    motion_total: float
    motion_early: float
    motion_late: float

    @property
    def micrograph(self) -> Tensor:
        """The dose-weighted sum, or the plain one where no dose-weighted one was asked for."""
        image = self.average if self.dose_weighted is None else self.dose_weighted
        assert image is not None
        return image


def correct_movie(
    frames: NDArray[np.generic] | Iterable[Frame],
    gain: Frame | None,
    defects: Frame | None,
    settings: MotionSettings,
    *,
    threads: int | None = None,
    device: str = "cpu",
) -> MotionResult:
    """Correct a movie.

    Parameters
    ----------
    frames : ``(n, h, w)`` counts, or an iterable of frames ``(h, w)``, kept in memory in their own type; a sequence other than a list or tuple is
        asked for each frame twice instead, by several threads
    gain : ``(h, w)`` that multiplies the counts, or None; zero marks a defect
    defects : ``(h, w)``, non-zero where the camera is defective, or None
    threads : used on the CPU; None for as many as torch uses
    device : "cpu" or "cuda"

    Raises
    ------
    InputError, GainError
        when frames, gain or defects do not fit together or are not usable
    """
    with Workers(threads or torch.get_num_threads() if device == "cpu" else 1) as workers:
        return _correct(Frames(frames), gain, defects, settings, torch.device(device), workers)


def model_shifts(result: MotionResult, points: Tensor) -> Tensor:
    """Return the shifts ``(n, m, 2)`` in pixels (y, x) with which the sums were made, at `points` ``(m, 2)`` in pixels (y, x)."""
    shifts = result.global_shifts[:, None].expand(-1, len(points), 2)
    return shifts if result.local_motion is None else shifts + result.local_motion.shifts(points)


def polynomial_shifts(result: MotionResult, points: Tensor) -> Tensor:
    """Return the shifts ``(n, m, 2)`` as a reader of the per-movie STAR file sees them: global shifts and RELION's polynomial."""
    frames = len(result.global_shifts)
    shifts = result.global_shifts[:, None].expand(-1, len(points), 2)
    if result.local_model is None:
        return shifts
    return shifts + relion_shifts(result.local_model, points, result.shape, frames)


def _correct(
    frames: Frames,
    gain: Frame | None,
    defects: Frame | None,
    settings: MotionSettings,
    device: torch.device,
    workers: Workers,
) -> MotionResult:
    shape, count = frames.shape, frames.count
    multiplier = None
    if gain is not None:
        check_gain(gain, shape)
        multiplier = to_tensor(gain, device).to(torch.float32)
    factor = max(1, min(int(_BINNED_PIXEL / settings.pixel_size), min(shape) // 64))
    total, binned = first_look(frames, multiplier, factor, workers, device)
    correction, hot = detector_correction(total, multiplier, defects)
    del total
    mend(binned, correction.defects, shape[1], factor, workers)
    pixel, is_local = settings.pixel_size * factor, min(settings.patches) > 1
    finest = max(_START_FINEST if is_local else _GLOBAL_FINEST, 2.1 * pixel)
    settled = _START_SETTLED if is_local else _SETTLED
    start = align_frames(binned, pixel, settings.b_factor, finest, settled=settled, workers=workers)
    global_shifts, local, trust = start * factor, None, 1.0
    # Where whole frames show nothing in common, parts of them show nothing either.
    if is_local and bool(start.any()):
        global_shifts, local, trust = _local(binned, start, factor, shape, settings, workers)
    del binned
    patches = grid_points(shape, *settings.patches).to(device)
    grid = grid_points(shape, _FIT_GRID, _FIT_GRID).to(device)

    def shifts_at(points: Tensor) -> Tensor:
        shifts = global_shifts[:, None].expand(-1, len(points), 2)
        return shifts if local is None else shifts + local.shifts(points)

    exposure = exposures(count, settings.dose_per_frame, settings.pre_exposure)
    sums = sum_frames(
        frames,
        correction,
        shifts_at,
        exposure,
        settings.pixel_size,
        settings.voltage,
        kinds=SumKinds(settings.dose_weighting, settings.plain_sum or not settings.dose_weighting, settings.even_odd),
        binning=settings.binning,
        workers=workers,
    )
    track = (global_shifts[1:] - global_shifts[:-1]).norm(dim=1) * settings.pixel_size
    early = float(track[exposure[1:].to(device) <= _EARLY_EXPOSURE].sum())
    return MotionResult(
        shape=shape,
        pixel_size=settings.pixel_size * sums.binning,
        global_shifts=global_shifts,
        local_motion=local,
        local_model=None if local is None else fit_relion(local.shifts(grid), grid, shape),
        patch_centres=patches,
        patch_shifts=torch.zeros(len(patches), count, 2, dtype=torch.float64, device=device)
        if local is None
        else local.shifts(patches).transpose(0, 1),
        tile_trust=trust,
        hot_pixels=hot,
        binning=sums.binning,
        average=sums.plain,
        dose_weighted=sums.dose_weighted,
        even=sums.even,
        odd=sums.odd,
        power_spectrum=sums.power_spectrum,
        power_spectrum_pixel_size=sums.power_spectrum_pixel_size,
        motion_total=float(track.sum()),
        motion_early=early,
        motion_late=float(track.sum()) - early,
    )


def _local(
    binned: Tensor, start: Tensor, factor: int, shape: tuple[int, int], settings: MotionSettings, workers: Workers
) -> tuple[Tensor, LocalMotion, float]:
    """Fit the local motion; returns global shifts ``(n, 2)``, local motion (both unbinned pixels, first frame zero), trust in the tiles."""
    small = (binned.shape[1], binned.shape[2])
    pixel = settings.pixel_size * factor
    area = small[0] * small[1]
    # At least the asked number of patches, at best tiles so small that the motion within each is nearly the same.
    patch = min(small[0] / settings.patches[0], small[1] / settings.patches[1])
    side = max(_TILE_EXTENT / pixel, math.sqrt(area / _MOST_TILES) * 1.25)
    side = max(32.0, min(side, patch * 1.25))
    # Transforms of such lengths are quick.
    size = 16 * round(side / 16) if side >= 64 else quick_length(round(side))
    tiling = make_tiling(small, size, size // 5)
    spectra = tile_spectra(binned, start, tiling, pixel, max(_LOCAL_FINEST, 2.1 * pixel), workers)
    positions = normalised(tiling.centres, small).to(start.device)
    tracks, trust = fit_local(spectra, positions, start, pixel, settings.dose_per_frame, workers)
    tracks = (tracks - tracks[0]) * factor
    global_shifts = tracks[:, 0].clone()
    tracks[:, 0] = 0
    return global_shifts, LocalMotion(shape, tracks), float(trust.mean())
