"""One folder's names, and what they mean for the patterns; remembered from look to look, as hardly any of very many names is new at a look.

Every look lists every folder again: a folder's own date cannot be trusted on all file systems. Only what follows from a name alone is remembered.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence

from beamside.acquisition.bystanders import final_names, is_temporary

Entry = os.DirEntry[str]
Asked = Callable[[str], bool]
_NOTHING: tuple[frozenset[str], dict[tuple[str, object], frozenset[str]]] = (frozenset(), {})


class FolderNames:
    """The names in a folder, in the order in which the system lists them.

    Parameters
    ----------
    names : at this look
    before : those of the look before
    """

    def __init__(self, names: list[str], before: FolderNames | None = None) -> None:
        self.names, self.all = names, frozenset(names)
        self._places: dict[tuple[str, object], list[int]] = {}
        self._found: dict[tuple[str, object], frozenset[str]] = {}
        self._before = (before.all, before._found) if before is not None else _NOTHING

    def forget_before(self) -> None:
        """Let go of what was remembered of the look before."""
        self._before = _NOTHING

    def places(self, question: str, of: object, asked: Asked) -> list[int]:
        """Return the places of the names for which `asked` is true; a name is asked once for each `question` and what it is `of`."""
        key = question, of
        if key not in self._places:
            known, found = self._before[0], self._before[1].get(key)
            if found is None:
                known, found = frozenset(), frozenset()
            self._found[key] = (found & self.all) | frozenset(name for name in self.all - known if asked(name))
            names = self._found[key]
            self._places[key] = [place for place, name in enumerate(self.names) if name in names]
        return self._places[key]


class Listing:
    """A folder as it is at this look.

    Parameters
    ----------
    entries : of the folder, in the system's order
    before : its names at the look before
    endings : of the files that are taken in, in lower case
    """

    def __init__(self, entries: list[Entry], before: FolderNames | None, endings: tuple[str, ...]) -> None:
        names = [entry.name for entry in entries]
        self._entries, self._endings = entries, endings
        if before is not None and before.names == names:
            self.names = before
            before.forget_before()
        else:
            self.names = FolderNames(names, before)

    def files(self, wanted: str) -> list[Entry]:
        """Return the entries with the name of a file that is taken in, and that the pattern `wanted` matches."""

        def asked(name: str) -> bool:
            return name.lower().endswith(self._endings) and fnmatch.fnmatchcase(name, wanted) and not is_temporary(name)

        return self._at(self.names.places("files", wanted, asked))

    def temporary(self, wanted: str) -> list[Entry]:
        """Return the entries with a temporary or hidden name which would match under the name that they may get."""
        return _sorted(self._at(self.names.places("temporary", wanted, self._would_match(wanted))))

    def named(self, wanted: str) -> list[Entry]:
        """Return the entries that the pattern `wanted` matches, in the order of their names."""
        return _sorted(self._at(self.names.places("named", wanted, lambda name: fnmatch.fnmatchcase(name, wanted))))

    def ending_with(self, suffixes: tuple[str, ...]) -> list[Entry]:
        """Return the entries with one of these endings, in lower case."""

        def asked(name: str) -> bool:
            return name.lower().endswith(suffixes) and not is_temporary(name)

        return self._at(self.names.places("ending", suffixes, asked))

    def folders(self) -> list[Entry]:
        """Return the folders in this one, without links, in the order of their names."""
        try:
            return _sorted([entry for entry in self._entries if entry.is_dir(follow_symlinks=False)])
        except OSError:  # one of them cannot be asked
            return _sorted([entry for entry in self._entries if is_folder(entry, follow=False)])

    def _at(self, places: Sequence[int]) -> list[Entry]:
        return [self._entries[place] for place in places]

    def _would_match(self, wanted: str) -> Asked:
        def asked(name: str) -> bool:
            return is_temporary(name) and any(
                final.lower().endswith(self._endings) and any(fnmatch.fnmatchcase(one, wanted) for one in (final, name))
                for final in final_names(name)
            )

        return asked


def _sorted(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.name)


def is_folder(entry: Entry, *, follow: bool) -> bool:
    """Tell whether an entry is a folder; with `follow` also whether it is a link to one."""
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:  # a link that leads nowhere is no folder
        return False
