"""A folder for temporary files whose path is short enough for sockets, which the pools of workers make there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

LONGEST = 70
"""The system takes socket paths of 107 bytes at most, and about 35 come behind the folder's."""

SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Folders that are there nearly everywhere."""


def short_folder(usual: str | None = None, others: Sequence[str] = SHORT) -> Mapping[str, str]:
    """Return the variables that make a program use a short path for temporary files; none where the `usual` one is short, or no other can be used.

    Without them, workers in a session with a long TMPDIR end at once, with no more than an EOFError.
    """
    usual = tempfile.gettempdir() if usual is None else usual
    if len(os.fsencode(usual)) <= LONGEST:
        return {}
    found = next((folder for folder in others if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)), "")
    return {"TMPDIR": found} if found else {}
