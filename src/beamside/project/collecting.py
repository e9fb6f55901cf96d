"""Python's search for unreachable objects, while very much is read that stays.

Each search looks at everything that there is. While the tables of a large project are read it is run again and again, finds nothing, and takes as
long as the reading itself.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100_000
"""With so many new objects, what is there afterwards is left out of later searches, too."""


@contextmanager
def without_searches(many: int = MANY) -> Iterator[None]:
    """Search for nothing inside, and where `many` objects were made, not among what is there afterwards; what is no longer used is freed as ever."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > many:
            gc.freeze()
        if was_on:
            gc.enable()
