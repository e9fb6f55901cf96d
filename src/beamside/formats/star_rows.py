"""Leaving rows out of a table in a STAR file, all else staying byte for byte as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from beamside.errors import CorruptFileError
from beamside.formats.star import values_of


def without_rows(text: str, block: str, column: str, left_out: Collection[str], source: str = "the text") -> str:
    """Return the text of a STAR file without those rows of a loop whose value in a column is one of those to be `left_out`.

    Raises
    ------
    CorruptFileError
        when there is no such loop with this column; `source` names the file in the message
    """
    found = _Loop(block, column)
    kept = "".join(line for line in _lines(text) if not found.is_row_with(line, left_out))
    if not found.seen:
        raise CorruptFileError(f"{source} has no table data_{block} with a column {column}; it was changed or damaged.")
    return kept


def _lines(text: str) -> Iterator[str]:
    """Yield the lines with their ends; only a line feed ends one."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin) + 1 or len(text)
        yield text[begin:end]
        begin = end


class _Loop:
    """Follows the lines of a file to the rows of one loop."""

    def __init__(self, block: str, column: str) -> None:
        self.block, self.column = block, column
        self.inside, self.rows, self.columns, self.place = False, False, 0, -1

    @property
    def seen(self) -> bool:
        """True when the column was found."""
        return self.place >= 0

    def is_row_with(self, line: str, values: Collection[str]) -> bool:
        """Tell whether the next line is a row of the loop with one of these values in the column."""
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            return False
        if stripped.startswith("data_") and len(values_of(stripped)) == 1:
            self.inside, self.rows = values_of(stripped)[0] == f"data_{self.block}", False
            return False
        if not self.inside or (not self.rows and stripped == "loop_"):
            return False
        if not self.rows and stripped.startswith("_"):
            if values_of(stripped)[0] == f"_{self.column}":
                self.place = self.columns
            self.columns += 1
            return False
        self.rows = True
        row = values_of(stripped)
        return 0 <= self.place < len(row) and row[self.place] in values
