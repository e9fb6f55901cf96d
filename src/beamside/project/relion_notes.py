"""What people read of a job in RELION: ``run.out`` and ``run.err``, with a line for each item, and the first line of ``note.txt``.

The lines are only added, and each is made from a record of the journal alone. So what is missing is known by comparing: a session that goes on adds
what the last one could not write any more, and nothing twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from beamside.formats.atomic import replace_file

HEADLINE = "What RELION does differently: "
"""How the first line of the notes begins when there is something that RELION cannot do as the job did it."""
OUT, ERR = "run.out", "run.err"


@dataclass(frozen=True)
class LogLine:
    """What became of an item.

    Attributes
    ----------
    item : its name
    when : seconds since 1970
    state : a word, "done"
    details : what is said of it; a failure's reason
    """

    item: str
    when: float
    state: str
    details: str = ""

    @property
    def key(self) -> str:
        """What tells a line from all others: time, state and item, whatever the details have come to say."""
        when = datetime.fromtimestamp(self.when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{when}\t{self.state}\t{_one_line(self.item)}"

    @property
    def text(self) -> str:
        """The whole line, without its end."""
        return f"{self.key}\t{_one_line(self.details).strip()}".rstrip("\t")


class JobLog:
    """The lines of one job."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._compare = True

    def add(self, lines: Iterable[LogLine], failed: str) -> None:
        """Add `lines`: all to ``run.out``, those whose state is `failed` to ``run.err``, too; at first, and after a fault, those that are not there.

        Raises OSError when they cannot be written; a later call with them adds them.
        """
        new, compare = list(lines), self._compare
        self._compare = True
        _append(self.directory / OUT, new, compare)
        _append(self.directory / ERR, [line for line in new if line.state == failed], compare)
        self._compare = False


def _append(path: Path, lines: list[LogLine], compare: bool) -> None:
    """Append `lines`; with `compare`, those that the file does not have. All of them get there, or none."""
    if not lines and not compare:
        return
    known = {"\t".join(line.split("\t")[:3]) for line in _content(path).splitlines()} if compare else set()
    text = "".join(f"{line.text}\n" for line in lines if line.key not in known)
    with path.open("ab") as file:
        size = file.seek(0, os.SEEK_END)
        try:
            if text:
                file.write((_missing_end(path, size) + text).encode("utf-8", "surrogateescape"))
                file.flush()
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def _missing_end(path: Path, size: int) -> str:
    """Return the end of line that a torn last line, or another program's, lacks."""
    if not size:
        return ""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return "" if file.read(1) == b"\n" else "\n"


def _one_line(text: str) -> str:
    """Return `text` without what would end the line or begin another column; bytes that are no UTF-8 stay as they are."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else " " for c in text)


def set_headline(directory: Path, sentences: Iterable[str]) -> None:
    """Make the first line of a job's notes say what RELION does differently from the job; without sentences there is no such line."""
    path, said = directory / "note.txt", " ".join(sentences)
    before = _content(path)
    first, end, rest = before.partition("\n")
    after = rest if first.startswith(HEADLINE) else first + end + rest
    after = f"{HEADLINE}{said}\n{after}" if said else after
    if after != before:
        replace_file(path, after.encode("utf-8", "surrogateescape"))
