"""The worker's part of CTF estimation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from beamside.formats.mrc import read_mrc, write_mrc
from beamside.imaging import pictures
from beamside.imaging.ctf.estimation import CtfFit, CtfSettings, estimate_ctf
from beamside.imaging.ctf.tilt import Tilt, estimate_tilt
from beamside.imaging.spectrum import micrograph_spectrum, tile_powers
from beamside.jobs.base import Item, Result, Workspace
from beamside.jobs.ctf import CtfParameters
from beamside.jobs.ctffind_log import log_path, root_name, write_log
from beamside.jobs.output import save_picture


def fit(item: Item, parameters: CtfParameters, workspace: Workspace) -> Result:
    """Fit the CTF of `item`, from the movie's power spectrum where there is one; with the tilt, from tiles of the micrograph.

    A failed fit leaves pictures and the score that show why, and no defocus.
    """
    pixel_size = float(item.inputs["micrographs"].value("pixel_size", workspace.optics.pixel_size))
    values: dict[str, Any] = {
        "micrograph_pixel_size": pixel_size,
        "micrographs_star": f"{workspace.job}/micrographs_ctf.star",
    }
    tilt = None
    if parameters.ctf_tilt:
        image = _micrograph(item, workspace)
        tiles = tile_powers(image, pixel_size)
        field = tiles.pixel_size * tiles.power.shape[-1]
        found, tilt = estimate_tilt(tiles, _settings(parameters, workspace, tiles.pixel_size))
        if found.failed:  # a tilt of rings that are not there
            tilt = replace(tilt, failed="the CTF could not be fitted")
        values |= _tilt_values(tilt, image)
    if tilt is None or tilt.failed:
        spectrum, spectrum_pixel_size = _spectrum(item, workspace, pixel_size)
        field = spectrum_pixel_size * spectrum.shape[-1]
        found = estimate_ctf(spectrum, spectrum_pixel_size, _settings(parameters, workspace, spectrum_pixel_size))
    if not found.failed:
        values |= {
            "defocus_u": found.defocus_u,
            "defocus_v": found.defocus_v,
            "defocus_angle": found.angle,
            "phase_shift": found.phase_shift,
        }
    result = Result(
        metrics=_metrics(found, tilt, parameters),
        outputs={**_write(item, found, field, workspace), **_thumbnail(item, workspace)},
        values=values,
        rejected=f"the CTF fit failed: {found.failed}" if found.failed else "",
    )
    _write_log(item, result, workspace)
    return result


def _write_log(item: Item, result: Result, workspace: Workspace) -> None:
    """Write CTFFIND's log of a micrograph that is used further; RELION looks for no other file of it."""
    path = workspace.absolute(log_path(item, workspace.job))
    if result.rejected:
        path.unlink(missing_ok=True)
    else:
        write_log(path, item, result, workspace.job, workspace.optics)


def _settings(parameters: CtfParameters, workspace: Workspace, spectrum_pixel_size: float) -> CtfSettings:
    optics = workspace.optics
    return CtfSettings(
        voltage=optics.voltage,
        spherical_aberration=optics.spherical_aberration,
        amplitude_contrast=optics.amplitude_contrast,
        min_resolution=parameters.ctf_min_resolution,
        max_resolution=max(parameters.ctf_max_resolution, 2.1 * spectrum_pixel_size),
        min_defocus=parameters.min_defocus,
        max_defocus=parameters.max_defocus,
        max_astigmatism=parameters.max_astigmatism,
        phase_shift=parameters.phase_shift,
        min_phase_shift=parameters.min_phase_shift,
        max_phase_shift=parameters.max_phase_shift,
        phase_shift_step=parameters.phase_shift_step,
    )


def _micrograph(item: Item, workspace: Workspace) -> Tensor:
    return torch.from_numpy(np.array(read_mrc(workspace.absolute(item.output("micrograph"))), dtype=np.float32))


