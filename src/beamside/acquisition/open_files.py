"""Does another process of this machine write to a file?

Linux tells, for the processes whose files this user may see. What other machines do through a network file system cannot be known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_PROCESSES = "/proc"


def is_open_for_writing(path: str) -> bool:
    """Tell whether a process of this machine is known to have a file open for writing; False where that cannot be known."""
    try:
        wanted = os.path.realpath(path)
        names = [name for name in os.listdir(_PROCESSES) if name.isdigit()]
    except OSError:  # a system that does not tell
        return False
    return any(_writes(f"{_PROCESSES}/{name}", wanted) for name in names)


def _writes(process: str, wanted: str) -> bool:
    for number in _descriptors(process):
        try:  # the links are read and not followed: some lead to file servers that do not answer
            if os.readlink(f"{process}/fd/{number}") == wanted and _writable(process, number):
                return True
        except (OSError, ValueError):  # closed in the meantime, or not to be seen by this user
            continue
    return False


def _descriptors(process: str) -> Iterator[str]:
    try:
        yield from os.listdir(f"{process}/fd")
    except OSError:  # another user's, or it has ended
        return


def _writable(process: str, number: str) -> bool:
    with open(f"{process}/fdinfo/{number}") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "flags":
                return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False
