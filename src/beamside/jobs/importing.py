"""Import: what acquisition has taken in, as RELION's list of movies or micrographs.

The files themselves are moved by ``beamside.acquisition`` inside the session process; this job keeps the table of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from beamside.formats.star import StarBlock
from beamside.jobs.base import JobType, Metric, Node, Optics, Row, StarContent
from beamside.jobs.optics import OPTICS_GROUP_NAME, optics_block
from beamside.parameters import ParameterModel


class ImportParameters(ParameterModel):
    """Import has no parameters of its own; those of acquisition belong to the session."""


class _Import(JobType):
    name = "import"
    title = "Import"
    directory = "Import"
    relion_type = 0
    relion_label = "relion.import"
    version = "1"
    optics_used = ()
    requires: ClassVar[tuple[str, ...]] = ()
    Parameters = ImportParameters
    metrics = (
        Metric("gigabytes", "Size", "MB", scale=1000, digits=1, description="Size of the file at the source."),
        Metric("megabytes_per_second", "Transfer rate", "MB/s", good="high", digits=0),
    )

    def _options(self, optics: Optics, pattern: str, movies: bool) -> dict[str, str]:
        return {
            "do_raw": "Yes",
            "do_other": "No",
            "fn_in_raw": pattern,
            "is_multiframe": "Yes" if movies else "No",
            "optics_group_name": OPTICS_GROUP_NAME,
            "angpix": f"{optics.pixel_size:g}",
            "kV": f"{optics.voltage:g}",
            "Cs": f"{optics.spherical_aberration:g}",
            "Q0": f"{optics.amplitude_contrast:g}",
        }


class ImportMovies(_Import):
    """Movies that acquisition has copied and verified."""

    nodes = (Node("movies.star", 0, "MicrographMoviesData.star.relion"),)

    def relion_options(self, parameters: Any, optics: Optics, inputs: Sequence[str]) -> dict[str, str]:
        """Return RELION's options for importing the same movies."""
        return self._options(optics, "raw/*", movies=True)

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return ``movies.star``."""
        table = StarBlock(
            "movies",
            ["rlnMicrographMovieName", "rlnOpticsGroup"],
            [[row.result.outputs["movie"], 1] for row in rows],
        )
        return {"movies.star": [optics_block(optics), table]}


class ImportMicrographs(_Import):
    """Already summed micrographs that acquisition has copied and verified."""

    nodes = (Node("micrographs.star", 1, "MicrographsData.star.relion"),)

    def relion_options(self, parameters: Any, optics: Optics, inputs: Sequence[str]) -> dict[str, str]:
        """Return RELION's options for importing the same micrographs."""
        return self._options(optics, "Import/*/raw/*.mrc", movies=False)

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return ``micrographs.star``."""
        table = StarBlock(
            "micrographs",
            ["rlnMicrographName", "rlnOpticsGroup"],
            [[row.result.outputs["micrograph"], 1] for row in rows],
        )
        return {"micrographs.star": [optics_block(optics, rlnMicrographPixelSize=optics.pixel_size), table]}
