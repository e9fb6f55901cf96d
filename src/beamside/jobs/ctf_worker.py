"""The worker's part of CTF estimation."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beamside.formats.mrc import read_mrc, write_mrc
from beamside.imaging import pictures
from beamside.imaging.ctf import CtfFit, CtfSettings, estimate_ctf
from beamside.imaging.spectrum import micrograph_spectrum
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.ctf import CtfParameters
from beamside.jobs.output import save_picture


def fit(item: Item, parameters: CtfParameters, workspace: Workspace) -> Result:
    """Fit the CTF of `item`, from the movie's power spectrum where there is one."""
    spectrum, spectrum_pixel_size, pixel_size = _spectrum(item, workspace)
    optics = workspace.optics
    settings = CtfSettings(
        voltage=optics.voltage,
        spherical_aberration=optics.spherical_aberration,
        amplitude_contrast=optics.amplitude_contrast,
        min_resolution=parameters.ctf_min_resolution,
        max_resolution=max(parameters.ctf_max_resolution, 2.1 * spectrum_pixel_size),
        min_defocus=parameters.min_defocus,
        max_defocus=parameters.max_defocus,
        max_astigmatism=parameters.max_astigmatism,
    )
    found = estimate_ctf(spectrum, spectrum_pixel_size, settings)
    paths = {
        "ctf_spectrum": workspace.path(item, ".ctf"),
        "ctf_plot": workspace.path(item, "_ctf.png"),
        "ctf_image": workspace.path(item, "_ctf2d.png"),
    }
    picture = _array(found.picture)
    write_mrc(paths["ctf_spectrum"], picture.astype(np.float32), spectrum_pixel_size, durable=False)
    resolution = found.resolution if math.isfinite(found.resolution) else None
    curves = found.curves
    save_picture(
        paths["ctf_plot"],
        pictures.ctf_plot(
            _array(curves.frequency),
            _array(curves.experimental),
            _array(curves.fitted),
            quality=_array(curves.quality),
            resolution=resolution,
            title=f"defocus {found.defocus / 1e4:.2f} um, astigmatism {found.astigmatism:.0f} Å",
        ),
    )
    save_picture(paths["ctf_image"], pictures.ctf_picture(picture, resolution, spectrum_pixel_size))
    return Result(
        metrics=_metrics(found),
        outputs={role: workspace.relative(path) for role, path in paths.items()},
        values={
            "defocus_u": found.defocus_u,
            "defocus_v": found.defocus_v,
            "defocus_angle": found.angle,
            "phase_shift": found.phase_shift,
            "micrograph_pixel_size": pixel_size,
            "micrographs_star": f"{workspace.job}/micrographs_ctf.star",
        },
        rejected=_rejection(found, parameters),
    )


def _array(tensor: Tensor) -> NDArray[np.floating]:
    return np.asarray(tensor.cpu())


def _spectrum(item: Item, workspace: Workspace) -> tuple[Tensor, float, float]:
    """Return the amplitude spectrum, its effective pixel size, and the micrograph's pixel size, in Å."""
    motion = item.results.get("motion")
    if motion is not None:
        spectrum = np.array(read_mrc(workspace.absolute(motion.outputs["power_spectrum"])), dtype=np.float32)
        return (
            torch.from_numpy(spectrum),
            float(motion.values["spectrum_pixel_size"]),
            float(motion.values["pixel_size"]),
        )
    micrograph = np.array(read_mrc(workspace.absolute(item.output("micrograph"))), dtype=np.float32)
    spectrum_tensor, effective = micrograph_spectrum(torch.from_numpy(micrograph), workspace.optics.pixel_size)
    return spectrum_tensor, effective, workspace.optics.pixel_size


def _metrics(found: CtfFit) -> dict[str, float]:
    metrics = {"defocus": found.defocus, "astigmatism": found.astigmatism, "ctf_score": found.figure_of_merit}
    if math.isfinite(found.resolution):
        metrics["ctf_resolution"] = found.resolution
    if math.isfinite(found.ice_ring):
        metrics["ice_ring"] = found.ice_ring
    return metrics


def _rejection(found: CtfFit, parameters: CtfParameters) -> str:
    if found.failed:
        return f"the CTF fit failed: {found.failed}"
    limit = parameters.reject_resolution
    if limit and not found.resolution <= limit:
        return f"the CTF fit holds to {found.resolution:.1f} Å only; micrographs worse than {limit:g} Å are not used"
    return ""
