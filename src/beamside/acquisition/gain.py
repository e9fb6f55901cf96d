"""Preparing the camera's gain reference and defects, so that they fit the movies as they lie in the project.

The orientation follows RELION and MotionCor2: first a rotation, clockwise as seen with row 0 at the top, then a flip. A gain reference may
have 2 or 4 times the pixels of the movie along each side (a super-resolution reference for binned movies, which is averaged) or 1/2 or
1/4 (a physical reference for super-resolution movies, which is repeated). What is written is always multiplied: a reference that divides is
inverted here, and scaled so that its mean does not matter. Pixels that are not positive numbers are marked by 0, which motion correction treats
as defects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beamside.acquisition.defects import read_defects
from beamside.errors import BeamsideError, GainError, GainNotReadyError, NotReadyError
from beamside.formats.image import IMAGE_SUFFIXES, read_image
from beamside.formats.mrc import write_mrc
from beamside.formats.orientation import RATIOS, Flip, Orientation, Rotation, fitting_orientations, fitting_ratio

_MOST_UNUSABLE = 0.5
_MANY_UNUSABLE = 0.01


@dataclass(frozen=True)
class PreparedGain:
    """A gain reference that fits.

    Attributes
    ----------
    path : the MRC file that was written, float32
    shape : (height, width), as the movies
    defects : number of pixels without a usable gain
    ratio : pixels of the source to one of the movie along a side: 0.25, 0.5, 1, 2 or 4
    warnings : sentences about what looks unusual
    """

    path: Path
    shape: tuple[int, int]
    defects: int
    ratio: float
    warnings: tuple[str, ...] = ()


def prepare_gain(
    source: str | Path,
    movie_shape: tuple[int, int],
    *,
    flip: Flip = "none",
    rotate: Rotation = 0,
    divide: bool = False,
    output: str | Path,
    reciprocal: str | Path | None = None,
    name: str = "",
) -> PreparedGain:
    """Read a gain reference, bring it to the orientation and size of the movies, and write it as MRC.

    Parameters
    ----------
    source : MRC, TIFF (also named ``.gain``), DM3 or DM4
    movie_shape : (height, width) of the movies
    flip : mirroring, after the rotation
    rotate : degrees clockwise, as seen with row 0 at the top
    divide : frames are to be divided by the reference
    output : the MRC file to write
    reciprocal : for EER movies, another MRC file to write: RELION divides them by a reference in MRC, relative to its mean. The gain gets the
        scale that this gives, so that sums count electrons whatever the reference's unit
    name : what to call the reference in messages, when `source` is a copy of it

    Raises
    ------
    GainError
        When the file is missing or unreadable, does not fit the movies, or holds no gain.
    """
    path = Path(name or source)
    orientation = Orientation(rotate, flip)
    gain = np.ascontiguousarray(orientation.apply(read_gain(source, name)))
    fitted, ratio = _fit(gain, movie_shape, path)
    if divide:
        fitted = _invert(fitted)
    defects = int((fitted == 0).sum())
    part = defects / fitted.size
    if part > _MOST_UNUSABLE:
        raise GainError(
            f"The gain reference {path} has no usable value in {part:.0%} of its pixels: is it another image? Check --gain."
        )
    warnings: tuple[str, ...] = ()
    if part > _MANY_UNUSABLE:
        warnings += (f"The gain reference {path} has no usable value in {part:.1%} of its pixels.",)
    if reciprocal is not None:
        fitted = _write_reciprocal(fitted, reciprocal)
    mean = float(fitted[fitted > 0].mean())
    if not 0.1 < mean < 10:
        warnings += (
            f"The gain reference {path} has a mean of {mean:.3g}, and 1 is usual: counts in the sums are scaled by that.",
        )
    write_mrc(output, fitted)
    return PreparedGain(Path(output), movie_shape, defects, ratio, warnings)


def read_gain(source: str | Path, name: str = "") -> NDArray[np.float32]:
    """Return a gain reference as it lies in its file, (height, width); raises GainError when it cannot be read."""
    return _read(Path(source), "gain reference", "--gain", name)


def check_fit(gain: tuple[int, int], movie: tuple[int, int], name: str, rotate: Rotation | None = None) -> None:
    """Raise GainError when a reference of shape `gain`, turned by `rotate` (None: in any orientation), does not fit movies of shape `movie`."""
    shape = gain if rotate is None or rotate % 180 == 0 else gain[::-1]
    fits = fitting_orientations(shape, movie) if rotate is None else fitting_ratio(shape, movie)
    if fits:
        return
    shapes = f"{shape[1]} x {shape[0]} pixels and the movies {movie[1]} x {movie[0]}"
    if fitting_orientations(shape, movie):
        raise GainError(
            f"The gain reference {name} has {shapes}: they fit when it is turned by 90 degrees; "
            "add or drop --gain-rotate 90 (or 270), or give --gain-rotate auto."
        )
    raise GainError(
        f"The gain reference {name} has {shapes}, and neither is 1, 2 or 4 times the other: give the one of this camera and mode."
    )


def _read(path: Path, what: str, flag: str, name: str = "") -> NDArray[np.float32]:
    if not path.is_file():
        raise GainNotReadyError(f"The {what} {name or path} does not exist: check {flag}.")
    try:
        return read_image(path)
    except NotReadyError as error:
        raise GainNotReadyError(f"The {what} cannot be used yet: {error}") from error
    except BeamsideError as error:
        raise GainError(f"The {what} cannot be used: {error} Check {flag}.") from error
    except OSError as error:
        raise GainNotReadyError(
            f"The {what} {name or path} cannot be read ({error.strerror}): check {flag} and the file's permissions."
        ) from error


def _fit(gain: NDArray[np.float32], movie_shape: tuple[int, int], path: Path) -> tuple[NDArray[np.float32], float]:
    check_fit((gain.shape[0], gain.shape[1]), movie_shape, str(path), rotate=0)
    usable = np.where(np.isfinite(gain) & (gain > 0), gain, 0).astype(np.float32)
    for ratio in RATIOS:
        if gain.shape == (movie_shape[0] * ratio, movie_shape[1] * ratio):
            return _average(usable, ratio), float(ratio)
    ratio = movie_shape[0] // gain.shape[0]
    return usable.repeat(ratio, axis=0).repeat(ratio, axis=1), 1 / ratio


def _invert(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what multiplies instead of dividing by `flat`: an image of even light, in whatever unit, whose mean becomes 1."""
    good = flat > 0
    mean = float(flat[good].mean(dtype=np.float64)) if good.any() else 1.0
    return np.divide(np.float32(mean), flat, out=np.zeros_like(flat), where=good)


