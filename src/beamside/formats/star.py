"""STAR files as RELION writes and reads them.

A STAR file is a row of blocks; each is a list (one value per label) or a loop (a table). The dialect is RELION's: one table row per line, labels
begin with ``_``, ``# version 30001`` before a block says which RELION columns to expect (no comment means 30000), and values with blanks stand in
double quotes. Values are read as text and converted on request, so that what was read is written back unchanged.

Source: Hall, *J. Chem. Inf. Comput. Sci.* 31, 326 (1991), and files written by RELION 1.3 to 5.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamside.errors import CorruptFileError, InputError
from beamside.formats.atomic import replace_file

Value = str | int | float

VERSION = 30001
"""RELION 3.1's table version, which RELION 4 and 5 read too."""
OLD_VERSION = 30000
"""What a block without version comment is: RELION 3.0 or older, or another program."""

_BLANKS = " \t\r\f\v"
_VERSION_COMMENT = re.compile(r"#\s*version\s+(\d+)\s*$")
_TOKEN = re.compile(r"\"((?:[^\"]|\"(?=\S))*)\"(?=\s|$)|'((?:[^']|'(?=\S))*)'(?=\s|$)|(\S+)", re.ASCII)
_NEEDS_QUOTES = re.compile(r"\s|^$|^[_#$'\";\[\]]|^(data_|loop_|save_|stop_|global_)")


