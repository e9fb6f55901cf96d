"""Text that came from elsewhere, such as names of files, made safe to show.

A file system takes any bytes as a name. Python keeps those that are not UTF-8 as lone surrogates, which no terminal, page or database takes; and a
name may have line breaks, or control characters that a terminal obeys. Data keep such names as they are; only what people read is changed.
"""

from __future__ import annotations

import re

_CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_REORDERING = "\u202a-\u202e\u2066-\u2069"
_BREAKS = "\t\n\r\u2028\u2029"
_SURROGATES = "\ud800-\udfff"
_IN_A_LINE = re.compile(f"[{_CONTROL}{_REORDERING}{_BREAKS}{_SURROGATES}]")
_IN_LINES = re.compile(f"[{_CONTROL}{_REORDERING}{_SURROGATES}]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return `text` as one line (or, with `lines`, with its line breaks) in which everything that is not to be shown is written as ``\xe9``.

    Bytes that are not UTF-8 are shown as the bytes they are. Text without any of that comes back unchanged, and doing it again changes nothing.
    """
    return (_IN_LINES if lines else _IN_A_LINE).sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte, as `os.fsdecode` keeps it
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(match[0])
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
