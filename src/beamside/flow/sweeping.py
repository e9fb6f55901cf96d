"""Removing what workers that were killed have left half written, while the session goes on."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from beamside.formats.leftovers import sweep

log = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0
NOT_ENTERED = ("raw", "Trash")
"""The raw data, which acquisition looks after, and what RELION has thrown away."""


class Sweeper(threading.Thread):
    """Sweeps a project now, and every hour until `end` is set. A large project on a slow disk holds up nothing."""

    def __init__(self, root: Path) -> None:
        super().__init__(name="sweeper", daemon=True)
        self.root, self.end = root, threading.Event()

    def run(self) -> None:
        """Sweep again and again."""
        while True:
            removed = sweep(self.root, skip=NOT_ENTERED)
            if removed:
                log.info(
                    "%d temporary files of processes that were killed were removed from %s", len(removed), self.root
                )
            if self.end.wait(EVERY_SECONDS):
                return
