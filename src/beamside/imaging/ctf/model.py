"""The contrast transfer function of an electron microscope.

The phase of the wave aberration at spatial frequency ``k`` (1/Å) in direction ``α``, with the defocus Δf > 0 for
underfocus, is ::

    χ(k, α) = π λ k² Δf(α) - π/2 λ³ k⁴ Cs + φ + asin(w)
    Δf(α)   = ((U + V) + (U - V) cos 2(α - α₀)) / 2

with λ the wavelength, Cs the spherical aberration, φ the phase shift of a phase plate and w the amplitude contrast
(Mindell & Grigorieff, J. Struct. Biol. 142, 334, 2003; Rohou & Grigorieff, J. Struct. Biol. 192, 216, 2015).

Sign: these functions return ``+sin χ``, which is what RELION calls the CTF (it writes ``-sin γ`` with ``γ = -χ``):
positive close to zero frequency, right for particles that are white, as RELION has them after extraction. In a
micrograph protein is dark, so its transform carries ``-sin χ``, the form of the papers above.

Angles are measured from the x axis towards the y axis in array order (row index growing), and U is the defocus along
that direction.
"""

from __future__ import annotations

import math
from typing import overload

import torch
from torch import Tensor

from beamside.imaging.fourier import frequencies

ELECTRON_REST_ENERGY = 510_998.95
"""m c² in eV (CODATA 2018)."""
PLANCK_TIMES_LIGHT = 12_398.419_84
"""h c in eV Å (CODATA 2018)."""
Number = float | Tensor


@overload
def electron_wavelength(voltage: float) -> float: ...
@overload
def electron_wavelength(voltage: Tensor) -> Tensor: ...
def electron_wavelength(voltage: Number) -> Number:
    """Return the relativistic wavelength in Å of electrons of `voltage` kV: 0.0197 Å at 300 kV."""
    energy = voltage * 1e3
    squared = energy * (energy + 2 * ELECTRON_REST_ENERGY)
    return PLANCK_TIMES_LIGHT / (squared.sqrt() if isinstance(squared, Tensor) else math.sqrt(squared))


def aberration_phase(
    k2: Tensor,
    defocus: Number,
    *,
    voltage: Number,
    spherical_aberration: Number,
    amplitude_contrast: Number,
    phase_shift_deg: Number = 0.0,
) -> Tensor:
    """Return χ in radians at the squared frequency `k2` (1/Å²) with the `defocus` (Å) of its direction; they broadcast."""
    wavelength = electron_wavelength(voltage)
    cs = spherical_aberration * 1e7  # mm to Å
    contrast = amplitude_contrast
    constant = (contrast.asin() if isinstance(contrast, Tensor) else math.asin(contrast)) + phase_shift_deg * (
        math.pi / 180
    )
    spherical = (math.pi / 2 * cs * wavelength**3) * k2**2
    return (math.pi * wavelength) * k2 * defocus - spherical + constant


def directional_defocus(defocus_u: Number, defocus_v: Number, angle_deg: Number, direction: Tensor) -> Tensor:
    """Return the defocus in Å in `direction` (radians from x towards y); all broadcast."""
    angle = angle_deg * (math.pi / 180)
    return (defocus_u + defocus_v) / 2 + (defocus_u - defocus_v) / 2 * torch.cos(2 * (direction - angle))


def ctf_2d(
    shape: tuple[int, int],
    pixel_size: float,
    defocus_u: Number,
    defocus_v: Number,
    angle_deg: Number,
    *,
    voltage: float,
    spherical_aberration: float,
    amplitude_contrast: float,
    phase_shift_deg: Number = 0.0,
    b_factor: Number = 0.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the CTF of images of `shape` in the layout of ``rfft2``.

    Parameters
    ----------
    shape : (h, w) of the image in pixels
    pixel_size : Å
    defocus_u, defocus_v : Å, underfocus positive; numbers, or tensors of batch shape ``(...)``
    angle_deg : direction of `defocus_u`, from x towards y in array order
    voltage : kV
    spherical_aberration : mm
    amplitude_contrast : fraction
    phase_shift_deg : phase shift of a phase plate
    b_factor : Å²; the CTF is multiplied by ``exp(-B k² / 4)``

    Returns
    -------
    Tensor of shape ``(..., h, w // 2 + 1)``, positive close to zero frequency (see the module's text).
    """
    defocus_u, defocus_v, angle_deg, phase_shift_deg, b_factor = (
        value[..., None, None] if isinstance(value, Tensor) else value
        for value in (defocus_u, defocus_v, angle_deg, phase_shift_deg, b_factor)
    )
    fy, fx = frequencies(shape, device)
    ky, kx = fy / pixel_size, fx / pixel_size
    k2 = ky**2 + kx**2
    defocus = directional_defocus(defocus_u, defocus_v, angle_deg, torch.atan2(ky, kx))
    ctf = torch.sin(
        aberration_phase(
            k2,
            defocus,
            voltage=voltage,
            spherical_aberration=spherical_aberration,
            amplitude_contrast=amplitude_contrast,
            phase_shift_deg=phase_shift_deg,
        )
    )
    if isinstance(b_factor, Tensor) or b_factor:
        ctf = ctf * torch.exp(-b_factor / 4 * k2)
    return ctf


def ctf_1d(
    frequency: Tensor,
    defocus: Number,
    *,
    voltage: float,
    spherical_aberration: float,
    amplitude_contrast: float,
    phase_shift_deg: Number = 0.0,
    b_factor: Number = 0.0,
) -> Tensor:
    """Return the CTF at `frequency` ``(n,)`` in 1/Å.

    Tensors of defocus, phase shift or B-factor of shape ``(...)`` give ``(..., n)``. Units and sign as `ctf_2d`.
    """
    defocus, phase_shift_deg, b_factor = (
        value[..., None] if isinstance(value, Tensor) else value for value in (defocus, phase_shift_deg, b_factor)
    )
    k2 = frequency**2
    ctf = torch.sin(
        aberration_phase(
            k2,
            defocus,
            voltage=voltage,
            spherical_aberration=spherical_aberration,
            amplitude_contrast=amplitude_contrast,
            phase_shift_deg=phase_shift_deg,
        )
    )
    if isinstance(b_factor, Tensor) or b_factor:
        ctf = ctf * torch.exp(-b_factor / 4 * k2)
    return ctf
