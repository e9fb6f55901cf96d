"""Radiation damage: critical exposure, dose filters, and the dose-weighted sum.

Source: T. Grant and N. Grigorieff, "Measuring the optimal exposure for single particle cryo-EM using a 2.6 Å reconstruction of rotavirus
VP6", eLife 4 (2015), e06980, equations 3 and 4. The scaling to other voltages is the one used by the field (0.8 at 200 kV, 0.64 at 100 kV).
"""

from __future__ import annotations

import torch
from torch import Tensor

from beamside.errors import ConfigError

_A, _B, _C = 0.24499, -1.6649, 2.8141  # fit at 300 kV: e/Å² for spatial frequencies in 1/Å
_LOWEST_FREQUENCY = 1e-6


def critical_exposure(frequency: Tensor, voltage: float = 300.0) -> Tensor:
    """Return the exposure in e/Å² after which the signal's power at `frequency` (1/Å, any shape) is 1/e of what it was.

    At `voltage` (kV) other than 300 it scales by 0.8 for every 100 kV less. At zero frequency the result is very large, never infinite.
    """
    if not 20 <= voltage <= 2000:
        raise ConfigError(f"voltage is {voltage} kV, which no electron microscope has; give it in kV, for example 300")
    scale = float(0.8 ** ((300.0 - voltage) / 100.0))
    return scale * (_A * torch.pow(frequency.clamp(min=_LOWEST_FREQUENCY), _B) + _C)


def exposures(frames: int, dose_per_frame: float, pre_exposure: float = 0.0) -> Tensor:
    """Return the accumulated exposure (e/Å²) at the end of each of `frames` frames, float64 ``(frames,)``."""
    return pre_exposure + dose_per_frame * torch.arange(1, frames + 1, dtype=torch.float64)


def dose_weights(frequency: Tensor, exposure: Tensor, voltage: float = 300.0) -> Tensor:
    """Return the amplitude that is left at each frequency after each exposure: ``exp(-exposure / (2 critical))``.

    Parameters
    ----------
    frequency : ``(...)`` in 1/Å
    exposure : ``(n,)`` in e/Å²
    voltage : kV

    Returns
    -------
    ``(n, ...)`` of `frequency`'s type, between 0 and 1
    """
    critical = critical_exposure(frequency, voltage)
    shape = (-1, *([1] * frequency.ndim))
    return torch.exp(-exposure.to(frequency).reshape(shape) / (2 * critical))


def weight_norm(weights: Tensor) -> Tensor:
    """Return ``sqrt(sum w²)`` over the frames of ``(n, ...)``: divided by it, white noise in the frames stays white in the weighted sum."""
    return torch.sqrt((weights**2).sum(dim=0)).clamp(min=torch.finfo(weights.dtype).tiny)