@dataclass
class StarBlock:
    """One block: `name` without ``data_``; `columns` are labels without the underscore; a list (not loop) has exactly one row."""

    name: str
    columns: list[str] = field(default_factory=list)
    rows: list[list[Value]] = field(default_factory=list)
    loop: bool = True
    version: int = VERSION

    @classmethod
    def from_mapping(cls, name: str, values: Mapping[str, Value]) -> StarBlock:
        """Return a list block with these labels and values."""
        return cls(name, list(values), [list(values.values())], loop=False)

    @classmethod
    def from_records(cls, name: str, records: Iterable[Mapping[str, Value]]) -> StarBlock:
        """Return a loop with one row per record; the first record gives the columns. Raises InputError when a later one differs."""
        rows = list(records)
        columns = list(rows[0]) if rows else []
        for number, row in enumerate(rows):
            if row.keys() != set(columns):
                raise InputError(
                    f"Row {number + 1} of data_{name} does not have the columns of the first row; give all rows the same ones."
                )
        return cls(name, columns, [[row[column] for column in columns] for row in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, label: object) -> bool:
        return label in self.columns

    def index(self, label: str) -> int:
        """Return the position of column `label`. Raises CorruptFileError when the block lacks it."""
        try:
            return self.columns.index(label)
        except ValueError:
            have = ", ".join(self.columns) or "no columns"
            raise CorruptFileError(
                f"Block data_{self.name} has no column {label} (it has {have}); is it the right file?"
            ) from None

    def column(self, label: str) -> list[Value]:
        """Return the values of column `label`, as they are."""
        position = self.index(label)
        return [row[position] for row in self.rows]

    def texts(self, label: str) -> list[str]:
        """Return column `label` as text."""
        return [str(value) for value in self.column(label)]

    def floats(self, label: str) -> NDArray[np.float64]:
        """Return column `label` as numbers, shape (rows,). Raises CorruptFileError naming the row that is not one."""
        return self._converted(label, np.float64)

    def integers(self, label: str) -> NDArray[np.int64]:
        """Return column `label` as whole numbers, shape (rows,). Raises CorruptFileError naming the row that is not one."""
        return self._converted(label, np.int64)

    def single(self, label: str) -> Value:
        """Return the value of `label` in a list, or in a loop of one row. Raises CorruptFileError when there is not exactly one."""
        values = self.column(label)
        if len(values) != 1:
            raise CorruptFileError(
                f"Block data_{self.name} has {len(values)} values of {label} where one is expected; is it the right file?"
            )
        return values[0]

    def records(self) -> list[dict[str, Value]]:
        """Return the rows as dictionaries by label."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def _converted(self, label: str, kind: type[Any]) -> NDArray[Any]:
        values = self.column(label)
        try:
            return np.array(values, dtype=object).astype(kind) if values else np.empty(0, kind)
        except (ValueError, OverflowError):
            return np.array([self._number(label, row, value, kind) for row, value in enumerate(values)], dtype=kind)

    def _number(self, label: str, row: int, value: Value, kind: type[Any]) -> Any:
        try:
            number = float(value)
            if kind is np.int64 and number != int(number):
                raise ValueError
            return kind(number)
        except (ValueError, OverflowError):
            what = "a whole number" if kind is np.int64 else "a number"
            raise CorruptFileError(
                f"Row {row + 1} of {label} in data_{self.name} is {value!r}, which is not {what}; repair that row."
            ) from None


def read_star(path: Path | str, *, sharing: bool = False) -> dict[str, StarBlock]:
    """Read a STAR file.

    With `sharing`, values that are the same are kept once: a table of millions of rows has few different ones.

    Returns
    -------
    the blocks by name (without ``data_``), in file order, with every value as text; an unnamed block has the name ""

    Raises
    ------
    CorruptFileError : with the line number, when the file is not a STAR file or was cut short
    InputError : when the file cannot be read at all
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the name and the permissions.") from error
    return parse_star(content, str(path), sharing=sharing)


def parse_star(content: bytes | str, source: str = "the text", *, sharing: bool = False) -> dict[str, StarBlock]:
    """Return the blocks of a STAR file's content; `source` names it in errors. See `read_star`."""
    text = content if isinstance(content, str) else content.decode("utf-8", "surrogateescape")
    text = text.removeprefix("\ufeff")  # a byte-order mark, with which editors of Windows begin a file
    if "\0" in text:
        raise CorruptFileError(
            f"{source} has null bytes, so it is not a STAR file or was damaged; get a new copy of it."
        )
    if not text.strip():
        raise CorruptFileError(f"{source} is empty; a STAR file has at least one data_ block.")
    return _Parser(source, sharing=sharing).parse(text)


def format_star(blocks: Iterable[StarBlock], comments: Sequence[str] = ()) -> str:
    """Return the text of a STAR file in RELION's own layout, with `comments` as its first lines.

    Raises InputError for values that a STAR file cannot hold.
    """
    blocks = list(blocks)
    names = [block.name for block in blocks]
    if len(set(names)) != len(names):
        raise InputError(f"A STAR file cannot have two blocks of one name ({', '.join(names)}); rename one.")
    head = "".join(f"# {' '.join(comment.split())}\n" for comment in comments)
    return head + "".join(_format_block(block) for block in blocks)


def write_star(path: Path | str, blocks: Iterable[StarBlock], comments: Sequence[str] = ()) -> None:
    """Write a STAR file atomically: readers see the whole old file or the whole new one, also after a crash."""
    replace_file(Path(path), format_star(blocks, comments).encode("utf-8", "surrogateescape"))


def format_value(value: Value) -> str:
    """Return a value as it stands in a STAR file, without padding: whole numbers plain, others like RELION's ``%12.6f``."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    return _format_float(float(value))


def _format_float(value: float) -> str:
    # RELION fills 12 characters: six decimals, one fewer behind a minus sign, exponents for the very large and small. Below 1 the fixed decimals are
    # few digits (a cubic motion coefficient of -0.00123 times frame³ needs more), so there they are used only when nothing is lost.
    magnitude = abs(value)
    digits = 5 if value < 0 else 6
    fixed = f"{value:.{digits}f}"
    if not math.isfinite(magnitude) or magnitude == 0 or 1 <= magnitude < 100000:
        return fixed
    exact = 0.001 <= magnitude < 1 and abs(float(fixed) - value) <= 1e-5 * magnitude
    return fixed if exact else f"{value:.{digits}e}"


def _quoted(value: str) -> str:
    if not _NEEDS_QUOTES.search(value):
        return value
    for quote in "\"'":
        quoted = f"{quote}{value}{quote}"
        if "\n" not in value and "\r" not in value and values_of(quoted) == [value]:
            return quoted
    raise InputError(
        f"The value {value!r} cannot stand in a STAR file (line breaks, or both kinds of quotes); rename it."
    )


def _padded(value: Value) -> str:
    # The two common kinds of number first: tables of particles have millions of them.
    if type(value) is float and 1 <= value < 100000:
        return f"{value:12.6f}"
    if type(value) is int:
        return f"{value:12d}"
    text = format_value(value)
    return text.rjust(10 if isinstance(value, str) else 12)


def _format_block(block: StarBlock) -> str:
    if re.search(r"\s", block.name) or any(not re.fullmatch(r"\S+", label) for label in block.columns):
        raise InputError(f"The names in the block data_{block.name} have blanks or are empty; STAR names have none.")
    for row in block.rows:
        if len(row) != len(block.columns):
            raise InputError(f"A row of data_{block.name} has {len(row)} values for {len(block.columns)} columns.")
    comment = f"\n# version {block.version}\n" if block.version != OLD_VERSION else ""
    lines = [f"{comment}\ndata_{block.name}\n"]
    lines += _format_loop(block) if block.loop else _format_list(block)
    lines.append(" \n")
    return "\n".join(lines)


def _format_loop(block: StarBlock) -> list[str]:
    lines = ["loop_ "]
    lines += [f"_{label} #{number} " for number, label in enumerate(block.columns, start=1)]
    lines += [line[:-1] for line in format_rows(block.rows)]
    return lines


def format_rows(rows: Iterable[Sequence[Value]]) -> list[str]:
    """Return the rows of a loop as lines, each with its end."""
    return [" ".join(map(_padded, row)) + " \n" for row in rows]


def _format_list(block: StarBlock) -> list[str]:
    if len(block.rows) != 1:
        raise InputError(f"The list data_{block.name} has {len(block.rows)} rows; a list has exactly one.")
    width = max((len(label) for label in block.columns), default=0) + 13
    return [
        f"_{label}".ljust(width) + (format_value(value) if isinstance(value, str) else _padded(value))
        for label, value in zip(block.columns, block.rows[0], strict=True)
    ]


def values_of(line: str, comments: bool = True) -> list[str]:
    """Split a line into values: quotes taken off, and a comment (# after a blank) left out unless `comments` is False."""
    if line.isascii() and '"' not in line and "'" not in line and "#" not in line:
        return line.split()
    values = []
    for match in _TOKEN.finditer(line):
        double, single, bare = match.groups()
        if comments and bare is not None and bare.startswith("#"):
            break
        values.append(next(text for text in (double, single, bare) if text is not None))
    return values


def _first_word(line: str) -> str:
    return re.split(f"[{_BLANKS}]", line, maxsplit=1)[0]


class _Parser:
    """Reads line by line; holds the block being filled."""

    def __init__(self, source: str, *, sharing: bool = False) -> None:
        self.source = source
        self.known: dict[Value, Value] | None = {} if sharing else None
        self.blocks: dict[str, StarBlock] = {}
        self.block: StarBlock | None = None
        self.version = OLD_VERSION
        self.number = 0

    def parse(self, text: str) -> dict[str, StarBlock]:
        for number, line in enumerate(text.split("\n"), start=1):
            stripped = line.strip(_BLANKS)
            if stripped:
                self.number = number
                self._line(stripped)
        if not self.blocks:
            raise CorruptFileError(f"{self.source} has no data_ block; it is not a STAR file.")
        for block in self.blocks.values():
            if block.loop and not block.columns:
                raise CorruptFileError(
                    f"{self.source}: the block data_{block.name} has a loop_ without columns; the file was cut short."
                )
        return self.blocks

    def _line(self, line: str) -> None:
        block = self.block
        first = line[0]
        if first == "#":
            match = _VERSION_COMMENT.match(line)
            self.version = int(match.group(1)) if match else self.version
        elif line.startswith("data_") and self._begins_block(line):
            self._begin_block(_first_word(line)[len("data_") :])
        elif block is None:
            raise self._error(f"{line[:60]!r} stands before the first data_ block; it is not a STAR file")
        elif block.loop and block.columns and (block.rows or first != "_" or self._fills_columns(block, line)):
            self._row(block, line)
        elif _first_word(line) == "loop_":
            if block.columns or block.loop:
                raise self._error(f"a second loop_ in data_{block.name}")
            block.loop, block.rows = True, []
        elif first == "_":
            self._label(block, line)
        else:
            raise self._error(f"{line[:60]!r} is neither a label nor a row of a table")

    def _begins_block(self, line: str) -> bool:
        # A table whose first column holds paths may have rows that begin with "data_"; only these have more than one value.
        filling = self.block is not None and self.block.loop and bool(self.block.columns)
        return not filling or len(values_of(line)) == 1

    @staticmethod
    def _fills_columns(block: StarBlock, line: str) -> bool:
        # RELION writes a first value "_u" without quotes; with the values after it, it is not a label.
        return len(block.columns) > 1 and len(values_of(line)) == len(block.columns)

    def _begin_block(self, name: str) -> None:
        if name in self.blocks:
            raise self._error(f"a second block data_{name}")
        self.block = self.blocks[name] = StarBlock(name, loop=False, rows=[[]], version=self.version)
        self.version = OLD_VERSION

    def _row(self, block: StarBlock, line: str) -> None:
        row: list[Value] = []
        row += values_of(line)
        if len(row) != len(block.columns):
            # RELION writes no comments behind a row, but values that begin with # without quotes.
            row = [*values_of(line, comments=False)]
        if len(row) != len(block.columns):
            raise self._error(f"a row of data_{block.name} has {len(row)} values for {len(block.columns)} columns")
        if self.known is not None:
            row = [self.known.setdefault(value, value) for value in row]
        block.rows.append(row)

    def _label(self, block: StarBlock, line: str) -> None:
        label, *values = values_of(line)
        if label[1:] in block.columns or len(label) == 1:
            raise self._error(f"the label {label} in data_{block.name} is empty or stands there twice")
        block.columns.append(label[1:])
        if block.loop:
            if values:
                raise self._error(f"the label {label} of a loop_ has a value on its line")
        elif len(values) == 1:
            block.rows[0].append(values[0])
        else:
            raise self._error(f"the label {label} in data_{block.name} has {len(values)} values where one is expected")

    def _error(self, what: str) -> CorruptFileError:
        return CorruptFileError(
            f"{self.source}, line {self.number}: {what}; the file is damaged or was cut short, so get a new copy of it."
        )
