"""The simulated camera's gain reference and its defective pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class GainReference:
    """What a camera's counts must be multiplied with, and its defects.

    Attributes
    ----------
    gain : float32 ``(h, w)`` with mean 1; corrected = counts × gain
    dead : ``(n, 2)`` y, x of pixels that never count
    hot : ``(n, 2)`` y, x of pixels that count all the time
    """

    gain: npt.NDArray[np.float32]
    dead: npt.NDArray[np.int64]
    hot: npt.NDArray[np.int64]


def gain_reference(shape: tuple[int, int], seed: int) -> GainReference:
    """Return a gain reference of `shape`: pixels, columns and read-out blocks differ by 6 % in all; 3 in 100,000 pixels are dead, 1 in 100,000 hot.

    There is also one dead piece of a column, as cameras have.
    """
    rng = np.random.default_rng([seed, 0x6A1])
    height, width = shape
    blocks = rng.normal(0, 0.025, (-(-height // 512), -(-width // 256)))
    pattern = np.kron(blocks, np.ones((512, 256)))[:height, :width]
    pattern = pattern + rng.normal(0, 0.025, (1, width)) + rng.normal(0, 0.05, shape)
    gain = np.exp(pattern)
    return GainReference((gain / gain.mean()).astype(np.float32), _dead(shape, rng), _somewhere(shape, 1e-5, rng))


def _somewhere(shape: tuple[int, int], share: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    count = max(1, round(share * shape[0] * shape[1]))
    return np.stack([rng.integers(0, size, count) for size in shape], axis=1)


def _dead(shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    length = min(shape[0] // 8, 64)
    start, column = int(rng.integers(0, shape[0] - length + 1)), int(rng.integers(0, shape[1]))
    line = np.stack([np.arange(start, start + length), np.full(length, column)], axis=1)
    return np.concatenate([_somewhere(shape, 3e-5, rng), line])
