"""What a terminal cannot show is written with what it can: "A" for "Å"; nothing that is printed ends a command."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from typing import TextIO

ERRORS = "beamside.plain"
PLAIN = {
    "Å": "A",
    "µ": "u",
    "μ": "u",
    "·": ".",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "°": " deg",
    "…": "...",
    "→": "->",
    "²": "^2",
    "³": "^3",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
}


def plain(letter: str) -> str:
    """Return one letter in ASCII; what has no likeness there is escaped, such as the bytes of a name that is not UTF-8."""
    if letter in PLAIN:
        return PLAIN[letter]
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    base = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode("ascii")
    return base or letter.encode("ascii", "backslashreplace").decode("ascii")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(plain(letter) for letter in error.object[error.start : error.end]), error.end


def never_fail(*streams: TextIO) -> None:
    """Let the standard streams (or `streams`) replace what their encoding does not have."""
    codecs.register_error(ERRORS, _replace)
    for stream in streams or (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=ERRORS)
