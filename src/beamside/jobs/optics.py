"""RELION's optics tables: the groups that the rows of a table are of, and the values of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from beamside.formats.star import StarBlock, Value
from beamside.jobs.base import Optics, Row

OPTICS_GROUP_NAME = "opticsGroup1"
"""Name of the session's own group."""


@dataclass(frozen=True)
class OpticsTable:
    """The optics groups of the rows of a table.

    Attributes
    ----------
    groups : the optics of each group, each with another name
    numbers : the group of each row, from 1
    rows : the first row of each group; none for the group of a table without rows
    """

    groups: tuple[Optics, ...]
    numbers: tuple[int, ...]
    rows: tuple[Row, ...]

    def block(self, more: Callable[[Optics, Row | None], Mapping[str, Value]] | None = None) -> StarBlock:
        """Return the ``optics`` block; `more` gives further columns of a group, such as ``rlnImagePixelSize``, from its optics and its first row."""
        tilted = any(optics.beam_tilt_x or optics.beam_tilt_y for optics in self.groups)
        first = (*self.rows, *(None for _ in self.groups[len(self.rows) :]))
        lines: list[dict[str, Value]] = []
        for number, (optics, row) in enumerate(zip(self.groups, first, strict=True), 1):
            line: dict[str, Value] = {
                "rlnOpticsGroupName": name_of(optics),
                "rlnOpticsGroup": number,
                "rlnMicrographOriginalPixelSize": float(optics.pixel_size),
                "rlnVoltage": float(optics.voltage),
                "rlnSphericalAberration": float(optics.spherical_aberration),
                "rlnAmplitudeContrast": float(optics.amplitude_contrast),
            }
            if tilted:
                line |= {"rlnBeamTiltX": float(optics.beam_tilt_x), "rlnBeamTiltY": float(optics.beam_tilt_y)}
            lines.append(line | dict(more(optics, row) if more is not None else {}))
        return StarBlock("optics", list(lines[0]), [list(line.values()) for line in lines])


def optics_table(rows: Sequence[Row], optics: Optics) -> OpticsTable:
    """Return the optics groups of `rows`, numbered as they come; a table without rows has that of `optics` alone.

    RELION takes groups of one name to be the same, so one with other values than an earlier one of its name gets another.
    """
    first: dict[Optics, Row] = {}
    for row in rows:
        first.setdefault(row.optics or optics, row)
    number = {found: place for place, found in enumerate(first, 1)}
    names: set[str] = set()
    groups: list[Optics] = []
    for found in first or (optics,):
        name, count = name_of(found), 1
        while name in names:
            name, count = f"{name_of(found)}_{count + 1}", count + 1
        names.add(name)
        groups.append(found if name == name_of(found) else replace(found, group=name))
    return OpticsTable(tuple(groups), tuple(number[row.optics or optics] for row in rows), tuple(first.values()))


def name_of(optics: Optics) -> str:
    """Return the name of an optics group in RELION's tables."""
    return optics.group or OPTICS_GROUP_NAME
