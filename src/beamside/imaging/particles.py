"""Cutting particles out of micrographs: boxes, rescaling, normalisation.

The conventions are those of ``relion_preprocess --extract`` (RELION 3.1, compared to float32 rounding by the peers' tests): coordinates are cut down
to whole pixels, the picked pixel becomes pixel ``box // 2``, boxes that reach over the edge are filled by repeating the edge pixels, rescaling
crops the Fourier transform, and only then the background (outside a circle) is brought to mean 0, without a slope, and standard deviation 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from beamside.errors import InputError
from beamside.imaging.boxes import BACKGROUND_FRACTION, good_size

_CHUNK = 32
"""Particles that are worked on at once after they are reduced: few enough that they stay in the processor's cache from step to step."""

_ROUNDING, _SAMPLED = 2e-6, 16
"""Deviations below this part of an image's values (one in `_SAMPLED` is looked at) are rounding: its background is flat."""


def choose_rescaled_box(box: int, pixel_size: float, wanted_pixel_size: float) -> int:
    """Return the size to rescale `box` to, so that its pixels become about `wanted_pixel_size` Å and never coarser; at most `box`."""
    return min(box, good_size(box * pixel_size / wanted_pixel_size))


def boxes_touch(coordinates: Tensor, shape: tuple[int, int], box: int) -> Tensor:
    """Tell which boxes have at least one pixel in a micrograph of `shape`; RELION refuses a file with any others.

    Parameters
    ----------
    coordinates : ``(n, 2)``, y and x in pixels
    """
    first = coordinates.trunc() - box // 2
    limit = torch.tensor(shape, dtype=first.dtype, device=first.device)
    return ((first + box > 0) & (first < limit)).all(dim=-1)


