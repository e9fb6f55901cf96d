"""A camera with a gain pattern that writes small movies, and its reference in any orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from beamside.formats.mrc import write_mrc
from beamside.formats.orientation import Orientation
from beamside.simulate.gain import gain_reference

SIDE = 128


class Camera:
    """Writes movies of a camera with a gain pattern, and its reference in some orientation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.response = 1 / gain_reference((SIDE, SIDE), 5).gain
        self.gain = folder / "gain.mrc"
        folder.mkdir(exist_ok=True)

    def reference(self, orientation: Orientation, divide: bool = False, response: np.ndarray | None = None) -> str:
        values = self.response if response is None else response
        image = values if divide else 1 / values
        image = image[::-1] if orientation.flip == "up-down" else image
        image = image[:, ::-1] if orientation.flip == "left-right" else image
        write_mrc(self.gain, np.ascontiguousarray(np.rot90(image, orientation.rotate // 90)).astype(np.float32))
        return str(self.gain)

    def movie(self, name: str, counts: float = 10.0, corrected: bool = False, turned: bool = False) -> None:
        seed = int.from_bytes(name.encode(), "big") % 2**32
        response = self.response[::-1] if turned else self.response
        rate = np.broadcast_to(np.ones_like(self.response) if corrected else response, (4, SIDE, SIDE))
        frames = np.random.default_rng(seed).poisson(counts / 4 * rate).astype(np.uint8)
        stored = frames[:, ::-1]  # TIFF has the top row first
        tifffile.imwrite(self.folder / f"{name}_fractions.tiff", stored, compression="lzw", photometric="minisblack")
