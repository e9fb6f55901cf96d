"""RELION's optics table, and the columns of a micrograph that every later table repeats."""

from __future__ import annotations

from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import Optics

OPTICS_GROUP_NAME = "opticsGroup1"


def optics_block(optics: Optics, **more: Value) -> StarBlock:
    """Return the ``optics`` block; `more` are further columns, such as ``rlnImagePixelSize``."""
    columns: dict[str, Value] = {
        "rlnOpticsGroupName": OPTICS_GROUP_NAME,
        "rlnOpticsGroup": 1,
        "rlnMicrographOriginalPixelSize": float(optics.pixel_size),
        "rlnVoltage": float(optics.voltage),
        "rlnSphericalAberration": float(optics.spherical_aberration),
        "rlnAmplitudeContrast": float(optics.amplitude_contrast),
        **more,
    }
    return StarBlock("optics", list(columns), [list(columns.values())])
