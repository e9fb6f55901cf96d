"""Files with the names of unfinished copies, and hidden ones, that would be movies under another name: they are never taken, but told.

Programs that copy give such names for a while, and nothing is said of those. Told is what stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from beamside.acquisition.bystanders import is_unfinished
from beamside.acquisition.remarks import Remark, Trouble

_STAYS_SECONDS = 60.0
_STAYS_LOOKS = 3
_LEFT_OVER_SECONDS = 600.0


class TemporaryNames:
    """What is known of the temporary and hidden names at the source, by the looks so far.

    Parameters
    ----------
    clock : monotonic seconds
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._files: dict[str, tuple[float, int]] = {}
        self._folders: dict[str, tuple[float, int]] = {}
        self._told: set[str] = set()

    def look(self, files: Iterable[str], folders: Iterable[str], *, complete: bool) -> None:
        """Note what a look saw; when it could not read all folders, what is missing in it may still be there."""
        now = self._clock()
        self._files = _seen(self._files, files, now, complete=complete)
        self._folders = _seen(self._folders, folders, now, complete=complete)

    def remarks(self) -> list[Remark]:
        """Return a remark on each file and folder that has stayed, once."""
        files = [_file_remark(path) for path in self._staying(self._files)]
        return files + [_folder_remark(path) for path in self._staying(self._folders)]

    def standing(self) -> list[Trouble]:
        """Return what to say of files that have kept the name of an unfinished copy for long."""
        now = self._clock()
        old = sorted(
            path
            for path, (since, _) in self._files.items()
            if now - since >= _LEFT_OVER_SECONDS and is_unfinished(os.path.basename(path))
        )
        if not old:
            return []
        count = "1 file has" if len(old) == 1 else f"{len(old)} files have"
        final = "It is taken when it gets its" if len(old) == 1 else "Each is taken when it gets its"
        return [
            Trouble(
                "unfinished-names",
                f"{count} had the name of an unfinished copy for more than {_LEFT_OVER_SECONDS / 60:g} minutes ({old[0]}). "
                f"{final} final name; check the program that copies.",
            )
        ]

    def _staying(self, seen: dict[str, tuple[float, int]]) -> list[str]:
        now = self._clock()
        staying = [
            path
            for path, (since, looks) in seen.items()
            if looks >= _STAYS_LOOKS and now - since >= _STAYS_SECONDS and path not in self._told
        ]
        self._told.update(staying)
        return staying


def _seen(
    before: dict[str, tuple[float, int]], paths: Iterable[str], now: float, *, complete: bool
) -> dict[str, tuple[float, int]]:
    present = {}
    for path in dict.fromkeys(paths):
        since, looks = before.get(path, (now, 0))
        present[path] = (since, looks + 1)
    return present if complete else before | present


def _file_remark(path: str) -> Remark:
    name = os.path.basename(path)
    if name.startswith("._"):
        subject, words = "macos-companion", "is a companion file that macOS makes, and has no data: it is not used."
    elif is_unfinished(name):
        subject, words = (
            "unfinished-name",
            "has the name of an unfinished copy: it is taken when it gets its final name.",
        )
    else:
        subject = "hidden-name"
        words = "has a hidden or temporary name: it is not used. Give it an ordinary name if it should be."
    return Remark(subject, f"{path} {words}", path, severity="info")


def _folder_remark(path: str) -> Remark:
    sentence = f"{path} is a hidden folder: nothing is taken from it. Give it in --data if something should be."
    return Remark("hidden-folder", sentence, path, severity="info")
