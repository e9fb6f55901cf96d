"""Topaz, a trained particle picker (Bepler et al., Nat. Methods 16, 1153, 2019), run as a program of its own.

Two of its commands are used: ``topaz preprocess`` reduces and normalises the micrograph, ``topaz extract`` scores it with a model and lists local
maxima. Topaz is GPL: it is never imported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from beamside.errors import ProgramError
from beamside.imaging.picking.blobs import BlobSettings, make_detector
from beamside.imaging.picking.candidates import Candidates, OpenArea
from beamside.imaging.picking.image import inside_border, working_image

SUPPORTED = ((0, 2, 5), (0, 4, 0))
"""Versions of Topaz whose commands and output are known: from the first on, below the second."""
DIAMETER_PIXELS = 20
"""Pixels to a particle in the reduced micrograph: its models have learnt particles of about this size."""
RADIUS = 0.45
"""Radius of the region in which one particle is picked, in diameters."""
FLOOR, THRESHOLD = -4.0, 0.0
"""Log-likelihood ratios: the lowest that is kept, and Topaz's own threshold."""
HEADER = "image_name\tx_coord\ty_coord\tscore"
INSTALL = "install it in an environment of its own (pip install topaz-em) and give its path with --topaz-program"
_SECONDS = 3600.0


def pick_with_topaz(
    micrograph: Path, image: NDArray[np.float32], settings: BlobSettings, *, program: str, model: str, threads: int
) -> Candidates:
    """Find particles in a micrograph with Topaz.

    Scores are its log-likelihood ratios: above 0 a particle is more likely than not. Carbon, contamination and the border are left out as for
    the other pickers.

    Parameters
    ----------
    micrograph : MRC file
    image : ``(h, w)``, its pixels, protein dark
    settings : sizes, masks and borders
    program : name or path of Topaz
    model : one that comes with Topaz ("resnet16"), or a trained file
    threads : number of threads that it may use

    Raises
    ------
    ProgramError
        when Topaz is missing, of a version that is not known, fails, or writes what is not understood
    """
    check_version(program)
    mean_diameter = (settings.min_diameter * settings.max_diameter) ** 0.5
    scale = max(1, round(mean_diameter / DIAMETER_PIXELS / settings.pixel_size))
    radius = max(2, round(RADIUS * mean_diameter / (scale * settings.pixel_size)))
    with tempfile.TemporaryDirectory(prefix="beamside-topaz-") as name:
        folder = Path(name)
        # Its output is named by the file's stem: a plain one cannot disturb the table.
        source = folder / "micrograph.mrc"
        source.symlink_to(micrograph.absolute())
        _run(
            [
                program,
                "preprocess",
                "-s",
                str(scale),
                "-d",
                "-1",
                "-j",
                str(threads),
                "-o",
                str(folder / "small"),
                str(source),
            ]
        )
        table = folder / "picks.txt"
        command = [program, "extract", "-m", model, "-r", str(radius), "-t", f"{FLOOR:g}", "-x", str(scale)]
        _run([*command, "-d", "-1", "-j", str(threads), "-o", str(table), str(folder / "small" / "micrograph.mrc")])
        if not table.exists():
            raise ProgramError(f"{program} extract wrote no picks of {micrograph} and gave no reason; run it by hand.")
        places, scores = parse_picks(table.read_text(), str(micrograph))
    return _candidates(places, scores, image, settings, mean_diameter)


def parse_picks(text: str, source: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places ``(n, 2)`` (y, x in pixels) and scores ``(n,)`` from the table that ``topaz extract`` writes.

    Raises
    ------
    ProgramError
        when it is not such a table
    """
    lines = text.splitlines()
    if not lines or lines[0].strip() != HEADER:
        raise ProgramError(
            f"Topaz's picks of {source} do not begin with {HEADER!r}; is this version of Topaz supported?"
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        try:
            _, x, y, score = fields
            rows.append((float(y), float(x), float(score)))
        except ValueError:
            raise ProgramError(f"Line {number} of Topaz's picks of {source} is not understood: {line!r}.") from None
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(table).all():
        raise ProgramError(f"Topaz's picks of {source} have values that are not finite; check the model.")
    return table[:, :2], table[:, 2]


@lru_cache(maxsize=4)
def check_version(program: str) -> str:
    """Return the version of Topaz; raises ProgramError when it is missing or its version is not known to work."""
    if shutil.which(program) is None:
        raise ProgramError(f"The program {program!r} (Topaz) is not there: {INSTALL}.")
    said = _run([program, "--version"])
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    if found is None:
        raise ProgramError(
            f"{program} --version says {said.strip()[:100]!r}, which is no version of Topaz; check --topaz-program."
        )
    version = tuple(int(part) for part in found.groups())
    first, beyond = SUPPORTED
    if not first <= version < beyond:
        known = ".".join(map(str, first)), ".".join(map(str, beyond))
        raise ProgramError(f"Topaz {found[0]} is not supported: from {known[0]} and below {known[1]} are; {INSTALL}.")
    return found[0]


def _run(command: list[str]) -> str:
    """Run Topaz and return what it says; raises ProgramError with the last thing that it said when it fails."""
    # Python settings of this process are not those of Topaz's own environment.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise ProgramError(f"{command[0]} (Topaz) cannot be run: {error.strerror}; check --topaz-program.") from error
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{' '.join(command[:2])} did not end within {_SECONDS / 60:g} minutes.") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ProgramError(f"{' '.join(command[:2])} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout + done.stderr


def _candidates(
    places: NDArray[np.float64],
    scores: NDArray[np.float64],
    image: NDArray[np.float32],
    settings: BlobSettings,
    diameter: float,
) -> Candidates:
    """Return Topaz's picks as candidates, without those on carbon, contamination or the border."""
    micrograph = torch.from_numpy(image)
    small, pixels = working_image(micrograph, settings.pixel_size, settings.max_diameter, settings.working_pixel_size)
    valid = torch.ones(small.shape, dtype=torch.bool)
    if settings.mask:
        detector = make_detector((small.shape[0], small.shape[1]), settings, settings.pixel_size * float(pixels.mean()))
        valid = detector.find_sample(small)
    allowed = valid & inside_border(small.shape, pixels, micrograph.shape, settings.reach)
    coordinates = torch.from_numpy(places).float().round()
    coordinates = torch.minimum(coordinates.clamp(min=0), torch.tensor(micrograph.shape) - 1)
    cell = (coordinates / pixels).long()
    cell = torch.minimum(cell, torch.tensor(small.shape) - 1)
    order = torch.from_numpy(np.argsort(-scores, kind="stable"))
    order = order[allowed[cell[order, 0], cell[order, 1]]]
    return Candidates(
        coordinates=coordinates[order],
        scores=torch.from_numpy(scores).float()[order],
        diameters=torch.full((len(order),), diameter),
        references=torch.zeros(len(order), dtype=torch.int64),
        psi=torch.zeros(len(order)),
        threshold=THRESHOLD,
        floor=FLOOR,
        excluded=1 - float(valid.float().mean()),
        open=OpenArea.of_mask(allowed, micrograph.shape),
    )