def _thumbnail(item: Item, workspace: Workspace) -> dict[str, str]:
    """Draw a micrograph that came as a sum, so that a rejected one can be looked at; motion correction has drawn those of movies."""
    if item.find("thumbnail"):
        return {}
    path = workspace.path(item, "_thumbnail.jpg")
    save_picture(path, pictures.thumbnail(_micrograph(item, workspace).numpy()))
    return {"thumbnail": workspace.relative(path)}


def _spectrum(item: Item, workspace: Workspace, pixel_size: float) -> tuple[Tensor, float]:
    """Return the amplitude spectrum and its effective pixel size in Å."""
    given = item.inputs["micrographs"]
    if not (file := given.find("power_spectrum")):
        return micrograph_spectrum(_micrograph(item, workspace), pixel_size)
    spectrum = np.array(read_mrc(workspace.absolute(file)), dtype=np.float32)
    return torch.from_numpy(spectrum), float(given.value("spectrum_pixel_size"))


def _tilt_values(tilt: Tilt, image: Tensor) -> dict[str, Any]:
    """Return what later jobs need of the tilt: nothing that looks like a slope when it is not known."""
    if tilt.failed:
        return {"tilt_failed": tilt.failed}
    return {
        "tilt_axis": tilt.axis,
        "tilt_error": tilt.error,
        "tilt_slope": list(tilt.slope),
        "tilt_centre": [image.shape[0] / 2, image.shape[1] / 2],
    }


def _write(item: Item, found: CtfFit, field: float, workspace: Workspace) -> dict[str, str]:
    """Write spectrum and pictures; return their paths by role. `field` is the edge in Å of the image that the spectrum is of."""
    paths = {
        "ctf_spectrum": workspace.absolute(f"{workspace.job}/{root_name(item)}.ctf"),
        "ctf_plot": workspace.path(item, "_ctf.png"),
        "ctf_image": workspace.path(item, "_ctf2d.png"),
    }
    picture = _array(found.picture)
    picture_pixel_size = field / picture.shape[-1]  # the picture leaves out the frequencies beyond what is looked at
    write_mrc(paths["ctf_spectrum"], picture.astype(np.float32), picture_pixel_size, durable=False)
    resolution = found.resolution if math.isfinite(found.resolution) and not found.failed else None
    curves = found.curves
    save_picture(
        paths["ctf_plot"],
        pictures.ctf_plot(
            _array(curves.frequency),
            _array(curves.experimental),
            _array(curves.fitted),
            quality=_array(curves.quality),
            resolution=resolution,
            title=_title(found),
        ),
    )
    save_picture(paths["ctf_image"], pictures.ctf_picture(picture, resolution, picture_pixel_size))
    return {role: workspace.relative(path) for role, path in paths.items()}


def _title(found: CtfFit) -> str:
    if found.failed:
        return "the fit failed"
    shift = f", phase shift {found.phase_shift:.0f}°" if found.phase_shift else ""
    return f"defocus {found.defocus / 1e4:.2f} um, astigmatism {found.astigmatism:.0f} Å{shift}"


def _array(tensor: Tensor) -> NDArray[np.floating]:
    return np.asarray(tensor.cpu())


def _metrics(found: CtfFit, tilt: Tilt | None, parameters: CtfParameters) -> dict[str, float]:
    """Return what was measured; of a failed fit only what does not come from its defocus."""
    metrics = {"ctf_score": found.figure_of_merit}
    if math.isfinite(found.ice_ring):
        metrics["ice_ring"] = found.ice_ring
    if found.failed:
        return metrics
    metrics |= {
        "defocus": found.defocus,
        "astigmatism": found.astigmatism,
        "ctf_resolution": found.resolution,
    }
    if parameters.phase_shift:
        metrics["phase_shift"] = found.phase_shift
    if tilt is not None and not tilt.failed:
        metrics["tilt_angle"] = tilt.angle
    return metrics