def _write_reciprocal(gain: NDArray[np.float32], path: str | Path) -> NDArray[np.float32]:
    """Write the reciprocal of what multiplies; return that with the scale that RELION gives it: the reciprocal's mean, over all pixels, is 1."""
    inverse = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
    mean = np.float32(inverse.mean(dtype=np.float64))
    write_mrc(path, inverse / mean)
    return gain * mean


def _average(usable: NDArray[np.float32], ratio: int) -> NDArray[np.float32]:
    """Average blocks of ratio x ratio pixels over their usable ones; a block with any unusable one is a defect."""
    if ratio == 1:
        return usable
    height, width = usable.shape[0] // ratio, usable.shape[1] // ratio
    blocks = usable.reshape(height, ratio, width, ratio)
    means = blocks.mean(axis=(1, 3), dtype=np.float64)
    return np.where((blocks > 0).all(axis=(1, 3)), means, 0).astype(np.float32)


def prepare_defects(source: str | Path, movie_shape: tuple[int, int], *, output: str | Path) -> int:
    """Read the camera's defects and write them as an MRC mask (int8, 1 = defective) of the movies' shape; return how many there are.

    A mask is an MRC, TIFF or PNG image that is not 0 where a pixel is defective. It may have 2 or 4 times the pixels of the movie along each side,
    when a pixel with any defect in it is defective, or 1/2 or 1/4. A text file has lines ``x y width height`` in pixels of the movie, as
    MotionCor2's, or is SerialEM's; see `beamside.acquisition.defects`. All are in the movies' own orientation: the gain's rotation and flip do
    not apply.

    Raises
    ------
    GainError
        When the file is missing, unreadable or does not fit.
    """
    path = Path(source)
    given = read_defects(path).mask(movie_shape, path) if is_defect_list(path) else _read_mask(path)
    mask = _fit_mask(given, movie_shape, path)
    if mask.mean() > _MOST_UNUSABLE:
        raise GainError(
            f"The defects {path} cover {mask.mean():.0%} of the camera: in a mask, 0 means a good pixel. Check --defects."
        )
    write_mrc(output, mask)
    return int(mask.sum())


def check_defects(source: str | Path) -> None:
    """Raise GainError when a file of defects cannot be read; whether it fits is known when there are movies."""
    path = Path(source)
    if not is_defect_list(path):
        _read_mask(path)
        return
    defects = read_defects(path)
    if defects.camera:
        defects.mask(defects.camera, path)


def is_defect_list(path: Path) -> bool:
    """Tell whether a file of defects is a text, by its ending: an image has one of those that images have."""
    return path.suffix.lower() not in IMAGE_SUFFIXES


def _read_mask(path: Path) -> NDArray[np.bool_]:
    return np.not_equal(_read(path, "defect mask", "--defects"), 0)


def _fit_mask(mask: NDArray[np.bool_], movie_shape: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    ratio = fitting_ratio((mask.shape[0], mask.shape[1]), movie_shape)
    if ratio is None:
        raise GainError(
            f"The defects {path} are for {mask.shape[1]} x {mask.shape[0]} pixels and the movies have {movie_shape[1]} x {movie_shape[0]}, "
            "and neither is 1, 2 or 4 times the other: give those of this camera and mode."
        )
    if ratio > 1:
        step = round(ratio)
        return np.asarray(mask.reshape(movie_shape[0], step, movie_shape[1], step).any(axis=(1, 3)))
    if ratio < 1:
        return mask.repeat(round(1 / ratio), axis=0).repeat(round(1 / ratio), axis=1)
    return mask
