"""Removing what workers that were killed have left half written, while the session goes on."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from beamside.formats.leftovers import sweep

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
LONGEST_END_SECONDS = 60.0
"""How long a session waits for the last sweep; what that does not reach is for the next session."""

NOT_ENTERED = ("raw", "Trash")
"""The raw data, which acquisition looks after, and what RELION has thrown away."""


class Sweeper(threading.Thread):
    """Sweeps a project now, every hour, and once more when `end` is set. A large project on a slow disk holds up nothing."""

    def __init__(self, root: Path) -> None:
        super().__init__(name="sweeper", daemon=True)
        self.root, self.end = root, threading.Event()

    def run(self) -> None:
        """Sweep again and again."""
        ended = False
        while True:
            removed = sweep(self.root, skip=NOT_ENTERED)
            if removed:
                log.info(
                    "%d temporary files of processes that were killed were removed from %s", len(removed), self.root
                )
            if ended:
                return
            ended = self.end.wait(EVERY_SECONDS)

    def close(self) -> None:
        """Sweep up after the workers, which have ended or were killed, and end."""
        self.end.set()
        self.join(timeout=LONGEST_END_SECONDS)
