"""STAR files as RELION writes and reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

Value = str | int | float


@dataclass
class StarBlock:
    """One block: `name` without ``data_``; `columns` are labels without the underscore; a list (not loop) has exactly one row."""

    name: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[Value]] = field(default_factory=list)
    loop: bool = True
