"""Watching the free space on the project's disk: a session waits while there is too little, and goes on by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from beamside.flow.problems import Problems

LOOK_SECONDS = 5.0
"""Time between two looks."""


class SpaceWatch:
    """Tells whether there is too little room; what it finds is an open problem as long as it is so.

    Parameters
    ----------
    root : a directory on the disk
    wanted : GB that must be free
    problems : where it is told
    clock : monotonic seconds
    """

    def __init__(
        self, root: Path, wanted: float, problems: Problems, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root, self.wanted = root, wanted
        self.full = False
        self._problems, self._clock = problems, clock
        self._looked = clock()

    def look(self) -> bool:
        """Look when it is time; return True when `full` has changed."""
        if self._clock() - self._looked < LOOK_SECONDS:
            return False
        self._looked = self._clock()
        try:
            free = shutil.disk_usage(self.root).free / 1e9
        except OSError as error:  # a lost mount; what needs the disk tells in its own words
            sentence = f"The disk of {self.root} cannot be asked for its free space ({error.strerror or error}): check the mount."
            self._problems.open("disk-lost", sentence, "error")
            return False
        self._problems.close("disk-lost")
        full = free < self.wanted
        if full == self.full:
            return False
        self.full = full
        there = f"{free:.1f} GB are free on the disk of {self.root}; the session"
        if full:
            self._problems.open("disk-space", f"{there} waits until there are {self.wanted:g} GB.", "error")
        else:
            self._problems.close("disk-space", f"{there} goes on.")
        return True
