"""Import: what acquisition has taken in, as RELION's list of movies or micrographs.

The files themselves are moved by ``beamside.acquisition`` inside the session process; this job keeps the table of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from beamside.acquisition.reports import RATE, SIZE
from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import JobType, Metric, Node, Optics, RelionContext, Row, StarContent, relion_value
from beamside.jobs.item_kinds import MICROGRAPH, MOVIE
from beamside.jobs.optics import name_of, optics_table
from beamside.jobs.patterns import Pattern, pattern_of
from beamside.jobs.ports import Output
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
    Parameters = ImportParameters
    metrics = (
        Metric(SIZE, "Size", "MB", scale=1000, digits=1, description="Size of the file at the source."),
        Metric(RATE, "Transfer rate", "MB/s", good="high", digits=0),
    )

    role: ClassVar[str]
    """Role of the imported file in a result."""
    usual_files: ClassVar[str]
    """Pattern of the files before there are any; {job} is the job's directory."""

    def relion_options(self, context: RelionContext) -> dict[str, str]:
        """Return RELION's options for importing the same files; of several optics groups, with the values of the one that most are of."""
        groups = self._groups(context)
        optics = groups.most_common(1)[0][0] if groups else context.optics
        return {
            **super().relion_options(context),
            "fn_in_raw": self._pattern(context).text,
            "is_multiframe": relion_value(self.role == "movie"),
            "optics_group_name": name_of(optics),
            "angpix": relion_value(float(optics.pixel_size)),
            "kV": relion_value(float(optics.voltage)),
            "Cs": relion_value(float(optics.spherical_aberration)),
            "Q0": relion_value(float(optics.amplitude_contrast)),
        }

    def relion_differences(self, context: RelionContext) -> list[str]:
        """Say what a pattern cannot say: RELION imports the files of one pattern."""
        pattern = self._pattern(context)
        sentences = []
        if pattern.missed:
            sentences.append(
                f"RELION imports the files of one pattern, {pattern.text}, which leaves out {_files(pattern.missed)} that Beamside imported."
            )
        if pattern.others:
            sentences.append(
                f"The pattern {pattern.text} also takes {_files(pattern.others)} that Beamside did not import, such as {pattern.other}."
            )
        groups = self._groups(context)
        if len(groups) > 1:
            listed = ", ".join(
                f"{name_of(optics)} ({_files(number)}, {optics.pixel_size:g} Å)"
                for optics, number in groups.most_common()
            )
            sentences.append(
                f"RELION imports all files into one optics group; Beamside imported {listed}, as the table of this job says."
            )
        return sentences

    @staticmethod
    def _groups(context: RelionContext) -> Counter[Optics]:
        return Counter(row.optics or context.optics for row in context.rows)

    def _pattern(self, context: RelionContext) -> Pattern:
        names = [row.result.outputs[self.role] for row in context.rows]
        return pattern_of(names, context.root) or Pattern(self.usual_files.format(job=context.job))


class ImportMovies(_Import):
    """Movies that acquisition has copied and verified."""

    outputs = (Output("movies", MOVIE),)
    nodes = (Node("movies.star", 0, "MicrographMoviesData.star.relion"),)
    role = "movie"
    usual_files = "raw/*.tif*"

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return ``movies.star``."""
        found = optics_table(rows, optics)
        lines: list[list[Value]] = [
            [row.result.outputs["movie"], number] for row, number in zip(rows, found.numbers, strict=True)
        ]
        table = StarBlock("movies", ["rlnMicrographMovieName", "rlnOpticsGroup"], lines)
        return {"movies.star": [found.block(), table]}


class ImportMicrographs(_Import):
    """Already summed micrographs that acquisition has copied and verified."""

    name = "import_micrographs"
    outputs = (Output("micrographs", MICROGRAPH),)
    nodes = (Node("micrographs.star", 1, "MicrographsData.star.relion"),)
    role = "micrograph"
    usual_files = "{job}/raw/*.mrc"

    def star_files(
        self, rows: Sequence[Row], parameters: Any, optics: Optics, job: str, root: Path
    ) -> dict[str, StarContent]:
        """Return ``micrographs.star``."""
        found = optics_table(rows, optics)
        lines: list[list[Value]] = [
            [row.result.outputs["micrograph"], number] for row, number in zip(rows, found.numbers, strict=True)
        ]
        table = StarBlock("micrographs", ["rlnMicrographName", "rlnOpticsGroup"], lines)
        block = found.block(lambda group, _row: {"rlnMicrographPixelSize": float(group.pixel_size)})
        return {"micrographs.star": [block, table]}


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