def extract_particles(
    micrograph: Tensor,
    coordinates: Tensor,
    box: int,
    rescaled_box: int | None = None,
    *,
    pixel_size: float = 1.0,
    rescaled_pixel_size: float | None = None,
    background_diameter: float | None = None,
    invert: bool = True,
    normalise: bool = True,
    remove_ramp: bool = True,
) -> Tensor:
    """Cut particles out of a micrograph, as RELION does; with a `rescaled_pixel_size`, resample them to pixels of just this size.

    Parameters
    ----------
    micrograph : ``(h, w)``, protein dark
    coordinates : ``(n, 2)``, y and x of the particles' centres in pixels; fractions are cut off, as RELION does
    box : edge of the box in pixels of the micrograph, even
    rescaled_box : edge after Fourier cropping, even; `box` when None
    pixel_size : Å per pixel of the micrograph
    rescaled_pixel_size : Å per pixel of the particles, where it is not what Fourier cropping gives; not below `pixel_size`, and the box must hold
        the particles
    background_diameter : in Å; pixels further than half of it from the centre are background; None is three quarters of the box
    invert : make protein white
    normalise : bring the background of each particle to mean 0 and standard deviation 1
    remove_ramp : fit the background with a plane instead of a constant

    Returns
    -------
    ``(n, b, b)`` float32

    Raises
    ------
    InputError
        A size is odd or impossible, the circle leaves no background, or a box has no pixel in the micrograph.
    """
    small = box if rescaled_box is None else rescaled_box
    _check_sizes(box, small)
    _check_inside(micrograph, coordinates, box)
    if rescaled_pixel_size is None:
        radius = background_radius(box, small, pixel_size, background_diameter)
    else:
        radius = background_radius(small, small, rescaled_pixel_size, background_diameter)
        _check_resampling(box * pixel_size, small * rescaled_pixel_size, pixel_size, rescaled_pixel_size)
    values = micrograph.float()
    # Without the mean sums stay small, and so does their rounding; a part of the rows tells it well enough.
    offset = float(values[:: max(1, len(values) // 64)].mean())
    particles = micrograph.new_empty((len(coordinates), small, small), dtype=torch.float32)
    if not len(coordinates):
        return particles
    for numbers in torch.split(_neighbours_first(coordinates, box), _CHUNK):
        if rescaled_pixel_size is None:
            resized = _cut(values, coordinates[numbers], box, small, offset)
        else:
            resized = resample(
                _cut(values, coordinates[numbers], box, box, offset), small, rescaled_pixel_size / pixel_size
            )
        if normalise:
            resized = normalise_background(resized, radius, remove_ramp=remove_ramp)
        particles[numbers] = resized
    if not normalise:
        particles += offset
    return particles.neg_() if invert else particles


def background_radius(box: int, rescaled_box: int, pixel_size: float, background_diameter: float | None) -> int:
    """Return the radius, in whole pixels of the rescaled box, outside which pixels count as background (what RELION's job passes on)."""
    if background_diameter is not None and background_diameter <= 0:
        raise InputError(
            f"The background diameter is {background_diameter:g} Å: give a positive one, or none for 75 % of the box."
        )
    diameter = BACKGROUND_FRACTION * box if background_diameter is None else background_diameter / pixel_size
    radius = int(diameter / 2 * rescaled_box / box)
    if 2 * radius >= rescaled_box:
        raise InputError(
            f"A background diameter of {diameter * pixel_size:g} Å leaves no background in a box of {box * pixel_size:g} Å: "
            "make the box larger or the diameter smaller."
        )
    return radius


def normalise_background(images: Tensor, radius: float, *, remove_ramp: bool = True) -> Tensor:
    """Subtract the background's plane (or mean) and divide by its standard deviation; a flat background becomes 0, but for rounding.

    Parameters
    ----------
    images : ``(n, b, b)``
    radius : pixels further than this from pixel ``b // 2`` are background
    """
    basis, projector, average = _background_fit(images.shape[-1], radius, remove_ramp, images.device)
    flat = images.flatten(1)
    flat = torch.addmm(flat, flat @ projector, basis, alpha=-1)
    # The plane takes the mean along, all but for rounding.
    flat -= flat @ average
    deviation = (flat.square() @ average).sqrt()
    rounding = _ROUNDING * images.flatten(1)[:, ::_SAMPLED].abs().amax(dim=1, keepdim=True)
    flat /= torch.where(deviation > rounding, deviation, torch.ones_like(deviation))
    return flat.reshape(images.shape)


def rescale(images: Tensor, size: int) -> Tensor:
    """Rescale square images ``(n, N, N)`` to ``(n, size, size)`` by cropping their Fourier transforms; the mean stays.

    Rows are transformed; of the columns only those that are kept are reduced, by one matrix product. Of the components at the new Nyquist
    frequency those with positive frequency along y are kept, as RELION's windowing does.
    """
    full = images.shape[-1]
    if size == full:
        return images
    rows, signs = _row_reduction(full, size, images.device)
    return _finished(rows @ _kept_columns(images, size), signs)


def resample(images: Tensor, size: int, step: float) -> Tensor:
    """Resample square images ``(n, N, N)`` to ``(n, size, size)`` with pixels that are `step` old ones wide, around the same middle; the mean stays.

    What is finer than the new pixels can hold is left out, as cropping a Fourier transform does; here the new pixels may have any size.
    """
    rows = _resampling(images.shape[-1], size, step, images.device)
    return rows @ images @ rows.T


def _check_resampling(box: float, wanted: float, pixel_size: float, rescaled_pixel_size: float) -> None:
    if wanted > box * (1 + 1e-6):
        raise InputError(f"Particles {wanted:g} Å wide do not fit into a box of {box:g} Å: make the box larger.")
    if rescaled_pixel_size < pixel_size * (1 - 1e-6):
        raise InputError(
            f"Particles cannot have pixels of {rescaled_pixel_size:g} Å where those of the micrograph are {pixel_size:g} Å: make them coarser."
        )


def _check_sizes(box: int, small: int) -> None:
    for name, value in (("box", box), ("rescaled box", small)):
        if value < 4 or value % 2:
            raise InputError(f"The {name} is {value} pixels: give an even number of at least 4.")
    if small > box:
        raise InputError(
            f"The rescaled box ({small} pixels) is larger than the box ({box} pixels): make it smaller or equal."
        )


def _check_inside(micrograph: Tensor, coordinates: Tensor, box: int) -> None:
    outside = ~boxes_touch(coordinates, (micrograph.shape[-2], micrograph.shape[-1]), box)
    if outside.any():
        index = int(outside.nonzero()[0, 0])
        y, x = coordinates[index].tolist()
        raise InputError(
            f"The box of particle {index + 1} (x {x:g}, y {y:g}) lies completely outside the micrograph of "
            f"{micrograph.shape[-1]} x {micrograph.shape[-2]} pixels: check that the coordinates belong to it."
        )


def _neighbours_first(coordinates: Tensor, box: int) -> Tensor:
    """Return the particles' numbers ``(n,)`` row by row of half boxes, so that overlapping boxes are read one after the other, from the cache."""
    rows, columns = (coordinates.cpu().double() * torch.tensor([2 / box, 1.0])).trunc().T
    by_column = columns.argsort(stable=True)
    order: Tensor = by_column[rows[by_column].argsort(stable=True)]
    return order


def _cut(micrograph: Tensor, coordinates: Tensor, box: int, size: int, offset: float) -> Tensor:
    """Return the boxes around `coordinates` less `offset`, rescaled to ``(n, size, size)``: one after the other, in the processor's cache."""
    corners = (coordinates.trunc().long() - box // 2).tolist()
    if size == box:
        cut = micrograph.new_empty((len(corners), box, box))
        for image, corner in zip(cut, corners, strict=True):
            torch.sub(_box(micrograph, corner, box), offset, out=image)
        return cut
    rows, signs = _row_reduction(box, size, micrograph.device)
    held = micrograph.new_empty((box, box))
    reduced = micrograph.new_empty((len(corners), size + 1, 2 * (size // 2 + 1)))
    for image, corner in zip(reduced, corners, strict=True):
        torch.sub(_box(micrograph, corner, box), offset, out=held)
        torch.mm(rows, _kept_columns(held, size), out=image)
    return _finished(reduced, signs)


def _box(micrograph: Tensor, corner: list[int], box: int) -> Tensor:
    """Return the box ``(box, box)`` from `corner` (y, x) on: a view, or a copy with edge pixels repeated outside of the micrograph."""
    height, width = micrograph.shape
    y, x = corner
    if y >= 0 and x >= 0 and y + box <= height and x + box <= width:
        # One step instead of two slices, which take a tenth as long as all that follows.
        row, column = micrograph.stride()
        view: Tensor = micrograph.as_strided(
            (box, box), (row, column), int(micrograph.storage_offset()) + y * row + x * column
        )
        return view
    inside = micrograph[max(y, 0) : y + box, max(x, 0) : x + box]
    margins = (max(-x, 0), max(x + box - width, 0), max(-y, 0), max(y + box - height, 0))
    return functional.pad(inside[None, None], margins, mode="replicate")[0, 0]


def _kept_columns(images: Tensor, size: int) -> Tensor:
    """Return the lowest frequencies along rows of ``(..., N, N)``: ``(..., N, size + 2)``, real and imaginary parts in turn."""
    parts = torch.view_as_real(torch.fft.rfft(images))
    kept: Tensor = parts.as_strided((*images.shape[:-1], size + 2), (*parts.stride()[:-2], 1))
    return kept


def _finished(reduced: Tensor, signs: Tensor) -> Tensor:
    """Finish `rescale`: ``(n, size + 1, size + 2)`` with reduced columns becomes ``(n, size, size)``. `reduced` is used up."""
    size = len(signs)
    # The last row holds what one-sided Nyquist rows add: an odd part, a quarter of a turn behind, with alternating sign.
    even, odd = reduced[:, :size], reduced[:, size:]
    even[..., ::2].addcmul_(signs, odd[..., 1::2])
    even[..., 1::2].addcmul_(signs, odd[..., ::2], value=-1)
    spectrum = torch.view_as_complex(even.reshape(len(even), size, -1, 2))
    rescaled: Tensor = torch.fft.irfft(spectrum, size)
    return rescaled


class _RowReduction(NamedTuple):
    """The matrix ``(size + 1, full)`` that crops columns' transforms, and alternating signs ``(size, 1)``."""

    rows: Tensor
    signs: Tensor


@lru_cache(maxsize=8)
def _row_reduction(full: int, size: int, device: torch.device) -> _RowReduction:
    """Return what `rescale` multiplies by.

    With θ = 2π (y / size − Y / full), cropping along y multiplies by Σ_k exp(i k θ) / full over −size/2 < k ≤ +size/2.
    """
    frequency = torch.arange(size // 2 + 1, dtype=torch.float64)
    weight = torch.full_like(frequency, 2.0)
    weight[0] = weight[-1] = 1.0
    new = torch.arange(size, dtype=torch.float64) / size
    old = torch.arange(full, dtype=torch.float64) / full
    angle = 2 * torch.pi * (new[:, None] - old[None, :])[..., None] * frequency
    even = (torch.cos(angle) * weight).sum(dim=-1)
    nyquist = torch.sin(torch.pi * size * old)[None, :]
    # The inverse transform along x divides by `size`, where a cropped one is divided by `full`.
    rows = torch.cat([even, nyquist]) * (size / full**2)
    signs = 1.0 - 2.0 * (torch.arange(size) % 2)[:, None]
    return _RowReduction(rows.float().to(device), signs.to(device))


@lru_cache(maxsize=8)
def _resampling(full: int, size: int, step: float, device: torch.device) -> Tensor:
    """Return the matrix ``(size, full)`` of `resample`: Σ_k cos(2π k (x − X) / full) / full over what both samplings can hold."""
    highest = int(full / (2 * max(step, 1.0)) + 1e-9)
    frequency = torch.arange(highest + 1, dtype=torch.float64)
    weight = torch.full_like(frequency, 2.0)
    weight[0] = 1.0
    if 2 * highest >= full / max(step, 1.0) - 1e-9:
        weight[-1] = 1.0
    new = full // 2 + (torch.arange(size, dtype=torch.float64) - size // 2) * step
    old = torch.arange(full, dtype=torch.float64)
    angle = 2 * torch.pi / full * (new[:, None] - old[None, :])[..., None] * frequency
    matrix: Tensor = (torch.cos(angle) * weight).sum(dim=-1) / full
    return matrix.float().to(device)


@lru_cache(maxsize=8)
def _background_fit(size: int, radius: float, ramp: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return what fits the background of flattened images: basis ``(p, b²)``, its projector ``(b², p)``, and what averages it ``(b², 1)``."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    outside = (y**2 + x**2 > radius**2).reshape(-1).double()
    columns = [torch.ones_like(y), y / size, x / size] if ramp else [torch.ones_like(y)]
    basis = torch.stack([column.reshape(-1) for column in columns])
    weighted = basis * outside
    projector = torch.linalg.solve(weighted @ weighted.T, weighted).T
    average = (outside / outside.sum())[:, None]
    return basis.float().to(device), projector.float().contiguous().to(device), average.float().to(device)
